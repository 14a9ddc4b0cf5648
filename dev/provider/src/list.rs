//! `GET /v1/payment_intents`: lists intents, newest first, in pages.

use std::ops::Range;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use crate::Provider;
use crate::command::parse_intent_id;
use crate::error::Error;
use crate::http::LARGEST_LIST;
use crate::intent::Intent;
use crate::ledger::Ledger;
use crate::params::Params;

/// How many refunds a charge includes, as at Stripe.
const REFUNDS_OF_A_CHARGE: usize = 10;

pub(crate) async fn list_intents(State(provider): State<Provider>, mut params: Params) -> Result<Json<Value>, Error> {
    let created = take_created(&mut params)?;
    let limit = params.take_count("limit", 1, LARGEST_LIST)?.unwrap_or(10) as usize;
    let after = params.take("starting_after").map(|id| parse_intent_id(id, "starting_after")).transpose()?;
    let expanded = params.take_one_of("expand[]", &["data.latest_charge", "data.latest_charge.refunds"])?;
    params.end()?;
    let ledger = provider.ledger();
    let all = ledger.intents();
    let place = |second: u64| all.partition_point(|intent| intent.created / 1_000 < second);
    let end = match after {
        Some(after) => ledger.index_of(after)?.min(place(created.end)),
        None => place(created.end),
    };
    let found = &all[place(created.start).min(end)..end];
    let page = &found[found.len().saturating_sub(limit)..];
    let data = page.iter().rev().map(|intent| match expanded.as_deref() {
        None => intent.to_json(),
        Some("data.latest_charge") => intent.to_json_with_charge(),
        Some(_) => with_refunds(intent, &ledger),
    });
    let (data, has_more) = (data.collect::<Vec<_>>(), page.len() < found.len());
    Ok(Json(json!({"object": "list", "data": data, "has_more": has_more, "url": "/v1/payment_intents"})))
}

/// The range of `created`, in Unix seconds.
fn take_created(params: &mut Params) -> Result<Range<u64>, Error> {
    let mut take = |param| params.take_count(param, 0, u64::MAX - 1);
    let (least, above) = (take("created[gte]")?, take("created[gt]")?.map(|second| second + 1));
    let (below, most) = (take("created[lt]")?, take("created[lte]")?.map(|second| second + 1));
    let start = least.max(above).unwrap_or(0);
    Ok(start..below.into_iter().chain(most).min().unwrap_or(u64::MAX))
}

fn with_refunds(intent: &Intent, ledger: &Ledger) -> Value {
    let mut json = intent.to_json_with_charge();
    if json["latest_charge"].is_object() {
        let mut refunds = ledger.refunds(intent.id).peekable();
        let some: Vec<_> = refunds.by_ref().take(REFUNDS_OF_A_CHARGE).map(|refund| refund.to_json(intent)).collect();
        let (has_more, url) = (refunds.peek().is_some(), format!("/v1/charges/{}/refunds", intent.id.charge()));
        json["latest_charge"]["refunds"] = json!({"object": "list", "data": some, "has_more": has_more, "url": url});
    }
    json
}
