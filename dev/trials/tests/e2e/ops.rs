//! A poison message parks only its own key, and operators list, redrive and discard it on the role's own port.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use contracts::souk::inventory::v1::{InventoryEvent, StockReserved, inventory_event};
use contracts::souk::ops::v1::ops_service_client::OpsServiceClient;
use contracts::souk::ops::v1::*;
use prost::Message;
use rdkafka::producer::{FutureProducer, FutureRecord};
use sqlx::{Connection, PgConnection};
use stack::controlled::Stack;
use stack::parts::souk;
use stack::postgres::ADMINISTRATOR;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;
use trials::roles;
use trials::topics::administrator;
use uuid::Uuid;

use crate::{Market, alone, wait};

async fn signed<T>(market: &Market, message: T) -> Result<Request<T>> {
    let mut request = Request::new(message);
    let bearer = format!("Bearer {}", market.operator.token().await?);
    request.metadata_mut().insert("authorization", bearer.parse()?);
    Ok(request)
}

async fn letters(ops: &OpsServiceClient<Channel>, market: &Market, key: &str) -> Result<Vec<DeadLetter>> {
    let request = ListDeadLettersRequest { page_size: 200, ..Default::default() };
    let page = ops.clone().list_dead_letters(signed(market, request).await?).await?.into_inner();
    Ok(page.dead_letters.into_iter().filter(|letter| letter.key == key).collect())
}

#[test]
fn a_poison_message_parks_only_its_key_until_it_is_redriven() -> Result<()> {
    alone(async |stack| {
        let market = Market::open(stack, 10).await?;
        let role = roles::endpoint(&stack.layout.pki, "dev", stack.ports().grpc(roster::ORDER))?;
        let ops = OpsServiceClient::new(role.connect().await?);
        let url = stack.layout.database(ADMINISTRATOR, "souk_inventory")?;
        let mut inventory = PgConnection::connect(&url).await?;

        // An event that does not decode, of an existing reservation.
        let key = Uuid::now_v7();
        for record in [
            "insert into reservation (order_id, state, version, created_at, updated_at, checked_at)
             values ($1, 'RELEASED', 1, now(), now(), now())",
            "insert into reservation_history (order_id, version, state, at) values ($1, 1, 'RELEASED', now())",
        ] {
            sqlx::query(record).bind(key).execute(&mut inventory).await?;
        }
        sqlx::query(
            "insert into outbox (event_id, topic, key, version, type, payload, actor, created_at)
             values (gen_random_uuid(), 'souk.inventory.v1', $1, 1, 'souk.inventory.v1.StockReserved', '\\x00', 'test', now())",
        )
        .bind(key)
        .execute(&mut inventory)
        .await?;
        let key = key.to_string();
        wait("the event to become a dead letter", async || Ok(letters(&ops, &market, &key).await?.len() == 1)).await?;
        let letter = letters(&ops, &market, &key).await?.remove(0);
        ensure!(letter.consumer == "order" && letter.error.contains("does not decode"), "{letter:?}");

        let order = market.buy(1, "pm_card_visa").await?;
        market.customer.wait_for_state(&order, "CONFIRMED").await.context("other orders go on")?;

        let redrive = RedriveDeadLettersRequest { consumer: "order".to_owned(), key: key.clone() };
        let still = ops.clone().redrive_dead_letters(signed(&market, redrive.clone()).await?).await;
        let status = still.err().context("it still does not decode")?;
        let reason = status.get_details_error_info().map(|info| info.reason);
        ensure!(status.code() == Code::FailedPrecondition && reason.as_deref() == Some("REDRIVE_FAILED"), "{status:?}");

        // Repaired by hand: an event about an order that is confirmed already, so it is ignored.
        let event = Some(inventory_event::Event::StockReserved(StockReserved {}));
        let fixed = InventoryEvent { order_id: order.clone(), event }.encode_to_vec();
        let url = stack.layout.database(ADMINISTRATOR, "souk_order")?;
        let mut orders = PgConnection::connect(&url).await?;
        let update = "update dead_letter set payload = $1 where key = $2::uuid";
        sqlx::query(update).bind(fixed).bind(&key).execute(&mut orders).await?;
        let done = ops.clone().redrive_dead_letters(signed(&market, redrive).await?).await?.into_inner();
        ensure!(done.redriven_count == 1 && letters(&ops, &market, &key).await?.is_empty());

        discard(stack, &market, &ops).await?;
        wait("the outbox to be empty", async || {
            let status =
                ops.clone().get_outbox_status(signed(&market, GetOutboxStatusRequest {}).await?).await?.into_inner();
            Ok(status.pending_count == 0 && status.oldest_time.is_none())
        })
        .await?;

        let anonymous = ops.clone().list_dead_letters(ListDeadLettersRequest::default()).await;
        ensure!(anonymous.err().map(|status| status.code()) == Some(Code::Unauthenticated));
        Ok(())
    })
}

