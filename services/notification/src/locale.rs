//! Money and dates as people of a language write them.

use clap::ValueEnum;
use contracts::souk::r#type::v1::Money;
use icu_calendar::{Date, Iso};
use icu_datetime::DateTimeFormatter;
use icu_datetime::fieldsets::YMD;
use icu_datetime::input::{DateTime, Time};
use icu_decimal::DecimalFormatter;
use icu_decimal::input::Decimal;
use icu_locale_core::{Locale, locale};
use time::OffsetDateTime;

/// A language that there are templates for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    /// English.
    En,
    /// German.
    De,
}

impl Language {
    pub(crate) const ALL: [Self; 2] = [Self::En, Self::De];

    /// In the names of templates.
    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::En => "en",
            Self::De => "de",
        }
    }

    /// None: there are no templates for it.
    pub(crate) fn of_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|language| language.code() == code)
    }

    fn locale(self) -> Locale {
        match self {
            Self::En => locale!("en-GB"),
            Self::De => locale!("de-DE"),
        }
    }

    /// Such as `€25.80`, `CHF 25.80`, or `25,80 €`.
    pub(crate) fn money(self, money: &Money) -> String {
        let mut amount = Decimal::from(money.minor);
        amount.multiply_pow10(-minor_digits(&money.currency));
        let formatter = DecimalFormatter::try_new(self.locale().into(), Default::default());
        let number = formatter.expect("the data is compiled").format(&amount).to_string();
        // As in CLDR's pattern of a price; its formatter for currencies is experimental in ICU4X.
        match (self, symbol(&money.currency)) {
            (Self::En, Some(symbol)) => format!("{symbol}{number}"),
            (Self::En, None) => format!("{}\u{a0}{number}", money.currency),
            (Self::De, symbol) => format!("{number}\u{a0}{}", symbol.unwrap_or(&money.currency)),
        }
    }

    /// A day, such as `29 November 2026`.
    pub(crate) fn date(self, day: time::Date) -> String {
        let formatter = DateTimeFormatter::try_new(self.locale().into(), YMD::long());
        formatter.expect("the data is compiled").format(&iso(day)).to_string()
    }

    /// A minute of UTC, such as `29 November 2026 at 10:05 UTC`.
    pub(crate) fn date_time(self, at: OffsetDateTime) -> String {
        let formatter = DateTimeFormatter::try_new(self.locale().into(), YMD::long().with_time_hm());
        format!("{} UTC", formatter.expect("the data is compiled").format(&utc(at)))
    }
}

fn utc(at: OffsetDateTime) -> DateTime<Iso> {
    let at = at.to_offset(time::UtcOffset::UTC);
    DateTime {
        date: iso(at.date()),
        time: Time::try_new(at.hour(), at.minute(), at.second(), 0).expect("it is a time"),
    }
}

fn iso(day: time::Date) -> Date<Iso> {
    Date::try_new_iso(day.year(), day.month().into(), day.day()).expect("it is a date")
}

/// ISO 4217 says it of each of [`contracts::money::CURRENCIES`].
fn minor_digits(currency: &str) -> i16 {
    if currency == "JPY" { 0 } else { 2 }
}

/// A symbol that is not that of another currency, too: the dollar is that of the United States.
fn symbol(currency: &str) -> Option<&'static str> {
    match currency {
        "EUR" => Some("€"),
        "GBP" => Some("£"),
        "JPY" => Some("¥"),
        "USD" => Some("$"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn money_is_written_as_in_its_language() {
        let (en, de) = (Language::En, Language::De);
        for (currency, minor, english, german) in [
            ("EUR", 2_580, "€25.80", "25,80\u{a0}€"),
            ("EUR", 123_456_789, "€1,234,567.89", "1.234.567,89\u{a0}€"),
            ("EUR", 5, "€0.05", "0,05\u{a0}€"),
            ("JPY", 2_580, "¥2,580", "2.580\u{a0}¥"),
            ("USD", 100, "$1.00", "1,00\u{a0}$"),
            ("CHF", 100_000, "CHF\u{a0}1,000.00", "1.000,00\u{a0}CHF"),
        ] {
            let money = Money::new(currency, minor);
            assert_eq!((en.money(&money).as_str(), de.money(&money).as_str()), (english, german));
        }
    }

    #[test]
    fn dates_are_written_as_in_their_language() {
        let at = OffsetDateTime::from_unix_timestamp(1_767_225_600 + 9 * 3_600 + 5 * 60).expect("a time");
        assert_eq!(Language::En.date(at.date()), "1 January 2026");
        assert_eq!(Language::De.date(at.date()), "1. Januar 2026");
        assert_eq!(Language::En.date_time(at), "1 January 2026 at 09:05 UTC");
        assert_eq!(Language::De.date_time(at), "1. Januar 2026 um 09:05 UTC");
    }
}
