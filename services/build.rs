//! The build script of every crate with queries. On stable Rust, the macros that read the query cache and the migrations
//! cannot tell cargo so.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=../../.sqlx");
    let migrations = format!("../../migrations/{}", env!("CARGO_PKG_NAME"));
    if Path::new(&migrations).exists() {
        println!("cargo:rerun-if-changed={migrations}");
    }
}
