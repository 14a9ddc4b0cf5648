//! Following one order at one replica. `watch_replicas` has several.

use std::time::Duration;

use chassis::rpc::token::Revoked;
use contracts::souk::order::v1::watch_order_response::Update;
use contracts::souk::order::v1::*;
use sqlx::PgPool;
use testkit::{CUSTOMER, authorized, captured, fields, reason, stock_reserved};
use tonic::{Code, Request, Status, Streaming};
use uuid::Uuid;

use super::Fixture;
use crate::watch::{Times, read_changes};

/// What a message says, such as `2 OrderReserved RESERVED`.
pub(super) fn tell(message: &WatchOrderResponse) -> String {
    let version = message.version;
    let state = |order: &Order| {
        assert_eq!(order.version, version);
        order.state().as_str_name().trim_start_matches("ORDER_STATE_").to_owned()
    };
    match message.update.as_ref().expect("every message says something") {
        Update::Order(order) => format!("{version} {}", state(order)),
        Update::Change(change) => {
            let (event, order) = (change.event.as_ref().expect("it"), change.order.as_ref().expect("it"));
            assert_eq!(event.version, version);
            format!("{version} {} {}", event.r#type, state(order))
        }
        Update::KeepAlive(_) => format!("{version} still"),
        Update::End(end) => format!("{version} {}", end.reason().as_str_name().trim_start_matches("WATCH_END_REASON_")),
    }
}

pub(super) async fn next(stream: &mut Streaming<WatchOrderResponse>) -> String {
    tell(&stream.message().await.expect("no error").expect("it goes on"))
}

pub(super) async fn rest(stream: &mut Streaming<WatchOrderResponse>) -> Vec<String> {
    let mut told = vec![];
    while let Some(message) = stream.message().await.expect("no error") {
        told.push(tell(&message));
    }
    told
}

pub(super) fn after(order: Uuid, after_version: i64) -> WatchOrderRequest {
    WatchOrderRequest { order_id: order.to_string(), after_version }
}

impl Fixture {
    pub(super) async fn watch(&self, order: Uuid, version: i64) -> Result<Streaming<WatchOrderResponse>, Status> {
        self.watch_as(self.kit.customer(CUSTOMER, after(order, version))).await
    }

    async fn watch_as(&self, request: Request<WatchOrderRequest>) -> Result<Streaming<WatchOrderResponse>, Status> {
        Ok(self.client.clone().watch_order(request).await?.into_inner())
    }

    /// What the job does when it is woken.
    async fn read(&self) {
        while read_changes(self.service.clone()).await.expect("read") == chassis::Next::AtOnce {}
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn the_state_comes_first_and_then_every_change(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let mut watch = fixture.watch(order, 0).await.expect("theirs");
    fixture.read().await;
    assert_eq!(next(&mut watch).await, "1 PENDING");
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.service.watched.changed([crate::ids::OrderId::new(order)]);
    fixture.read().await;
    let change = watch.message().await.expect("no error").expect("a change");
    let Some(Update::Change(change)) = change.update else { panic!("{change:?}") };
    assert_eq!(change.order.expect("after it"), fixture.order(order).await, "what GetOrder returns");

    // Two at once, of which there was no notification.
    fixture.kit.deliver(authorized(order)).await;
    fixture.kit.deliver(captured(order, 2_500)).await;
    fixture.service.watched.compare_now();
    fixture.read().await;
    assert_eq!(next(&mut watch).await, "3 OrderConfirmed CONFIRMED");
    assert_eq!(next(&mut watch).await, "4 OrderPaid CONFIRMED");

    fixture.fulfill(order, "f1").await.expect("paid");
    fixture.service.watched.compare_now();
    fixture.read().await;
    assert_eq!(rest(&mut watch).await, ["5 OrderFulfilled FULFILLED", "5 ORDER_ENDED"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_stream_is_resumed_after_any_version(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    fixture.kit.deliver(stock_reserved(order)).await;
    fixture.cancel(order, "c1").await.expect("reserved");
    let all = ["2 OrderReserved RESERVED", "3 OrderCancelled CANCELLED", "3 ORDER_ENDED"];
    for seen in 1..=3 {
        let mut watch = fixture.watch(order, seen).await.expect("theirs");
        fixture.read().await;
        assert_eq!(rest(&mut watch).await, all[usize::try_from(seen).expect("small") - 1..], "after {seen}");
    }
    // As a browser resumes a stream of server-sent events.
    let mut request = fixture.kit.customer(CUSTOMER, after(order, 1));
    request.metadata_mut().insert("last-event-id", "2".parse().expect("visible"));
    let mut watch = fixture.watch_as(request).await.expect("theirs");
    fixture.read().await;
    assert_eq!(rest(&mut watch).await, all[1..]);
    let mut watch = fixture.watch(order, 0).await.expect("theirs");
    fixture.read().await;
    assert_eq!(rest(&mut watch).await, ["3 CANCELLED", "3 ORDER_ENDED"]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn only_versions_that_the_order_has_are_resumed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let future = fixture.watch(order, 2).await.expect_err("there is one version");
    assert_eq!((future.code(), fields(&future)), (Code::InvalidArgument, vec!["after_version".to_owned()]));
    let negative = fixture.watch(order, -1).await.expect_err("no version");
    assert_eq!((negative.code(), fields(&negative)), (Code::InvalidArgument, vec!["after_version".to_owned()]));
    for odd in ["x", "-1", "1.5", ""] {
        let mut request = fixture.kit.customer(CUSTOMER, after(order, 0));
        request.metadata_mut().insert("last-event-id", odd.parse().expect("visible"));
        let odd = fixture.watch_as(request).await.expect_err("no version");
        assert_eq!((odd.code(), fields(&odd)), (Code::InvalidArgument, vec!["last-event-id".to_owned()]));
    }
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn people_watch_their_own_orders_and_operators_anybodys(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let stranger = fixture.kit.customer(Uuid::now_v7(), after(order, 0));
    let stranger = fixture.watch_as(stranger).await.expect_err("not theirs");
    assert_eq!((stranger.code(), reason(&stranger)), (Code::NotFound, "ORDER_NOT_FOUND@souk.order".into()));
    let nothing = fixture.watch(Uuid::now_v7(), 0).await.expect_err("no such order");
    assert_eq!(reason(&nothing), "ORDER_NOT_FOUND@souk.order");
    let anonymous = fixture.watch_as(Request::new(after(order, 0))).await.expect_err("no token");
    assert_eq!(reason(&anonymous), "TOKEN_MISSING@souk.order");
    let mut operator = fixture.watch_as(fixture.kit.operator(after(order, 0))).await.expect("an operator may");
    fixture.read().await;
    assert_eq!(next(&mut operator).await, "1 PENDING");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_silent_stream_is_kept_open_until_its_time_is_over(db: PgPool) {
    let times = Times { lifetime: Duration::from_secs(3), keep_alive: Duration::from_millis(100) };
    let fixture = Fixture::open_with(db, times).await;
    let order = fixture.place().await;
    let mut watch = fixture.watch(order, 1).await.expect("theirs");
    let told = rest(&mut watch).await;
    let (end, still) = told.split_last().expect("an end");
    assert_eq!(end, "1 RESUME");
    assert!((1..=30).contains(&still.len()) && still.iter().all(|it| it == "1 still"), "{still:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_stream_ends_with_its_session_and_when_the_replica_stops(db: PgPool) {
    let times = Times { keep_alive: Duration::from_millis(50), ..Times::default() };
    let fixture = Fixture::open_with(db, times).await;
    let order = fixture.place().await;
    let mut watch = fixture.watch(order, 1).await.expect("theirs");
    assert_eq!(next(&mut watch).await, "1 still");
    let session_id = Uuid::from_u128(CUSTOMER.as_u128() ^ 1);
    fixture.kit.context.verifier.set_revoked(Revoked { session_ids: vec![session_id] });
    let revoked = loop {
        match watch.message().await {
            Ok(message) => assert!(message.is_some(), "it ends with an error"),
            Err(status) => break status,
        }
    };
    assert_eq!(reason(&revoked), "TOKEN_REVOKED@souk.order");

    let mut watch = fixture.watch_as(fixture.kit.operator(after(order, 0))).await.expect("an operator may");
    fixture.read().await;
    // A slow machine keeps it open before there is anything to say.
    let state = loop {
        match next(&mut watch).await.as_str() {
            "0 still" => {}
            other => break other.to_owned(),
        }
    };
    assert_eq!(state, "1 PENDING");
    fixture.kit.context.streams.drain();
    let told = rest(&mut watch).await;
    assert_eq!(told.last().map(String::as_str), Some("1 RESUME"), "{told:?}");
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_client_that_leaves_is_noticed(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let (order, other) = (fixture.place().await, fixture.place().await);
    let mut gone = fixture.watch(order, 0).await.expect("theirs");
    let mut stays = fixture.watch(other, 0).await.expect("theirs");
    fixture.read().await;
    assert_eq!((next(&mut gone).await, next(&mut stays).await), ("1 PENDING".into(), "1 PENDING".into()));
    drop(gone);
    fixture.service.watched.until(|count| *count == 1).await;
    assert_eq!(fixture.service.watched.all(), [crate::ids::OrderId::new(other)]);
}

#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_user_has_so_many_streams_and_no_more(db: PgPool) {
    let fixture = Fixture::open(db).await;
    let order = fixture.place().await;
    let mut open = vec![];
    let refused = loop {
        match fixture.watch(order, 1).await {
            Ok(stream) => open.push(stream),
            Err(status) => break status,
        }
    };
    assert_eq!((refused.code(), reason(&refused)), (Code::ResourceExhausted, "STREAMS_EXHAUSTED@souk.order".into()));
    assert_eq!(open.len(), 50);
    fixture.watch_as(fixture.kit.operator(after(order, 1))).await.expect("of another user");
    drop(open);
    fixture.service.watched.until(|count| *count == 0).await;
    fixture.watch(order, 1).await.expect("there is room again");
}

/// Its queue is full for a while; what it missed is read again.
#[sqlx::test(migrator = "crate::MIGRATOR")]
async fn a_slow_client_gets_everything_later(db: PgPool) {
    let times = Times { keep_alive: Duration::from_secs(3_600), ..Times::default() };
    let fixture = Fixture::open_with(db, times).await;
    let order = fixture.place().await;
    for record in [stock_reserved(order), authorized(order), captured(order, 2_500)] {
        fixture.kit.deliver(record).await;
    }
    let mut watch = fixture.watch(order, 4).await.expect("theirs");
    for _ in 0..200 {
        fixture.refund_one(order).await;
    }
    let mut seen = 4;
    while seen < 204 {
        fixture.service.watched.compare_now();
        fixture.read().await;
        while seen < 204
            && let Ok(message) = tokio::time::timeout(Duration::from_millis(100), watch.message()).await
        {
            seen += 1;
            assert_eq!(
                tell(&message.expect("no error").expect("it goes on")),
                format!("{seen} OrderRefunded CONFIRMED")
            );
        }
    }
}
