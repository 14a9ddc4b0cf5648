//! Hashes of passwords (argon2id, as PHC strings), computed in memory that a thread keeps. For new memory, the kernel would need as
//! long as for the hash itself, and a thread that yields to all others would hold a lock that each of them needs.

use argon2::password_hash::phc::{Output, ParamsString, PasswordHash, Salt};
use argon2::{Algorithm, Argon2, Block, Params, Version};
use chassis::Unexpected;

/// Grows to what the largest hash needs: 19 MiB with today's parameters.
#[derive(Default)]
pub(crate) struct Memory(Vec<Block>);

impl Memory {
    /// The hash of a new password, with today's parameters.
    pub(crate) fn hash(&mut self, password: &str) -> Result<String, Unexpected> {
        let argon2 = Argon2::default();
        let (salt, mut output) = (rand::random::<[u8; 16]>(), [0; Params::DEFAULT_OUTPUT_LEN]);
        self.compute(&argon2, password, &salt, &mut output)?;
        let hash = PasswordHash {
            algorithm: Algorithm::default().ident(),
            version: Some(Version::default().into()),
            params: ParamsString::try_from(argon2.params()).map_err(broken)?,
            salt: Some(Salt::new(&salt).map_err(broken)?),
            hash: Some(Output::new(&output).map_err(broken)?),
        };
        Ok(hash.to_string())
    }

    /// Whether a hash is that of this password.
    pub(crate) fn verify(&mut self, password: &str, hash: &PasswordHash) -> Result<bool, Unexpected> {
        let (Some(salt), Some(expected)) = (&hash.salt, &hash.hash) else {
            return Err(broken("a stored hash has no salt or no output"));
        };
        let algorithm = Algorithm::try_from(hash.algorithm.as_str()).map_err(broken)?;
        let version = hash.version.map_or(Ok(Version::default()), Version::try_from).map_err(broken)?;
        let argon2 = Argon2::new(algorithm, version, Params::try_from(hash).map_err(broken)?);
        let mut output = [0; Output::MAX_LENGTH];
        let output = &mut output[..expected.len()];
        self.compute(&argon2, password, salt, output)?;
        // Outputs are compared in constant time.
        Ok(Output::new(output).map_err(broken)? == *expected)
    }

    fn compute(
        &mut self,
        argon2: &Argon2<'_>,
        password: &str,
        salt: &[u8],
        output: &mut [u8],
    ) -> Result<(), Unexpected> {
        let blocks = argon2.params().block_count();
        if self.0.len() < blocks {
            self.0.resize(blocks, Block::new());
        }
        argon2.hash_password_into_with_memory(password.as_bytes(), salt, output, &mut self.0[..blocks]).map_err(broken)
    }
}

fn broken(error: impl std::fmt::Display) -> Unexpected {
    Unexpected::Broken(format!("hashing a password: {error}"))
}

#[cfg(test)]
mod tests {
    use argon2::{PasswordHasher, PasswordVerifier};

    use super::*;

    #[test]
    fn its_hashes_are_those_of_the_library() {
        let (mut memory, password) = (Memory::default(), "correct horse battery");
        let ours = memory.hash(password).expect("hashed");
        let parsed = PasswordHash::new(&ours).expect("a PHC string");
        Argon2::default().verify_password(password.as_bytes(), &parsed).expect("the library verifies it");
        assert_eq!(
            PasswordHash::new(&memory.hash(password).expect("hashed")).map(|it| it.salt == parsed.salt),
            Ok(false)
        );
        // Others than today's, with the memory as the last hash left it.
        for (algorithm, params) in [(Algorithm::Argon2id, (8_192, 1)), (Algorithm::Argon2i, (19_456, 3))] {
            let params = Params::new(params.0, params.1, 1, None).expect("good parameters");
            let theirs =
                Argon2::new(algorithm, Version::V0x13, params).hash_password(password.as_bytes()).expect("hashed");
            assert!(memory.verify(password, &theirs).expect("verified"));
            assert!(!memory.verify("correct horse batterx", &theirs).expect("verified"));
        }
    }
}
