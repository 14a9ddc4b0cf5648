//! Folders and ports.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use roster::Role;

/// The ports of one stack. Stacks differ by an offset, so that several can run at once.
#[derive(Debug, Clone, Copy)]
pub struct Ports {
    offset: u16,
}

impl Ports {
    pub const UP: Self = Self { offset: 0 };
    pub const TEST: Self = Self { offset: 5_000 };
    /// Postgres, Redis and Kafka alone, for the tests of single crates.
    pub const UNIT: Self = Self { offset: 10_000 };

    /// The stack of `make up` when `make test` tests it.
    pub const TRIAL: Self = Self { offset: 11_000 };

    /// Two or three replicas of every role, for `make faults`.
    pub const FAULTS: Self = Self { offset: 7_000 };

    pub fn edge(self) -> u16 {
        8_080 + self.offset
    }

    pub fn edge_tls(self) -> u16 {
        8_443 + self.offset
    }

    pub fn grpc(self, role: Role) -> u16 {
        role.port() + self.offset
    }

    pub fn admin(self) -> u16 {
        9_100 + self.offset
    }

    /// The gRPC port of a replica. They count from 1.
    pub fn grpc_of(self, role: Role, replica: u16) -> u16 {
        self.grpc(role) + 10 * replica
    }

    /// The admin port of a replica; each replica is a process.
    pub fn admin_of(self, role: Role, replica: u16) -> u16 {
        self.admin() + role.number + 10 * replica
    }

    pub fn provider(self) -> u16 {
        9_201 + self.offset
    }

    /// Of text messages, at the simulator of the payment provider.
    pub fn sms(self) -> u16 {
        9_202 + self.offset
    }

    pub fn mail(self) -> u16 {
        9_203 + self.offset
    }

    /// The page of the mail server, which shows mails.
    pub fn mail_page(self) -> u16 {
        9_204 + self.offset
    }

    pub fn postgres(self) -> u16 {
        15_432 + self.offset
    }

    pub fn redis(self) -> u16 {
        16_379 + self.offset
    }

    pub fn kafka(self) -> u16 {
        19_092 + self.offset
    }

    /// For clients with a password instead of a certificate.
    pub fn kafka_sasl(self) -> u16 {
        19_094 + self.offset
    }

    pub fn kafka_controller(self) -> u16 {
        19_093 + self.offset
    }

    /// Stripe's mock, for unit tests only.
    pub fn stripe(self) -> u16 {
        12_111 + self.offset
    }

    pub fn envoy_admin(self) -> u16 {
        19_901 + self.offset
    }

    pub fn all(self) -> Vec<(u16, &'static str)> {
        let mut all =
            vec![(self.edge(), "the edge"), (self.edge_tls(), "the edge's TLS"), (self.admin(), "souk's admin page")];
        all.extend(roster::ROLES.map(|role| (self.grpc(role), role.name)));
        all.extend([
            (self.provider(), "the payment provider"),
            (self.sms(), "the provider of text messages"),
            (self.mail(), "the mail server"),
            (self.mail_page(), "the mail server's page"),
            (self.postgres(), "Postgres"),
            (self.redis(), "Redis"),
            (self.kafka(), "Kafka"),
            (self.kafka_sasl(), "Kafka, with passwords"),
            (self.kafka_controller(), "Kafka's controller"),
            (self.envoy_admin(), "Envoy's admin page"),
        ]);
        all
    }

    /// The error names the port that is in use, and by which process.
    pub fn check_free(self) -> Result<()> {
        for (port, what) in self.all() {
            if TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], port))).is_err() {
                bail!("port {port} ({what}) is taken{}", holder(port));
            }
        }
        Ok(())
    }
}

/// ` by "name" (pid 123)`, if `ss` knows the process.
fn holder(port: u16) -> String {
    let found = Command::new("ss").args(["-Hltnp", &format!("sport = :{port}")]).output();
    let line = found.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let name = line.split("((\"").nth(1).and_then(|rest| rest.split('"').next());
    let pid = line.split("pid=").nth(1).and_then(|rest| rest.split(',').next());
    match (name, pid) {
        (Some(name), Some(pid)) => format!(" by \"{name}\" (pid {pid})"),
        _ => String::new(),
    }
}

/// The build of our programs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Build {
    Debug,
    Release,
}

/// The folders of one stack.
#[derive(Debug, Clone)]
pub struct Layout {
    pub ports: Ports,
    /// Data, logs and keys of this stack.
    pub home: PathBuf,
    /// Downloaded servers, shared by all stacks but that of faults.
    pub tools: PathBuf,
    /// Certificates, see [`crate::pki`]; shared by all stacks but that of faults.
    pub pki: PathBuf,
    /// Our own programs.
    programs: PathBuf,
}

impl Layout {
    pub fn up() -> Self {
        Self::new("up", Ports::UP, Build::Release)
    }

    pub fn test(build: Build) -> Self {
        Self::new("test", Ports::TEST, build)
    }

    pub fn unit() -> Self {
        Self::new("unit", Ports::UNIT, Build::Debug)
    }

    pub fn faults(build: Build) -> Self {
        let layout = Self::new("faults", Ports::FAULTS, build);
        // They replace and spoil certificates.
        Self { pki: layout.home.join("pki"), ..layout }
    }

    pub fn trial() -> Self {
        Self::new("trial", Ports::TRIAL, Build::Debug)
    }

    fn new(name: &str, ports: Ports, build: Build) -> Self {
        let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
        let profile = match build {
            Build::Debug => "debug",
            Build::Release => "release",
        };
        let dev = root().join(".dev");
        let (tools, pki) = (dev.join("tools"), dev.join("pki"));
        Self { ports, home: dev.join(name), tools, pki, programs: target.join(profile) }
    }

    /// The path of `souk`, `provider`, `stack` or `trials`.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// The file with the password of a database role.
    pub fn password_file(&self, role: &str) -> PathBuf {
        self.home.join("keys").join(format!("{role}.password"))
    }

    pub fn password(&self, role: &str) -> Result<String> {
        let file = self.password_file(role);
        let text = std::fs::read_to_string(&file).with_context(|| file.display().to_string())?;
        Ok(text.trim_end().to_owned())
    }

    /// The URL of a database of this stack, for a session of a database role.
    pub fn database(&self, role: &str, database: &str) -> Result<String> {
        let (password, port, ca) = (self.password(role)?, self.ports.postgres(), self.pki.join("ca.crt"));
        let ca = ca.display();
        Ok(format!("postgres://{role}:{password}@127.0.0.1:{port}/{database}?sslmode=verify-full&sslrootcert={ca}"))
    }

    /// What `souk envoy` writes for the edge.
    pub fn envoy(&self) -> PathBuf {
        self.home.join("envoy")
    }

    /// What the mail server keeps.
    pub fn mails(&self) -> PathBuf {
        self.home.join("mail")
    }

    pub fn log(&self, name: &str) -> PathBuf {
        self.home.join("log").join(format!("{name}.log"))
    }
}

/// The root of the repository.
pub fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}
