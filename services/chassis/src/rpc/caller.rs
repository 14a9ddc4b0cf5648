//! The caller of an RPC, as its handler sees it.

use std::time::Duration;

use tokio::time::Instant;
use tonic::Request;
use uuid::Uuid;

use crate::rpc::error::Error;
use crate::rpc::idempotency::Key;
use crate::rpc::run_to_end::{DEFAULT_DEADLINE, Deadline, time_left};

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    Anonymous,
    Customer { user_id: Uuid, session_id: Uuid },
    Operator { user_id: Uuid, session_id: Uuid },
    Service { name: String },
}

impl Identity {
    /// For the audit trail.
    pub(crate) fn actor(&self) -> String {
        match self {
            Self::Anonymous => "anonymous".to_owned(),
            Self::Customer { user_id, .. } => format!("user:{user_id}"),
            Self::Operator { user_id, .. } => format!("operator:{user_id}"),
            Self::Service { name } => format!("service:{name}"),
        }
    }
}

/// The owner whose rows a query may read or change.
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

    /// The time until the caller's deadline; an error if it is too short to begin anything.
    pub fn time_left(&self) -> Result<Duration, Error> {
        time_left(self.deadline)
    }

    /// The signed-in user.
    pub fn user_id(&self) -> Result<Uuid, Error> {
        match &self.identity {
            Identity::Customer { user_id, .. } | Identity::Operator { user_id, .. } => Ok(*user_id),
            Identity::Anonymous | Identity::Service { .. } => Err(Error::PermissionDenied),
        }
    }

    /// The session of the signed-in user.
    pub fn session_id(&self) -> Result<Uuid, Error> {
        match &self.identity {
            Identity::Customer { session_id, .. } | Identity::Operator { session_id, .. } => Ok(*session_id),
            Identity::Anonymous | Identity::Service { .. } => Err(Error::PermissionDenied),
        }
    }

    /// A customer may access their own rows, an operator those of anybody.
    pub fn owner(&self) -> Result<Owner, Error> {
        match &self.identity {
            Identity::Customer { user_id, .. } => Ok(Owner::Only(*user_id)),
            Identity::Operator { .. } => Ok(Owner::Anybody),
            Identity::Anonymous | Identity::Service { .. } => Err(Error::PermissionDenied),
        }
    }

    /// For the audit trail.
    pub fn actor(&self) -> String {
        self.identity.actor()
    }

    /// The idempotency key, from the field or the header. It is removed from the request, so that the request's hash is the same
    /// in both cases.
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

/// Splits a request into its caller and its message.
pub fn accept<T>(mut request: Request<T>) -> (Caller, T) {
    let identity = request.extensions_mut().remove::<Identity>().unwrap_or(Identity::Anonymous);
    let deadline = request.extensions_mut().remove::<Deadline>();
    let deadline = deadline.map_or_else(|| Instant::now() + DEFAULT_DEADLINE, |it| it.0);
    let header = request.metadata().get("idempotency-key").map(|value| value.to_str().unwrap_or("\n").to_owned());
    (Caller { identity, deadline, idempotency_key: header }, request.into_inner())
}
