//! What the mail server and the provider of text messages accepted, as seen on the connections to them, and whether the notifications
//! that the service calls delivered are those.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use reqwest::Url;
use uuid::Uuid;

use super::cluster::Cluster;

/// The end of a mail's content.
pub(crate) const END_OF_MAIL: &str = "\r\n.\r\n";
/// Mails and text messages are smaller.
const LARGEST: usize = 256 << 10;

/// How many messages may be accepted again, beside those without a reply, because a process is killed before it records the outcome: a
/// few, and one of so many. If several workers deliver the same, more are.
const FEW: i64 = 50;
const SHARE: i64 = 20;

/// What is sent on a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// By SMTP. Each has the id of its notification.
    Mail,
    /// By HTTP. Each has the id of its order.
    Text,
}

/// How often messages were accepted, by the id that they have.
#[derive(Clone)]
pub(crate) struct Accepted {
    kind: Kind,
    times: Arc<Mutex<HashMap<Uuid, i64>>>,
}

impl Accepted {
    pub(crate) fn new(kind: Kind) -> Self {
        Self { kind, times: Arc::default() }
    }

    pub(crate) fn conversation(&self) -> Conversation {
        Conversation { accepted: self.clone(), request: vec![] }
    }

    fn times(&self) -> HashMap<Uuid, i64> {
        self.times.lock().expect("nothing panics while it holds this lock").clone()
    }

    /// Compares them with what the service recorded.
    fn compare(&self, recorded: &[Recorded]) -> Result<Summary> {
        let mut accepted = self.times();
        let (mut summary, mut problems) = (Summary::default(), Vec::new());
        let mut unknown = 0;
        for Recorded { id, delivered, attempts, unknown: its_unknown } in recorded {
            unknown += its_unknown;
            let times = accepted.remove(id).unwrap_or_default();
            summary.accepted += times;
            summary.copies += (times - delivered).max(0);
            if times < *delivered || times > *attempts {
                problems.push(format!("{id}: {times} accepted, {delivered} delivered, {attempts} attempts"));
            }
        }
        problems.extend(accepted.into_iter().map(|(id, times)| format!("{id}: {times} accepted, and none is known")));
        let (count, first) = (problems.len(), problems.first().cloned().unwrap_or_default());
        ensure!(count == 0, "{count} notifications disagree with what was accepted ({:?}), such as {first}", self.kind);
        let most = unknown + FEW + summary.accepted / SHARE;
        ensure!(
            summary.copies <= most,
            "{} of {} were accepted again; at most {most} may",
            summary.copies,
            summary.accepted
        );
        Ok(summary)
    }
}

/// Requests and replies on one connection.
pub(crate) struct Conversation {
    accepted: Accepted,
    /// What was sent since the last reply.
    request: Vec<u8>,
}

impl Conversation {
    pub(crate) fn sent(&mut self, bytes: &[u8]) {
        if self.request.len() < LARGEST {
            self.request.extend(bytes);
        }
    }

    pub(crate) fn replied(&mut self, reply: &[u8]) {
        let request = String::from_utf8_lossy(&std::mem::take(&mut self.request)).into_owned();
        let id = match self.accepted.kind {
            Kind::Mail if request.ends_with(END_OF_MAIL) && reply.starts_with(b"250") => id_of_mail(&request),
            Kind::Text if reply.starts_with(b"HTTP/1.1 201") => order_of_text(&request),
            Kind::Mail | Kind::Text => return,
        };
        let mut times = self.accepted.times.lock().expect("nothing panics while it holds this lock");
        // A message without an id is one that nobody knows.
        *times.entry(id.unwrap_or(Uuid::nil())).or_default() += 1;
    }
}

/// `Message-ID: <the id@a domain>`
fn id_of_mail(mail: &str) -> Option<Uuid> {
    let header = mail.lines().find_map(|line| line.strip_prefix("Message-ID: <"))?;
    Uuid::try_parse(header.split('@').next()?).ok()
}

fn order_of_text(request: &str) -> Option<Uuid> {
    let (_, form) = request.split_once("\r\n\r\n")?;
    let form = Url::parse(&format!("form:?{form}")).ok()?;
    let (_, text) = form.query_pairs().find(|(name, _)| name == "Body")?;
    text.split([' ', '(', ',', ')']).find_map(|word| Uuid::try_parse(word).ok())
}

/// What the service has recorded of one notification, or of all text messages of an order.
#[derive(Debug, sqlx::FromRow)]
struct Recorded {
    id: Uuid,
    delivered: i64,
    attempts: i64,
    /// Attempts without a reply: each may have been a delivery.
    unknown: i64,
}

#[derive(Debug, Default, PartialEq, Eq)]
struct Summary {
    accepted: i64,
    /// Accepted again: the reply was lost, or a process was killed before it recorded the outcome.
    copies: i64,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, {} of them again", self.accepted, self.copies)
    }
}

