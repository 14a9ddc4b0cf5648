//! Images with the names of the official ones: `dev/trials/stand-ins/Dockerfile` makes them from Debian's packages, the Rust of this
//! machine, and the Kafka, Envoy and MailDev of `make up`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use stack::install::{self, run};
use stack::layout::root;
use tokio::process::Command;

use super::engine::{Engine, mirror};

/// The base of the image of Souk.
pub(super) const BASE: &str = "gcr.io/distroless/cc-debian12:nonroot";
const DEBIAN: &str = "debian:bookworm-slim";
/// Those of `Dockerfile` and `docker-compose.yml`, and the target that makes each.
const IMAGES: [(&str, &str); 7] = [
    ("rust:1.95.0-bookworm", "rust"),
    (BASE, "distroless"),
    ("postgres:15.18-bookworm", "postgres"),
    ("redis:7.0.15-bookworm", "redis"),
    ("apache/kafka:4.4.0", "kafka"),
    ("envoyproxy/envoy:v1.40.0", "envoy"),
    ("maildev/maildev:3.0.0", "maildev"),
];

/// Makes those that are missing.
pub(super) async fn ensure(engine: &Engine, tools: &Path, say: &dyn Fn(&str)) -> Result<()> {
    let mut missing = Vec::new();
    for image in IMAGES {
        if engine.docker(&["image", "inspect", image.0]).await.is_err() {
            missing.push(image);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    let folder = tempfile::tempdir().context("a folder for temporary files")?;
    if engine.docker(&["image", "inspect", DEBIAN]).await.is_err() {
        import_debian(engine, &folder.path().join("debian")).await?;
        say(&format!("{DEBIAN} is there"));
    }
    let context = folder.path().join("context");
    fill(&context, tools).await?;
    for (image, target) in missing {
        engine.docker(&["build", "--quiet", "--target", target, "--tag", image, &context.to_string_lossy()]).await?;
        say(&format!("{image} is there"));
    }
    Ok(())
}

async fn import_debian(engine: &Engine, folder: &Path) -> Result<()> {
    let place = folder.to_string_lossy();
    run("debootstrap", &["--variant=minbase", "bookworm", &place, &mirror().await?], root()).await?;
    let mut tar = Command::new("tar").args(["-C", &place, "-c", "."]).stdout(Stdio::piped()).spawn()?;
    let files: Stdio = tar.stdout.take().context("it is piped")?.try_into()?;
    let imported =
        engine.command("docker").args(["import", "-", DEBIAN]).stdin(files).stdout(Stdio::null()).status().await?;
    ensure!(imported.success() && tar.wait().await?.success(), "{DEBIAN} cannot be imported");
    Ok(())
}

/// What the Dockerfile copies.
async fn fill(context: &Path, tools: &Path) -> Result<()> {
    let rust = context.join("rust");
    fs::create_dir_all(rust.join("bin"))?;
    let toolchain = Command::new("rustc").args(["--print", "sysroot"]).output().await.context("rustc cannot be run")?;
    let toolchain = PathBuf::from(String::from_utf8(toolchain.stdout)?.trim());
    for program in ["cargo", "rustc"] {
        fs::copy(toolchain.join("bin").join(program), rust.join("bin").join(program))?;
    }
    let copies = [
        (toolchain.join("lib"), rust.join("lib")),
        (tools.join("kafka/libs"), context.join("kafka")),
        (install::envoy(tools)?, context.join("envoy")),
        (tools.join("maildev/node_modules"), context.join("node_modules")),
        (install::node(tools)?, context.join("node")),
        (PathBuf::from("/etc/ssl/certs/ca-certificates.crt"), context.join("ca-certificates.crt")),
        (root().join("dev/trials/stand-ins/."), context.to_owned()),
    ];
    for (from, to) in copies {
        run("cp", &["-aL", &from.to_string_lossy(), &to.to_string_lossy()], root()).await?;
    }
    Ok(())
}
