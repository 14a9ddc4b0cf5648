//! The calls that a policy refuses: counted, and logged with who called.
//!
//! Every refusal is counted, but callers decide how many there are, so only [`PER_SECOND`] of each kind are logged. The edge refuses
//! most tokens itself: at a role, refused ones are rare but for sessions that have just ended. That a caller may not call an RPC is a
//! client's mistake or an attempt; such lines have a limit of their own, which refused tokens do not use up.

use std::sync::LazyLock;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use tonic::Status;

use crate::boot::log_limit::LogLimit;
use crate::boot::metrics::{self, ByReason};
use crate::rpc::error::{Error, to_status};
use crate::tls::Party;

const PER_SECOND: u32 = 10;

static REFUSED: LazyLock<Family<ByReason, Counter>> = LazyLock::new(|| {
    metrics::register("rpc_refused", "Calls that the policy of their RPC refused, by reason", Family::default())
});

/// A call that its policy refuses.
pub(crate) struct RefusedCall<'a> {
    pub(crate) rpc: &'a str,
    /// At the other end of the connection.
    pub(crate) party: Option<&'a Party>,
    /// Such as `user:01a2…`, if the call has a valid token.
    pub(crate) actor: Option<String>,
}

/// Of one server.
#[derive(Debug)]
pub(crate) struct RefusalLog {
    denied: LogLimit,
    tokens: LogLimit,
}

impl RefusalLog {
    pub(crate) fn new() -> Self {
        Self { denied: LogLimit::new(PER_SECOND), tokens: LogLimit::new(PER_SECOND) }
    }

    /// Counts and logs the call, and gives its response.
    pub(crate) fn refuse(&self, call: RefusedCall<'_>, error: Error, domain: &str) -> Status {
        let (is_denied, why) = (matches!(error, Error::PermissionDenied), error.to_string());
        let explained = error.explain();
        if let Ok(refusal) = &explained {
            let RefusedCall { rpc, party, actor } = call;
            let (reason, party) = (refusal.reason(), party.map(Party::name));
            REFUSED.get_or_create(&ByReason::new(reason)).inc();
            if !is_denied && let Some(left_out) = self.tokens.admit() {
                tracing::info!(rpc, reason, party, left_out, "a call was refused: {why}");
            } else if is_denied && let Some(left_out) = self.denied.admit() {
                tracing::warn!(rpc, reason, party, actor, left_out, "a call was refused: {why}");
            }
        }
        to_status(explained, domain)
    }
}
