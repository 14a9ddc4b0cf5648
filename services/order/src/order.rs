//! The aggregate: what an order is, which steps are legal, and how it is loaded and saved.

use chassis::timestamp;
use chassis::{Owner, Unexpected};
use contracts::event::Event as _;
use contracts::souk::order::v1 as proto;
use contracts::souk::r#type::v1::Money;
use sqlx::PgConnection;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Error;
use crate::event::Fact;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    Pending,
    Reserved,
    Confirmed,
    Fulfilled,
    Rejected,
    PaymentFailed,
    Cancelled,
    Expired,
}

/// How an order stands. The lines are beside it, as most steps need none.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Order {
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) state: State,
    pub(crate) version: i64,
    pub(crate) currency: String,
    pub(crate) total_minor: i64,
    pub(crate) payment_method: String,
    pub(crate) payment_id: Option<Uuid>,
    pub(crate) captured: bool,
    pub(crate) refunded_minor: i64,
    pub(crate) exit_reason: String,
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) product_id: Uuid,
    pub(crate) sku: String,
    pub(crate) title: String,
    pub(crate) quantity: i32,
    pub(crate) price_minor: i64,
}

impl State {
    pub(crate) const ALL: [Self; 8] = [
        Self::Pending,
        Self::Reserved,
        Self::Confirmed,
        Self::Fulfilled,
        Self::Rejected,
        Self::PaymentFailed,
        Self::Cancelled,
        Self::Expired,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Reserved => "RESERVED",
            Self::Confirmed => "CONFIRMED",
            Self::Fulfilled => "FULFILLED",
            Self::Rejected => "REJECTED",
            Self::PaymentFailed => "PAYMENT_FAILED",
            Self::Cancelled => "CANCELLED",
            Self::Expired => "EXPIRED",
        }
    }

    pub(crate) fn parse(name: &str) -> Result<Self, Unexpected> {
        let found = Self::ALL.into_iter().find(|state| state.name() == name);
        found.ok_or_else(|| Unexpected::Broken(format!("{name} is no state of an order")))
    }

    pub(crate) fn to_proto(self) -> proto::OrderState {
        match self {
            Self::Pending => proto::OrderState::Pending,
            Self::Reserved => proto::OrderState::Reserved,
            Self::Confirmed => proto::OrderState::Confirmed,
            Self::Fulfilled => proto::OrderState::Fulfilled,
            Self::Rejected => proto::OrderState::Rejected,
            Self::PaymentFailed => proto::OrderState::PaymentFailed,
            Self::Cancelled => proto::OrderState::Cancelled,
            Self::Expired => proto::OrderState::Expired,
        }
    }

    /// Where a fact leads from here; none if it is not legal. Whatever wants to change an order comes through this.
    pub(crate) fn after(self, fact: &Fact) -> Option<Self> {
        use State::{Cancelled, Confirmed, Expired, Fulfilled, PaymentFailed, Pending, Rejected, Reserved};
        match (self, fact) {
            (Pending, Fact::Reserved) => Some(Reserved),
            (Pending, Fact::Rejected { .. }) => Some(Rejected),
            (Reserved, Fact::Confirmed { .. }) => Some(Confirmed),
            (Reserved | Confirmed, Fact::PaymentFailed { .. }) => Some(PaymentFailed),
            (Confirmed, Fact::Paid { .. }) => Some(Confirmed),
            (Confirmed, Fact::Fulfilled { .. }) => Some(Fulfilled),
            (Pending | Reserved | Confirmed, Fact::Cancelled { .. }) => Some(Cancelled),
            (Pending | Reserved, Fact::Expired) => Some(Expired),
            (
                Confirmed | Fulfilled | PaymentFailed | Cancelled | Expired,
                Fact::Refunded { .. } | Fact::RefundFailed { .. },
            ) => Some(self),
            _ => None,
        }
    }
}

impl Order {
    /// What a fact changes. The first one, that it was placed, is how an order begins.
    pub(crate) fn apply(&mut self, fact: &Fact, at: OffsetDateTime) -> Result<(), Error> {
        let illegal = || Error::StepIllegal { state: self.state, event_type: fact.to_event(self, &[]).event_type() };
        self.state = self.state.after(fact).ok_or_else(illegal)?;
        self.version += 1;
        self.updated_at = at;
        match fact {
            Fact::Reserved | Fact::Expired => {}
            Fact::Rejected { reason, .. } | Fact::PaymentFailed { reason } => self.exit_reason.clone_from(reason),
            Fact::Cancelled { reason } => self.exit_reason = reason.as_str_name().to_owned(),
            Fact::Confirmed { payment_id } => self.payment_id = Some(*payment_id),
            Fact::Paid { payment_id } => {
                self.payment_id = Some(*payment_id);
                self.captured = true;
            }
            Fact::Refunded { payment_id, minor } => {
                self.payment_id = Some(*payment_id);
                self.refunded_minor += minor;
            }
            Fact::RefundFailed { minor, .. } => self.refunded_minor -= minor,
            Fact::Fulfilled { carrier, tracking_number } => {
                self.carrier.clone_from(carrier);
                self.tracking_number.clone_from(tracking_number);
            }
        }
        if *fact == Fact::Expired {
            self.exit_reason = "DEADLINE_PASSED".to_owned();
        }
        Ok(())
    }

