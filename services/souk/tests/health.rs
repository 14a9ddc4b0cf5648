//! What a running role says of its health, to `souk health` and on its admin port.

use std::net::{SocketAddr, TcpListener};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use sqlx::{ConnectOptions, PgPool};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::{Child, Command};

const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// A gateway, which needs no database, and serves while its Redis is away.
struct Gateway {
    settings: Vec<(&'static str, String)>,
    _pki: tempfile::TempDir,
    child: Child,
}

fn free_address() -> SocketAddr {
    let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a free port");
    listener.local_addr().expect("an address")
}

fn souk(arguments: &[&str], settings: &[(&'static str, String)]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_souk"));
    command.args(arguments).env_clear().envs(settings.iter().cloned()).stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Gateway {
    fn start() -> Self {
        let pki = tempfile::tempdir().expect("a folder for temporary files");
        stack::pki::ensure(pki.path()).expect("certificates can be made");
        let settings = vec![
            ("SOUK_TLS_DIRECTORY", pki.path().to_string_lossy().into_owned()),
            ("SOUK_ADMIN_LISTEN", free_address().to_string()),
            ("GATEWAY_LISTEN", free_address().to_string()),
            ("SOUK_DRAIN", "1h".to_owned()),
            ("SOUK_GRACE", "1h".to_owned()),
        ];
        let child = souk(&["gateway"], &settings).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Self { settings, _pki: pki, child: child.expect("the program can be run") }
    }

    async fn health(&self, arguments: &[&str]) -> Output {
        souk(&[&["health"], arguments].concat(), &self.settings).output().await.expect("the program can be run")
    }

    async fn wait_for(&self, code: i32, line: &str) {
        let begun = Instant::now();
        loop {
            let output = self.health(&["gateway"]).await;
            let said = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
            if output.status.code() == Some(code) && said.contains(line) && said.lines().count() == 1 {
                return;
            }
            assert!(begun.elapsed() < PATIENCE, "{}: {said}", output.status);
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

#[tokio::test]
async fn the_exit_code_says_whether_a_role_serves() {
    let mut gateway = Gateway::start();
    gateway.wait_for(0, "gateway is SERVING").await;

    // One of all that does not serve is enough.
    let all = gateway.health(&["all"]).await;
    let said = String::from_utf8_lossy(&all.stderr);
    assert!(all.status.code() == Some(1) && said.contains("user at 127.0.0.1:9002 is not reached"), "{said}");

    // It drains: it answers, and is to get no more calls.
    let id = gateway.child.id().expect("it runs").to_string();
    let told = Command::new("kill").args(["-TERM", &id]).status().await;
    assert!(told.expect("`kill` can be run").success());
    gateway.wait_for(1, "is NOT_SERVING").await;

    gateway.child.kill().await.expect("it runs");
    gateway.wait_for(1, "is not reached: Connection refused").await;
}

/// Waits until `/readyz` of an admin port has this status.
async fn wait_until_ready_is(admin: SocketAddr, status: &str) {
    let begun = Instant::now();
    loop {
        let mut said = String::new();
        if let Ok(mut stream) = TcpStream::connect(admin).await {
            let request = format!("GET /readyz HTTP/1.1\r\nhost: {admin}\r\nconnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await.expect("it listens");
            stream.read_to_string(&mut said).await.expect("text");
            if said.starts_with(&format!("HTTP/1.1 {status} ")) {
                return;
            }
        }
        assert!(begun.elapsed() < PATIENCE, "{status} was expected: {said}");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}

#[sqlx::test(migrations = false)]
async fn a_role_is_not_ready_before_its_migrations(db: PgPool) {
    let pki = tempfile::tempdir().expect("a folder for temporary files");
    stack::pki::ensure(pki.path()).expect("certificates can be made");
    let admin = free_address();
    let settings = [
        ("SOUK_TLS_DIRECTORY", pki.path().to_string_lossy().into_owned()),
        ("SOUK_ADMIN_LISTEN", admin.to_string()),
        ("PRODUCT_LISTEN", free_address().to_string()),
        ("PRODUCT_DATABASE_URL", db.connect_options().to_url_lossy().to_string()),
    ];
    let _role = souk(&["product"], &settings).stdout(Stdio::null()).spawn().expect("the program can be run");
    wait_until_ready_is(admin, "503").await;
    product::MIGRATOR.run(&db).await.expect("the migrations can be applied");
    wait_until_ready_is(admin, "200").await;
}

#[tokio::test]
async fn without_a_name_it_is_the_role_of_the_first_process() {
    let output = souk(&["health"], &[]).output().await.expect("the program can be run");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(64) && said.contains("name one"), "{said}");
}
