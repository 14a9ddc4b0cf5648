//! The URLs of all services' databases, for commands that work on all of them.

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};
use roster::Role;
use secrecy::SecretString;

/// The settings `USER_DATABASE_URL` and the like, one for each service.
#[derive(Debug, Clone)]
pub struct Databases(Vec<(Role, SecretString)>);

impl Databases {
    pub fn iter(&self) -> impl Iterator<Item = (Role, &SecretString)> {
        self.0.iter().map(|(role, url)| (*role, url))
    }

    /// The URL of a service of the roster.
    pub fn url(&self, role: Role) -> &SecretString {
        let found = self.iter().find(|(it, _)| *it == role);
        found.expect("every service of the roster has a database here").1
    }
}

impl Args for Databases {
    fn augment_args(command: Command) -> Command {
        roster::services().fold(command, |command, role| {
            let variable = role.variable("database_url");
            let arg = Arg::new(&variable).long(format!("{}-database-url", role.name)).env(&variable);
            let arg = arg.value_name(&variable).hide_env_values(true).default_value(role.database_url());
            let help = format!("The URL of the {} service's database, with its database role", role.name);
            command.arg(arg.help(help).value_parser(clap::value_parser!(SecretString)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Databases {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let url = |role: Role| Some((role, matches.get_one::<SecretString>(&role.variable("database_url"))?.clone()));
        Ok(Self(roster::services().filter_map(url).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
