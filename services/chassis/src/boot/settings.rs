//! Settings: each is an environment variable, named after its field.

use std::ffi::OsString;
use std::ops::Deref;

use clap::builder::Resettable;
use clap::{Arg, ArgMatches, Args, Command, Error, FromArgMatches};
use roster::Role;

/// The settings of a role. Their variables begin with its name.
pub trait Settings: Args {
    const ROLE: Role;
    /// How many connections to its database it has by default.
    const CONNECTIONS: u32 = 20;
}

/// Settings whose variables begin with a prefix: with `order`, the field `payment_deadline` is `ORDER_PAYMENT_DEADLINE`, and
/// `--order-payment-deadline`. A field with an `env` of its own keeps that name.
pub trait Prefix: Args {
    const PREFIX: &'static str;

    /// The default of a field that has none in its attributes.
    fn default_of(_field: &str) -> Option<String> {
        None
    }
}

impl<S: Settings> Prefix for S {
    const PREFIX: &'static str = S::ROLE.name;

    fn default_of(field: &str) -> Option<String> {
        match field {
            "listen" => Some(format!("127.0.0.1:{}", S::ROLE.port())),
            "database_url" => Some(S::ROLE.database_url()),
            "database_connections" => Some(S::CONNECTIONS.to_string()),
            _ => None,
        }
    }
}

/// Settings under their names with the prefix. Several fit into one command, and into one another; roles of one command that have
/// the same settings share them.
#[derive(Debug, Clone)]
pub struct Prefixed<S>(S);

impl<S> Deref for Prefixed<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.0
    }
}

impl<S: Prefix> Prefixed<S> {
    /// The settings under the names of their fields, for internal use.
    fn own() -> Command {
        let command = S::augment_args(Command::new(S::PREFIX).no_binary_name(true));
        command.mut_args(|arg| {
            let field = arg.get_id().as_str().to_owned();
            let arg = arg.long(field.clone());
            match S::default_of(&field) {
                Some(default) => arg.required(false).default_value(default),
                None => arg,
            }
        })
    }

    fn variable(arg: &Arg) -> String {
        let own = arg.get_env().map(|name| name.to_string_lossy().into_owned());
        own.unwrap_or_else(|| format!("{}_{}", S::PREFIX, arg.get_id()).to_uppercase())
    }
}

impl<S: Prefix> Args for Prefixed<S> {
    fn augment_args(command: Command) -> Command {
        Self::own().get_arguments().fold(command, |command, arg| {
            let variable = Self::variable(arg);
            let flag = variable.to_lowercase().replace('_', "-");
            if command.get_arguments().any(|known| known.get_id() == variable.as_str()) {
                return command;
            }
            let arg = arg.clone().id(&variable).long(flag).env(&variable).value_name(variable);
            // In the help, it stands where it stands in the command, not in its own settings.
            command.arg(arg.display_order(Resettable::Reset))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl<S: Prefix> FromArgMatches for Prefixed<S> {
    /// Renames each given setting to its field, and parses them again.
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let (own, mut flags) = (Self::own(), Vec::new());
        for arg in own.get_arguments() {
            for value in matches.get_raw(&Self::variable(arg)).into_iter().flatten() {
                let mut flag = OsString::from(format!("--{}=", arg.get_id()));
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

    /// Settings in settings, and one with a name that others gave it.
    #[derive(Debug, Clone, Args)]
    struct House {
        #[command(flatten)]
        door: Prefixed<Door>,
        /// Where it reports to.
        #[arg(env = "OTEL_SOMEWHERE")]
        collector: Option<String>,
    }

    impl Prefix for House {
        const PREFIX: &'static str = "souk";
    }

    #[derive(Debug, Clone, Args)]
    struct Door {
        /// Whom it lets in.
        #[arg(default_value = "nobody", value_delimiter = ',')]
        guests: Vec<String>,
    }

    impl Prefix for Door {
        const PREFIX: &'static str = "souk_door";
    }

    #[derive(Debug, Parser)]
    struct Cli {
        #[command(flatten)]
        shop: Prefixed<Shop>,
    }

    fn parse(args: &[&str]) -> Result<Shop, Error> {
        Cli::try_parse_from([&["shop"], args].concat()).map(|cli| cli.shop.0)
    }

    #[test]
    fn settings_have_the_name_of_their_role_and_defaults() {
        let shop = parse(&[]).expect("all have defaults");
        assert_eq!(shop.foundation.listen, SocketAddr::from(([127, 0, 0, 1], 9_005)));
        assert_eq!(
            shop.foundation.database.database_url.expose_secret(),
            "postgres://souk_order@127.0.0.1:15432/souk_order"
        );
        assert_eq!((shop.foundation.database_connections, shop.patience), (20, Duration::from_secs(900)));
        assert_eq!((shop.wares, shop.peer), (vec![], None));
        let shop = parse(&["--order-wares", "mugs,tea", "--order-peer=a=b", "--order-patience", "1s"]).expect("good");
        assert_eq!((shop.wares, shop.peer.as_deref()), (vec!["mugs".to_owned(), "tea".to_owned()], Some("a=b")));
        assert_eq!(shop.patience, Duration::from_secs(1));
    }

    #[test]
    fn settings_nest_and_keep_a_standard_name() {
        let parse = |args: &[&str]| {
            let command = Prefixed::<House>::augment_args(Command::new("house").no_binary_name(true));
            let variables: Vec<_> = command.get_arguments().map(|arg| arg.get_id().to_string()).collect();
            assert_eq!(variables, ["SOUK_DOOR_GUESTS", "OTEL_SOMEWHERE"]);
            Prefixed::<House>::from_arg_matches(&command.get_matches_from(args)).expect("good settings")
        };
        let house = parse(&[]);
        assert_eq!((house.door.guests.as_slice(), &house.collector), (&["nobody".to_owned()][..], &None));
        let house = parse(&["--souk-door-guests=ann,bob", "--otel-somewhere", "there"]);
        assert_eq!((house.door.guests.len(), house.collector.as_deref()), (2, Some("there")));
    }

    #[test]
    fn errors_name_the_variable() {
        for args in [["--order-patience", "soon"], ["--order-listen", "order:1"], ["--order-database-connections", "0"]]
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
        let matches = Prefixed::<Shop>::augment_args(Command::new("shop")).get_matches_from(["shop"]);
        assert!(Prefixed::<Shop>::from_arg_matches(&matches).is_ok());
    }
}
