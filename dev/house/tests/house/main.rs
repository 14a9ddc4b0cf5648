//! Conventions of the whole repository that no compiler checks. The tests read only files and contracts, and build no service.

mod idempotency;
mod kubernetes;
mod lists;
mod migrations;
mod samples;
mod tidy;
mod workflows;

use std::fs;
use std::path::{Path, PathBuf};

use prost_reflect::{DescriptorPool, MethodDescriptor};

/// The root of the repository.
fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

/// The files below a folder whose name has this ending.
fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.append(&mut files(&path, ending));
            }
        } else if name.ends_with(ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// The Rust files below a folder, and their text.
fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let files = files(folder, ".rs").into_iter();
    files.map(|path| (path.clone(), read(&path))).collect()
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Only the path within the repository counts.
fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).expect("it was found there");
    inside.components().any(|part| part.as_os_str() == "tests")
}

/// The text of all tests.
fn tests() -> String {
    sources(root()).into_iter().filter(|(path, _)| is_test(path)).map(|(_, text)| text).collect()
}

fn pool() -> DescriptorPool {
    DescriptorPool::decode(contracts::DESCRIPTORS).expect("the contracts decode")
}

/// Our RPCs.
fn methods() -> Vec<MethodDescriptor> {
    let pool = pool();
    let ours = pool.services().filter(|service| service.full_name().starts_with("souk."));
    ours.flat_map(|service| service.methods().collect::<Vec<_>>()).collect()
}
