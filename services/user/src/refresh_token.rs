//! Refresh tokens: a part that all tokens of a session share, its family, and a secret that only this one has.
//!
//! Stored are hashes, and for a moment the successor of a used token, see [`RefreshToken::seal`].

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chassis::Unexpected;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};

const FAMILY: usize = 16;
const SECRET: usize = 32;
/// What the key that seals a successor is for.
const SEAL: &[u8] = b"souk refresh token: successor";

#[derive(Clone, PartialEq, Eq)]
pub(crate) struct RefreshToken {
    family: [u8; FAMILY],
    secret: [u8; SECRET],
}

impl RefreshToken {
    /// The first token of a session.
    pub(crate) fn new() -> Self {
        Self { family: rand::random(), secret: rand::random() }
    }

    /// The next token of the same session. It is random: nobody can compute it from this one.
    pub(crate) fn successor(&self) -> Self {
        Self { family: self.family, secret: rand::random() }
    }

    /// 64 characters.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (family, secret) = bytes.split_at_checked(FAMILY)?;
        Some(Self { family: family.try_into().ok()?, secret: secret.try_into().ok()? })
    }

    pub(crate) fn text(&self) -> String {
        URL_SAFE_NO_PAD.encode([&self.family[..], &self.secret].concat())
    }

    /// Of the whole token, as `souk check` looks for it.
    pub(crate) fn hash(&self) -> Vec<u8> {
        Sha256::digest(self.text()).to_vec()
    }

    pub(crate) fn family_hash(&self) -> Vec<u8> {
        Sha256::digest(self.family).to_vec()
    }

    /// Encrypts the secret of the successor with AES-256-GCM, so that this token opens it again: a random nonce, the text and its
    /// tag. The key is an HMAC of this token's secret, 256 random bits that are stored nowhere. A reader of the table cannot
    /// open it; the holder of this token learns what RefreshSession would answer for as long as the row exists, and nothing
    /// afterwards.
    pub(crate) fn seal(&self, successor: &Self) -> Result<Vec<u8>, Unexpected> {
        let mut text = successor.secret.to_vec();
        let nonce = self.seal_key().seal_in_place_append_tag(self.seal_context(), &mut text);
        let nonce = nonce.map_err(|error| Unexpected::Broken(format!("sealing a refresh token: {error}")))?;
        Ok([&nonce.as_ref()[..], &text].concat())
    }

    /// The successor that was sealed with this token. What was changed meanwhile is not opened.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Option<Self> {
        let (nonce, text) = sealed.split_at_checked(NONCE_LEN)?;
        let (nonce, mut text) = (Nonce::try_assume_unique_for_key(nonce).ok()?, text.to_vec());
        let secret = self.seal_key().open_in_place(nonce, self.seal_context(), &mut text).ok()?;
        Some(Self { family: self.family, secret: (&*secret).try_into().ok()? })
    }

    fn seal_key(&self) -> RandomizedNonceKey {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(SEAL);
        let key = mac.finalize().into_bytes();
        RandomizedNonceKey::new(&AES_256_GCM, &key).expect("the key has 256 bits")
    }

    /// What is sealed belongs to this family.
    fn seal_context(&self) -> Aad<[u8; FAMILY]> {
        Aad::from(self.family)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_64_characters_and_read_back() {
        let token = RefreshToken::new();
        assert_eq!(token.text().len(), 64);
        assert!(RefreshToken::parse(&token.text()) == Some(token.clone()));
        let text = token.text();
        for odd in ["", "x", &text[1..], &format!("{text}A"), &format!("{text}AAAA"), &text.replace(|_| true, "=")] {
            assert!(RefreshToken::parse(odd).is_none(), "{odd}");
        }
    }

    #[test]
    fn only_the_used_token_opens_its_successor() {
        let used = RefreshToken::new();
        let successor = used.successor();
        assert!(used.family_hash() == successor.family_hash() && used.hash() != successor.hash());
        let sealed = used.seal(&successor).expect("sealed");
        assert!(used.unseal(&sealed) == Some(successor.clone()));
        assert!(successor.unseal(&sealed).is_none(), "another token of the family");
        assert!(!sealed.windows(SECRET).any(|part| part == successor.secret), "it is not plain");
        assert_ne!(used.seal(&successor).expect("sealed"), sealed, "each has a nonce of its own");
        for length in 0..sealed.len() {
            assert!(used.unseal(&sealed[..length]).is_none(), "the first {length} bytes");
        }
    }

    #[test]
    fn a_sealed_successor_that_was_changed_is_not_opened() {
        let used = RefreshToken::new();
        let sealed = used.seal(&used.successor()).expect("sealed");
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(used.unseal(&changed).is_none(), "byte {position}");
        }
        let elsewhere = RefreshToken { family: rand::random(), ..used.clone() };
        assert!(elsewhere.unseal(&sealed).is_none(), "in another family");
    }
}
