use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, fields, reason};
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
        let request = UpdateShippingAddressRequest { order_id: order.to_string(), address: Some(address) };
        let request = self.kit.customer(CUSTOMER, request);
        let response = self.client.clone().update_shipping_address(request).await?;
        Ok(response.into_inner().address.expect("a success has it"))
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
