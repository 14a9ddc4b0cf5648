//! What a notification says: the facts of its event, the contact of its user, and the text that a template makes of both.

use chassis::Unexpected;
use contracts::souk::order::v1::order_event::Event;
use contracts::souk::order::v1::{OrderEvent, OrderLine};
use contracts::souk::r#type::v1::Money;
use contracts::souk::user::v1::UserEvent;
use contracts::souk::user::v1::user_event;
use prost::Message;

use crate::claim::Claimed;
use crate::contact::{self, Contact, NoContact};
use crate::deliver::CONTACT_TIMEOUT;
use crate::kind::Kind;
use crate::locale::Language;
use crate::service::Service;
use crate::templates::{Data, Line, Link, Order, Text};

/// What its event says.
pub(crate) enum Facts {
    Order(OrderEvent),
    Mail { mail_request_id: String },
}

pub(crate) fn read(kind: Kind, event: &[u8]) -> Result<Facts, Unexpected> {
    let broken = |why: &dyn std::fmt::Display| Unexpected::Broken(format!("the event of a notification: {why}"));
    if kind.is_of_order() {
        return Ok(Facts::Order(OrderEvent::decode(event).map_err(|error| broken(&error))?));
    }
    match UserEvent::decode(event).map_err(|error| broken(&error))?.event {
        Some(user_event::Event::MailRequested(mail)) => Ok(Facts::Mail { mail_request_id: mail.mail_request_id }),
        _ => Err(broken(&"it requests no mail")),
    }
}

/// Asks the user service for the address, and for a link if the mail has one.
pub(crate) async fn contact(service: &Service, facts: &Facts, claimed: &Claimed) -> Result<Contact, NoContact> {
    match facts {
        Facts::Order(_) => contact::of_user(service, claimed.user_id.to_string(), CONTACT_TIMEOUT).await,
        Facts::Mail { mail_request_id } => contact::of_mail(service, mail_request_id.clone(), CONTACT_TIMEOUT).await,
    }
}

pub(crate) fn render(
    service: &Service,
    claimed: &Claimed,
    facts: &Facts,
    contact: &Contact,
) -> Result<Text, Unexpected> {
    let kind = claimed.kind;
    let language = contact.language.unwrap_or(service.language);
    let order = match facts {
        Facts::Order(order) => Some(order_data(language, order, claimed)),
        Facts::Mail { .. } => None,
    };
    let link = contact.link.as_ref();
    let link = link.map(|link| Link { url: &link.url, expires: language.date_time(link.expires_at) });
    let data = Data { shop: &service.templates.shop, name: contact.display_name.as_deref(), order, link };
    let text = service.templates.render(kind, language, &data);
    // The error of a template may quote its data.
    text.map_err(|error| Unexpected::Broken(format!("the template of {}: {:?}", kind.name(), error.kind())))
}

fn order_data(language: Language, order: &OrderEvent, claimed: &Claimed) -> Order {
    let money = |money: &Option<Money>| money.as_ref().map(|money| language.money(money)).unwrap_or_default();
    let lines: &[OrderLine] = match &order.event {
        Some(Event::OrderConfirmed(confirmed)) => &confirmed.lines,
        _ => &[],
    };
    let (carrier, tracking_number) = match &order.event {
        Some(Event::OrderFulfilled(shipped)) => (shipped.carrier.clone(), shipped.tracking_number.clone()),
        _ => Default::default(),
    };
    let line =
        |line: &OrderLine| Line { title: line.title.clone(), quantity: line.quantity, price: money(&line.unit_price) };
    Order {
        id: order.order_id.clone(),
        date: language.date(claimed.ordered_on),
        event_date: language.date(claimed.happened_on),
        total: money(&order.total),
        lines: lines.iter().map(line).collect(),
        carrier,
        tracking_number,
    }
}
