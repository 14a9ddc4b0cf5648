//! I11: scans every text, document and binary column of every database, and every key, value and header of every topic, for
//! card numbers, password hashes, tokens and e-mail addresses. It never prints what it found.

mod pattern;

use std::collections::{BTreeMap, HashSet};

use bus::Brokers;
use chassis::Unexpected;
use chassis::check::Finding;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{FulfillOrderResponse, OrderEvent, OrderFulfilled, OrderPartlyFulfilled};
use futures_util::TryStreamExt;
use prost::Message;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool, Row};

use pattern::{Secret, find};

use crate::{Error, progress};

pub(crate) struct Scan {
    pub(crate) finding: Finding,
    /// The number of values, by database and table, or by topic.
    pub(crate) scanned: BTreeMap<String, BTreeMap<String, u64>>,
    refresh_hashes: HashSet<[u8; 8]>,
}

impl Default for Scan {
    /// Without the hashes of refresh tokens, which are then not recognised.
    fn default() -> Self {
        Self { finding: Finding::new("I11", "values"), scanned: BTreeMap::new(), refresh_hashes: HashSet::new() }
    }
}

impl Scan {
    /// Reads the hashes of refresh tokens from the user service's database, to recognise tokens elsewhere.
    pub(crate) async fn begin(user: &PgPool) -> Result<Self, Unexpected> {
        Ok(Self { refresh_hashes: user::check::refresh_hashes(user).await?, ..Self::default() })
    }

    /// All tables of a service.
    pub(crate) async fn database(&mut self, service: &str, db: &PgPool) -> Result<(), Unexpected> {
        let mut session = PgConnection::connect_with(&db.connect_options()).await?;
        // The tables may be large.
        sqlx::query!("set statement_timeout = 0").execute(&mut session).await?;
        let tables = sqlx::query!(
            r#"select quote_ident(table_name) as "table!", array_agg(quote_ident(column_name) order by ordinal_position) as "columns!",
                 array_agg(column_name::text order by ordinal_position) as "names!",
                 array_agg(data_type = 'bytea' order by ordinal_position) as "binary!"
               from information_schema.columns
               where table_schema = 'public' and table_name <> '_sqlx_migrations'
                 and data_type in ('text', 'character varying', 'character', 'json', 'jsonb', 'bytea', 'ARRAY')
               group by table_name order by table_name"#,
        );
        for table in tables.fetch_all(&mut session).await? {
            let columns = table.columns.iter().zip(&table.binary).map(|(column, is_binary)| {
                if *is_binary { column.clone() } else { format!("convert_to({column}::text, 'UTF8')") }
            });
            // The names come from the catalogue, quoted.
            let sql = format!("select {} from {}", columns.collect::<Vec<_>>().join(", "), table.table);
            let mut rows = sqlx::query(AssertSqlSafe(sql)).fetch(&mut session);
            let name = table.table.trim_matches('"');
            progress::set(format!("I11, secrets: {service} {name}"));
            self.scanned.entry(service.to_owned()).or_default().entry(name.to_owned()).or_default();
            while let Some(row) = rows.try_next().await? {
                for (at, column) in table.names.iter().enumerate() {
                    if let Some(value) = row.try_get::<Option<&[u8]>, _>(at)? {
                        self.scan(service, name, column, value);
                    }
                }
            }
        }
        Ok(session.close().await?)
    }

    /// Keys, values and headers of a topic.
    pub(crate) async fn topic(mut self, kafka: &Brokers, topic: &'static str) -> Result<Self, Error> {
        progress::set(format!("I11, secrets: {topic}"));
        let kafka = kafka.clone();
        let read = tokio::task::spawn_blocking(move || {
            self.scanned.entry("topics".to_owned()).or_default().entry(topic.to_owned()).or_default();
            let read = bus::scan(&kafka, topic, |value| self.scan("topics", topic, "record", value));
            read.map(|()| self)
        });
        Ok(read.await.map_err(|error| Unexpected::Broken(format!("reading {topic}: {error}")))??)
    }

    fn scan(&mut self, place: &str, table: &str, column: &str, value: &[u8]) {
        self.finding.checked += 1;
        *self.scanned.entry(place.to_owned()).or_default().entry(table.to_owned()).or_default() += 1;
        for secret in find(value, &self.refresh_hashes) {
            let is_tracking_number = || secret == Secret::CardNumber && !has_other_card_number(value);
            if !may_be_in(secret, place, table, column) && !is_tracking_number() {
                let column = format!("{place} {table}.{column}");
                let why = format!("it contains what looks like {}", secret.name());
                self.finding.violations.insert(column, why);
            }
        }
    }
}

fn may_be_in(secret: Secret, place: &str, table: &str, column: &str) -> bool {
    match secret {
        Secret::PasswordHash => (place, table, column) == ("user", "account", "password_hash"),
        Secret::Email => place == "user" || (place, table) == ("order", "order_shipping_address"),
        // Carriers number their parcels as they like, some with as many digits and the same check digit as cards.
        Secret::CardNumber => place == "order" && column == "tracking_number",
        Secret::AccessToken | Secret::RefreshToken => false,
    }
}

/// Whether there is a card number beside the tracking numbers of a message.
fn has_other_card_number(value: &[u8]) -> bool {
    let mut rest = value.to_vec();
    for number in tracking_numbers(value).iter().filter(|number| !number.is_empty()) {
        while let Some(at) = rest.windows(number.len()).position(|window| window == number.as_bytes()) {
            rest[at..at + number.len()].fill(0);
        }
    }
    find(&rest, &HashSet::new()).contains(&Secret::CardNumber)
}

/// Those of the messages that have some: events of orders, and stored responses, which have the order in the same field.
fn tracking_numbers(value: &[u8]) -> Vec<String> {
    let event = OrderEvent::decode(value).ok().and_then(|order| order.event);
    let order = FulfillOrderResponse::decode(value).ok().and_then(|response| response.order);
    let sent = match event {
        Some(
            Event::OrderFulfilled(OrderFulfilled { tracking_number, .. })
            | Event::OrderPartlyFulfilled(OrderPartlyFulfilled { tracking_number, .. }),
        ) => Some(tracking_number),
        _ => None,
    };
    let shipments = order.into_iter().flat_map(|order| order.shipments.into_iter().chain(order.shipment));
    sent.into_iter().chain(shipments.map(|shipment| shipment.tracking_number)).collect()
}
