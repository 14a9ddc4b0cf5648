//! Exports sales as CSV. It reads a month at a time and sends it as a part of the response, so that the memory for it does not
//! depend on how much is exported.

use chassis::Caller;
use chassis::rpc::stream::{ResponseStream, Sink};
use contracts::google::api::HttpBody;
use contracts::souk::analytics::v1::*;
use time::{Date, Duration};

use crate::csv::{self, Field};
use crate::error::Error;
use crate::range::Range;
use crate::sales::{self, unit_of};
use crate::service::Service;

const MAX_DAYS: i64 = 3_660;
/// How many days are read at once: by hours and in all currencies, these are 9,000 lines at most.
const PART: Duration = Duration::days(31);
const HEADER: [&str; 6] = ["start", "currency", "paid_orders", "gross_minor", "refunded_minor", "net_minor"];
/// Begins the last line, so that an export that was cut is not taken for a whole one.
const END: [&str; 6] = ["end", "", "", "", "", ""];

pub(crate) async fn export(
    service: &Service,
    caller: &Caller,
    request: ExportSalesRequest,
) -> Result<ResponseStream<ExportSalesResponse>, Error> {
    let range = Range::resolve(service, &request.start_date, &request.end_date, MAX_DAYS).await?;
    let exported = service.clone();
    Ok(service.streams.begin(caller, move |sink| async move { write(&exported, &range, &request, &sink).await }))
}

async fn write(
    service: &Service,
    range: &Range,
    request: &ExportSalesRequest,
    sink: &Sink<ExportSalesResponse>,
) -> Result<(), Error> {
    let (unit, mut csv, mut first) = (unit_of(request.granularity()), String::new(), range.first);
    csv::write(&mut csv, &HEADER.map(Field::Text));
    loop {
        sink.check_stopping()?;
        sink.check_session()?;
        let last = first.checked_add(PART - Duration::DAY).unwrap_or(Date::MAX).min(range.last);
        let part = Range::of(service, first, last).await?;
        for row in sales::read(service, unit, &part, &request.currency).await? {
            let numbers = [row.paid_orders, row.gross, row.refunded, row.gross - row.refunded].map(Field::Number);
            let [paid_orders, gross, refunded, net] = numbers;
            let (start, currency) = (row.local_start(), Field::Text(&row.currency));
            csv::write(&mut csv, &[Field::Text(&start), currency, paid_orders, gross, refunded, net]);
        }
        let is_last = last >= range.last;
        if is_last {
            csv::write(&mut csv, &END.map(Field::Text));
        }
        if !csv.is_empty() {
            let data = std::mem::take(&mut csv).into_bytes();
            let body = HttpBody { content_type: csv::MEDIA_TYPE.to_owned(), data, ..HttpBody::default() };
            if sink.send(ExportSalesResponse { body: Some(body) }).await.is_err() {
                return Ok(());
            }
        }
        match last.next_day() {
            Some(next) if !is_last => first = next,
            _ => return Ok(()),
        }
    }
}