/// A record that does not decode as an event is never redriven: an operator discards it, and `souk check` reads that.
async fn discard(stack: &Stack, market: &Market, ops: &OpsServiceClient<Channel>) -> Result<()> {
    let no_key = Uuid::nil().to_string();
    let producer: FutureProducer = administrator(&stack.layout).create()?;
    let unreadable = FutureRecord::<str, _>::to("souk.inventory.v1").payload("babble");
    producer.send(unreadable, Duration::from_secs(30)).await.map_err(|(error, _)| error)?;
    wait("the record to become a dead letter", async || Ok(letters(ops, market, &no_key).await?.len() == 1)).await?;
    let letter = letters(ops, market, &no_key).await?.remove(0);

    let redrive = RedriveDeadLettersRequest { consumer: letter.consumer.clone(), key: no_key.clone() };
    refused(ops.clone().redrive_dead_letters(signed(market, redrive).await?).await, "RECORD_UNREADABLE")?;
    let before = verdict(stack).await;
    ensure!(before.contains("I4  VIOLATED") && before.contains("I5  VIOLATED"), "{before}");

    let mut request = DiscardDeadLettersRequest {
        consumer: letter.consumer,
        key: no_key.clone(),
        dead_letter_ids: vec![letter.dead_letter_id],
        reason: " ".to_owned(),
    };
    refused(ops.clone().discard_dead_letters(signed(market, request.clone()).await?).await, "REQUEST_INVALID")?;
    request.reason = "written by hand".to_owned();
    let done = ops.clone().discard_dead_letters(signed(market, request.clone()).await?).await?.into_inner();
    ensure!(done.discarded_count == 1 && letters(ops, market, &no_key).await?.is_empty());
    refused(ops.clone().discard_dead_letters(signed(market, request).await?).await, "DEAD_LETTER_NOT_FOUND")?;

    let url = stack.layout.database("souk_order", "souk_order")?;
    let mut orders = PgConnection::connect(&url).await?;
    let audit = sqlx::query_as::<_, (String, String)>("select reason, discarded_by from dead_letter_discard");
    let (reason, actor) = audit.fetch_one(&mut orders).await?;
    ensure!(reason == "written by hand" && actor.starts_with("operator:"), "{reason} {actor}");
    for change in ["delete from dead_letter_discard", "update dead_letter_discard set reason = 'x'"] {
        ensure!(sqlx::query(change).execute(&mut orders).await.is_err(), "the role may not: {change}");
    }
    let after = verdict(stack).await;
    ensure!(after.contains("1 discarded dead letters") && !after.contains("I4  VIOLATED"), "{after}");
    ensure!(after.contains("(1 exempt by discarded dead letters)") && !after.contains("I5  VIOLATED"), "{after}");
    Ok(())
}

/// The output of `souk check`, which fails because of the reservation above: no service writes such a history.
async fn verdict(stack: &Stack) -> String {
    match souk(&stack.layout, &[], &["check"]).await {
        Ok(said) => String::from_utf8_lossy(&said).into_owned(),
        Err(error) => format!("{error:#}"),
    }
}

fn refused<T: std::fmt::Debug>(response: Result<T, Status>, reason: &str) -> Result<()> {
    let status = response.err().context("it is refused")?;
    let said = status.get_details_error_info().map(|info| info.reason);
    ensure!(said.as_deref() == Some(reason), "{status:?}");
    Ok(())
}
