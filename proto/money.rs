//! Arithmetic of money: integer minor units of one currency, always checked, never rounded.

use crate::souk::r#type::v1::Money;

/// Currencies (ISO 4217) that a price may have.
pub const CURRENCIES: [&str; 12] = ["AUD", "CAD", "CHF", "DKK", "EUR", "GBP", "JPY", "NOK", "NZD", "PLN", "SEK", "USD"];
/// The most that a price or a total may be, in minor units.
pub const MAX_MINOR: i64 = 99_999_999;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    #[error("the currency is not one of {}", CURRENCIES.join(", "))]
    Currency,
    #[error("the amount is not 1 to {MAX_MINOR} minor units")]
    Amount,
    #[error("the amounts are in different currencies")]
    Mixed,
}

impl Money {
    pub fn new(currency: impl Into<String>, minor: i64) -> Self {
        Self { currency: currency.into(), minor }
    }

    /// Checks that it can be a price or a total: a currency of the list, an amount within bounds.
    pub fn checked(self) -> Result<Self, Invalid> {
        if !CURRENCIES.contains(&self.currency.as_str()) {
            return Err(Invalid::Currency);
        }
        if !(1..=MAX_MINOR).contains(&self.minor) {
            return Err(Invalid::Amount);
        }
        Ok(self)
    }

    pub fn times(&self, quantity: i32) -> Result<Self, Invalid> {
        let minor = self.minor.checked_mul(i64::from(quantity)).ok_or(Invalid::Amount)?;
        Ok(Self::new(self.currency.clone(), minor))
    }

    pub fn plus(&self, other: &Self) -> Result<Self, Invalid> {
        if self.currency != other.currency {
            return Err(Invalid::Mixed);
        }
        let minor = self.minor.checked_add(other.minor).ok_or(Invalid::Amount)?;
        Ok(Self::new(self.currency.clone(), minor))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_stay_in_one_currency_and_within_bounds() {
        let price = Money::new("EUR", 1_250).checked().expect("a price");
        assert_eq!(price.times(3).and_then(|it| it.plus(&price)), Ok(Money::new("EUR", 5_000)));
        assert_eq!(price.plus(&Money::new("USD", 1)), Err(Invalid::Mixed));
        assert_eq!(Money::new("EUR", i64::MAX).times(2), Err(Invalid::Amount));
        assert_eq!(Money::new("EUR", i64::MAX).plus(&price), Err(Invalid::Amount));
    }

    #[test]
    fn prices_are_positive_and_of_the_closed_list() {
        assert_eq!(Money::new("eur", 1).checked(), Err(Invalid::Currency));
        assert_eq!(Money::new("XTS", 1).checked(), Err(Invalid::Currency));
        for minor in [0, -1, MAX_MINOR + 1] {
            assert_eq!(Money::new("EUR", minor).checked(), Err(Invalid::Amount));
        }
    }
}
