//! `OpsService`, on each role's own port: dead letters and the outbox. It is not in chassis, which knows no contract.

use std::sync::Arc;

use chassis::event::Consumer;
use chassis::event::dead_letter::{self, Discard, DiscardError, RedriveError};
use chassis::{Caller, Clock, Context, Explain, Refusal, Role, RpcResult, Unexpected, accept, respond, timestamp};
use contracts::souk::ops::v1::ops_service_server::{OpsService, OpsServiceServer};
use contracts::souk::ops::v1::*;
use sqlx::PgPool;
use tonic::{Code, Request};
use uuid::Uuid;

pub(crate) struct Ops {
    db: PgPool,
    clock: Clock,
    consumers: Vec<Consumer>,
}

impl Ops {
    /// Adds the service to a role that publishes or consumes.
    pub(crate) fn serve(role: Role, context: &Context) -> Role {
        let outbox = role.outbox.as_ref().map(|outbox| outbox.db.clone());
        let Some(db) = outbox.or_else(|| role.consumers.first().map(|consumer| consumer.db.clone())) else {
            return role;
        };
        let ops = Self { db, clock: context.clock.clone(), consumers: role.consumers.clone() };
        role.serve(OpsServiceServer::from_arc(Arc::new(ops)))
    }

    async fn list(&self, request: ListDeadLettersRequest) -> Result<ListDeadLettersResponse, Error> {
        let limit = if request.page_size == 0 { 50 } else { i64::from(request.page_size).min(200) };
        let consumer = Some(request.consumer).filter(|name| !name.is_empty());
        let letters = dead_letter::list(&self.db, consumer.as_deref(), request.after_id, limit).await?;
        let letters = letters.into_iter().map(|letter| DeadLetter {
            dead_letter_id: letter.id,
            consumer: letter.consumer,
            key: letter.record.key.to_string(),
            r#type: letter.record.event_type,
            event_id: letter.record.event_id.to_string(),
            topic: letter.record.topic,
            partition: letter.record.partition,
            offset: letter.record.offset,
            error: letter.error,
            create_time: Some(timestamp(letter.created_at)),
        });
        Ok(ListDeadLettersResponse { dead_letters: letters.collect() })
    }

    async fn redrive(
        &self,
        caller: &Caller,
        request: RedriveDeadLettersRequest,
    ) -> Result<RedriveDeadLettersResponse, Error> {
        let key = Uuid::parse_str(&request.key).map_err(|_| Error::NotParked)?;
        let consumer = self.consumers.iter().find(|consumer| consumer.name == request.consumer);
        let redriven = dead_letter::redrive(consumer.ok_or(Error::NotParked)?, key, &caller.actor()).await;
        match redriven {
            Ok(0) => Err(Error::NotParked),
            Ok(count) => Ok(RedriveDeadLettersResponse { redriven_count: count }),
            Err(error @ RedriveError::Unreadable) => Err(Error::Unreadable(error.to_string())),
            Err(RedriveError::Failed { error, .. }) => Err(Error::RedriveFailed(error)),
            Err(RedriveError::Unexpected(error)) => Err(error.into()),
        }
    }

    async fn discard(
        &self,
        caller: &Caller,
        request: DiscardDeadLettersRequest,
    ) -> Result<DiscardDeadLettersResponse, Error> {
        let what = Discard {
            consumer: &request.consumer,
            key: Uuid::parse_str(&request.key).map_err(|_| Error::LetterNotFound)?,
            ids: &request.dead_letter_ids,
            reason: &request.reason,
            actor: &caller.actor(),
        };
        match dead_letter::discard(&self.db, &self.clock, what).await {
            Ok(()) => Ok(DiscardDeadLettersResponse { discarded_count: request.dead_letter_ids.len() as i32 }),
            Err(DiscardError::Missing { .. }) => Err(Error::LetterNotFound),
            Err(DiscardError::Unexpected(error)) => Err(error.into()),
        }
    }

    async fn status(&self) -> Result<GetOutboxStatusResponse, Error> {
        let row = sqlx::query!(r#"select count(*) as "count!", min(created_at) as oldest from outbox"#);
        let row = row.fetch_one(&self.db).await.map_err(Unexpected::from)?;
        Ok(GetOutboxStatusResponse { pending_count: row.count, oldest_time: row.oldest.map(timestamp) })
    }
}

#[tonic::async_trait]
impl OpsService for Ops {
    async fn list_dead_letters(&self, request: Request<ListDeadLettersRequest>) -> RpcResult<ListDeadLettersResponse> {
        let (_, request) = accept(request);
        respond(self.list(request).await)
    }

    async fn redrive_dead_letters(
        &self,
        request: Request<RedriveDeadLettersRequest>,
    ) -> RpcResult<RedriveDeadLettersResponse> {
        let (caller, request) = accept(request);
        respond(self.redrive(&caller, request).await)
    }

    async fn discard_dead_letters(
        &self,
        request: Request<DiscardDeadLettersRequest>,
    ) -> RpcResult<DiscardDeadLettersResponse> {
        let (caller, request) = accept(request);
        respond(self.discard(&caller, request).await)
    }

    async fn get_outbox_status(&self, _: Request<GetOutboxStatusRequest>) -> RpcResult<GetOutboxStatusResponse> {
        respond(self.status().await)
    }
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the consumer has no dead letters of this key")]
    NotParked,
    #[error("one of the ids is not a dead letter of this consumer and key; none was discarded")]
    LetterNotFound,
    #[error("{0}")]
    Unreadable(String),
    #[error("the consumer still fails: {0}")]
    RedriveFailed(String),
    #[error(transparent)]
    Unexpected(#[from] Unexpected),
}

impl Explain for Error {
    const DOMAIN: &'static str = "souk.ops";

    fn explain(self) -> Result<Refusal, Unexpected> {
        let text = self.to_string();
        match self {
            Self::NotParked => Ok(Refusal::new(Code::NotFound, "KEY_NOT_PARKED", text)),
            Self::LetterNotFound => Ok(Refusal::new(Code::NotFound, "DEAD_LETTER_NOT_FOUND", text)),
            Self::Unreadable(_) => Ok(Refusal::new(Code::FailedPrecondition, "RECORD_UNREADABLE", text)),
            Self::RedriveFailed(_) => Ok(Refusal::new(Code::FailedPrecondition, "REDRIVE_FAILED", text)),
            Self::Unexpected(unexpected) => Err(unexpected),
        }
    }
}
