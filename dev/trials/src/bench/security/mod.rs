//! The cost of security: of the edge's filters, of TLS to roles, of limits that are exact over all Envoys, and of certificates or
//! passwords at Kafka and Postgres. Ways that are compared alternate.

mod edges;
mod orders;
mod sidecar;
mod ways;

use anyhow::Result;
use clap::{Args, ValueEnum};

use edges::Edge;
use stack::controlled::Stack;
use stack::layout::{Build, Layout};
use stack::parts;
use stack::supervisor::{Command, Supervisor};
use ways::{Request, Way, compare, print_ratio};

#[derive(Debug, Args)]
pub struct Options {
    /// Measure only this.
    #[arg(long)]
    only: Option<Part>,
    /// Run the debug build, to try the benchmark: its figures mean nothing.
    #[arg(long)]
    debug: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Part {
    /// Calls through variants of the edge.
    Calls,
    /// Orders, with and without TLS.
    Orders,
}

pub async fn run(options: &Options) -> Result<()> {
    let build = if options.debug { Build::Debug } else { Build::Release };
    if options.only != Some(Part::Orders) {
        let stack = Stack::start(build, &["--fsync=on"]).await?;
        let mut supervisor = Supervisor::default();
        let measured = measure_calls(&stack, &mut supervisor).await;
        supervisor.stop().await;
        stack.stop().await.and(measured)?;
    }
    if options.only != Some(Part::Calls) {
        orders::measure(build).await?;
    }
    Ok(())
}

/// The files of the processes that the benchmark starts beside a stack, which empties its own folder when it starts.
fn layout(build: Build) -> Layout {
    let mut layout = Layout::test(build);
    layout.home.set_file_name("bench");
    layout
}

/// The gRPC and admin ports of the product processes: one with certificates, and one in plain text as in a mesh.
const CERTIFIED: (u16, u16) = (14_921, 14_922);
const MESH: (u16, u16) = (14_923, 14_924);
/// Where the one in plain text reaches the user service.
const USER: u16 = 14_925;

/// The ports of the variants of the edge.
const ALL_FILTERS: u16 = 14_931;
const TRANSCODER: u16 = 14_932;
const PLAIN_TEXT: u16 = 14_933;
const EXACT: u16 = 14_934;
const LOCAL: u16 = 14_935;

async fn measure_calls(stack: &Stack, supervisor: &mut Supervisor) -> Result<()> {
    let product = stack.operator().await?.stock("SECURE", "A thing", ("EUR", 1_250), 0).await?;
    let edge = Edge::of(&stack.layout).await?;
    println!("load average before calls: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    compare_products(stack, supervisor, &edge, product).await?;
    compare_limits(stack, supervisor, &edge).await
}

async fn compare_products(stack: &Stack, supervisor: &mut Supervisor, edge: &Edge, product: String) -> Result<()> {
    let all = edge.clone().with_product_at(CERTIFIED.0)?;
    let transcoder = all.clone().only_transcoding()?;
    let plain = edge.clone().with_product_at(MESH.0)?.in_mesh(roster::PRODUCT.name)?.with_user_at(USER)?;
    let all = all.start(supervisor, &stack.layout, "all-filters", ALL_FILTERS).await?;
    let transcoder = transcoder.start(supervisor, &stack.layout, "transcoder-alone", TRANSCODER).await?;
    let plain = plain.start(supervisor, &stack.layout, "all-filters-plain-text", PLAIN_TEXT).await?;
    let certified = start_product(stack, supervisor, "product-mutual", CERTIFIED, vec![]).await?;
    let user = format!("http://127.0.0.1:{USER}");
    let mesh = [("SOUK_TLS_MODE", "mesh"), ("SOUK_TLS_MESH_PREFIX", sidecar::PREFIX), ("SOUK_USER_URL", &user)];
    let mesh = mesh.map(|(name, value)| (name, value.to_owned())).to_vec();
    let mesh = start_product(stack, supervisor, "product-mesh", MESH, mesh).await?;
    let way = |name, port, envoy, role| {
        Way::new(name, port, Request::Product(product.clone()), vec![("Envoy", envoy), ("product", role)])
    };
    let ways = [
        way("all filters, mutual TLS", ALL_FILTERS, all, certified),
        way("transcoder alone, mutual TLS", TRANSCODER, transcoder, certified),
        way("all filters, plain text", PLAIN_TEXT, plain, mesh),
    ];
    let [all, transcoder, plain] = compare("GetProduct over REST", ways).await?;
    print_ratio("all filters / transcoder alone", &all, &transcoder);
    print_ratio("mutual TLS / plain text", &all, &plain);
    Ok(())
}

/// Starts a process of the product service. Returns its id.
async fn start_product(
    stack: &Stack,
    supervisor: &mut Supervisor,
    name: &'static str,
    (grpc, admin): (u16, u16),
    mut settings: Vec<(&str, String)>,
) -> Result<u32> {
    settings.push(("PRODUCT_LISTEN", format!("127.0.0.1:{grpc}")));
    settings.push(("SOUK_INSTANCE", name.to_owned()));
    let settings: Vec<_> = settings.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    supervisor.start(parts::serve(&stack.layout, name, roster::PRODUCT.name, admin, &settings)).await?;
    supervisor.send(name, Command::Resume).await
}

async fn compare_limits(stack: &Stack, supervisor: &mut Supervisor, edge: &Edge) -> Result<()> {
    // A process that is not paused is not affected, and its id is the response.
    let souk = stack.control("resume souk").await?;
    let redis = stack.control("resume redis").await?;
    let exact = edge.clone().start(supervisor, &stack.layout, "exact-limit", EXACT).await?;
    let local = edge.clone().without_exact_limits()?;
    let local = local.start(supervisor, &stack.layout, "local-limit-alone", LOCAL).await?;
    let way = |name, port, envoy| {
        Way::new(name, port, Request::VerifyEmail, vec![("Envoy", envoy), ("souk", souk), ("Redis", redis)])
    };
    let ways = [way("exact limit", EXACT, exact), way("local limit alone", LOCAL, local)];
    let [exact, local] = compare("VerifyEmail with an unknown token", ways).await?;
    print_ratio("exact limit / local limit alone", &exact, &local);
    Ok(())
}
