use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, fields, reason, stock_reserved};
use tonic::{Request, Status};
use uuid::Uuid;

use super::Fixture;

fn address(recipient: &str) -> ShippingAddress {
    ShippingAddress {
        recipient: recipient.into(),
        lines: vec!["12 St James's Square".into()],
        city: "London".into(),
        postal_code: "SW1Y 4JH".into(),
        country: "GB".into(),
    }
}

impl Fixture {
    async fn place_to(&self, key: &str, address: Option<ShippingAddress>) -> Uuid {
        let order = self.create(CreateOrderRequest { shipping_address: address, ..self.wanted(key) }).await;
        Uuid::parse_str(&order.expect("placed").order_id).expect("a UUID")
    }

    async fn address(&self, request: Request<GetShippingAddressRequest>) -> Result<ShippingAddress, Status> {
        let response = self.client.clone().get_shipping_address(request).await?;
        Ok(response.into_inner().address.expect("a success has it"))
    }

    async fn replace_address(&self, order: Uuid, address: ShippingAddress) -> Result<ShippingAddress, Status> {
        Ok(self.replace_address_of(order, address, "").await?.address.expect("a success has it"))
    }

    async fn replace_address_of(
        &self,
        order: Uuid,
        address: ShippingAddress,
        etag: &str,
    ) -> Result<UpdateShippingAddressResponse, Status> {
        let (order_id, address, etag) = (order.to_string(), Some(address), etag.to_owned());
        let request = UpdateShippingAddressRequest { order_id, address, etag };
        Ok(self.client.clone().update_shipping_address(self.kit.customer(CUSTOMER, request)).await?.into_inner())
    }
}

fn of(order: Uuid) -> GetShippingAddressRequest {
    GetShippingAddressRequest { order_id: order.to_string() }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn its_customer_and_operators_read_it_and_correct_it_until_the_order_has_ended(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place_to("k1", Some(address("Ada Lovelace"))).await;
    let kit = &fixture.kit;
    assert_eq!(fixture.address(kit.customer(CUSTOMER, of(order))).await.expect("theirs"), address("Ada Lovelace"));
    let hidden = fixture.address(kit.customer(Uuid::now_v7(), of(order))).await.expect_err("not theirs");
    assert_eq!(reason(&hidden), "ORDER_NOT_FOUND@souk.order");

    assert_eq!(fixture.replace_address(order, address("Mary")).await.expect("corrected"), address("Mary"));
    assert_eq!(fixture.address(kit.operator(of(order))).await.expect("an operator"), address("Mary"));
    let wrong = ShippingAddress { country: "England".into(), ..address("Mary") };
    let refused = fixture.replace_address(order, wrong).await.expect_err("no country");
    assert_eq!(fields(&refused), ["address.country"]);

    fixture.cancel(order, "c1").await.expect("cancelled");
    let refused = fixture.replace_address(order, address("Ada")).await.expect_err("it has ended");
    assert_eq!(reason(&refused), "SHIPPING_ADDRESS_FINAL@souk.order");
    assert_eq!(fixture.address(kit.operator(of(order))).await.expect("still there"), address("Mary"));
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn an_order_without_one_gets_none(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place_to("k1", None).await;
    let refused = fixture.replace_address(order, address("Ada")).await.expect_err("there is none to correct");
    assert_eq!(reason(&refused), "SHIPPING_ADDRESS_NOT_FOUND@souk.order");
    let refused = fixture.address(fixture.kit.operator(of(order))).await.expect_err("there is none");
    assert_eq!(reason(&refused), "SHIPPING_ADDRESS_NOT_FOUND@souk.order");
}

/// Two who correct it at once, and a warehouse whose label has the old one.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn nothing_is_sent_to_an_address_that_was_replaced(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place_to("k1", Some(address("Ada"))).await;
    for record in [stock_reserved(order), authorized(order), captured(order, 2_500)] {
        fixture.kit.deliver(record).await;
    }
    let read = async || {
        let response = fixture.client.clone().get_shipping_address(fixture.kit.operator(of(order))).await;
        response.expect("it has one").into_inner().etag
    };
    let printed = read().await;
    let corrected = fixture.replace_address_of(order, address("Mary"), &printed).await.expect("corrected");
    assert_eq!(corrected.etag, read().await);
    let late = fixture.replace_address_of(order, address("Grace"), &printed).await.expect_err("it was corrected");
    assert_eq!(reason(&late), "ETAG_MISMATCH@souk.order");
    let parcel = |etag: &str, key: &str| FulfillOrderRequest {
        request_id: key.into(),
        order_id: order.to_string(),
        carrier: "DHL".into(),
        tracking_number: "1".into(),
        items: vec![],
        shipping_address_etag: etag.into(),
    };
    let fulfill = async |request| fixture.client.clone().fulfill_order(fixture.kit.operator(request)).await;
    let refused = fulfill(parcel(&printed, "f1")).await.expect_err("the label has another address");
    assert_eq!(reason(&refused), "ETAG_MISMATCH@souk.order");
    fulfill(parcel(&corrected.etag, "f2")).await.expect("it has this one");
}
