//! Whoever calls: what a handler knows of it.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;
use uuid::Uuid;

use crate::rpc::error::Error;
use crate::rpc::idempotency::Key;
use crate::rpc::run_to_end::{DEFAULT_DEADLINE, Deadline, worth_beginning};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    Customer { user_id: Uuid, session_id: Uuid },
    Operator { user_id: Uuid, session_id: Uuid },
    Service { name: String },
}

/// Whose things a query may touch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Owner {
    Only(Uuid),
    Anybody,
}

impl Owner {
    /// For `where ($2::uuid is null or user_id = $2)`.
    pub fn filter(self) -> Option<Uuid> {
        match self {
            Self::Only(user_id) => Some(user_id),
            Self::Anybody => None,
        }
    }
}

#[derive(Debug, Clone)]
pub struct Caller {
    pub identity: Identity,
    /// When the caller stops waiting; bounds every outgoing call.
    pub deadline: Instant,
    idempotency_key: Option<String>,
}

impl Caller {
    pub fn new(identity: Identity, deadline: Instant) -> Self {
        Self { identity, deadline, idempotency_key: None }
    }

    /// How much longer the caller waits; an error if hardly any more, as nobody should begin what nobody waits for.
    pub fn time_left(&self) -> Result<Duration, Error> {
        worth_beginning(self.deadline)
    }

    /// The signed-in user.
    pub fn user_id(&self) -> Result<Uuid, Error> {
        match &self.identity {
            Identity::Customer { user_id, .. } | Identity::Operator { user_id, .. } => Ok(*user_id),
            Identity::Anonymous | Identity::Service { .. } => Err(Error::PermissionDenied),
        }
    }

    /// A customer reaches what is theirs, an operator what is anybody's.
    pub fn owner(&self) -> Result<Owner, Error> {
        match &self.identity {
            Identity::Customer { user_id, .. } => Ok(Owner::Only(*user_id)),
            Identity::Operator { .. } => Ok(Owner::Anybody),
            Identity::Anonymous | Identity::Service { .. } => Err(Error::PermissionDenied),
        }
    }

    /// For the audit trail.
    pub fn actor(&self) -> String {
        match &self.identity {
            Identity::Anonymous => "anonymous".to_owned(),
            Identity::Customer { user_id, .. } => format!("user:{user_id}"),
            Identity::Operator { user_id, .. } => format!("operator:{user_id}"),
            Identity::Service { name } => format!("service:{name}"),
        }
    }

    /// The call's idempotency key, from the field or the header. Taken out of the request, so that what is hashed is the
    /// same whichever way it came.
    pub fn take_key(&self, request_id: &mut String) -> Result<Key, Error> {
        let field = std::mem::take(request_id);
        match (field.as_str(), self.idempotency_key.as_deref()) {
            ("", None) => Err(Error::KeyRequired),
            ("", Some(header)) => Key::parse(header),
            (field, Some(header)) if field != header => Err(Error::KeysDiffer),
            (field, _) => Key::parse(field),
        }
    }
}

/// Takes a request apart: who calls, and what is asked.
pub fn accept<T>(mut request: Request<T>) -> (Caller, T) {
    let identity = request.extensions_mut().remove::<Identity>().unwrap_or(Identity::Anonymous);
    let deadline = request.extensions_mut().remove::<Deadline>();
    let deadline = deadline.map_or_else(|| Instant::now() + DEFAULT_DEADLINE, |it| it.0);
    let header = request.metadata().get("idempotency-key").map(|value| value.to_str().unwrap_or("\n").to_owned());
    (Caller { identity, deadline, idempotency_key: header }, request.into_inner())
}
