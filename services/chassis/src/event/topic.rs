//! Reading a topic again from its beginning, beside the consumer, such as to rebuild what a service made of its events.

use std::sync::{Arc, OnceLock};

use crate::event::consumer::Record;
use crate::rpc::error::Unexpected;

/// A topic that can be read again. The crate `bus` reads it from Kafka.
#[tonic::async_trait]
pub trait Topic: Send + Sync {
    /// Begins at the oldest records.
    async fn open(&self) -> Result<Box<dyn Reading>, Unexpected>;
}

/// One reading of a topic. What it returns is bounded, in number and time.
#[tonic::async_trait]
pub trait Reading: Send + Sync {
    /// Looks where the topic ends now: `next` reads up to there.
    async fn look_for_end(&mut self) -> Result<(), Unexpected>;

    /// The next records, those of one partition in their order. Empty when the end was reached. Records that are no events
    /// are left out. After an error it can be called again.
    async fn next(&mut self) -> Result<Vec<Record>, Unexpected>;

    fn progress(&self) -> Progress;
}

/// How many records were read, of how many that the topic had when its end was looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Progress {
    pub read: i64,
    pub total: i64,
}

/// Where a service finds its topic. It is empty until the process is attached to the brokers.
#[derive(Clone, Default)]
pub struct TopicSlot(Arc<OnceLock<Arc<dyn Topic>>>);

impl TopicSlot {
    pub fn get(&self) -> Option<&Arc<dyn Topic>> {
        self.0.get()
    }

    /// The first one stays.
    pub fn fill(&self, topic: Arc<dyn Topic>) {
        let _ = self.0.set(topic);
    }
}
