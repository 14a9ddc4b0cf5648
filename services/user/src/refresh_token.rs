//! Refresh tokens: a part that all tokens of a session share, its family, and a secret that only this one has.
//!
//! Stored are hashes, and for a moment the successor of a used token, see [`RefreshToken::seal`].

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

    /// Encrypts the secret of the successor, so that this token opens it again. The key is an HMAC of this token's secret:
    /// 256 random bits that are stored nowhere, used for this one text, so that adding it is a one-time pad. Whoever has
    /// the table cannot open it; whoever has this token learns what RefreshSession would answer for as long as the row
    /// exists, and nothing afterwards.
    pub(crate) fn seal(&self, successor: &Self) -> Vec<u8> {
        self.pad().iter().zip(successor.secret).map(|(pad, byte)| pad ^ byte).collect()
    }

    /// The successor that was sealed with this token.
    pub(crate) fn unseal(&self, sealed: &[u8]) -> Option<Self> {
        let secret: Vec<u8> = self.pad().iter().zip(sealed).map(|(pad, byte)| pad ^ byte).collect();
        Some(Self { family: self.family, secret: secret.try_into().ok()? })
    }

    fn pad(&self) -> [u8; SECRET] {
        let mut mac = Hmac::<Sha256>::new_from_slice(&self.secret).expect("HMAC takes keys of any length");
        mac.update(SEAL);
        mac.finalize().into_bytes().into()
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
        let sealed = used.seal(&successor);
        assert!(used.unseal(&sealed) == Some(successor.clone()));
        assert!(successor.unseal(&sealed) != Some(successor.clone()), "another token of the family");
        assert_ne!(sealed, successor.secret, "it is not plain");
        assert!(used.unseal(&sealed[1..]).is_none(), "a part of it");
    }
}
