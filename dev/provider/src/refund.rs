//! A refund. Most succeed when they are created, as the intent has checked the amount by then.

use std::fmt;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::intent::IntentId;
use crate::metadata::Metadata;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub(crate) struct RefundId(pub(crate) Uuid);

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Refund {
    pub(crate) id: RefundId,
    pub(crate) intent: IntentId,
    /// Unix milliseconds.
    pub(crate) created: u64,
    pub(crate) amount: u64,
    pub(crate) reason: Option<String>,
    pub(crate) metadata: Metadata,
    #[serde(default)]
    pub(crate) status: RefundStatus,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) failure_reason: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum RefundStatus {
    Pending,
    /// The customer must act first.
    RequiresAction,
    #[default]
    Succeeded,
    Failed,
    Canceled,
}

impl RefundStatus {
    const ALL: [RefundStatus; 5] = [
        RefundStatus::Pending,
        RefundStatus::RequiresAction,
        RefundStatus::Succeeded,
        RefundStatus::Failed,
        RefundStatus::Canceled,
    ];

    pub(crate) fn parse(name: &str) -> Option<RefundStatus> {
        RefundStatus::ALL.into_iter().find(|status| status.name() == name)
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            RefundStatus::Pending => "pending",
            RefundStatus::RequiresAction => "requires_action",
            RefundStatus::Succeeded => "succeeded",
            RefundStatus::Failed => "failed",
            RefundStatus::Canceled => "canceled",
        }
    }

    pub(crate) fn is_pending(self) -> bool {
        matches!(self, RefundStatus::Pending | RefundStatus::RequiresAction)
    }

    /// A refund that succeeded may fail later; `failed` and `canceled` are final.
    pub(crate) fn may_become(self, next: RefundStatus) -> bool {
        self != next && (self.is_pending() || (self, next) == (RefundStatus::Succeeded, RefundStatus::Failed))
    }
}

impl RefundId {
    pub(crate) fn new() -> RefundId {
        RefundId(Uuid::now_v7())
    }

    pub(crate) fn parse(id: &str) -> Option<RefundId> {
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
