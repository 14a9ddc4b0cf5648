//! Access tokens that must be refused.

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet};
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256};
use serde_json::{Value, json};
use stack::client::Client;
use stack::controlled::Stack;

/// A token, and the reasons of its refusal by the edge and by a role.
#[derive(Debug, Clone)]
pub(super) struct Refused {
    pub(super) what: &'static str,
    pub(super) token: String,
    pub(super) edge: &'static str,
    pub(super) role: &'static str,
}

/// The key that signs access tokens, and what everybody knows of it.
pub(super) struct Keys {
    own: EncodingKey,
    foreign: EncodingKey,
    key_id: String,
    jwk: Jwk,
}

impl Keys {
    pub(super) async fn read(stack: &Stack) -> Result<Self> {
        let file = stack.layout.home.join("keys/access/first.pem");
        let own = EncodingKey::from_ec_pem(&std::fs::read(&file).with_context(|| file.display().to_string())?)?;
        let foreign = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let foreign = EncodingKey::from_ec_pem(foreign.serialize_pem().as_bytes())?;
        let published = Client::new(stack.ports().edge()).get("/.well-known/jwks.json").await?.ok()?;
        let published: JwkSet = serde_json::from_value(published)?;
        let jwk = published.keys.into_iter().next().context("a key is published")?;
        let key_id = jwk.common.key_id.clone().context("it has an id")?;
        Ok(Self { own, foreign, key_id, jwk })
    }

    /// Those that say the same as a good token, and are not good.
    pub(super) fn forge(&self, good: &str) -> Result<Vec<Refused>> {
        let claims = payload(good)?;
        let with = |name: &str, value: Value| {
            let mut claims = claims.clone();
            claims[name] = value;
            claims
        };
        let header = |algorithm: Algorithm| {
            let mut header = Header::new(algorithm);
            (header.typ, header.kid) = (Some("at+jwt".to_owned()), Some(self.key_id.clone()));
            header
        };
        let sign = |claims: &Value| jsonwebtoken::encode(&header(Algorithm::ES256), claims, &self.own);
        let hmac =
            |secret: &[u8]| jsonwebtoken::encode(&header(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret));
        let mut untyped = header(Algorithm::ES256);
        untyped.typ = Some("JWT".to_owned());
        let (signed, _) = good.rsplit_once('.').context("a token has a signature")?;
        let unsigned = |algorithm: &str| -> Result<String> {
            let header = json!({"alg": algorithm, "typ": "at+jwt", "kid": self.key_id});
            let (_, claims) = signed.split_once('.').context("a token has claims")?;
            Ok(format!("{}.{claims}.", URL_SAFE_NO_PAD.encode(header.to_string())))
        };
        let issued = claims["iat"].as_i64().context("a token says when it was issued")?;
        let elevated = if claims["role"] == "operator" { "customer" } else { "operator" };
        let (_, signature) = good.rsplit_once('.').context("a token has a signature")?;
        let changed = URL_SAFE_NO_PAD.encode(with("role", json!(elevated)).to_string());
        let (head, _) = good.split_once('.').context("a token has a header")?;
        let mut all = vec![
            Refused {
                what: "expired",
                token: sign(&with("exp", json!(issued - 600)))?,
                edge: "TOKEN_EXPIRED",
                role: "TOKEN_INVALID",
            },
            // Envoy does not look at the type, so that it is the roles that refuse it.
            Refused {
                what: "another type of token",
                token: jsonwebtoken::encode(&untyped, &claims, &self.own)?,
                edge: "TOKEN_INVALID",
                role: "TOKEN_INVALID",
            },
        ];
        for (what, token) in [
            ("of another audience", sign(&with("aud", json!("another")))?),
            ("of another issuer", sign(&with("iss", json!("https://another.example")))?),
            ("of a foreign key", jsonwebtoken::encode(&header(Algorithm::ES256), &claims, &self.foreign)?),
            ("HS256 with the public key as PEM", hmac(pem(&self.jwk)?.as_bytes())?),
            ("HS256 with the public key as JWK", hmac(serde_json::to_string(&self.jwk)?.as_bytes())?),
            ("alg: none", unsigned("none")?),
            ("alg: None", unsigned("None")?),
            ("without a signature", format!("{signed}.")),
            ("with another role", format!("{head}.{changed}.{signature}")),
            ("not a token", "garbage".to_owned()),
        ] {
            all.push(Refused { what, token, edge: "TOKEN_INVALID", role: "TOKEN_INVALID" });
        }
        Ok(all)
    }
}

fn payload(token: &str) -> Result<Value> {
    let payload = token.split('.').nth(1).context("a token has claims")?;
    Ok(serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload)?)?)
}

/// The user and the session of a token.
pub(super) fn subject(token: &str) -> Result<(String, String)> {
    let claims = payload(token)?;
    let text = |name: &str| claims[name].as_str().map(str::to_owned).with_context(|| format!("{name} in {claims}"));
    Ok((text("sub")?, text("sid")?))
}

/// A public key of P-256 as others publish it: SubjectPublicKeyInfo (RFC 5480) in PEM.
fn pem(jwk: &Jwk) -> Result<String> {
    const PREFIX: &str = "3059301306072a8648ce3d020106082a8648ce3d03010703420004";
    let AlgorithmParameters::EllipticCurve(point) = &jwk.algorithm else { anyhow::bail!("{jwk:?}") };
    let mut der = hex::decode(PREFIX)?;
    for coordinate in [&point.x, &point.y] {
        der.extend(URL_SAFE_NO_PAD.decode(coordinate)?);
    }
    let text = STANDARD.encode(der);
    let (first, second) = text.split_at(64);
    Ok(format!("-----BEGIN PUBLIC KEY-----\n{first}\n{second}\n-----END PUBLIC KEY-----\n"))
}
