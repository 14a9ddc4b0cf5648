//! Reads a file and creates its products, some at once.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::io::Read;

use contracts::souk::product::v1::Product;
use csv::{Position, Reader, StringRecord};
use tokio::task::JoinSet;
use tonic::{Code, Status};
use tonic_types::StatusExt;

use super::edge::{is_taken, is_too_large};
use super::line::{Categories, Columns, column};
use super::report::Report;
use super::{MOST_LINES, line};

/// What became of a product.
enum Outcome {
    Created,
    Existed,
    Wrong(Vec<line::Wrong>),
    /// The same would become of all others.
    Failed(String),
}

/// `create` makes one call; `at_byte` is told how much of the file was read.
pub(crate) async fn send<F>(
    mut file: Reader<impl Read>,
    columns: &Columns,
    categories: &Categories,
    at_once: usize,
    at_byte: impl Fn(u64),
    create: impl Fn(Product) -> F,
) -> Report
where
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (mut report, mut calls, mut seen) = (Report::default(), JoinSet::new(), HashMap::new());
    let mut record = StringRecord::new();
    loop {
        let line = match file.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => record.position().map_or(0, Position::line),
            Err(error) if error.is_io_error() => {
                report.stopped = Some(error.to_string());
                break;
            }
            Err(error) => {
                let line = error.position().map_or(0, Position::line);
                report.add_wrong(line, "", vec![("line".to_owned(), "is not UTF-8".to_owned())]);
                continue;
            }
        };
        at_byte(file.position().byte());
        let product = match columns.parse(&record, categories) {
            Ok(product) => product,
            Err(wrong) => {
                report.add_wrong(line, columns.sku(&record), wrong);
                continue;
            }
        };
        match seen.entry(product.sku.clone()) {
            Entry::Occupied(first) => {
                let why = format!("line {} has the same", first.get());
                report.add_wrong(line, first.key(), vec![("sku".to_owned(), why)]);
                continue;
            }
            Entry::Vacant(new) => new.insert(line),
        };
        if file.position().record() > MOST_LINES {
            report.stopped = Some(format!("a file has {MOST_LINES} lines at most"));
        }
        while calls.len() >= at_once {
            note(&mut report, calls.join_next().await);
        }
        if report.stopped.is_some() {
            break;
        }
        let (sku, call) = (product.sku.clone(), create(product));
        calls.spawn(async move { (line, sku, outcome(call.await)) });
    }
    while !calls.is_empty() {
        note(&mut report, calls.join_next().await);
    }
    report
}

fn note(report: &mut Report, ended: Option<Result<(u64, String, Outcome), tokio::task::JoinError>>) {
    match ended {
        Some(Ok((_, _, Outcome::Created))) => report.created += 1,
        Some(Ok((_, _, Outcome::Existed))) => report.existed += 1,
        Some(Ok((line, sku, Outcome::Wrong(wrong)))) => report.add_wrong(line, &sku, wrong),
        Some(Ok((line, _, Outcome::Failed(why)))) => report.stopped = Some(format!("line {line}: {why}")),
        Some(Err(error)) => report.stopped = Some(error.to_string()),
        None => {}
    }
}

fn outcome(called: Result<(), Status>) -> Outcome {
    let Err(status) = called else { return Outcome::Created };
    if is_taken(&status) {
        return Outcome::Existed;
    }
    if is_too_large(&status) {
        return Outcome::Wrong(vec![("line".to_owned(), "is too large for a request".to_owned())]);
    }
    let fields = status.get_details_bad_request().map(|it| it.field_violations).unwrap_or_default();
    let wrong: Vec<_> = fields.into_iter().map(|it| (column(&it.field), it.description)).collect();
    match status.code() {
        Code::InvalidArgument | Code::FailedPrecondition if !wrong.is_empty() => Outcome::Wrong(wrong),
        _ => Outcome::Failed(format!("{}: {}", status.code(), status.message())),
    }
}
