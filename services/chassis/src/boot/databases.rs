//! How to reach all services' databases, for commands that work on all of them.

use std::path::PathBuf;

use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches, value_parser};
use roster::Role;
use secrecy::SecretString;

use crate::boot::db::Database;

/// The settings `USER_DATABASE_URL` and `USER_DATABASE_PASSWORD_FILE`, and the same of each other service.
#[derive(Debug, Clone)]
pub struct Databases(Vec<(Role, Database)>);

impl Databases {
    pub fn iter(&self) -> impl Iterator<Item = &(Role, Database)> {
        self.0.iter()
    }

    /// Of a service of the roster.
    pub fn of(&self, role: Role) -> &Database {
        let found = self.iter().find(|(it, _)| *it == role);
        &found.expect("every service of the roster has a database here").1
    }
}

impl Args for Databases {
    fn augment_args(command: Command) -> Command {
        roster::services().fold(command, |command, role| {
            let arg = |setting: &str, help: &str| {
                let variable = role.variable(setting);
                let flag = variable.to_lowercase().replace('_', "-");
                let arg = Arg::new(&variable).long(flag).env(&variable).value_name(&variable);
                arg.help(format!("The {help} of the {} service", role.name))
            };
            let url = arg("database_url", "URL of the database").hide_env_values(true);
            let url = url.default_value(role.database_url()).value_parser(value_parser!(SecretString));
            let file = arg("database_password_file", "file with the password of the database role");
            command.arg(url).arg(file.value_parser(value_parser!(PathBuf)))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Databases {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let database = |role: Role| {
            let database_url = matches.get_one::<SecretString>(&role.variable("database_url"))?.clone();
            let database_password_file = matches.get_one(&role.variable("database_password_file")).cloned();
            Some((role, Database { database_url, database_password_file }))
        };
        Ok(Self(roster::services().filter_map(database).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}
