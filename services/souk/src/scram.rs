//! The SCRAM-SHA-256 verifier that Postgres stores of a password (RFC 5802, RFC 7677). It is computed here, so that the password
//! itself is never part of a statement, which a server may log.

use std::num::NonZeroU32;

use aws_lc_rs::hmac::{self, HMAC_SHA256, Key};
use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The default of Postgres, for passwords that a person might have chosen.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(4_096).expect("it is not zero");
/// For long passwords, which machines make: nobody finds one by trying, however fast. sqlx lets other tasks run after every fifth
/// iteration, so that under load a session with the default opens after seconds.
const FEW_ITERATIONS: NonZeroU32 = NonZeroU32::new(128).expect("it is not zero");
const LONG: usize = 32;

/// `SCRAM-SHA-256$<iterations>:<salt>$<stored key>:<server key>`, with a random salt. It contains no quotes.
pub(crate) fn verifier(password: &str) -> String {
    let iterations = if password.len() < LONG { ITERATIONS } else { FEW_ITERATIONS };
    verifier_with(password, &rand::random::<[u8; 16]>(), iterations)
}

fn verifier_with(password: &str, salt: &[u8], iterations: NonZeroU32) -> String {
    // A password that SASLprep refuses is used unchanged, as Postgres does.
    let prepared = stringprep::saslprep(password).unwrap_or(password.into());
    let mut salted = [0; 32];
    pbkdf2::derive(PBKDF2_HMAC_SHA256, iterations, salt, prepared.as_bytes(), &mut salted);
    let key = |name: &str| hmac::sign(&Key::new(HMAC_SHA256, &salted), name.as_bytes());
    let stored = Sha256::digest(key("Client Key"));
    let [salt, stored, server] = [salt, &stored[..], key("Server Key").as_ref()].map(|bytes| STANDARD.encode(bytes));
    format!("SCRAM-SHA-256${iterations}:{salt}${stored}:{server}")
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Whether `verifier`, which Postgres may have computed, is one of this password.
    pub(crate) fn is_of(verifier: &str, password: &str) -> bool {
        let Some((iterations, salt)) = verifier.split('$').nth(1).and_then(|it| it.split_once(':')) else {
            return false;
        };
        let salt = STANDARD.decode(salt).expect("Postgres writes base64");
        let iterations = iterations.parse().expect("a number above zero");
        verifier == verifier_with(password, &salt, iterations)
    }

    #[test]
    fn a_password_that_a_person_might_have_chosen_has_as_many_iterations_as_usual() {
        assert!(verifier("pencil").starts_with("SCRAM-SHA-256$4096:"));
        assert!(verifier(&"x".repeat(LONG)).starts_with("SCRAM-SHA-256$128:"));
    }

    #[test]
    fn each_verifier_has_a_random_salt() {
        let (one, other) = (verifier("pencil"), verifier("pencil"));
        assert_ne!(one, other);
        assert!(is_of(&one, "pencil") && is_of(&other, "pencil") && !is_of(&one, "pencils"));
    }
}
