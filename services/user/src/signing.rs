//! The keys of access tokens: read from files that all replicas share, the first signs, all are published.

use std::path::{Path, PathBuf};
use std::time::Duration;

use axum::Router;
use axum::http::HeaderMap;
use axum::routing::get;
use chassis::Unexpected;
use chassis::rpc::token::Claims;
use jsonwebtoken::jwk::{Jwk, JwkSet, PublicKeyUse, ThumbprintHash};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use time::OffsetDateTime;

use crate::account::{Role, UserId};
use crate::document;
use crate::session::SessionId;

/// How long an access token is valid.
pub(crate) const LIFETIME: Duration = Duration::from_secs(300);

pub(crate) struct Signer {
    key: EncodingKey,
    header: Header,
    keys: JwkSet,
    issuer: String,
    audience: String,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum KeyError {
    #[error("at least one key file is required")]
    None,
    #[error("{path}: {source}")]
    Unreadable { path: PathBuf, source: std::io::Error },
    #[error("{path} is not a PKCS#8 PEM file of a P-256 key")]
    Unusable { path: PathBuf },
}

impl Signer {
    pub(crate) fn read(files: &[PathBuf], issuer: &str, audience: &str) -> Result<Self, KeyError> {
        let mut read = Vec::new();
        // A variable that is set to nothing, or ends with a comma, names no file there.
        for path in files.iter().filter(|path| !path.as_os_str().is_empty()) {
            let pem = std::fs::read(path).map_err(|source| KeyError::Unreadable { path: path.clone(), source })?;
            read.push(parse(&pem, path)?);
        }
        let keys = JwkSet { keys: read.iter().map(|(_, public)| public.clone()).collect() };
        let (key, public) = read.into_iter().next().ok_or(KeyError::None)?;
        let mut header = Header::new(Algorithm::ES256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = public.common.key_id;
        Ok(Self { key, header, keys, issuer: issuer.to_owned(), audience: audience.to_owned() })
    }

    /// An access token.
    pub(crate) fn sign(
        &self,
        user_id: UserId,
        session_id: SessionId,
        role: Role,
        now: OffsetDateTime,
        expires: OffsetDateTime,
    ) -> Result<String, Unexpected> {
        let claims = Claims {
            sub: user_id.0,
            sid: session_id.0,
            role: role.to_claim(),
            iss: self.issuer.clone(),
            aud: self.audience.clone(),
            iat: now.unix_timestamp(),
            exp: expires.unix_timestamp(),
        };
        let token = jsonwebtoken::encode(&self.header, &claims, &self.key);
        let unsigned = |error| Unexpected::Broken(format!("an access token was not signed: {error}"));
        token.map_err(unsigned)
    }
}

/// A private key and its public half, named by its RFC 7638 thumbprint.
fn parse(pem: &[u8], path: &Path) -> Result<(EncodingKey, Jwk), KeyError> {
    let unusable = |_| KeyError::Unusable { path: path.to_owned() };
    let key = EncodingKey::from_ec_pem(pem).map_err(unusable)?;
    let mut public = Jwk::from_encoding_key(&key, Algorithm::ES256).map_err(unusable)?;
    public.common.key_id = Some(public.thumbprint(ThumbprintHash::SHA256).map_err(unusable)?);
    public.common.public_key_use = Some(PublicKeyUse::Signature);
    Ok((key, public))
}

/// `/.well-known/jwks.json`, for every other role and for the edge.
pub(crate) fn pages(signer: &Signer) -> Router {
    let body = serde_json::to_string(&signer.keys).expect("public keys are plain data");
    let page = move |request: HeaderMap| async move { document::answer(&request, "public, max-age=15", body.clone()) };
    Router::new().route("/.well-known/jwks.json", get(page))
}
