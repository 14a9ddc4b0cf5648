//! The rules of the house that can be code.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use dev::bugs;
use dev::layout::root;
use prost_reflect::DescriptorPool;

fn files(folder: &Path, extension: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if path.is_dir() {
            if !name.starts_with('.') && name != "target" {
                found.append(&mut files(&path, extension));
            }
        } else if name.ends_with(extension) {
            found.push(path);
        }
    }
    found.sort();
    found
}

/// Wherever the repository is: its own path may have any name in it.
fn is_test(path: &Path) -> bool {
    let inside = path.strip_prefix(root()).expect("it was found there");
    inside.components().any(|part| part.as_os_str() == "tests")
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn files_are_short_enough_to_be_read() {
    for path in files(root(), ".rs") {
        let (lines, cap) = (read(&path).lines().count(), if is_test(&path) { 600 } else { 400 });
        assert!(lines <= cap, "{} has {lines} lines; {cap} are the most", path.display());
    }
}

/// A patch whose place has changed must change too, or nobody would ever see again whether its bug is noticed.
#[test]
fn every_bug_can_still_be_planted() {
    let tests = files(root(), ".rs").into_iter().filter(|path| is_test(path));
    let tests: String = tests.map(|path| read(&path)).collect();
    let bugs = bugs::all().expect("what stands above a patch can be read");
    assert!(bugs.len() >= 6, "{bugs:?}");
    for bug in bugs {
        bug.apply(&["--check"]).unwrap_or_else(|error| panic!("{} ({}): {error:#}", bug.name, bug.about));
        for name in &bug.fails {
            let name = name.rsplit("::").next().unwrap_or_default();
            assert!(tests.contains(&format!("async fn {name}(")), "{}: there is no test {name}", bug.name);
        }
        let failed: String = bug.fails.iter().map(|name| format!("test {name} ... FAILED\n")).collect();
        bug.judge(&failed).expect("noticed");
        bug.judge(&failed.replacen("FAILED", "ok", 1)).expect_err("not noticed");
        bug.judge("error[E0308]: mismatched types\n").expect_err("not built");
    }
}

#[test]
fn dependencies_point_one_way() {
    let services = ["user", "product", "inventory", "order", "payment"];
    for path in files(&root().join("services"), "Cargo.toml") {
        let text = read(&path);
        // What tests use is another matter.
        let text = text.split("[dev-dependencies]").next().unwrap_or_default();
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let uses = |name: &str| text.lines().any(|line| line.starts_with(&format!("{name} = ")));
        let forbidden: &[&str] = match folder {
            "souk" | "check" | "testkit" => &[],
            "chassis" => &["contracts", "bus", "testkit"],
            "bus" => &["contracts", "testkit"],
            _ => &["bus", "testkit", "edge", "gateway", "dev"],
        };
        for name in forbidden {
            assert!(!uses(name), "{folder} must not depend on {name}");
        }
        if !["souk", "check"].contains(&folder) {
            for other in services.iter().filter(|service| **service != folder) {
                assert!(!uses(other), "{folder} must not depend on {other}: they talk by contract");
            }
        }
    }
}

#[test]
fn versions_are_written_in_one_place() {
    for path in files(root(), "Cargo.toml").into_iter().filter(|path| path.parent() != Some(root())) {
        let text = read(&path);
        let dependencies = text.split("dependencies]").skip(1).flat_map(str::lines);
        for line in dependencies.take_while(|line| !line.starts_with("[lints")).filter(|line| line.contains(" = ")) {
            assert!(line.ends_with("{ workspace = true }"), "{}: {line}", path.display());
        }
    }
}

#[test]
fn every_service_has_the_same_tables_of_the_chassis() {
    let mut folders = BTreeMap::<PathBuf, Vec<(String, String)>>::new();
    for path in files(&root().join("migrations"), ".sql") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with("00") {
            let folder = path.parent().expect("it is in a folder").to_owned();
            folders.entry(folder).or_default().push((name, read(&path)));
        }
    }
    assert_eq!(folders.len(), 5);
    let first = folders.values().next().expect("five");
    assert!(first.len() >= 2, "{first:?}");
    for (folder, copies) in &folders {
        assert_eq!(copies, first, "{}", folder.display());
    }
}

#[test]
fn every_rpc_is_called_by_a_test() {
    let pool = DescriptorPool::decode(contracts::DESCRIPTORS).expect("the contracts decode");
    let tests = files(root(), ".rs").into_iter().filter(|path| is_test(path));
    let tests: String = tests.map(|path| read(&path)).collect();
    for service in pool.services().filter(|service| service.full_name().starts_with("souk.")) {
        for method in service.methods() {
            let call = snake(method.name());
            assert!(tests.contains(&format!(".{call}(")), "no test calls {}", method.full_name());
        }
    }
}

fn snake(name: &str) -> String {
    let mut text = String::new();
    for letter in name.chars() {
        if letter.is_uppercase() && !text.is_empty() {
            text.push('_');
        }
        text.extend(letter.to_lowercase());
    }
    text
}

/// What code says and what `docs/errors.md` lists.
#[test]
fn every_reason_is_in_the_catalogue_and_every_entry_in_the_code() {
    let mut said = BTreeMap::new();
    for path in files(&root().join("services"), ".rs") {
        if is_test(&path) {
            continue;
        }
        let text = read(&path);
        // A reason is a text in capitals that follows a code, in a call or alone.
        for quoted in text.split('"').skip(1).step_by(2) {
            let is_name = quoted.len() > 3 && quoted.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            let before = text.split(&format!("\"{quoted}\"")).next().unwrap_or_default();
            let before: String = before.chars().rev().take(60).collect::<String>().chars().rev().collect();
            if is_name && (before.contains("Code::") || before.contains("precondition(")) {
                said.insert(quoted.to_owned(), path.clone());
            }
        }
    }
    let mut reasons: BTreeSet<String> = said.keys().cloned().collect();
    reasons.extend(edge::REASONS.map(str::to_owned));
    reasons.insert("REQUEST_INVALID".to_owned());
    let listed: BTreeSet<String> = read(&root().join("docs/errors.md"))
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    assert!(reasons.len() > 25, "{reasons:?}");
    assert_eq!(reasons.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not listed in docs/errors.md");
    assert_eq!(listed.difference(&reasons).collect::<Vec<_>>(), Vec::<&String>::new(), "listed, and nobody says it");
}
