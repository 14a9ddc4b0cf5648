//! Settings of one role, or of all: each is an environment variable that is named after its field.

use std::ffi::OsString;

use clap::{ArgMatches, Args, Command, Error, FromArgMatches};
use roster::Role;

/// Settings whose variables begin with the name of a role: its field `payment_deadline` is `ORDER_PAYMENT_DEADLINE`, and
/// `--order-payment-deadline`.
pub trait Settings: Args {
    const ROLE: Role;
    /// How many connections to its database it has by default.
    const CONNECTIONS: u32 = 20;
}

/// Settings under the names of their role. Several roles fit into one command.
#[derive(Debug, Clone)]
pub struct RoleSettings<S>(pub S);

impl<S: Settings> RoleSettings<S> {
    /// The settings under the names of their fields, for internal use.
    fn own() -> Command {
        let command = S::augment_args(Command::new(S::ROLE.name).no_binary_name(true));
        command.mut_args(|arg| {
            let field = arg.get_id().as_str().to_owned();
            let arg = arg.long(field.clone());
            match field.as_str() {
                "listen" => arg.required(false).default_value(format!("127.0.0.1:{}", S::ROLE.port())),
                "database_url" => arg.required(false).default_value(S::ROLE.database_url()),
                "database_connections" => arg.required(false).default_value(S::CONNECTIONS.to_string()),
                _ => arg,
            }
        })
    }
}

impl<S: Settings> Args for RoleSettings<S> {
    fn augment_args(command: Command) -> Command {
        Self::own().get_arguments().fold(command, |command, arg| {
            let variable = S::ROLE.variable(arg.get_id().as_str());
            let flag = variable.to_lowercase().replace('_', "-");
            command.arg(arg.clone().id(&variable).long(flag).env(&variable).value_name(variable))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Settings> FromArgMatches for RoleSettings<S> {
    /// Renames each given setting to its field, and parses them again.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (own, mut flags) = (Self::own(), Vec::new());
        for arg in own.get_arguments() {
            let field = arg.get_id().as_str();
            for value in matches.get_raw(&S::ROLE.variable(field)).into_iter().flatten() {
                let mut flag = OsString::from(format!("--{field}="));
                flag.push(value);
                flags.push(flag);
            }
        }
        S::from_arg_matches(&own.try_get_matches_from(flags)?).map(Self)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use clap::{FromArgMatches, Parser};
    use secrecy::ExposeSecret;

    use super::*;
    use crate::boot::config::{Foundation, parse_duration};

    #[derive(Debug, Clone, Args)]
    struct Shop {
        #[command(flatten)]
        foundation: Foundation,
        /// How long it waits.
        #[arg(default_value = "15m", value_parser = parse_duration)]
        patience: Duration,
        /// What it sells.
        #[arg(value_delimiter = ',')]
        wares: Vec<String>,
        /// Whom it asks.
        peer: Option<String>,
    }

    impl Settings for Shop {
        const ROLE: Role = roster::ORDER;
    }

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        shop: RoleSettings<Shop>,
    }

    fn parse(args: &[&str]) -> Result<Shop, Error> {
        Cli::try_parse_from([&["shop"], args].concat()).map(|cli| cli.shop.0)
    }

    #[test]
    fn settings_have_the_name_of_their_role_and_defaults() {
        let shop = parse(&[]).expect("all have defaults");
        assert_eq!(shop.foundation.listen, SocketAddr::from(([127, 0, 0, 1], 9_005)));
        assert_eq!(shop.foundation.database_url.expose_secret(), "postgres://souk_order@127.0.0.1:15432/souk_order");
        assert_eq!((shop.foundation.database_connections, shop.patience), (20, Duration::from_secs(900)));
        assert_eq!((shop.wares, shop.peer), (vec![], None));
        let shop = parse(&["--order-wares", "mugs,tea", "--order-peer=a=b", "--order-patience", "1s"]).expect("good");
        assert_eq!((shop.wares, shop.peer.as_deref()), (vec!["mugs".to_owned(), "tea".to_owned()], Some("a=b")));
        assert_eq!(shop.patience, Duration::from_secs(1));
    }

    #[test]
    fn errors_name_the_variable() {
        for args in
            [["--order-patience", "soon"], ["--order-listen", "0.0.0.0:1"], ["--order-database-connections", "0"]]
        {
            let refused = parse(&args).expect_err("no such value").to_string();
            let variable = args[0].trim_start_matches('-').replace('-', "_").to_uppercase();
            assert!(refused.contains(&variable), "{refused}");
        }
        let help = <Cli as clap::CommandFactory>::command().render_long_help().to_string();
        assert!(help.contains("ORDER_PATIENCE") && help.contains("How long it waits"), "{help}");
    }

    #[test]
    fn settings_can_be_read_again() {
        let matches = RoleSettings::<Shop>::augment_args(Command::new("shop")).get_matches_from(["shop"]);
        assert!(RoleSettings::<Shop>::from_arg_matches(&matches).is_ok());
    }
}
