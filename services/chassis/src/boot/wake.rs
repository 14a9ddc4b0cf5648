//! Starts the next unit of a job before its pause is over.

use std::sync::Arc;

use tokio::sync::Notify;

/// Wakes a job that waits for work. Call it right after the commit.
#[derive(Debug, Clone, Default)]
pub struct Wake(Arc<Notify>);

impl Wake {
    pub fn wake(&self) {
        self.0.notify_one();
    }

    pub async fn woken(&self) {
        self.0.notified().await;
    }
}
