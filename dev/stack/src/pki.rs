//! The certificates of a checkout, in `.dev/pki`: one authority, and a certificate for each party of Souk's connections. All
//! stacks share them, and each stack renews what expires soon.
//!
//! | File | Contents |
//! | --- | --- |
//! | `ca.crt`, `ca.key` | the authority; its key may be in another folder |
//! | `<party>.crt`, `<party>.key` | a party's certificate, and its key (PKCS#8) |
//!
//! A certificate has the party's name as its common name and as a DNS name, beside `localhost`, both loopback addresses and
//! `spiffe://souk/<party>`. It is for servers and for clients.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};
use time::{Duration, OffsetDateTime};

/// Those that have a certificate beside the roles: the edge, a person's `grpcurl`, commands of `souk`, and servers.
const OTHERS: [&str; 8] = ["edge", "dev", "migrate", "check", "kafka", "postgres", "redis", "provider"];

const AUTHORITY: &str = "ca";
const AUTHORITY_VALID_FOR: Duration = Duration::days(3_650);
const VALID_FOR: Duration = Duration::days(90);
/// A certificate is renewed when it is valid for less than this.
const RENEW_BEFORE: Duration = Duration::days(30);
/// For clocks that are behind.
const BACKDATED: Duration = Duration::hours(1);

/// From when to when a certificate is valid.
#[derive(Debug, Clone, Copy)]
pub struct Validity {
    pub from: OffsetDateTime,
    pub until: OffsetDateTime,
}

impl Validity {
    /// From now on, for this time.
    pub fn of(time: Duration) -> Self {
        let now = OffsetDateTime::now_utc();
        Self { from: now - BACKDATED, until: now + time }
    }

    /// It ended a minute ago.
    pub fn over() -> Self {
        Self::of(Duration::minutes(-1))
    }
}

/// An authority, whose certificates are in one folder.
pub struct Authority {
    folder: PathBuf,
    issuer: Issuer<'static, KeyPair>,
    /// While it is locked, no other process makes certificates in this folder.
    _lock: File,
}

/// All that have a certificate.
pub fn parties() -> impl Iterator<Item = &'static str> {
    roster::ROLES.into_iter().map(|role| role.name).chain(OTHERS)
}

/// Makes the authority of a folder and all certificates, unless they are there and valid for long enough.
pub fn ensure(folder: &Path) -> Result<()> {
    ensure_with(folder, folder)
}

/// The same, with the key of the authority in a folder of its own.
pub fn ensure_with(folder: &Path, authority: &Path) -> Result<()> {
    let authority = Authority::open_with(folder, authority)?;
    parties().try_for_each(|party| {
        if is_due(&folder.join(format!("{party}.crt"))) || !folder.join(format!("{party}.key")).exists() {
            authority.issue(party, Validity::of(VALID_FOR))?;
        }
        Ok(())
    })
}

/// Whether there is no certificate that is valid for long enough.
fn is_due(certificate: &Path) -> bool {
    let valid_until = fs::read(certificate).ok().and_then(|pem| {
        let (_, pem) = x509_parser::pem::parse_x509_pem(&pem).ok()?;
        Some(pem.parse_x509().ok()?.validity().not_after.to_datetime())
    });
    valid_until.is_none_or(|until| until - OffsetDateTime::now_utc() < RENEW_BEFORE)
}

impl Authority {
    /// The authority of a folder, which is made if there is none. It is locked until it is dropped.
    pub fn open(folder: &Path) -> Result<Self> {
        Self::open_with(folder, folder)
    }

    fn open_with(folder: &Path, authority: &Path) -> Result<Self> {
        for folder in [folder, authority] {
            fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
            fs::set_permissions(folder, Permissions::from_mode(0o700)).with_context(|| folder.display().to_string())?;
        }
        let lock = File::create(folder.join(".lock"))?;
        lock.lock()?;
        let ([certificate, _], [_, key]) = (files(folder, AUTHORITY), files(authority, AUTHORITY));
        let params = authority_params();
        let key = if is_due(&certificate) || !key.exists() {
            // What an earlier authority issued is worth nothing now.
            for party in parties() {
                for file in files(folder, party).into_iter().filter(|file| file.exists()) {
                    fs::remove_file(file)?;
                }
            }
            let new = KeyPair::generate()?;
            write(&key, &new.serialize_pem())?;
            write(&certificate, &params.self_signed(&new)?.pem())?;
            new
        } else {
            KeyPair::from_pem(&fs::read_to_string(&key)?).with_context(|| key.display().to_string())?
        };
        Ok(Self { folder: folder.to_owned(), issuer: Issuer::new(params, key), _lock: lock })
    }

