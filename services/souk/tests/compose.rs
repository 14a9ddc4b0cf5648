//! `docker-compose.yml` agrees with the program: its settings exist, and every role is in it.

use std::collections::BTreeSet;
use std::process::Command;

const COMPOSE: &str = include_str!("../../../docker-compose.yml");
/// Beside our settings: a convention of many programs.
const FOREIGN: [&str; 1] = ["SSL_CERT_FILE"];

/// The lines between this one and the next that is not indented.
fn section(heading: &str) -> Vec<&'static str> {
    let lines = COMPOSE.lines().skip_while(|line| !line.starts_with(heading)).skip(1);
    lines.take_while(|line| line.is_empty() || line.starts_with(' ')).collect()
}

/// The settings in the help of a command.
fn settings_of(command: &str) -> BTreeSet<String> {
    let help = Command::new(env!("CARGO_BIN_EXE_souk")).args([command, "--help"]).output();
    let help = String::from_utf8(help.expect("the program can be run").stdout).expect("UTF-8");
    let names = help.split('<').filter_map(|rest| rest.split_once('>')).map(|(name, _)| name.to_owned());
    names.filter(|name| name.contains('_')).collect()
}

#[test]
fn its_settings_exist() {
    let commands = roster::ROLES.map(|role| role.name).into_iter().chain(["migrate", "check", "envoy", "health"]);
    let known: BTreeSet<_> = commands.flat_map(settings_of).collect();
    let given = section("x-settings:");
    let given = given.iter().filter_map(|line| line.trim().split_once(':')).map(|(name, _)| name);
    let given: Vec<_> = given.filter(|name| !name.starts_with('#') && !FOREIGN.contains(name)).collect();
    assert!(given.len() > 20, "{given:?}");
    for name in given {
        assert!(known.contains(name), "docker-compose.yml: no command has the setting {name}");
    }
}

#[test]
fn every_role_is_in_it_and_reached_by_its_port() {
    let (services, settings) = (section("services:"), section("x-settings:"));
    for role in roster::ROLES {
        let at = services.iter().position(|line| *line == format!("  {}:", role.name));
        let at = at.unwrap_or_else(|| panic!("docker-compose.yml: {} is no service", role.name));
        let body = services[at + 1..].iter().take_while(|line| line.starts_with("    "));
        let runs = format!("    command: [{}]", role.name);
        assert!(body.clone().any(|line| *line == runs), "docker-compose.yml: {} does not run its role", role.name);
        for setting in [
            format!("  {}: 0.0.0.0:{}", role.variable("listen"), role.port()),
            format!("  EDGE_{}: {}:{}", role.variable("endpoints"), role.name, role.port()),
        ] {
            assert!(settings.contains(&setting.as_str()), "docker-compose.yml: there is no line `{setting}`");
        }
        let waits = format!("      {}: {{condition: service_healthy}}", role.name);
        assert!(services.contains(&waits.as_str()), "docker-compose.yml: the edge does not wait for {}", role.name);
    }
}