    pub(crate) fn total(&self) -> Money {
        Money::new(self.currency.clone(), self.total_minor)
    }

    /// Ownership is in the query: somebody else's order is not there.
    pub(crate) async fn find(db: &mut PgConnection, order_id: Uuid, owner: Owner) -> Result<Option<Self>, Error> {
        let row = sqlx::query_as!(
            Row,
            r#"select order_id, user_id, state, version, currency, total_minor, payment_method, payment_id, captured,
                 refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at
               from "order" where order_id = $1 and ($2::uuid is null or user_id = $2)"#,
            order_id,
            owner.filter(),
        )
        .fetch_optional(db)
        .await?;
        Ok(row.map(Row::into_order).transpose()?)
    }

    pub(crate) async fn lock(db: &mut PgConnection, order_id: Uuid, owner: Owner) -> Result<Option<Self>, Error> {
        let row = sqlx::query_as!(
            Row,
            r#"select order_id, user_id, state, version, currency, total_minor, payment_method, payment_id, captured,
                 refunded_minor, exit_reason, carrier, tracking_number, expires_at, created_at, updated_at
               from "order" where order_id = $1 and ($2::uuid is null or user_id = $2) for no key update"#,
            order_id,
            owner.filter(),
        )
        .fetch_optional(db)
        .await?;
        Ok(row.map(Row::into_order).transpose()?)
    }

    /// Locks several orders, in the order of their ids.
    pub(crate) async fn lock_all(db: &mut PgConnection, order_ids: &[Uuid]) -> Result<(), sqlx::Error> {
        sqlx::query!(
            r#"select order_id from "order" where order_id = any($1) order by order_id for no key update"#,
            order_ids,
        )
        .fetch_all(db)
        .await?;
        Ok(())
    }

