//! Follow one order: its state, and then every change. Any replica serves it, whichever changes the order.
//!
//! What a replica watches is in [`Watched`]. One job reads the events of watched orders that changed, for all watchers at once
//! (`read`); it is woken by notifications (`notify`) and looks by itself each second, so a notification that is lost costs a
//! second and nothing else. Each watcher has a version up to which it has seen the order, so nothing is left out or repeated.

mod notify;
mod read;
mod watched;

use std::time::Duration;

use chassis::rpc::stream::{Left, ResponseStream, Sink};
use chassis::{Caller, Unexpected};
use contracts::souk::order::v1::watch_order_response::Update;
use contracts::souk::order::v1::{KeepAlive, WatchEnd, WatchEndReason, WatchOrderRequest, WatchOrderResponse};

use crate::error::Error;
use crate::ids::OrderId;
use crate::service::Service;
use crate::state::State;

pub(crate) use notify::{listen, notify_replicas};
pub(crate) use read::read_changes;
use watched::Watch;
pub(crate) use watched::Watched;

/// How long a stream is open, and after which silence a message keeps it open. The edge cuts it after two minutes of silence.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) lifetime: Duration,
    pub(crate) keep_alive: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Self { lifetime: Duration::from_secs(600), keep_alive: Duration::from_secs(15) }
    }
}

/// `last_event_id` is the header of that name, which has the version of the last event of a stream that was cut.
pub(crate) async fn watch(
    service: &Service,
    caller: &Caller,
    last_event_id: Option<&str>,
    request: WatchOrderRequest,
) -> Result<ResponseStream<WatchOrderResponse>, Error> {
    let order_id = OrderId::parse(&request.order_id).ok_or(Error::OrderNotFound)?;
    let last_seen = parse_event_id(last_event_id)?.max(request.after_version);
    let current = sqlx::query!(
        r#"select version, state as "state: State" from "order"
           where order_id = $1 and ($2::uuid is null or user_id = $2)"#,
        order_id as OrderId,
        caller.owner()?.filter(),
    );
    let current = current.fetch_optional(&service.db).await?.ok_or(Error::OrderNotFound)?;
    if last_seen > current.version {
        return Err(chassis::Error::field("after_version", format!("the order has version {}", current.version)).into());
    }
    let mut stream = Stream { times: service.watch_times, version: last_seen, known: current.version };
    if last_seen == current.version && current.state.has_ended() {
        return Ok(service.streams.begin(caller, |sink| async move { stream.end_order(&sink).await }));
    }
    let watch = service.watched.watch(order_id, (last_seen > 0).then_some(last_seen));
    Ok(service.streams.begin(caller, |sink| async move { stream.follow(&sink, watch).await }))
}

fn parse_event_id(header: Option<&str>) -> Result<i64, Error> {
    let version = header.map_or(Some(0), |text| text.parse().ok().filter(|version| *version >= 0));
    version.ok_or_else(|| chassis::Error::field("last-event-id", "must be a version of the order").into())
}

/// One stream of a caller.
#[derive(Debug)]
struct Stream {
    times: Times,
    /// What the caller has seen.
    version: i64,
    /// The version when the stream began: an order that had ended by then is shown up to it.
    known: i64,
}

impl Stream {
    async fn follow(&mut self, sink: &Sink<WatchOrderResponse>, mut watch: Watch) -> Result<(), Error> {
        let lifetime = tokio::time::sleep(self.times.lifetime);
        tokio::pin!(lifetime);
        loop {
            let sent = tokio::select! {
                update = watch.next() => {
                    let update = update.ok_or_else(|| Unexpected::Broken("a watched order cannot be read".to_owned()))?;
                    sink.check_session()?;
                    self.version = update.version;
                    let ended = update.version >= self.known && has_ended(&update);
                    let sent = sink.send(update).await;
                    if ended {
                        return self.end_order(sink).await;
                    }
                    sent
                }
                () = tokio::time::sleep(self.times.keep_alive) => {
                    sink.check_session()?;
                    self.send(sink, Update::KeepAlive(KeepAlive {})).await
                }
                () = &mut lifetime => return self.end(sink, WatchEndReason::Resume).await,
                () = sink.stopping() => return self.end(sink, WatchEndReason::Resume).await,
                () = sink.left() => Err(Left),
            };
            if sent.is_err() {
                return Ok(());
            }
        }
    }

    async fn end_order(&self, sink: &Sink<WatchOrderResponse>) -> Result<(), Error> {
        self.end(sink, WatchEndReason::OrderEnded).await
    }

    async fn end(&self, sink: &Sink<WatchOrderResponse>, reason: WatchEndReason) -> Result<(), Error> {
        let _left = self.send(sink, Update::End(WatchEnd { reason: reason.into() })).await;
        Ok(())
    }

    async fn send(&self, sink: &Sink<WatchOrderResponse>, update: Update) -> Result<(), Left> {
        sink.send(WatchOrderResponse { version: self.version, update: Some(update) }).await
    }
}

/// Whether the order has ended with this message.
fn has_ended(message: &WatchOrderResponse) -> bool {
    let order = match &message.update {
        Some(Update::Order(order)) => Some(order),
        Some(Update::Change(change)) => change.order.as_ref(),
        Some(Update::KeepAlive(_) | Update::End(_)) | None => None,
    };
    order.and_then(|order| State::of_proto(order.state())).is_some_and(State::has_ended)
}
