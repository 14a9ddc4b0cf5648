//! `souk <command> --help` is the reference of settings. docs/configuration.md is written from it, and what k8s/ sets agrees with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The commands beside roles that have settings.
const COMMANDS: [&str; 3] = ["migrate", "check", "envoy"];
/// Libraries read it.
const OF_LIBRARIES: &str = "SSL_CERT_FILE";

/// One setting, as the help shows it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Setting {
    variable: String,
    default: Option<String>,
    values: Option<String>,
    text: String,
}

fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

fn read(path: PathBuf) -> String {
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// In the order of the help.
fn settings(command: &str) -> Vec<Setting> {
    let output = Command::new(env!("CARGO_BIN_EXE_souk")).args([command, "--help"]).env_clear().output();
    let help = String::from_utf8(output.expect("the program can be run").stdout).expect("UTF-8");
    let (_, options) = help.split_once("\nOptions:\n").expect("it has options");
    let (options, _) = options.split_once("\n  -h, --help").expect("it has this one, too");
    // The help has each of these on a line of its own, or all behind the text.
    let tags = ["[env: ", "[default: ", "[possible values: "];
    let options = tags.iter().fold(options.to_owned(), |options, tag| options.replace(tag, &format!("\n{tag}")));
    let settings: Vec<_> = options.split("\n      --").filter_map(parse).collect();
    assert!(settings.len() > 5, "{command}: {help}");
    settings
}

/// None for an option that is no setting, such as `--help`.
fn parse(option: &str) -> Option<Setting> {
    let mut lines = option.lines().skip(1).map(str::trim).filter(|line| !line.is_empty()).peekable();
    let (mut variable, mut default, mut values, mut text) = (None, None, None, Vec::new());
    while let Some(line) = lines.next() {
        let tag = |name: &str| line.strip_prefix(&format!("[{name}: "))?.strip_suffix(']');
        if let Some(name) = tag("env") {
            variable = Some(name.trim_end_matches('=').to_owned());
        } else if let Some(value) = tag("default") {
            default = Some(value.to_owned());
        } else if let Some(all) = tag("possible values") {
            values = Some(all.to_owned());
        } else if line == "Possible values:" {
            let mut all = Vec::new();
            while let Some(value) = lines.next_if(|line| line.starts_with("- ")) {
                all.push(value.trim_start_matches("- ").split(':').next().unwrap_or_default());
            }
            values = Some(all.join(", "));
        } else {
            text.push(line);
        }
    }
    Some(Setting { variable: variable?, default, values, text: text.join(" ") })
}

fn table(settings: &[Setting]) -> String {
    let mut table = "| Variable | Default | |\n| --- | --- | --- |\n".to_owned();
    for Setting { variable, default, values, text } in settings {
        let default = default.as_ref().map(|default| format!("`{default}`")).unwrap_or_default();
        let values = values.as_ref().map(|values| format!(" ({values})")).unwrap_or_default();
        let text = text.replace('|', "\\|");
        writeln!(table, "| `{variable}` | {default} | {text}{values} |").expect("a String can be written");
    }
    table
}

fn reference() -> String {
    let roles = roster::ROLES.map(|role| (role.name, settings(role.name)));
    let is_common = |setting: &Setting| roles.iter().all(|(_, settings)| settings.contains(setting));
    let (common, _): (Vec<_>, Vec<_>) = roles[0].1.iter().cloned().partition(is_common);
    let mut text =
        "# Settings\n\nEach is an environment variable. Written by `make reference` from `souk <command> --help`.\n\n\
                    ## Every role\n\n"
            .to_owned();
    text.push_str(&table(&common));
    let commands = COMMANDS.map(|command| (command, settings(command)));
    for (name, settings) in roles.iter().chain(&commands) {
        let own: Vec<_> = settings.iter().filter(|setting| !common.contains(setting)).cloned().collect();
        let kind = if COMMANDS.contains(name) { "command" } else { "role" };
        write!(text, "\n## The {kind} `{name}`\n\n{}", table(&own)).expect("a String can be written");
    }
    text
}

/// `make reference` sets `SOUK_WRITE`.
#[test]
fn docs_configuration_is_what_help_says() {
    let (file, text) = (root().join("docs/configuration.md"), reference());
    if std::env::var_os("SOUK_WRITE").is_some() {
        fs::write(&file, &text).expect("it can be written");
    }
    assert!(read(file) == text, "docs/configuration.md differs from the help: run `make reference`");
}

/// The variables of a file in k8s/, with their values.
fn env(path: &str) -> BTreeMap<String, String> {
    let text = read(root().join("k8s").join(path));
    let lines = text.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    let pair = |line: &str| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
    lines.map(|line| pair(line).unwrap_or_else(|| panic!("{path}: {line}"))).collect()
}

/// What has settings in k8s/, with the command that reads them.
fn deployed() -> impl Iterator<Item = (&'static str, &'static str)> {
    let roles = roster::ROLES.into_iter().map(|role| (role.name, role.name));
    roles.chain([("migrate", "migrate"), ("check", "check"), ("edge", "envoy")])
}

#[test]
fn kubernetes_sets_only_variables_that_are_read() {
    let mut known: BTreeSet<_> = [OF_LIBRARIES.to_owned()].into();
    for (folder, command) in deployed() {
        let read: BTreeSet<_> = settings(command).into_iter().map(|setting| setting.variable).collect();
        for variable in env(&format!("base/{folder}/settings.env")).keys() {
            assert!(
                read.contains(variable),
                "k8s/base/{folder}/settings.env: `souk {command}` does not read {variable}"
            );
        }
        known.extend(read);
    }
    for file in ["base/souk.env", "base/databases.env", "overlays/production/external.env"] {
        for variable in env(file).keys() {
            assert!(known.contains(variable), "k8s/{file}: no command reads {variable}");
        }
    }
    for folder in ["plain-edge", "overlays/dev", "overlays/production", "overlays/gateway-api", "overlays/istio"] {
        let text = read(root().join("k8s").join(folder).join("kustomization.yaml"));
        for word in text.split(|letter: char| !letter.is_ascii_uppercase() && letter != '_' && !letter.is_ascii_digit())
        {
            let is_variable = word.len() > 5 && word.contains('_') && !word.starts_with('_');
            assert!(!is_variable || known.contains(word), "k8s/{folder}: no command reads {word}");
        }
    }
}

/// A default that is on loopback, or in the folder of a checkout, is not there in a cluster.
#[test]
fn kubernetes_replaces_defaults_of_one_machine() {
    let shared: BTreeMap<_, _> = [env("base/souk.env"), env("base/databases.env")].into_iter().flatten().collect();
    for (folder, command) in deployed() {
        let own = env(&format!("base/{folder}/settings.env"));
        for Setting { variable, default, .. } in settings(command) {
            let is_local = default.is_some_and(|default| default.contains("127.0.0.1") || default.starts_with(".dev"));
            // A role's address is an argument in k8s/role; Envoy's admin page belongs on loopback there, too.
            let is_elsewhere = variable == format!("{folder}_LISTEN").to_uppercase() || variable == "EDGE_ADMIN_LISTEN";
            if is_local && !is_elsewhere {
                let is_set = own.contains_key(&variable) || shared.contains_key(&variable);
                assert!(is_set, "k8s/base/{folder}/settings.env: {variable} is not set");
            }
        }
    }
}
