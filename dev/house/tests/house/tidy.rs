//! Sizes of files, dependencies, migrations, tests of RPCs, and the catalogue of errors.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::{files, is_test, methods, read, root, sources, tests};

#[test]
fn files_are_short() {
    for (path, text) in sources(root()) {
        let (lines, cap) = (text.lines().count(), if is_test(&path) { 600 } else { 400 });
        assert!(lines <= cap, "{} has {lines} lines, more than {cap}", path.display());
    }
}

#[test]
fn dependencies_point_one_way() {
    let services: Vec<_> = roster::services().map(|role| role.name).collect();
    for path in files(&root().join("services"), "Cargo.toml") {
        let text = read(&path);
        // Dependencies of tests are allowed.
        let text = text.split("[dev-dependencies]").next().unwrap_or_default();
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()).unwrap_or_default();
        let uses = |name: &str| text.lines().any(|line| line.starts_with(&format!("{name} = ")));
        let forbidden: &[&str] = match folder {
            "souk" | "check" | "testkit" => &[],
            "chassis" => &["contracts", "bus", "testkit"],
            "bus" => &["contracts", "testkit"],
            _ => &["bus", "testkit", "edge", "gateway", "provider", "stack", "trials"],
        };
        for name in forbidden {
            assert!(!uses(name), "{folder} must not depend on {name}");
        }
        if !["souk", "check"].contains(&folder) {
            for other in services.iter().filter(|service| **service != folder) {
                assert!(!uses(other), "{folder} must not depend on {other}: services communicate by contracts");
            }
        }
    }
}

/// `make up` compiles `souk`, `stack` and `provider`; `provider` is also a container image, and a dependency of payment's tests.
/// They must not depend on what only trials need.
#[test]
fn a_first_start_compiles_few_dependencies() {
    let services = ["bus", "chassis", "contracts", "edge", "souk", "rdkafka", "sqlx", "tonic"];
    for (folder, others) in [("provider", ["stack", "trials", "reqwest"]), ("stack", ["provider", "trials", "rdkafka"])]
    {
        let text = read(&root().join("dev").join(folder).join("Cargo.toml"));
        let text = text.split("[dev-dependencies]").next().unwrap_or_default();
        for name in services.iter().chain(&others) {
            let uses = text.lines().any(|line| line.starts_with(&format!("{name} = ")));
            assert!(!uses, "{folder} must not depend on {name}");
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

/// Also where the code does not check it itself.
#[test]
fn arithmetic_does_not_wrap_in_release_builds() {
    let text = read(&root().join("Cargo.toml"));
    let (_, release) = text.split_once("[profile.release]\n").expect("it has a section");
    assert!(release.lines().take_while(|line| !line.starts_with('[')).any(|line| line == "overflow-checks = true"));
}

#[test]
fn every_service_has_the_same_chassis_migrations() {
    let mut folders = BTreeMap::<PathBuf, Vec<(String, String)>>::new();
    for path in files(&root().join("migrations"), ".sql") {
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        if name.starts_with("00") {
            let folder = path.parent().expect("it is in a folder").to_owned();
            folders.entry(folder).or_default().push((name, read(&path)));
        }
    }
    assert_eq!(
        folders.len(),
        1 + roster::services().count(),
        "the folder of chassis, and links in the folder of every service"
    );
    let first = folders.values().next().expect("five");
    assert!(first.len() >= 2, "{first:?}");
    for (folder, copies) in &folders {
        assert_eq!(copies, first, "{}", folder.display());
    }
}

#[test]
fn every_rpc_is_called_by_a_test() {
    let tests = tests();
    for method in methods() {
        let call = snake(method.name());
        assert!(tests.contains(&format!(".{call}(")), "no test calls {}", method.full_name());
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

/// The tests that docs/security.md names: in backticks, four words or more. The names of metrics begin with `souk_`.
#[test]
fn docs_security_names_tests_that_exist() {
    let tests: BTreeSet<_> = sources(root())
        .into_iter()
        .flat_map(|(_, text)| {
            let names = text.split("fn ").skip(1).filter_map(|rest| rest.split('(').next().map(str::to_owned));
            names.collect::<Vec<_>>()
        })
        .collect();
    let text = read(&root().join("docs/security.md"));
    let named = text.split('`').skip(1).step_by(2).filter(|it| {
        it.matches('_').count() >= 3
            && !it.starts_with("souk_")
            && it.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte.is_ascii_digit())
    });
    let named: Vec<_> = named.collect();
    assert!(named.len() > 100, "{named:?}");
    let unknown: Vec<_> = named.into_iter().filter(|name| !tests.contains(*name)).collect();
    assert!(unknown.is_empty(), "docs/security.md names tests that do not exist: {unknown:?}");
}

#[test]
fn docs_errors_lists_every_reason_of_the_code() {
    let mut said = BTreeMap::new();
    let folders = ["services", "envoy/src"].map(|folder| sources(&root().join(folder)));
    for (path, text) in folders.into_iter().flatten().filter(|(path, _)| !is_test(path)) {
        // A reason is a text in capitals after a code; in the edge's table, after `name: `.
        let is_edge = path.starts_with(root().join("envoy"));
        for quoted in text.split('"').skip(1).step_by(2) {
            let is_name = quoted.len() > 3 && quoted.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_');
            let before = text.split(&format!("\"{quoted}\"")).next().unwrap_or_default();
            let before: String = before.chars().rev().take(60).collect::<String>().chars().rev().collect();
            let follows_code = ["Code::", "Refusal::", "precondition("].iter().any(|code| before.contains(code));
            if is_name && if is_edge { before.ends_with("name: ") } else { follows_code } {
                said.insert(quoted.to_owned(), path.clone());
            }
        }
    }
    let mut reasons: BTreeSet<String> = said.keys().cloned().collect();
    reasons.insert("REQUEST_INVALID".to_owned());
    let listed: BTreeSet<String> = read(&root().join("docs/errors.md"))
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next().map(str::to_owned))
        .collect();
    assert!(reasons.len() > 25, "{reasons:?}");
    assert_eq!(reasons.difference(&listed).collect::<Vec<_>>(), Vec::<&String>::new(), "not listed in docs/errors.md");
    assert_eq!(listed.difference(&reasons).collect::<Vec<_>>(), Vec::<&String>::new(), "listed, but not in the code");
}
