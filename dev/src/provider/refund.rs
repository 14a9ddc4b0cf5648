//! A refund. Most succeed when they are made: the intent has said by then that so much is left.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::intent::IntentId;
use super::metadata::Metadata;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(super) struct RefundId(Uuid);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Refund {
    pub(super) id: RefundId,
    pub(super) intent: IntentId,
    /// Unix milliseconds.
    pub(super) created: u64,
    pub(super) amount: u64,
    pub(super) reason: Option<String>,
    pub(super) metadata: Metadata,
    #[serde(default)]
    pub(super) status: RefundStatus,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum RefundStatus {
    /// The money is on its way.
    Pending,
    #[default]
    Succeeded,
    Failed,
}

impl RefundId {
    pub(super) fn new() -> RefundId {
        RefundId(Uuid::now_v7())
    }

    pub(super) fn parse(id: &str) -> Option<RefundId> {
        id.strip_prefix("re_").and_then(|uuid| Uuid::try_parse(uuid).ok()).map(RefundId)
    }
}

impl fmt::Display for RefundId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "re_{}", self.0.simple())
    }
}

impl From<RefundId> for String {
    fn from(id: RefundId) -> String {
        id.to_string()
    }
}

impl TryFrom<String> for RefundId {
    type Error = String;

    fn try_from(id: String) -> Result<RefundId, String> {
        RefundId::parse(&id).ok_or_else(|| format!("{id} is not the id of a refund"))
    }
}
