//! The addresses of each role's replicas.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};
use roster::Role;

/// The settings `EDGE_ORDER_ENDPOINTS` and the like, one for each role.
#[derive(Debug, Clone)]
pub(crate) struct Endpoints(pub(crate) Vec<(Role, Vec<String>)>);

pub(crate) fn variable(role: Role) -> String {
    format!("EDGE_{}", role.variable("endpoints"))
}

impl Args for Endpoints {
    fn augment_args(command: Command) -> Command {
        roster::ROLES.into_iter().fold(command, |command, role| {
            let variable = variable(role);
            let arg = Arg::new(&variable).long(format!("{}-endpoints", role.name)).env(&variable).value_name(&variable);
            let arg =
                arg.default_value(format!("127.0.0.1:{}", role.port())).value_delimiter(',').action(ArgAction::Append);
            command.arg(arg.help(format!("Replicas of the {} role, comma-separated host:port", role.name)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Endpoints {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let given = |role| matches.get_many(&variable(role)).into_iter().flatten().cloned().collect();
        Ok(Self(roster::ROLES.map(|role| (role, given(role))).into()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
