//! Whom a notification is for, from the user service. What it answers is used for one delivery and kept nowhere.

use std::error::Error as _;
use std::time::Duration;

use chassis::rpc::client;
use contracts::souk::user::v1::{GetContactRequest, GetMailLinkRequest};
use time::OffsetDateTime;
use tokio::time::Instant;
use tonic::{Code, Status};

use crate::locale::Language;
use crate::service::Service;

/// How to reach a user. It is not `Debug`, so that it gets into no log.
pub(crate) struct Contact {
    pub(crate) email: String,
    /// Empty: none.
    pub(crate) phone: String,
    /// None until somebody proves that the address is theirs: before, the name may be anybody's text.
    pub(crate) display_name: Option<String>,
    /// None: that of the shop.
    pub(crate) language: Option<Language>,
    /// Whether a mail server has refused the address for good.
    pub(crate) email_refused: bool,
    pub(crate) link: Option<Link>,
}

pub(crate) struct Link {
    pub(crate) url: String,
    pub(crate) expires_at: OffsetDateTime,
}

/// Why there is no contact.
#[derive(Debug, PartialEq)]
pub(crate) enum NoContact {
    /// The account was erased, or the link was used or has expired.
    Gone,
    /// The user service did not answer.
    Away(Code),
    /// The user service answered with an error, perhaps about this user only.
    Failed(Code),
}

impl From<Status> for NoContact {
    fn from(status: Status) -> Self {
        // Our own client makes a status with a source, when there was no answer.
        let is_answer = status.source().is_none();
        match status.code() {
            Code::NotFound if is_answer => Self::Gone,
            code @ (Code::Unavailable
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::Unknown
            | Code::Cancelled) => Self::Away(code),
            code if is_answer => Self::Failed(code),
            code => Self::Away(code),
        }
    }
}

pub(crate) async fn of_user(service: &Service, user_id: String, within: Duration) -> Result<Contact, NoContact> {
    let response = client::read(Instant::now() + within, GetContactRequest { user_id }, |request| {
        let mut users = service.users.clone();
        async move { users.get_contact(request).await }
    });
    let contact = response.await?;
    Ok(Contact {
        email: contact.email,
        phone: contact.phone,
        display_name: Some(contact.display_name).filter(|name| !name.is_empty()),
        language: Language::of_code(&contact.language_code),
        email_refused: contact.email_refused,
        link: None,
    })
}

pub(crate) async fn of_mail(
    service: &Service,
    mail_request_id: String,
    within: Duration,
) -> Result<Contact, NoContact> {
    let response = client::read(Instant::now() + within, GetMailLinkRequest { mail_request_id }, |request| {
        let mut users = service.users.clone();
        async move { users.get_mail_link(request).await }
    });
    let mail = response.await?;
    let expires = mail.expire_time.unwrap_or_default().seconds;
    let expires_at = OffsetDateTime::from_unix_timestamp(expires).map_err(|_| NoContact::Gone)?;
    Ok(Contact {
        email: mail.email,
        phone: String::new(),
        display_name: None,
        language: Language::of_code(&mail.language_code),
        email_refused: false,
        link: Some(Link { url: mail.link, expires_at }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_an_answer_the_user_service_is_away() {
        for (status, expected) in [
            (Status::not_found(""), NoContact::Gone),
            (Status::internal(""), NoContact::Failed(Code::Internal)),
            (Status::invalid_argument(""), NoContact::Failed(Code::InvalidArgument)),
            (Status::unavailable(""), NoContact::Away(Code::Unavailable)),
            // As our client makes it of an open circuit, or of its own timer.
            (Status::from_error("the circuit is open".into()), NoContact::Away(Code::Unknown)),
        ] {
            assert_eq!(NoContact::from(status), expected);
        }
    }
}
