//! The response of an RPC that is a stream of messages. Its messages are made by a task of their own, which runs to its end like a
//! handler: it may use the database, and finds out at its next message that the caller has left. When the process stops, the task
//! must end soon.

use std::fmt::{self, Debug, Formatter};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures_util::Stream;
use tokio::sync::mpsc::{self, error::TrySendError};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tonic::Status;
use tracing::Instrument;
use uuid::Uuid;

use crate::rpc::caller::Caller;
use crate::rpc::error::{Error, Explain, to_status};
use crate::rpc::token::Verifier;

/// Messages that wait for a caller.
const WAITING: usize = 4;
/// A caller that takes no message for so long counts as one that has left.
const SLOWEST: Duration = Duration::from_secs(30);
/// The same when the process stops.
const SLOWEST_WHEN_STOPPING: Duration = Duration::from_secs(2);

/// Begins the streams of a process, and tells their tasks when it stops.
#[derive(Clone)]
pub struct Streams {
    tasks: TaskTracker,
    verifier: Arc<Verifier>,
    stopping: CancellationToken,
}

impl Streams {
    /// The process waits for `tasks` when it stops.
    pub fn new(tasks: &TaskTracker, verifier: &Arc<Verifier>) -> Self {
        Self { tasks: tasks.clone(), verifier: verifier.clone(), stopping: CancellationToken::new() }
    }

    /// Begins a response to this caller. `produce` sends its messages; if it fails, the error is the end of the stream.
    pub fn begin<T, E, F>(&self, caller: &Caller, produce: impl FnOnce(Sink<T>) -> F) -> ResponseStream<T>
    where
        T: Send + 'static,
        E: Explain + Send,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        let (messages, receiver) = mpsc::channel(WAITING);
        let sink = Sink { messages, session_id: caller.session_id().ok(), streams: self.clone() };
        let ended = Sink { messages: sink.messages.clone(), session_id: None, streams: self.clone() };
        let produced = produce(sink);
        let task = async move {
            if let Err(error) = produced.await {
                let _left = ended.deliver(Err(to_status(error.explain(), E::DOMAIN))).await;
            }
        };
        self.tasks.spawn(task.instrument(tracing::Span::current()));
        ResponseStream(receiver)
    }

    /// Ends all streams: each in its own way, and soon.
    pub fn drain(&self) {
        self.stopping.cancel();
    }
}

/// The caller has left, or takes no more messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Left;

/// Where a task sends the messages of a stream.
pub struct Sink<T> {
    messages: mpsc::Sender<Result<T, Status>>,
    /// Of a caller with a token.
    session_id: Option<Uuid>,
    streams: Streams,
}

impl<T> Debug for Sink<T> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sink").field("session_id", &self.session_id).finish_non_exhaustive()
    }
}

impl<T> Sink<T> {
    /// Waits until there is room for the message. After an error, there is nobody to send to.
    pub async fn send(&self, message: T) -> Result<(), Left> {
        self.deliver(Ok(message)).await
    }

    async fn deliver(&self, message: Result<T, Status>) -> Result<(), Left> {
        let message = match self.messages.try_send(message) {
            Ok(()) => return Ok(()),
            Err(TrySendError::Closed(_)) => return Err(Left),
            Err(TrySendError::Full(message)) => message,
        };
        let patience = async {
            tokio::select! {
                () = tokio::time::sleep(SLOWEST) => {}
                () = self.stopping() => tokio::time::sleep(SLOWEST_WHEN_STOPPING).await,
            }
        };
        tokio::select! {
            sent = self.messages.send(message) => sent.map_err(|_| Left),
            () = patience => Err(Left),
        }
    }

    /// Until the caller leaves.
    pub async fn left(&self) {
        self.messages.closed().await;
    }

    /// Until the process stops.
    pub async fn stopping(&self) {
        self.streams.stopping.cancelled().await;
    }

    /// An error if the process stops. For streams that cannot be resumed: their callers begin anew elsewhere.
    pub fn check_stopping(&self) -> Result<(), Error> {
        if self.streams.stopping.is_cancelled() { Err(Error::Stopping) } else { Ok(()) }
    }

    /// An error if the caller's session has ended since the stream began. Check it before each message: the access token was valid
    /// when the stream began, and is not looked at again.
    pub fn check_session(&self) -> Result<(), Error> {
        let is_revoked = self.session_id.is_some_and(|session_id| self.streams.verifier.is_revoked(session_id));
        if is_revoked { Err(Error::TokenRevoked) } else { Ok(()) }
    }
}

