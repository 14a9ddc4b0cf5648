//! `souk check --self-test`: each violation that is planted must be found, and nothing where none is.

use std::collections::{HashMap, HashSet};

use bus::{Replayed, Unreadable};
use chassis::Finding;
use chassis::config::Secret;
use inventory::check::Holding;
use order::check::End;
use payment::check::Books;
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use super::events::Streams;
use super::journal::{self, Attempt, Coverage, Outcome};
use super::money::{self, Theirs};
use super::plants::{Plant, all_plants};
use super::{Error, compare_stock};

/// Whether all was found.
pub(crate) async fn run(admin: &Secret) -> Result<bool, Error> {
    let mut all_found = true;
    let mut tell = |invariant: &str, what: &str, verdict: Verdict| {
        all_found &= matches!(verdict, Verdict::Found);
        match verdict {
            Verdict::Found => println!("{invariant:4}found   {what}"),
            Verdict::Missed => println!("{invariant:4}MISSED  {what}"),
            Verdict::Imagined(what_else) => {
                println!("{invariant:4}IMAGINED, before it was planted: {what}: {what_else}")
            }
        }
    };
    for plant in all_plants() {
        tell(plant.invariant, plant.what, try_plant(admin, &plant).await?);
    }
    for (what, sound, violated) in compared() {
        tell(sound.invariant, what, judge(&sound, &violated));
    }
    Ok(all_found)
}

enum Verdict {
    Found,
    Missed,
    /// Something that was sound was found wrong.
    Imagined(String),
}

fn judge(sound: &Finding, violated: &Finding) -> Verdict {
    match sound.violations.iter().next() {
        Some((thing, why)) => Verdict::Imagined(format!("{thing}: {why}")),
        None if violated.violations.is_empty() => Verdict::Missed,
        None => Verdict::Found,
    }
}

/// In a database that is made for it, and dropped whatever happens.
async fn try_plant(admin: &Secret, plant: &Plant) -> Result<Verdict, Error> {
    let failed = |error: sqlx::Error| Error::Scratch(error.to_string());
    let options: PgConnectOptions = admin.reveal().parse().map_err(failed)?;
    let mut server = PgConnection::connect_with(&options).await.map_err(failed)?;
    let name = format!("souk_self_test_{}", Uuid::now_v7().simple());
    server.execute(AssertSqlSafe(format!("create database {name}"))).await.map_err(failed)?;
    let db = PgPoolOptions::new().max_connections(2).connect_lazy_with(options.database(&name));
    let verdict = plant_and_look(&db, plant).await;
    db.close().await;
    server.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await.map_err(failed)?;
    server.close().await.map_err(failed)?;
    verdict
}

async fn plant_and_look(db: &PgPool, plant: &Plant) -> Result<Verdict, Error> {
    let migrated = plant.schema.migrator.run(db).await;
    migrated.map_err(|error| Error::Scratch(format!("{}: {error}", plant.schema.service)))?;
    let execute = async |statements: &[String]| {
        for statement in statements {
            let done = db.execute(AssertSqlSafe(statement.clone())).await;
            done.map_err(|error| Error::Scratch(format!("{}: {error}: {statement}", plant.what)))?;
        }
        Ok::<_, Error>(())
    };
    execute(&plant.sound).await?;
    let sound = (plant.look)(db.clone()).await?;
    execute(&plant.violation).await?;
    Ok(judge(&sound, &(plant.look)(db.clone()).await?))
}

/// What is compared over several places: the same, and what is wrong with it.
fn compared() -> Vec<(&'static str, Finding, Finding)> {
    [stock(), money(), told(), tried()].into_iter().flatten().collect()
}

fn stock() -> Vec<(&'static str, Finding, Finding)> {
    let order = Uuid::from_u128(1);
    let look = |end, held: Option<Holding>| {
        compare_stock(&HashMap::from([(order, end)]), &held.map(|holding| (order, holding)).into_iter().collect())
    };
    let (sold, called_off) = (|| look(End::Sold, Some(Holding::Sold)), || look(End::CalledOff, None));
    vec![
        ("a confirmed order whose stock is only held", sold(), look(End::Sold, Some(Holding::Held))),
        ("a confirmed order without stock", sold(), look(End::Sold, None)),
        ("stock that is held for nobody", called_off(), look(End::CalledOff, Some(Holding::Held))),
        ("stock that is sold to nobody", called_off(), look(End::CalledOff, Some(Holding::Sold))),
    ]
}

