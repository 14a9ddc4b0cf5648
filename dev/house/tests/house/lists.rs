//! Every list in a response has a bound: it is a page, or it is listed here with its bound.

use std::collections::BTreeSet;

use prost_reflect::{Kind, MessageDescriptor};

use super::methods;

const AS_MANY_AS_ASKED_FOR: &str = "as many as the request names, 100 at most";
const PREFERENCES: &str = "one for each kind and channel";
const LINES: &str = "an order is placed with 100 lines at most";

const BOUNDED: [(&str, &str); 23] = [
    ("souk.analytics.v1.GetCheckoutFunnelResponse.exits", "104: the most frequent 100, and others of each kind"),
    ("souk.analytics.v1.GetSalesSummaryResponse.periods", "the periods of a request, once for each currency"),
    ("souk.analytics.v1.GetSalesSummaryResponse.totals", "one for each currency"),
    ("souk.analytics.v1.ListTopProductsResponse.products", "`limit`, 200 at most"),
    ("souk.inventory.v1.BatchGetStockResponse.missing_skus", AS_MANY_AS_ASKED_FOR),
    ("souk.inventory.v1.BatchGetStockResponse.stocks", AS_MANY_AS_ASKED_FOR),
    ("souk.inventory.v1.Reservation.lines", LINES),
    ("souk.notification.v1.GetPreferencesResponse.preferences", PREFERENCES),
    ("souk.notification.v1.UpdatePreferencesResponse.preferences", PREFERENCES),
    ("souk.ops.v1.ListDeadLettersResponse.dead_letters", "`page_size`, and the last id is the token"),
    ("souk.order.v1.BatchGetOrderStatesResponse.orders", AS_MANY_AS_ASKED_FOR),
    ("souk.order.v1.Cart.items", "a cart has 100 products at most"),
    ("souk.order.v1.Order.items", LINES),
    ("souk.order.v1.Order.shipments", "an order has 100 shipments at most"),
    ("souk.order.v1.Shipment.items", LINES),
    ("souk.order.v1.ShippingAddress.lines", "5"),
    ("souk.payment.v1.GetLedgerResponse.transfers", "the first 1,000"),
    ("souk.payment.v1.GetPaymentResponse.refunds", "the newest 100"),
    ("souk.payment.v1.GetPaymentResponse.returns", "an order has 100 returns at most"),
    ("souk.product.v1.BatchGetProductsResponse.missing_product_ids", AS_MANY_AS_ASKED_FOR),
    ("souk.product.v1.BatchGetProductsResponse.products", AS_MANY_AS_ASKED_FOR),
    ("souk.product.v1.Product.images", "10, by the rule of the request"),
    ("souk.product.v1.QuoteItemsResponse.quotes", AS_MANY_AS_ASKED_FOR),
];

/// The lists of a message, and of the messages in it.
fn lists(message: &MessageDescriptor, is_page: bool, found: &mut BTreeSet<String>) {
    for field in message.fields() {
        if field.is_list() && !is_page {
            found.insert(field.full_name().to_owned());
        }
        match field.kind() {
            Kind::Message(inner) if inner.full_name().starts_with("souk.") => lists(&inner, false, found),
            _ => {}
        }
    }
}

#[test]
fn every_list_in_a_response_has_a_bound() {
    let mut found = BTreeSet::new();
    for method in methods() {
        let (request, response) = (method.input(), method.output());
        let is_page = response.get_field_by_name("next_page_token").is_some();
        assert_eq!(request.get_field_by_name("page_token").is_some(), is_page, "{}", method.full_name());
        lists(&response, is_page, &mut found);
    }
    let listed: BTreeSet<_> = BOUNDED.iter().map(|(list, _)| (*list).to_owned()).collect();
    assert_eq!(found, listed);
}
