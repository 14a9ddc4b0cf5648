//! `make up`: starts everything on this machine, seeds a catalogue, and buys something to prove that it works.

use std::cell::Cell;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};

use crate::client::{Client, random_password};
use crate::install;
use crate::layout::{Layout, root};
use crate::mail::Inbox;
use crate::parts;
use crate::postgres::{Access, Fsync};
use crate::purchase::{buy, seed};
use crate::supervisor::Supervisor;

#[derive(Debug, Args)]
pub struct Options {
    /// Prove that it works, then stop instead of staying.
    #[arg(long)]
    once: bool,
    /// Use other ports and data, and the debug build, for `make test`.
    #[arg(long, hide = true)]
    trial: bool,
}

/// The steps of `make up`. The first, compiling, is done before this program runs.
const STEPS: u32 = 7;
const BUILT: u32 = 1;
pub async fn run(options: &Options) -> Result<()> {
    let begun = Instant::now();
    let step = Cell::new(BUILT);
    let say = |what: &str| {
        step.set(step.get() + 1);
        println!("[{:5.1} s] {} of {STEPS}: {what}", begun.elapsed().as_secs_f64(), step.get());
    };
    let layout = if options.trial { Layout::trial() } else { Layout::up() };
    layout.ports.check_free()?;
    say("installing what is missing of Postgres, Redis, Java, Kafka, Node.js, MailDev and Envoy");
    install::ensure(&layout.tools).await?;
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let mut supervisor = Supervisor::default();
    let outcome = tokio::select! {
        opened = open(&layout, &mut supervisor, &say) => opened,
        _ = interrupt.recv() => Err(anyhow::anyhow!("stopped while starting")),
        _ = terminate.recv() => Err(anyhow::anyhow!("stopped while starting")),
    };
    let outcome = match outcome {
        Ok(()) if options.once => Ok(()),
        Ok(()) => tokio::select! {
            why = supervisor.failure() => Err(anyhow::anyhow!(why)),
            _ = interrupt.recv() => Ok(()),
            _ = terminate.recv() => Ok(()),
        },
        Err(error) => Err(error),
    };
    println!("stopping");
    supervisor.stop().await;
    outcome
}

async fn open(layout: &Layout, supervisor: &mut Supervisor, say: &dyn Fn(&str)) -> Result<()> {
    // All clients share one address here.
    let settings = [("SOUK_LIMIT_ACCOUNT_COUNT".to_owned(), "1000".to_owned())];
    parts::start_all(layout, supervisor, Fsync::On, Access::Secured, &settings, say).await?;
    let operator = sign_in_operator(layout, &settings).await?;
    say("seeding the catalogue");
    match seed(&operator).await? {
        Some(product_id) => {
            say("buying something");
            let order_id = buy(&Client::new(layout.ports.edge()), &operator, &product_id).await?;
            Inbox::of(layout.ports).show(&order_id).await?;
        }
        None => say("nothing is bought: all products of the catalogue are archived"),
    }
    write_environment(layout, &settings)?;
    greet(layout);
    Ok(())
}

/// Creates the operator's account. Its password is random, in a file that only its owner can read.
async fn sign_in_operator(layout: &Layout, settings: &[(String, String)]) -> Result<Client> {
    let file = root().join(".dev/operator.env");
    if !file.exists() {
        let mut new = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&file)?;
        writeln!(new, "OPERATOR_EMAIL=operator@souk.local\nOPERATOR_PASSWORD={}", random_password())?;
    }
    let text = std::fs::read_to_string(&file)?;
    let value = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
    let (Some(email), Some(password)) = (value("OPERATOR_EMAIL"), value("OPERATOR_PASSWORD")) else {
        bail!("{} needs OPERATOR_EMAIL and OPERATOR_PASSWORD", file.display());
    };
    create_operator(layout, settings, email, password).await?;
    Client::new(layout.ports.edge()).sign_in(email, password).await.context("the operator cannot sign in")
}

/// Runs `souk user create-operator`. The password is passed in a file, as arguments are visible to other processes.
pub async fn create_operator(
    layout: &Layout,
    settings: &[(String, String)],
    email: &str,
    password: &str,
) -> Result<()> {
    let path: PathBuf = layout.home.join("keys/operator.password");
    let mut file = std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
    writeln!(file, "{password}")?;
    let arguments = ["user", "create-operator", "--email", email, "--password-file", &path.to_string_lossy()];
    let done = parts::souk(layout, settings, &arguments).await;
    std::fs::remove_file(&path)?;
    done.map(drop)
}

/// Writes the settings of `souk` for commands that a person runs. A shell reads the file.
fn write_environment(layout: &Layout, settings: &[(String, String)]) -> Result<()> {
    let all = [parts::environment(layout), settings.to_vec()].concat();
    let lines = all.into_iter().map(|(name, value)| format!("{name}='{}'\n", value.replace('\'', r"'\''")));
    Ok(std::fs::write(layout.home.join("souk.env"), lines.collect::<String>())?)
}

fn greet(layout: &Layout) {
    let ports = layout.ports;
    let (edge, order, provider) = (ports.edge(), ports.grpc(roster::ORDER), ports.provider());
    let here = |path: &Path| path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let pki = here(&layout.pki);
    let (souk, environment) = (here(&layout.program("souk")), here(&layout.home.join("souk.env")));
    println!(
        "
Souk is up.
  REST and gRPC   http://127.0.0.1:{edge}, https://localhost:{} (of the authority .dev/pki/ca.crt)
  roles           127.0.0.1:{}-{} (gRPC), http://127.0.0.1:{} (health, metrics)
  Postgres        127.0.0.1:{}      Redis  127.0.0.1:{}      Kafka  127.0.0.1:{}
  payment provider  127.0.0.1:{provider}      mails  http://127.0.0.1:{}
  operator        .dev/operator.env           logs   {}

Try:
  curl -s 'http://127.0.0.1:{edge}/v1/products?pageSize=3'
  grpcurl -plaintext 127.0.0.1:{edge} list
  grpcurl -plaintext -d '{{\"page_size\": 3}}' 127.0.0.1:{edge} souk.product.v1.ProductService/ListProducts
  grpcurl -cacert {pki}/ca.crt -cert {pki}/dev.crt -key {pki}/dev.key 127.0.0.1:{order} describe souk.order.v1.OrderService
  (set -a; . {environment}; {souk} check)

Ctrl-C stops everything.",
        ports.edge_tls(),
        ports.grpc(roster::ROLES[0]),
        ports.grpc(roster::ROLES[roster::ROLES.len() - 1]),
        ports.admin(),
        ports.postgres(),
        ports.redis(),
        ports.kafka(),
        ports.mail_page(),
        here(&layout.home.join("log")),
    );
}
