//! The service that Envoy defines for rate limits: messages and a tonic server.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto");
    let definitions = protox::compile(["proto/rate_limit.proto"], ["proto"])?;
    Ok(tonic_prost_build::configure().compile_fds(definitions)?)
}
