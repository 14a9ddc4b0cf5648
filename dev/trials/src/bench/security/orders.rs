//! CPU per order with and without TLS and credentials. Each figure is that of a new stack; the variants alternate.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Result;

use super::super::{rush, usage};
use super::{layout, sidecar};
use stack::controlled::Stack;
use stack::kafka;
use stack::layout::{Build, Layout};
use stack::supervisor::Supervisor;

const ROUNDS: usize = 2;
/// Until compilers of the broker's Java machine, caches and connection pools have settled.
const WARM_UP: Duration = Duration::from_secs(15);
const RUSH: Duration = Duration::from_secs(20);

#[derive(Debug, Clone, Copy)]
enum Variant {
    /// As `make up` has it.
    Certificates,
    Passwords,
    Roles,
    Nothing,
}

const VARIANTS: [Variant; 4] = [Variant::Certificates, Variant::Passwords, Variant::Roles, Variant::Nothing];

impl Variant {
    fn name(self) -> &'static str {
        match self {
            Self::Certificates => "TLS everywhere, certificates at Kafka",
            Self::Passwords => "TLS everywhere, SASL/SCRAM at Kafka",
            Self::Roles => "mutual TLS between roles; Kafka and Postgres in plain text, trusting",
            Self::Nothing => "plain text everywhere, with a sidecar that names callers",
        }
    }

    /// The arguments of `stack controlled`.
    fn arguments(self, layout: &Layout) -> Vec<String> {
        let set =
            |settings: Vec<(String, String)>| settings.into_iter().map(|(name, value)| format!("--set={name}={value}"));
        let trusting = || vec!["--trusting".to_owned()];
        match self {
            Self::Certificates => vec![],
            Self::Passwords => set(kafka::with_passwords(layout)).collect(),
            Self::Roles => trusting(),
            Self::Nothing => trusting().into_iter().chain(set(sidecar::settings())).collect(),
        }
    }
}

/// Milliseconds of CPU per order, by program, and orders per second.
struct Figures {
    cpu: BTreeMap<String, f64>,
    rate: f64,
}

/// The ports of the tests' stack are free before and after.
pub(super) async fn measure(build: Build) -> Result<()> {
    println!("load average before orders: {}", std::fs::read_to_string("/proc/loadavg")?.trim());
    println!("milliseconds of CPU per order, each line of a new stack, in {RUSH:?} after {WARM_UP:?} of orders:");
    let mut together = VARIANTS.map(|_| Vec::new());
    for round in 1..=ROUNDS {
        for (variant, together) in VARIANTS.into_iter().zip(&mut together) {
            let figures = measure_stack(build, variant).await?;
            println!("  round {round}, {}: {}", variant.name(), line(&figures));
            together.push(figures.cpu);
        }
    }
    println!("means of {ROUNDS} rounds:");
    for (variant, rounds) in VARIANTS.into_iter().zip(together) {
        let mut mean = BTreeMap::<String, f64>::new();
        for (name, spent) in rounds.into_iter().flatten() {
            *mean.entry(name).or_default() += spent / ROUNDS as f64;
        }
        println!("  {}: {}", variant.name(), programs(&mean));
    }
    Ok(())
}

async fn measure_stack(build: Build, variant: Variant) -> Result<Figures> {
    let ours = layout(build);
    let mut supervisor = Supervisor::default();
    if matches!(variant, Variant::Nothing) {
        sidecar::start(&mut supervisor, &ours).await?;
    }
    let arguments = [vec!["--fsync=on".to_owned()], variant.arguments(&Layout::test(build))].concat();
    let stack = Stack::start(build, &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
    let measured = measure_orders(&stack).await;
    let stopped = stack.stop().await;
    supervisor.stop().await;
    stopped.and(measured)
}

async fn measure_orders(stack: &Stack) -> Result<Figures> {
    let product = [stack.operator().await?.stock("SECURE", "A thing", ("EUR", 1_250), 1_000_000).await?];
    rush(stack, &product, WARM_UP).await?;
    let before = usage()?;
    let (placed, elapsed) = rush(stack, &product, RUSH).await?;
    let cpu = usage()?.into_iter().map(|(name, (spent, _))| {
        let since = spent - before.get(&name).map_or(0.0, |it| it.0);
        (name, since * 1_000.0 / placed as f64)
    });
    Ok(Figures { cpu: cpu.collect(), rate: placed as f64 / elapsed.as_secs_f64() })
}

fn line(figures: &Figures) -> String {
    format!("{}; {:.0} orders/s", programs(&figures.cpu), figures.rate)
}

/// Those that take some.
fn programs(cpu: &BTreeMap<String, f64>) -> String {
    let shown = cpu.iter().filter(|(_, spent)| **spent >= 0.005);
    let shown: Vec<_> = shown.map(|(name, spent)| format!("{name} {spent:.2}")).collect();
    format!("{}; together {:.2}", shown.join(", "), cpu.values().sum::<f64>())
}
