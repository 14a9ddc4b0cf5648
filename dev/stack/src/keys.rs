//! The keys and passwords of one stack, each in a file of its own; random, and made once.
//!
//! | File | Contents |
//! | --- | --- |
//! | `access/first.pem` | the key that signs access tokens (PKCS#8) |
//! | `<role>.password` | of a database role, such as `souk_order`, and of a Kafka user, such as `order` |
//! | `mail.key`, `webhook.key`, `provider.key` | the key of links in mails, the provider's of webhooks, and ours at the simulator |

use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result};
use rcgen::KeyPair;

use crate::{kafka, postgres};

pub(crate) fn make(folder: &Path) -> Result<()> {
    let access = folder.join("access");
    fs::create_dir_all(&access).with_context(|| access.display().to_string())?;
    fs::set_permissions(folder, PermissionsExt::from_mode(0o700))?;
    ensure(&access.join("first.pem"), || Ok(KeyPair::generate()?.serialize_pem()))?;
    let services = roster::services().map(|role| format!("souk_{}", role.name));
    let others = kafka::users().chain([postgres::ADMINISTRATOR]).map(str::to_owned);
    for user in services.chain(others) {
        ensure(&folder.join(format!("{user}.password")), || Ok(random::<24>()))?;
    }
    ensure(&folder.join("mail.key"), || Ok(random::<32>()))?;
    ensure(&folder.join("webhook.key"), || Ok(format!("whsec_{}", random::<24>())))?;
    ensure(&folder.join("provider.key"), || Ok("sk_test_souk".to_owned()))
}

fn random<const BYTES: usize>() -> String {
    let bytes: [u8; BYTES] = std::array::from_fn(|_| rand::random());
    hex::encode(bytes)
}

/// Writes a line that only we can read, unless the file is there.
pub(crate) fn ensure(file: &Path, line: impl FnOnce() -> Result<String>) -> Result<()> {
    let new = file.with_extension("new");
    if file.exists() {
        return Ok(());
    }
    match fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error.into()),
        Ok(()) | Err(_) => {}
    }
    let mut open = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
    writeln!(open, "{}", line()?.trim_end())?;
    fs::rename(&new, file).with_context(|| file.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_made_once_and_only_their_owner_reads_them() {
        let folder = tempfile::tempdir().expect("a folder");
        make(folder.path()).expect("they can be made");
        let files = ["access/first.pem", "souk_order.password", "order.password", "postgres.password", "mail.key"];
        let read = || files.map(|file| fs::read_to_string(folder.path().join(file)).expect("it is there"));
        let first = read();
        for (file, text) in files.iter().zip(&first) {
            let mode = fs::metadata(folder.path().join(file)).expect("it is there").permissions().mode();
            assert!(mode & 0o077 == 0 && text.lines().count() >= 1, "{file}: {mode:o}");
        }
        make(folder.path()).expect("they are there");
        assert_eq!(read(), first);
    }
}
