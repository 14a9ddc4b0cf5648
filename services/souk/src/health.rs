//! `souk health` asks roles of this machine for their health, each at its own address and over its own TLS: the probe of
//! containers. One line says the outcome.

use std::net::SocketAddr;
use std::process::ExitCode;

use chassis::boot::{Prefixed, Unhealthy, health_of};
use chassis::tls::{Certificates, Tls};
use clap::builder::PossibleValuesParser;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use roster::Role;

use crate::{USAGE, print, print_error};

/// Of `souk all`.
const ALL: &str = "all";
/// The command line of a container's first process, whose arguments end with a zero byte each.
const FIRST_PROCESS: &str = "/proc/1/cmdline";

#[derive(Debug, Args)]
pub(crate) struct Health {
    /// The role, or `all`. Unset: that of the first process of this container.
    #[arg(value_parser = PossibleValuesParser::new(roster::ROLES.map(|role| role.name).into_iter().chain([ALL])))]
    role: Option<String>,
    #[command(flatten)]
    listen: Listen,
    #[command(flatten)]
    tls: Prefixed<Tls>,
}

pub(crate) async fn run(health: &Health) -> ExitCode {
    let name = match health.role.clone().map_or_else(|| role_of(FIRST_PROCESS), Ok) {
        Ok(name) => name,
        Err(why) => return print_error(&why, USAGE),
    };
    let certificates = Certificates::new(&health.tls);
    for (role, listen) in health.listen.0.iter().filter(|(role, _)| name == role.name || name == ALL) {
        match health_of(*role, *listen, &certificates).await {
            Ok(()) => {}
            Err(error @ Unhealthy::Setting(_)) => return print_error(&error, USAGE),
            Err(error) => return print_error(&error, 1),
        }
    }
    print(format!("{name} is SERVING\n").as_bytes())
}

/// Which role a process runs, by its command line.
fn role_of(command_line: &str) -> Result<String, String> {
    let text = std::fs::read_to_string(command_line).map_err(|error| format!("{command_line}: {error}"))?;
    let argument = text.split('\0').nth(1).unwrap_or_default();
    let is_role = argument == ALL || roster::ROLES.iter().any(|role| role.name == argument);
    let why = || {
        format!("the first process of this container (`{}`) runs no role: name one", text.replace('\0', " ").trim_end())
    };
    if is_role { Ok(argument.to_owned()) } else { Err(why()) }
}

/// The settings `ORDER_LISTEN` and the like, one for each role.
#[derive(Debug)]
struct Listen(Vec<(Role, SocketAddr)>);

impl Args for Listen {
    fn augment_args(command: Command) -> Command {
        roster::ROLES.into_iter().fold(command, |command, role| {
            let variable = role.variable("listen");
            let arg = Arg::new(&variable).long(variable.to_lowercase().replace('_', "-")).env(&variable);
            let arg = arg.value_name(&variable).default_value(format!("127.0.0.1:{}", role.port()));
            let help = format!("The address on which the {} role serves gRPC", role.name);
            command.arg(arg.help(help).value_parser(value_parser!(SocketAddr)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Listen {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let listen = |role: Role| Some((role, *matches.get_one(&role.variable("listen"))?));
        Ok(Self(roster::ROLES.into_iter().filter_map(listen).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_process_tells_its_role() {
        let role = |command_line: &str| {
            let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
            std::fs::write(&file, command_line).expect("it is ours");
            role_of(file.path().to_str().expect("UTF-8"))
        };
        assert_eq!(role("souk\0order\0").as_deref(), Ok("order"));
        assert_eq!(role("/usr/local/bin/souk\0all\0--souk-log=debug\0").as_deref(), Ok("all"));
        for other in ["", "souk\0", "souk\0migrate\0", "/sbin/init\0--\0order\0"] {
            let why = role(other).expect_err("it runs no role");
            assert!(why.contains("name one"), "{why}");
        }
    }
}