    /// Makes a new key and certificate for a party, which replace those that it has.
    pub fn issue(&self, party: &str, valid: Validity) -> Result<()> {
        let mut params = CertificateParams::new([party.to_owned(), "localhost".to_owned()])?;
        params.subject_alt_names.extend([
            SanType::IpAddress(Ipv4Addr::LOCALHOST.into()),
            SanType::IpAddress(Ipv6Addr::LOCALHOST.into()),
            SanType::URI(format!("spiffe://souk/{party}").try_into()?),
        ]);
        params.distinguished_name = name(party);
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        (params.not_before, params.not_after) = (valid.from, valid.until);
        let key = KeyPair::generate()?;
        let [certificate_file, key_file] = files(&self.folder, party);
        // A reader between the two finds that they do not match, keeps what it has, and reads them again.
        write(&key_file, &key.serialize_pem())?;
        write(&certificate_file, &params.signed_by(&key, &self.issuer)?.pem())
    }
}

/// The same each time, so that only the key has to be read again.
fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = name("Souk's authority on this machine");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let valid = Validity::of(AUTHORITY_VALID_FOR);
    (params.not_before, params.not_after) = (valid.from, valid.until);
    params
}

fn name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

/// Its certificate, and its key.
fn files(folder: &Path, party: &str) -> [PathBuf; 2] {
    [folder.join(format!("{party}.crt")), folder.join(format!("{party}.key"))]
}

/// Replaces a file: a reader sees the old or the new text.
fn write(path: &Path, text: &str) -> Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(text.as_bytes())?;
    fs::rename(&new, path).with_context(|| path.display().to_string())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn read_all(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
        let entries = fs::read_dir(folder).expect("the folder can be read");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        paths.map(|path| (path.clone(), fs::read(path).expect("a file"))).collect()
    }

    #[test]
    fn certificates_are_made_once_and_only_their_owner_reads_the_keys() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path().join("pki");
        ensure(&folder).expect("they can be made");
        let first = read_all(&folder);
        assert_eq!(first.len(), 2 * (parties().count() + 1) + 1, "with the authority, and the lock");
        for path in [vec![folder.clone()], first.keys().cloned().collect()].concat() {
            let mode = fs::metadata(&path).expect("it exists").permissions().mode();
            let is_secret = path.is_dir() || path.extension().is_some_and(|it| it == "key");
            assert!(!is_secret || mode & 0o077 == 0, "{}: {mode:o}", path.display());
        }
        ensure(&folder).expect("they are there");
        assert_eq!(read_all(&folder), first);
    }

    #[test]
    fn what_expires_soon_is_renewed_and_a_new_authority_renews_all() {
        let folder = tempfile::tempdir().expect("a folder");
        let folder = folder.path();
        ensure(folder).expect("they can be made");
        let soon = Validity::of(RENEW_BEFORE - Duration::hours(1));
        Authority::open(folder).expect("it is there").issue("order", soon).expect("it can be made");
        let before = read_all(folder);
        ensure(folder).expect("one is renewed");
        let changed = |before: &BTreeMap<_, _>| {
            let after = read_all(folder).into_iter();
            after.filter(|(path, bytes)| before[path] != *bytes).map(|(path, _)| path).collect::<Vec<_>>()
        };
        assert_eq!(changed(&before), files(folder, "order"));
        let before = read_all(folder);
        fs::remove_file(folder.join("ca.key")).expect("it is there");
        ensure(folder).expect("all are made again");
        assert_eq!(changed(&before).len(), before.len() - 1, "all but the lock");
    }
}
