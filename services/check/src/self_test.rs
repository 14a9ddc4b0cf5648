//! `souk check --self-test`: each violation that is planted must be found, and nothing where none is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use bus::{Replayed, Unreadable};
use chassis::boot::config::Secret;
use chassis::boot::db::Schema;
use chassis::check::{Excuses, Finding};
use inventory::check::Holding;
use order::check::End;
use payment::check::{Books, Movements};
use serde_json::Value;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, Connection, Executor, PgConnection, PgPool};
use uuid::Uuid;

use super::events::Streams;
use super::journal::{self, Attempt, Outcome};
use super::plants::{Plant, all_plants};
use super::walk::{compare_refunds, compare_stock};
use super::{Error, money};

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
        tell(sound.invariant, what, judge(&sound, &violated, 1));
    }
    Ok(all_found)
}

enum Verdict {
    Found,
    Missed,
    /// Something that was sound was found wrong.
    Imagined(String),
}

/// `wrong`: how many things.
fn judge(sound: &Finding, violated: &Finding, wrong: usize) -> Verdict {
    match sound.violations.iter().next() {
        Some((thing, why)) => Verdict::Imagined(format!("{thing}: {why}")),
        None if violated.violations.len() < wrong => Verdict::Missed,
        None => Verdict::Found,
    }
}

async fn try_plant(admin: &Secret, plant: &Plant) -> Result<Verdict, Error> {
    scratch(admin, plant.schema, async |db| plant_and_look(db, plant).await).await
}

/// In a database that is made for it, and dropped whatever happens.
pub(crate) async fn scratch<T>(
    admin: &Secret,
    schema: &Schema,
    work: impl AsyncFnOnce(&PgPool) -> Result<T, Error>,
) -> Result<T, Error> {
    let failed = |error: sqlx::Error| Error::Scratch(error.to_string());
    let options: PgConnectOptions = admin.reveal().parse().map_err(failed)?;
    let mut server = PgConnection::connect_with(&options).await.map_err(failed)?;
    let name = format!("souk_self_test_{}", Uuid::now_v7().simple());
    server.execute(AssertSqlSafe(format!("create database {name}"))).await.map_err(failed)?;
    let db = PgPoolOptions::new().max_connections(2).connect_lazy_with(options.database(&name));
    let migrated = schema.migrator.run(&db).await;
    let outcome = match migrated {
        Ok(()) => work(&db).await,
        Err(error) => Err(Error::Scratch(format!("{}: {error}", schema.service))),
    };
    db.close().await;
    server.execute(AssertSqlSafe(format!("drop database {name} with (force)"))).await.map_err(failed)?;
    server.close().await.map_err(failed)?;
    outcome
}

async fn plant_and_look(db: &PgPool, plant: &Plant) -> Result<Verdict, Error> {
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
    Ok(judge(&sound, &(plant.look)(db.clone()).await?, plant.wrong))
}

/// What is compared over several places: the same, and what is wrong with it.
fn compared() -> Vec<(&'static str, Finding, Finding)> {
    [stock(), refunds(), money(), told(), tried()].into_iter().flatten().collect()
}

fn stock() -> Vec<(&'static str, Finding, Finding)> {
    let order = Uuid::from_u128(1);
    let look = |end, held: Option<Holding>| {
        let held = held.map(|holding| (order, holding)).into_iter().collect();
        compare_stock(&HashMap::from([(order, end)]), &held, &Excuses::default())
    };
    let (sold, called_off) = (|| look(End::Sold, Some(Holding::Sold)), || look(End::CalledOff, None));
    vec![
        ("a confirmed order whose stock is only held", sold(), look(End::Sold, Some(Holding::Held))),
        ("a confirmed order without stock", sold(), look(End::Sold, None)),
        ("stock that is held for nobody", called_off(), look(End::CalledOff, Some(Holding::Held))),
        ("stock that is sold to nobody", called_off(), look(End::CalledOff, Some(Holding::Sold))),
    ]
}

