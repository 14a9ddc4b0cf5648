//! The real Envoy accepts what is rendered.

use std::process::Command;

use clap::Parser;

#[derive(Parser)]
struct Cli {
    #[command(flatten)]
    config: edge::Config,
}

#[test]
fn envoy_accepts_the_configuration() {
    let envoy = std::env::var("SOUK_ENVOY").expect("SOUK_ENVOY says where Envoy is; `make test` sets it");
    let folder = std::env::temp_dir();
    for (name, arguments) in [
        ("plain", vec!["edge"]),
        (
            "full",
            vec!["edge", "--otlp-endpoint", "127.0.0.1:4317", "--cors-origins", "https://a.example,https://b.example"],
        ),
        ("names", vec!["edge", "--order-endpoints", "order-0.order:9005,order-1.order:9005"]),
    ] {
        let yaml = edge::render(&Cli::parse_from(arguments).config, contracts::DESCRIPTORS).expect("it renders");
        let file = folder.join(format!("souk-envoy-{name}-{}.yaml", std::process::id()));
        std::fs::write(&file, yaml).expect("the folder for temporary files can be written");
        let output = Command::new(&envoy).args(["--mode", "validate", "-l", "error", "-c"]).arg(&file).output();
        let output = output.expect("Envoy can be run");
        std::fs::remove_file(&file).expect("it was there");
        assert!(output.status.success(), "{name}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