fn money() -> Vec<(&'static str, Finding, Finding)> {
    let order = Uuid::from_u128(1);
    let books = Books { authorized: 100, captured: 100, at_rest: true, ..Books::default() };
    let theirs = Theirs { authorized: 100, captured: 100, captures: 1, ..Theirs::default() };
    let look = |books: &Books, theirs: &Theirs, end| {
        let (ours, theirs) = (HashMap::from([(order, books.clone())]), HashMap::from([(order, theirs.clone())]));
        money::compare(&ours, &theirs, &HashMap::from([(order, end)]))
    };
    let sound = || look(&books, &theirs, End::Sold);
    let twice = Theirs { captures: 2, ..theirs.clone() };
    let other = Theirs { captured: 0, voided: 100, ..theirs.clone() };
    let held = Theirs { captured: 0, captures: 0, ..theirs.clone() };
    let busy = Books { at_rest: false, ..books.clone() };
    let unknown = money::compare(&HashMap::new(), &HashMap::from([(order, theirs.clone())]), &HashMap::new());
    vec![
        ("an order that was captured twice", sound(), look(&books, &twice, End::Sold)),
        ("books that are not the provider's", sound(), look(&books, &other, End::Sold)),
        ("money that was kept of an order that was called off", sound(), look(&books, &theirs, End::CalledOff)),
        ("such money that nobody gives back", sound(), look(&busy, &theirs, End::CalledOff)),
        (
            "money that is held for an order that was called off",
            sound(),
            look(&Books { captured: 0, ..busy.clone() }, &held, End::CalledOff),
        ),
        ("money that we know nothing of", sound(), unknown),
    ]
}

fn told() -> Vec<(&'static str, Finding, Finding)> {
    let key = Uuid::from_u128(1);
    let look = |recorded: i64, waiting: Option<i64>, told: &[i64]| compare((recorded, recorded), waiting, told);
    let sound = || look(3, None, &[1, 2, 3]);
    let mut of_nobody = Finding::new("I5", "souk.test.v1");
    let mut streams = Streams::new("souk.test.v1", Uuid::nil());
    streams.hear(Replayed::Event { key, version: 1 });
    streams.finish(&mut of_nobody);
    let mut unreadable = Finding::new("I5", "souk.test.v1");
    let mut streams = Streams::new("souk.test.v1", Uuid::nil());
    streams.hear(Replayed::Unreadable { partition: 0, offset: 7, why: Unreadable("ce_type") });
    streams.finish(&mut unreadable);
    vec![
        ("an event that was lost", sound(), look(3, None, &[1, 2])),
        ("one that was lost although it does not wait", look(3, Some(2), &[1]), look(3, Some(3), &[1])),
        ("one that was published and not recorded", look(3, Some(2), &[1, 2]), look(2, None, &[1, 2, 3])),
        ("events that were swapped", sound(), look(3, None, &[1, 3, 2])),
        ("a repeat that hides a gap", look(3, None, &[1, 1, 2, 1, 3]), look(3, None, &[1, 1, 3, 3])),
        ("an event of nobody", sound(), of_nobody),
        ("a record that is no event", sound(), unreadable),
    ]
}

/// One stream, as it was recorded before and after its topic was read.
pub(crate) fn compare((before, after): (i64, i64), waiting: Option<i64>, told: &[i64]) -> Finding {
    let (key, mut finding) = (Uuid::from_u128(1), Finding::new("I5", "souk.test.v1"));
    let mut streams = Streams::new("souk.test.v1", Uuid::nil());
    streams.begin(vec![(key, before)]);
    if let Some(first) = waiting {
        streams.waits(key, first);
    }
    for version in told {
        streams.hear(Replayed::Event { key, version: *version });
    }
    streams.recorded(key, after);
    streams.finish(&mut finding);
    finding
}

fn tried() -> Vec<(&'static str, Finding, Finding)> {
    let (order, other) = (Uuid::from_u128(1), Uuid::from_u128(2));
    let attempt = |key: &str, outcome, order_id| Attempt {
        attempt: Value::from(1),
        key: key.to_owned(),
        kind: "create".to_owned(),
        outcome,
        order_id,
    };
    let fine = || vec![attempt("k1", Outcome::Unknown, None), attempt("k1", Outcome::Ok, Some(order))];
    let orders = HashSet::from([order]);
    let both = HashSet::from([order, other]);
    let made = [("k1".to_owned(), order)];
    let once = |attempts: &[Attempt], made: &[(String, Uuid)], orders: &HashSet<Uuid>| {
        journal::check_once(attempts, made, orders, Coverage::Complete)
    };
    let sound = || once(&fine(), &made, &orders);
    let twice = [made[0].clone(), ("k1".to_owned(), other)];
    let refused = [attempt("k1", Outcome::Refused, None)];
    let elsewhere = [attempt("k1", Outcome::Ok, Some(other))];
    vec![
        (
            "an order that was acknowledged and is gone",
            journal::check_durable(&fine(), &orders),
            journal::check_durable(&fine(), &HashSet::new()),
        ),
        (
            "an acknowledgement of nothing",
            journal::check_durable(&fine(), &orders),
            journal::check_durable(&[attempt("k1", Outcome::Ok, None)], &orders),
        ),
        ("two orders under one key", sound(), once(&fine(), &twice, &both)),
        ("another answer under the same key", sound(), once(&elsewhere, &made, &orders)),
        ("an order that was refused and is there", sound(), once(&refused, &made, &orders)),
        ("an order that nobody tried to make", sound(), once(&fine(), &made, &both)),
    ]
}