fn refunds() -> Vec<(&'static str, Finding, Finding)> {
    let order = Uuid::from_u128(1);
    let look = |ours: i64, theirs: Option<i64>| {
        let theirs = theirs.map(|said| (order, said)).into_iter().collect();
        compare_refunds(&HashMap::from([(order, ours)]), &theirs, &Excuses::default())
    };
    let sound = || look(100, Some(100));
    vec![
        ("a refund that the order did not hear of", sound(), look(100, Some(0))),
        ("a refund that came back, and the order says it went", sound(), look(0, Some(100))),
        ("a refund of an order that is not there", sound(), look(100, None)),
    ]
}

fn money() -> Vec<(&'static str, Finding, Finding)> {
    let name = |name: &str| name.to_owned();
    let books =
        Books { intent_id: Some(name("pi_1")), authorized: 100, captured: 100, at_rest: true, ..Books::default() };
    let moved = Movements { intent_id: name("pi_1"), authorized: 100, captured: 100, ..Movements::default() };
    let look = |books: Option<&Books>, moved: &Movements, end| {
        let mut finding = Finding::new("I2", "orders at the provider");
        finding.look("an order", money::judge(books, moved, Some(end)).map(str::to_owned));
        finding
    };
    let sound = || look(Some(&books), &moved, End::Sold);
    let twice = Movements { intent_id: name("pi_2"), ..moved.clone() };
    let other = Movements { captured: 0, voided: 100, ..moved.clone() };
    let back = Books { refunded: 100, ..books.clone() };
    let pending = Movements { refunding: 100, ..moved.clone() };
    let held = Movements { captured: 0, ..moved.clone() };
    let busy = Books { at_rest: false, ..books.clone() };
    let on_its_way = || look(Some(&busy), &pending, End::CalledOff);
    vec![
        ("an order that was captured twice", sound(), look(Some(&books), &twice, End::Sold)),
        ("books that are not the provider's", sound(), look(Some(&books), &other, End::Sold)),
        ("a refund in the books that has not arrived", on_its_way(), look(Some(&back), &pending, End::CalledOff)),
        ("money that was kept of an order that was called off", sound(), look(Some(&books), &moved, End::CalledOff)),
        ("such money that nobody gives back", sound(), look(Some(&busy), &moved, End::CalledOff)),
        (
            "money that is held for an order that was called off",
            sound(),
            look(Some(&Books { captured: 0, ..busy.clone() }), &held, End::CalledOff),
        ),
        ("money that we know nothing of", sound(), look(None, &moved, End::Sold)),
    ]
}

fn told() -> Vec<(&'static str, Finding, Finding)> {
    let key = Uuid::from_u128(1);
    let look = |recorded: i64, waiting: Option<i64>, told: &[i64]| {
        compare((recorded, recorded), waiting, told, Excuses::default())
    };
    let sound = || look(3, None, &[1, 2, 3]);
    let excuses = Arc::new(Excuses::default());
    let mut of_nobody = Finding::new("I5", "souk.test.v1");
    let mut streams = Streams::new("souk.test.v1", Uuid::nil(), excuses.clone());
    streams.hear(Replayed::Event { key, version: 1 });
    streams.finish(&mut of_nobody);
    let mut unreadable = Finding::new("I5", "souk.test.v1");
    let mut streams = Streams::new("souk.test.v1", Uuid::nil(), excuses.clone());
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
pub(crate) fn compare((before, after): (i64, i64), waiting: Option<i64>, told: &[i64], excuses: Excuses) -> Finding {
    let (key, mut finding) = (Uuid::from_u128(1), Finding::new("I5", "souk.test.v1"));
    let mut streams = Streams::new("souk.test.v1", Uuid::nil(), excuses.into());
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
    let made = [("k1".to_owned(), order)];
    let once = |attempts: &[Attempt], made: &[(String, Uuid)], orders: &[Uuid]| {
        let mut finding = journal::check_once(attempts, made);
        journal::find_unattempted(&mut finding, &made.iter().map(|it| it.1).collect(), orders.to_vec());
        finding
    };
    let sound = || once(&fine(), &made, &[order]);
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
        ("two orders under one key", sound(), once(&fine(), &twice, &[order, other])),
        ("another answer under the same key", sound(), once(&elsewhere, &made, &[order])),
        ("an order that was refused and is there", sound(), once(&refused, &made, &[order])),
        ("an order that nobody tried to make", sound(), once(&fine(), &made, &[order, other])),
    ]
}