/// The messages of a response. A handler that responds with one has this as its stream.
#[derive(Debug)]
pub struct ResponseStream<T>(mpsc::Receiver<Result<T, Status>>);

impl<T> Stream for ResponseStream<T> {
    type Item = Result<T, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(cx)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use tonic::Code;

    use super::*;
    use crate::rpc::caller::Identity;
    use crate::rpc::error::{Refusal, Unexpected};
    use crate::rpc::token::Revoked;

    #[derive(Debug, thiserror::Error)]
    #[error(transparent)]
    struct Failed(#[from] Error);

    impl Explain for Failed {
        const DOMAIN: &'static str = "souk.test";

        fn explain(self) -> Result<Refusal, Unexpected> {
            self.0.explain()
        }
    }

    const SESSION: Uuid = Uuid::from_u128(2);

    fn streams() -> Streams {
        Streams::new(&TaskTracker::new(), &Arc::new(Verifier::new("https://souk.test", "souk")))
    }

    fn caller() -> Caller {
        let identity = Identity::Customer { user_id: Uuid::from_u128(1), session_id: SESSION };
        Caller::new(identity, tokio::time::Instant::now())
    }

    /// Until all tasks have ended.
    async fn finish(streams: &Streams) {
        streams.tasks.close();
        streams.tasks.wait().await;
    }

    #[tokio::test]
    async fn messages_come_in_order_and_an_error_is_the_end() {
        let streams = streams();
        let stream = streams.begin(&caller(), async |sink: Sink<u32>| {
            for message in 0..100 {
                sink.send(message).await.expect("the caller is there");
            }
            Err(Failed(Error::EtagMismatch))
        });
        let mut messages: Vec<_> = stream.collect().await;
        let end = messages.pop().expect("an end").expect_err("it failed");
        assert_eq!(end.code(), Code::Aborted);
        let messages: Vec<_> = messages.into_iter().map(|it| it.expect("a message")).collect();
        assert_eq!(messages, (0..100).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn a_task_finds_out_that_its_caller_has_left() {
        let streams = streams();
        let stream = streams.begin(&caller(), async |sink: Sink<u32>| {
            sink.left().await;
            assert_eq!(sink.send(1).await, Err(Left));
            Ok::<_, Failed>(())
        });
        drop(stream);
        finish(&streams).await;
    }

    #[tokio::test]
    async fn a_caller_that_takes_nothing_is_not_waited_for_when_the_process_stops() {
        let streams = streams();
        let (ended, end) = tokio::sync::oneshot::channel();
        let stream = streams.begin(&caller(), async |sink: Sink<u32>| {
            while sink.send(1).await.is_ok() {}
            ended.send(sink.check_stopping().is_err()).expect("it waits");
            Ok::<_, Failed>(())
        });
        let begun = std::time::Instant::now();
        streams.drain();
        finish(&streams).await;
        assert_eq!(end.await, Ok(true));
        assert!((SLOWEST_WHEN_STOPPING..SLOWEST).contains(&begun.elapsed()), "{:?}", begun.elapsed());
        assert_eq!(stream.count().await, WAITING);
    }

    #[tokio::test]
    async fn a_stream_that_cannot_be_resumed_ends_with_an_error_when_the_process_stops() {
        let streams = streams();
        let mut stream = streams.begin(&caller(), async |sink: Sink<u32>| -> Result<(), Failed> {
            loop {
                sink.check_stopping()?;
                sink.send(1).await.expect("the caller is there");
            }
        });
        assert_eq!(stream.next().await.expect("one").expect("a message"), 1);
        streams.drain();
        let end = stream.collect::<Vec<_>>().await.pop().expect("an end").expect_err("it is not complete");
        assert_eq!(end.code(), Code::Unavailable);
    }

    #[tokio::test]
    async fn a_session_that_ends_is_noticed() {
        let streams = streams();
        let stream = streams.begin(&caller(), async |sink: Sink<u32>| -> Result<(), Failed> {
            sink.check_session()?;
            sink.streams.verifier.set_revoked(Revoked { session_ids: vec![SESSION] });
            sink.check_session()?;
            panic!("it has ended");
        });
        let end = stream.collect::<Vec<_>>().await.pop().expect("an end").expect_err("it has ended");
        assert_eq!(end.code(), Code::Unauthenticated);
    }
}
