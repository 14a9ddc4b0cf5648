use std::time::Duration;

use chassis::{Explain, Refusal, Unexpected};
use contracts::money::MAX_MINOR;
use contracts::souk::r#type::v1::Money;
use tonic::Code;

use crate::cart::MAX_ITEMS;
use crate::order::IllegalStep;
use crate::parcel::MAX_PARTS;
use crate::state::State;

#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    #[error("there is no such order")]
    OrderNotFound,
    #[error("the product is unknown or not for sale any more")]
    ProductUnavailable { fields: Vec<String> },
    #[error("the items are priced in more than one currency")]
    CurrencyMixed,
    #[error("the total is not 1 to {MAX_MINOR} minor units")]
    TotalOutOfRange,
    #[error("the total is {} {} by now, and {} {} was expected", .actual.minor, .actual.currency, .expected.minor, .expected.currency)]
    PriceChanged { expected: Money, actual: Money },
    #[error("the cart is empty")]
    CartEmpty,
    #[error("a cart has at most {MAX_ITEMS} products")]
    CartFull,
    #[error("the cart has changed while it was priced: order again")]
    CartChanged,
    #[error("an order that is {} cannot be cancelled", .state.name())]
    OrderNotCancellable { state: State },
    #[error("an order that is {} cannot be fulfilled", .state.name())]
    OrderNotFulfillable { state: State },
    #[error("the payment is not captured yet")]
    PaymentNotCaptured,
    #[error("everything that was paid is refunded: cancel the order instead")]
    OrderRefunded,
    #[error(
        "a part of the order was handed to a carrier: fulfil the rest, and take back what the customer does not keep"
    )]
    OrderPartlyFulfilled,
    #[error("nothing of an order that is {} can be returned", .state.name())]
    OrderNotReturnable { state: State },
    #[error("the order has no such product")]
    ItemNotInOrder { fields: Vec<String> },
    #[error("only {left} units of {sku} are left to fulfil or return")]
    ItemQuantityExceeded { sku: String, left: i32 },
    #[error(
        "an order has {MAX_PARTS} returns and {MAX_PARTS} shipments at most, the last of which has all that is left"
    )]
    OrderPartsExhausted,
    #[error("the order has no shipping address")]
    ShippingAddressNotFound,
    #[error("the shipping address of an order that is {} does not change", .state.name())]
    ShippingAddressFinal { state: State },
    #[error(transparent)]
    StepIllegal(#[from] IllegalStep),
    #[error(transparent)]
    Chassis(chassis::Error),
}

impl Explain for Error {
    const DOMAIN: &'static str = roster::ORDER.domain;

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        let precondition =
            |reason, state: State| Refusal::precondition(reason, "order", text.clone()).with("state", state.name());
        Ok(match self {
            Self::OrderNotFound => Refusal::new(Code::NotFound, "ORDER_NOT_FOUND", text),
            Self::ProductUnavailable { fields } => Refusal::invalid("PRODUCT_UNAVAILABLE", fields, text),
            Self::CurrencyMixed => Refusal::invalid("CURRENCY_MIXED", ["items"], text),
            Self::TotalOutOfRange => Refusal::invalid("TOTAL_OUT_OF_RANGE", ["items"], text),
            Self::PriceChanged { expected, actual } => Refusal::precondition("PRICE_CHANGED", "expected_total", text)
                .with("expected_currency", expected.currency)
                .with("expected_minor", expected.minor)
                .with("actual_currency", actual.currency)
                .with("actual_minor", actual.minor),
            Self::CartEmpty => Refusal::precondition("CART_EMPTY", "cart", text),
            Self::CartFull => Refusal::precondition("CART_FULL", "cart", text).with("limit", MAX_ITEMS),
            Self::CartChanged => {
                Refusal::new(Code::Aborted, "CART_CHANGED", text).retry_after(Duration::from_millis(100))
            }
            Self::OrderNotCancellable { state } => precondition("ORDER_NOT_CANCELLABLE", state),
            Self::OrderNotFulfillable { state } => precondition("ORDER_NOT_FULFILLABLE", state),
            Self::PaymentNotCaptured => precondition("PAYMENT_NOT_CAPTURED", State::Confirmed),
            Self::OrderRefunded => precondition("ORDER_REFUNDED", State::Confirmed),
            Self::OrderPartlyFulfilled => precondition("ORDER_PARTLY_FULFILLED", State::Confirmed),
            Self::OrderNotReturnable { state } => precondition("ORDER_NOT_RETURNABLE", state),
            Self::ItemNotInOrder { fields } => Refusal::invalid("ITEM_NOT_IN_ORDER", fields, text),
            Self::ItemQuantityExceeded { sku, left } => {
                Refusal::precondition("ITEM_QUANTITY_EXCEEDED", &sku, text).with("sku", &sku).with("left", left)
            }
            Self::OrderPartsExhausted => Refusal::precondition("ORDER_PARTS_EXHAUSTED", "order", text),
            Self::ShippingAddressNotFound => Refusal::new(Code::NotFound, "SHIPPING_ADDRESS_NOT_FOUND", text),
            Self::ShippingAddressFinal { state } => precondition("SHIPPING_ADDRESS_FINAL", state),
            Self::StepIllegal(IllegalStep { state, .. }) => precondition("ORDER_STEP_ILLEGAL", state),
            Self::Chassis(error) => return error.explain(),
        })
    }
}

impl<E: Into<chassis::Error>> From<E> for Error {
    fn from(error: E) -> Self {
        Self::Chassis(error.into())
    }
}
