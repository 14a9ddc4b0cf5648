//! Consumes the events of orders: parses all, and adds them to the live projection as one set.

use std::time::Duration;

use chassis::event::{Due, HandleError, Handler, PartitionLag};
use contracts::event::Event as _;
use contracts::souk::order::v1::order_event::Event;
use sqlx::PgConnection;

use crate::service::Service;
use crate::{fact, project};

pub(crate) const TOPICS: &[&str] = &[Event::TOPIC];
/// All orders of a quarter of an hour share the rows of its sums: a transaction for several events writes them once.
const GATHERS_FOR: Duration = Duration::from_millis(250);

#[tonic::async_trait]
impl Handler for Service {
    fn wants(&self, event_type: &str) -> bool {
        Event::of_type(event_type).is_some_and(fact::counts)
    }

    async fn handle_all(&self, tx: &mut PgConnection, due: &[Due<'_>]) -> Result<(), HandleError> {
        let facts = due.iter().map(|due| fact::parse(due.record)).collect::<Result<Vec<_>, _>>()?;
        project::add_to_live(tx, &facts).await?;
        self.lag.handled(due.iter().map(|due| (due.record.partition, due.record.occurred_at)));
        Ok(())
    }

    fn gathers_for(&self) -> Duration {
        GATHERS_FOR
    }

    fn observe_lag(&self, partitions: &[PartitionLag]) {
        self.lag.observe(partitions);
    }
}
