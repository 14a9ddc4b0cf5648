//! On stable Rust the macros cannot tell cargo what they read: a new migration, a changed query cache.
fn main() {
    println!("cargo:rerun-if-changed=../../migrations/product");
    println!("cargo:rerun-if-changed=../../.sqlx");
}
