//! All intents that were created in a time, ours and others, in pages.

use std::ops::Range;

use reqwest::Method;
use serde::Deserialize;

use super::wire::{About, Subject};
use super::{CallError, Intent, Response, Stripe, encode};

/// A page of intents, newest first.
#[derive(Debug, Deserialize)]
pub(crate) struct Intents {
    data: Vec<Listed>,
    has_more: bool,
}

#[derive(Debug, Deserialize)]
struct Listed {
    created: u64,
    #[serde(flatten)]
    intent: Intent,
}

impl Intents {
    /// Behind which intent the next page begins, if there is one.
    pub(crate) fn next(&self) -> Option<&str> {
        self.data.last().filter(|_| self.has_more).map(|last| last.intent.id.as_str())
    }

    pub(crate) fn into_vec(self) -> Vec<Intent> {
        self.data.into_iter().map(|listed| listed.intent).collect()
    }
}

impl Subject for Intents {
    fn is(&self, about: About<'_>) -> bool {
        matches!(about, About::Created(seconds) if self.data.iter().all(|listed| seconds.contains(&listed.created)))
    }
}

impl Stripe {
    /// Those that were created in these seconds, with their charges and the refunds of these: a page of them, behind the
    /// intent `after`.
    pub(crate) async fn list_intents(
        &self,
        created: &Range<u64>,
        after: Option<&str>,
    ) -> Result<Response<Intents>, CallError> {
        let before = if created.end < u64::MAX { format!("&created%5Blt%5D={}", created.end) } else { String::new() };
        let after = after.map_or_else(String::new, |after| format!("&starting_after={}", encode(after)));
        let path = format!(
            "/v1/payment_intents?limit=100&expand%5B%5D=data.latest_charge.refunds&created%5Bgte%5D={}{before}{after}",
            created.start
        );
        let request = self.call(Method::GET, &path);
        self.send("list", request, About::Created(created)).await
    }
}
