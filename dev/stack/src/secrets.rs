//! All secrets of a Souk in containers, in one folder: the certificates that [`crate::pki`] makes in `pki/`, and the keys of
//! [`crate::keys`] in `keys/`, with those of servers that `make up` starts without. What exists is kept; what expires soon is
//! renewed.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Args;

use crate::client::random_password;
use crate::{keys, pki};

#[derive(Debug, Args)]
pub struct Options {
    /// The folder.
    folder: PathBuf,
    /// Where the key of the authority is, if not beside the certificates: who reads it can be any party.
    #[arg(long, value_name = "FOLDER")]
    authority: Option<PathBuf>,
}

pub fn run(options: &Options) -> Result<()> {
    make(&options.folder, options.authority.as_deref())?;
    println!("{}: certificates, keys and passwords are there", options.folder.display());
    Ok(())
}

fn make(folder: &Path, authority: Option<&Path>) -> Result<()> {
    let (pki, keys) = (folder.join("pki"), folder.join("keys"));
    pki::ensure_with(&pki, authority.unwrap_or(&pki))?;
    keys::make(&keys)?;
    keys::ensure(&keys.join("operator.password"), || Ok(random_password()))?;
    keys::ensure(&keys.join("redis.password"), || Ok(random_password()))?;
    // Redis reads its password from a file of settings only.
    let password = read(&keys.join("redis.password"))?;
    keys::ensure(&keys.join("redis.conf"), || Ok(format!("requirepass {}", password.trim_end())))?;
    // Kafka reads both from one file; they may be new.
    let pem = [read(&pki.join("kafka.key"))?, read(&pki.join("kafka.crt"))?].concat();
    let file = keys.join("kafka.pem");
    if fs::read_to_string(&file).is_ok_and(|known| known == pem) {
        return Ok(());
    }
    fs::remove_file(&file).ok();
    keys::ensure(&file, || Ok(pem))
}

fn read(file: &Path) -> Result<String> {
    fs::read_to_string(file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;
    use crate::pki::{Authority, Validity};

    #[test]
    fn they_are_made_once_and_a_new_certificate_reaches_kafka() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        let read = |name: &str| read(&folder.join(name)).expect("it is there");
        make(folder, None).expect("they can be made");
        let (pem, redis) = (read("keys/kafka.pem"), read("keys/redis.conf"));
        assert_eq!(redis, format!("requirepass {}", read("keys/redis.password")));
        make(folder, None).expect("they are there");
        assert_eq!((read("keys/kafka.pem"), read("keys/redis.conf")), (pem.clone(), redis));
        let authority = Authority::open(&folder.join("pki")).expect("it is there");
        authority.issue("kafka", Validity::of(Duration::days(90))).expect("it can be issued");
        drop(authority);
        make(folder, None).expect("one is new");
        assert_ne!(read("keys/kafka.pem"), pem);
        assert!(read("keys/kafka.pem").contains(&read("pki/kafka.crt")));
    }

    #[test]
    fn the_key_of_the_authority_can_be_elsewhere() {
        let (secrets, authority) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        let certificate = secrets.path().join("pki/ca.crt");
        make(secrets.path(), Some(authority.path())).expect("they can be made");
        assert!(authority.path().join("ca.key").exists() && !secrets.path().join("pki/ca.key").exists());
        let first = read(&certificate).expect("it is there");
        make(secrets.path(), Some(authority.path())).expect("they are there");
        assert_eq!(read(&certificate).expect("it is there"), first);
    }
}