    pub(crate) async fn insert(&self, db: &mut PgConnection, lines: &[Line]) -> Result<(), Error> {
        let product_ids: Vec<_> = lines.iter().map(|line| line.product_id).collect();
        let skus: Vec<_> = lines.iter().map(|line| line.sku.clone()).collect();
        let titles: Vec<_> = lines.iter().map(|line| line.title.clone()).collect();
        let quantities: Vec<_> = lines.iter().map(|line| line.quantity).collect();
        let prices: Vec<_> = lines.iter().map(|line| line.price_minor).collect();
        sqlx::query!(
            r#"with placed as (
                 insert into "order"
                   (order_id, user_id, state, version, currency, total_minor, payment_method, captured, refunded_minor,
                    exit_reason, carrier, tracking_number, expires_at, created_at, updated_at)
                 values ($1, $2, $3, $4, $5, $6, $7, false, 0, '', '', '', $8, $9, $9)
               )
               insert into order_line (order_id, line, product_id, sku, title, quantity, price_minor)
               select $1, line, product_id, sku, title, quantity, price_minor
               from unnest($10::uuid[], $11::text[], $12::text[], $13::integer[], $14::bigint[])
                 with ordinality as asked (product_id, sku, title, quantity, price_minor, line)"#,
            self.order_id,
            self.user_id,
            self.state.name(),
            self.version,
            self.currency,
            self.total_minor,
            self.payment_method,
            self.expires_at,
            self.created_at,
            &product_ids,
            &skus,
            &titles,
            &quantities,
            &prices,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) async fn save(&self, db: &mut PgConnection) -> Result<(), Error> {
        sqlx::query!(
            r#"update "order" set state = $2, version = $3, payment_id = $4, captured = $5, refunded_minor = $6,
                 exit_reason = $7, carrier = $8, tracking_number = $9, updated_at = $10
               where order_id = $1"#,
            self.order_id,
            self.state.name(),
            self.version,
            self.payment_id,
            self.captured,
            self.refunded_minor,
            self.exit_reason,
            self.carrier,
            self.tracking_number,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) async fn lines(db: &mut PgConnection, order_id: Uuid) -> Result<Vec<Line>, sqlx::Error> {
        sqlx::query_as!(
            Line,
            "select product_id, sku, title, quantity, price_minor from order_line where order_id = $1 order by line",
            order_id,
        )
        .fetch_all(db)
        .await
    }

    pub(crate) fn to_proto(&self, lines: &[Line]) -> proto::Order {
        let shipped = !self.carrier.is_empty();
        let shipment =
            || proto::Shipment { carrier: self.carrier.clone(), tracking_number: self.tracking_number.clone() };
        proto::Order {
            order_id: self.order_id.to_string(),
            user_id: self.user_id.to_string(),
            state: self.state.to_proto().into(),
            items: lines.iter().map(|line| line.to_proto(&self.currency)).collect(),
            total: Some(self.total()),
            version: self.version,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            expire_time: Some(timestamp(self.expires_at)),
            payment: Some(proto::OrderPayment {
                payment_id: self.payment_id.map(|id| id.to_string()).unwrap_or_default(),
                captured: self.captured,
                refunded_minor: self.refunded_minor,
            }),
            shipment: shipped.then(shipment),
            exit_reason: self.exit_reason.clone(),
        }
    }
}

impl Line {
    pub(crate) fn to_proto(&self, currency: &str) -> proto::OrderLine {
        proto::OrderLine {
            product_id: self.product_id.to_string(),
            quantity: self.quantity,
            sku: self.sku.clone(),
            title: self.title.clone(),
            unit_price: Some(Money::new(currency, self.price_minor)),
        }
    }
}

/// The row as it stands in the table.
pub(crate) struct Row {
    pub(crate) order_id: Uuid,
    pub(crate) user_id: Uuid,
    pub(crate) state: String,
    pub(crate) version: i64,
    pub(crate) currency: String,
    pub(crate) total_minor: i64,
    pub(crate) payment_method: String,
    pub(crate) payment_id: Option<Uuid>,
    pub(crate) captured: bool,
    pub(crate) refunded_minor: i64,
    pub(crate) exit_reason: String,
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
    pub(crate) expires_at: OffsetDateTime,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

impl Row {
    pub(crate) fn into_order(self) -> Result<Order, chassis::Error> {
        Ok(Order {
            order_id: self.order_id,
            user_id: self.user_id,
            state: State::parse(&self.state)?,
            version: self.version,
            currency: self.currency,
            total_minor: self.total_minor,
            payment_method: self.payment_method,
            payment_id: self.payment_id,
            captured: self.captured,
            refunded_minor: self.refunded_minor,
            exit_reason: self.exit_reason,
            carrier: self.carrier,
            tracking_number: self.tracking_number,
            expires_at: self.expires_at,
            created_at: self.created_at,
            updated_at: self.updated_at,
        })
    }
}

#[cfg(test)]
mod tests {
    use contracts::souk::order::v1::CancelReason;

    use super::*;

    /// A row for each state, a column for each fact in the order below: the state after it, or a dot where it is illegal.
    #[test]
    fn these_steps_are_legal_and_no_others() {
        let (payment_id, text) = (Uuid::from_u128(7), String::new);
        let facts = [
            Fact::Reserved,
            Fact::Rejected { reason: text(), skus: vec![] },
            Fact::Confirmed { payment_id },
            Fact::Paid { payment_id },
            Fact::PaymentFailed { reason: text() },
            Fact::Fulfilled { carrier: text(), tracking_number: text() },
            Fact::Cancelled { reason: CancelReason::CustomerRequest },
            Fact::Expired,
            Fact::Refunded { payment_id, minor: 1 },
            Fact::RefundFailed { payment_id, minor: 1, reason: text() },
        ];
        let table = [
            "RESERVED REJECTED . . . . CANCELLED EXPIRED . .",
            ". . CONFIRMED . PAYMENT_FAILED . CANCELLED EXPIRED . .",
            ". . . CONFIRMED PAYMENT_FAILED FULFILLED CANCELLED . CONFIRMED CONFIRMED",
            ". . . . . . . . FULFILLED FULFILLED",
            ". . . . . . . . . .",
            ". . . . . . . . PAYMENT_FAILED PAYMENT_FAILED",
            ". . . . . . . . CANCELLED CANCELLED",
            ". . . . . . . . EXPIRED EXPIRED",
        ];
        for (state, row) in State::ALL.into_iter().zip(table) {
            let after: Vec<_> = facts.iter().map(|fact| state.after(fact).map_or(".", State::name)).collect();
            assert_eq!(after.join(" "), row, "{state:?}");
        }
    }
}
