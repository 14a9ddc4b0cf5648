//! Two roles of one process that use the same server share its settings.

use std::time::Duration;

use chassis::boot::Prefixed;
use chassis::redis::Config;
use clap::{Args, Command, FromArgMatches};

#[test]
fn settings_that_two_roles_have_are_one() {
    let command = Prefixed::<Config>::augment_args(Prefixed::<Config>::augment_args(Command::new("all")));
    let matches = command.get_matches_from(["all", "--souk-redis-timeout", "7s"]);
    for _ in 0..2 {
        let config = Prefixed::<Config>::from_arg_matches(&matches).expect("good settings");
        assert_eq!(config.timeout, Duration::from_secs(7));
    }
}
