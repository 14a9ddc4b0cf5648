//! `souk product import`: creates products from a CSV file, at the edge, as an operator would one by one.
//!
//! The service checks each line, also in a dry run, so that a file is valid here if and only if it is valid there. A product whose SKU
//! exists is left as it is: an import that is run again continues where it stopped, and creates nothing twice.

pub(crate) mod edge;
pub(crate) mod line;
pub(crate) mod report;
pub(crate) mod send;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use chassis::boot::config::parse_secure_url;
use clap::Args;
use contracts::souk::product::v1::CreateProductRequest;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

pub use report::Report;

use edge::Edge;
use line::Columns;

/// Where a file of products is, and who creates them.
#[derive(Debug, Args)]
pub struct Import {
    /// The file: UTF-8, with commas, and names of columns in the first line. Required are sku, title, currency and price_minor (in
    /// the currency's smallest unit); optional description, language, category (a path such as `Kitchen > Mugs`), and pairs of
    /// image_url and image_alt.
    pub file: PathBuf,
    /// The edge: https, unless it is on this machine.
    #[arg(long, default_value = "http://127.0.0.1:8080", value_parser = parse_secure_url)]
    pub edge: String,
    /// For an edge with https: the certificates of the authorities.
    #[arg(long, default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub ca_file: PathBuf,
    /// The operator's e-mail address.
    #[arg(long)]
    pub email: String,
    /// A file with the operator's password in its first line.
    #[arg(long)]
    pub password_file: PathBuf,
    /// Checks all lines, and creates nothing.
    #[arg(long)]
    pub dry_run: bool,
    /// How many products are created at once.
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=32))]
    pub at_once: u8,
}

#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// An option is wrong, or the file is no list of products.
    #[error("{0}")]
    Given(String),
    #[error("{0}")]
    Failed(String),
}

impl From<io::Error> for ImportError {
    fn from(error: io::Error) -> Self {
        Self::Given(error.to_string())
    }
}

/// The first lines with errors are reported, and all are counted.
const REPORTED: usize = 100;
/// The SKUs of all lines are kept, to find those that are there twice.
const MOST_LINES: u64 = 1_000_000;
const DRAW_EVERY: u8 = 5;

/// Imports a file, and shows the progress if somebody watches.
pub async fn import(import: &Import) -> Result<Report, ImportError> {
    let mut file = open(&import.file)?;
    let columns =
        Columns::read(&mut file).map_err(|why| ImportError::Given(format!("{}: {why}", import.file.display())))?;
    let edge = Edge::connect(import).await?;
    let report = create_all(import, &edge, file, &columns).await;
    edge.sign_out().await;
    report
}

async fn create_all(
    import: &Import,
    edge: &Edge,
    file: csv::Reader<std::fs::File>,
    columns: &Columns,
) -> Result<Report, ImportError> {
    let categories = if columns.has_category() { edge.categories().await? } else { Default::default() };
    let bar = progress_bar(import)?;
    let (at_once, dry_run) = (usize::from(import.at_once), import.dry_run);
    let create = |product| {
        let (edge, request) = (edge.clone(), CreateProductRequest { product: Some(product), validate_only: dry_run });
        async move { edge.create(request).await }
    };
    let report = send::send(file, columns, &categories, at_once, |byte| bar.set_position(byte), create).await;
    bar.finish_and_clear();
    Ok(Report { dry_run, ..report })
}

fn open(file: &Path) -> Result<csv::Reader<std::fs::File>, ImportError> {
    let opened =
        std::fs::File::open(file).map_err(|error| ImportError::Given(format!("{}: {error}", file.display())))?;
    Ok(csv::ReaderBuilder::new().flexible(true).from_reader(opened))
}

/// In bytes of the file, as nobody has counted its lines. It shows nothing unless standard error is a terminal.
fn progress_bar(import: &Import) -> Result<ProgressBar, ImportError> {
    let bar = ProgressBar::with_draw_target(
        Some(std::fs::metadata(&import.file)?.len()),
        ProgressDrawTarget::stderr_with_hz(DRAW_EVERY),
    );
    let style = ProgressStyle::with_template("{wide_bar} {percent} %, {elapsed} of {duration}");
    bar.set_style(style.map_err(|error| ImportError::Failed(error.to_string()))?);
    bar.enable_steady_tick(Duration::from_millis(500));
    Ok(bar)
}