/// Compares what was accepted with what is recorded, when nothing waits any more. Every mail about an order has its text message.
pub(crate) async fn check(cluster: &Cluster) -> Result<String> {
    let alone =
        "select count(*) from notification as mail where channel = 'EMAIL' and kind like 'ORDER%' and not exists
                   (select from notification as text where text.subject_id = mail.subject_id and text.kind = mail.kind
                      and text.channel = 'SMS')";
    let alone = cluster.count("souk_notification", alone).await?;
    ensure!(alone == 0, "{alone} notifications have a mail and no text message");
    let mut session = cluster.administrator("souk_notification").await?;
    let mails = "select notification_id as id, (state = 'DELIVERED')::integer::bigint as delivered, attempts::bigint,
                   unknown_outcomes::bigint as unknown
                 from notification where channel = 'EMAIL'";
    let mails = sqlx::query_as(mails).fetch_all(&mut session).await?;
    let texts = "select subject_id as id, count(*) filter (where state = 'DELIVERED') as delivered,
                   sum(attempts)::bigint as attempts, sum(unknown_outcomes)::bigint as unknown
                 from notification where channel = 'SMS' group by subject_id";
    let texts = sqlx::query_as(texts).fetch_all(&mut session).await?;
    let (mails, texts) = (cluster.mails.compare(&mails)?, cluster.texts.compare(&texts)?);
    ensure!(mails.accepted > 0 && texts.accepted > 0, "nothing was delivered");
    Ok(format!("Mails that were accepted: {mails}; text messages: {texts}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x0192_0000_0000_7000_8000_0000_0000_00a1);

    fn recorded(delivered: i64, attempts: i64) -> Vec<Recorded> {
        vec![Recorded { id: ID, delivered, attempts, unknown: 0 }]
    }

    #[test]
    fn accepted_mails_are_counted_by_their_id() {
        let accepted = Accepted::new(Kind::Mail);
        let mut conversation = accepted.conversation();
        for (sent, reply) in [
            ("DATA\r\n", "354 go on\r\n"),
            (&*format!("Message-ID: <{ID}@souk.test>\r\n\r\nhello\r\n.\r\n"), "250 accepted\r\n"),
            (&*format!("Message-ID: <{ID}@souk.test>\r\n\r\nhello\r\n.\r\n"), "451 not now\r\n"),
            ("QUIT\r\n", "250 bye\r\n"),
        ] {
            let (first, rest) = sent.as_bytes().split_at(2);
            conversation.sent(first);
            conversation.sent(rest);
            conversation.replied(reply.as_bytes());
        }
        assert_eq!(accepted.times(), HashMap::from([(ID, 1)]));
        assert_eq!(accepted.compare(&recorded(1, 2)).expect("sound"), Summary { accepted: 1, copies: 0 });
        assert_eq!(accepted.compare(&recorded(0, 1)).expect("it was not recorded"), Summary { accepted: 1, copies: 1 });
        for (recorded, why) in
            [(recorded(2, 2), "2 delivered"), (recorded(0, 0), "0 attempts"), (vec![], "none is known")]
        {
            let error = accepted.compare(&recorded).expect_err("it disagrees").to_string();
            assert!(error.contains(why), "{error}");
        }
    }

    #[test]
    fn only_few_are_accepted_again() {
        let compare = |copies: u128| {
            let (accepted, ids) = (Accepted::new(Kind::Mail), || (1..=1_000).map(Uuid::from_u128));
            let times = |id: Uuid| 1 + i64::from(id.as_u128() <= copies);
            *accepted.times.lock().expect("not poisoned") = ids().map(|id| (id, times(id))).collect();
            let recorded = |id| Recorded { id, delivered: 1, attempts: 2, unknown: 0 };
            accepted.compare(&ids().map(recorded).collect::<Vec<_>>())
        };
        assert_eq!(compare(100).expect("some are"), Summary { accepted: 1_100, copies: 100 });
        compare(110).expect_err("several workers deliver the same");
    }

    #[test]
    fn accepted_texts_are_counted_by_their_order() {
        let accepted = Accepted::new(Kind::Text);
        let mut conversation = accepted.conversation();
        let form =
            format!("To=%2B4930123456&From=%2B1&Body=Souk%3A+Your+order+is+confirmed+%28{ID}%2C+%E2%82%AC12%29.");
        for reply in ["HTTP/1.1 201 Created\r\n", "\r\n{}", "HTTP/1.1 503 Service Unavailable\r\n"] {
            conversation.sent(format!("POST / HTTP/1.1\r\nhost: here\r\n\r\n{form}").as_bytes());
            conversation.replied(reply.as_bytes());
        }
        assert_eq!(accepted.times(), HashMap::from([(ID, 1)]));
    }
}
