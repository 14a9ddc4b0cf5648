//! A mail server of a test, which keeps the mails that it accepts.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// What the server does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Accepts,
    /// Replies so to the recipient, followed by the address.
    RefusesRecipient(&'static str),
    /// Replies so to the sender, which is us.
    RefusesSender(&'static str),
    /// Keeps the mail and replies so to it.
    RefusesContent(&'static str),
    /// Replies so to every connection.
    RefusesConnection(&'static str),
    /// Closes connections as soon as they are open.
    IsAway,
    /// Accepts one mail on each connection, and closes it when another begins.
    AcceptsOneEach,
    /// Keeps the mail and closes the connection without a reply.
    LosesReply,
    /// Keeps the mail and does not reply.
    Stalls,
}

#[derive(Clone)]
pub(crate) struct Sink {
    pub(crate) port: u16,
    shared: Arc<Mutex<(Mood, Vec<String>)>>,
}

impl Sink {
    pub(crate) async fn open() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("an address").port();
        let sink = Self { port, shared: Arc::new(Mutex::new((Mood::Accepts, vec![]))) };
        let server = sink.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.serve(stream).await.ok() });
            }
        });
        sink
    }

    pub(crate) fn set(&self, mood: Mood) {
        self.shared.lock().expect("nothing panics with it").0 = mood;
    }

    fn mood(&self) -> Mood {
        self.shared.lock().expect("nothing panics with it").0
    }

    /// All mails, with their headers, in the order in which they arrived. Long lines of quoted-printable parts are joined.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.shared.lock().expect("nothing panics with it").1.clone()
    }

    async fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut stream = BufReader::new(stream);
        match self.mood() {
            Mood::IsAway => return Ok(()),
            Mood::RefusesConnection(code) => {
                return stream.write_all(format!("{code} not now\r\n").as_bytes()).await;
            }
            _ => stream.write_all(b"220 sink.test ESMTP\r\n").await?,
        }
        let (mut line, mut mails) = (String::new(), 0);
        while stream.read_line(&mut line).await? > 0 {
            let verb = line.to_uppercase();
            let reply = match (verb.get(..4).unwrap_or_default(), self.mood()) {
                (_, Mood::IsAway) => return Ok(()),
                ("EHLO", _) => "250-sink.test\r\n250 8BITMIME".to_owned(),
                ("MAIL", Mood::AcceptsOneEach) if mails > 0 => {
                    return stream.write_all(b"421 too many mails\r\n").await;
                }
                ("MAIL", Mood::RefusesSender(code)) => format!("{code} {}", line.trim()),
                ("RCPT", Mood::RefusesRecipient(code)) => format!("{code} {}", line.trim()),
                ("DATA", _) => {
                    stream.write_all(b"354 go on\r\n").await?;
                    let mut mail = String::new();
                    while !mail.ends_with("\r\n.\r\n") && stream.read_line(&mut mail).await? > 0 {}
                    mails += 1;
                    self.shared.lock().expect("nothing panics with it").1.push(mail.replace("=\r\n", ""));
                    match self.mood() {
                        Mood::LosesReply => return Ok(()),
                        Mood::Stalls => return stream.read_line(&mut mail).await.map(drop),
                        Mood::RefusesContent(code) => format!("{code} not this one"),
                        _ => "250 accepted".to_owned(),
                    }
                }
                ("QUIT", _) => return stream.write_all(b"221 bye\r\n").await,
                _ => "250 fine".to_owned(),
            };
            stream.write_all(format!("{reply}\r\n").as_bytes()).await?;
            line.clear();
        }
        Ok(())
    }
}
