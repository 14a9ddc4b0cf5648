//! Recognises secrets and personal data. In doubt it finds nothing: people ignore a check with false alarms.

use std::collections::HashSet;

use sha2::{Digest, Sha256};

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Secret {
    CardNumber,
    PasswordHash,
    Email,
    AccessToken,
    RefreshToken,
}

impl Secret {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CardNumber => "a card number",
            Self::PasswordHash => "a password hash",
            Self::Email => "an e-mail address",
            Self::AccessToken => "an access token",
            Self::RefreshToken => "a refresh token",
        }
    }
}

/// Characters of a UUID.
const UUID: usize = 36;
/// Characters of a refresh token: 48 bytes in base64url.
const REFRESH_TOKEN: usize = 64;

/// The secrets in these bytes. A refresh token is recognised by the first bytes of its hash.
pub(crate) fn find(bytes: &[u8], refresh_hashes: &HashSet<[u8; 8]>) -> Vec<Secret> {
    let found = [
        (has_card_number(bytes) && has_card_number(&without_uuids(bytes)), Secret::CardNumber),
        (contains(bytes, b"$argon2"), Secret::PasswordHash),
        (has_email(bytes), Secret::Email),
        (has_access_token(bytes), Secret::AccessToken),
        (has_refresh_token(bytes, refresh_hashes), Secret::RefreshToken),
    ];
    found.into_iter().filter(|(is_found, _)| *is_found).map(|(_, secret)| secret).collect()
}

fn contains(bytes: &[u8], part: &[u8]) -> bool {
    bytes.windows(part.len()).any(|window| window == part)
}

/// The maximal runs of such bytes: start and end of each.
fn runs(bytes: &[u8], belongs: impl Fn(u8) -> bool) -> Vec<(usize, usize)> {
    let (mut runs, mut begin) = (Vec::new(), None);
    for (at, byte) in bytes.iter().copied().chain([0]).enumerate() {
        match (begin, at < bytes.len() && belongs(byte)) {
            (None, true) => begin = Some(at),
            (Some(first), false) => {
                runs.push((first, at));
                begin = None;
            }
            _ => {}
        }
    }
    runs
}

/// 13 to 19 digits with a valid check digit, together or in groups of four, and not within a longer word such as an id or a
/// trace id, nor after a plus sign, which begins a phone number.
fn has_card_number(bytes: &[u8]) -> bool {
    runs(bytes, |byte| byte.is_ascii_alphanumeric() || b"- +".contains(&byte)).into_iter().any(|(first, end)| {
        let text = &bytes[first..end];
        let groups: Vec<_> = text.split(|byte| b"- ".contains(byte)).collect();
        let is_number = |digits: &[u8]| digits.iter().all(u8::is_ascii_digit) && is_card_number(digits);
        let in_fours = |groups: &[&[u8]]| groups.iter().all(|group| group.len() == 4) && is_number(&groups.concat());
        // A group with dashes on both sides is rather a part of an id.
        let alone = |at: usize| groups.len() == 1 || text[..].contains(&b' ') || at == 0 || at + 1 == groups.len();
        groups.iter().enumerate().any(|(at, group)| alone(at) && is_number(group))
            || (groups.len() == 4 && in_fours(&groups))
            || (text.contains(&b' ') && groups.windows(4).any(in_fours))
    })
}

/// The twelve digits that end a UUID and a digit that happens to follow, such as the tag of the next field, are no card number.
fn without_uuids(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes.to_vec();
    let is_uuid = |text: &[u8]| {
        let is_right = |(at, byte): (usize, &u8)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        };
        text.iter().enumerate().all(is_right)
    };
    for at in 0..bytes.len().saturating_sub(UUID - 1) {
        if is_uuid(&bytes[at..at + UUID]) {
            rest[at..at + UUID].fill(0);
        }
    }
    rest
}

fn is_card_number(digits: &[u8]) -> bool {
    if !(13..=19).contains(&digits.len()) || !(b'2'..=b'6').contains(&digits[0]) {
        return false;
    }
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(at, digit)| {
            let value = u32::from(digit - b'0') << (at % 2);
            if value > 9 { value - 9 } else { value }
        })
        .sum();
    sum.is_multiple_of(10)
}

fn has_email(bytes: &[u8]) -> bool {
    let local = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-".contains(byte);
    let host = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    bytes.iter().enumerate().filter(|(_, byte)| **byte == b'@').any(|(at, _)| {
        let before = bytes[..at].iter().rev().take_while(|byte| local(byte)).count();
        let domain = &bytes[at + 1..];
        let domain = &domain[..domain.iter().take_while(|byte| host(byte)).count()];
        let labels: Vec<_> = domain.split(|byte| *byte == b'.').collect();
        let top = labels.last().map_or(0, |top| top.iter().take_while(|byte| byte.is_ascii_alphabetic()).count());
        before >= 2 && labels.len() >= 2 && labels[0].len() >= 2 && top >= 2
    })
}

fn is_base64url(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Two JSON objects in base64url and a signature, separated by dots.
fn has_access_token(bytes: &[u8]) -> bool {
    runs(bytes, |byte| is_base64url(byte) || byte == b'.').into_iter().any(|(first, end)| {
        let parts: Vec<_> = bytes[first..end].split(|byte| *byte == b'.').collect();
        // Other characters may precede the first part without a space.
        let begins = |part: &[u8]| contains(part, b"eyJ") && part.len() >= 10;
        parts.windows(3).any(|it| begins(it[0]) && it[1].starts_with(b"eyJ") && it[1].len() >= 10 && it[2].len() >= 10)
    })
}

fn has_refresh_token(bytes: &[u8], hashes: &HashSet<[u8; 8]>) -> bool {
    let is_known = |token: &[u8]| hashes.contains(&Sha256::digest(token)[..8]);
    runs(bytes, is_base64url)
        .into_iter()
        // Other characters around it may be part of the run; a much longer run is something else.
        .filter(|(first, end)| (REFRESH_TOKEN..REFRESH_TOKEN + 8).contains(&(end - first)))
        .any(|(first, end)| bytes[first..end].windows(REFRESH_TOKEN).any(is_known))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<Secret> {
        let begins = Sha256::digest(TOKEN)[..8].try_into().expect("eight bytes");
        find(text.as_bytes(), &HashSet::from([begins]))
    }

    const TOKEN: &str = "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456789";
    const JWT: &str = "eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiIwMTkyIn0.c2lnbmF0dXJl";

    #[test]
    fn secrets_are_found() {
        for (text, secret) in [
            ("4242424242424242", Secret::CardNumber),
            ("card 4242 4242 4242 4242 of Ada", Secret::CardNumber),
            ("4242-4242-4242-4242", Secret::CardNumber),
            ("{\"number\":\"378282246310005\"}", Secret::CardNumber),
            ("\u{8}\u{12}\u{10}5555555555554444\u{1a}", Secret::CardNumber),
            ("$01a22ab2-d779-71c0-b0f4-528431094899\u{12}4242424242424242", Secret::CardNumber),
            ("$argon2id$v=19$m=19456,t=2,p=1$c2FsdA$aGFzaA", Secret::PasswordHash),
            ("mail to ada.lovelace+1@example.co.uk, please", Secret::Email),
            (JWT, Secret::AccessToken),
            (&format!("authorization: Bearer {JWT}\n"), Secret::AccessToken),
            (&format!("token={TOKEN};"), Secret::RefreshToken),
        ] {
            assert_eq!(found(text), [secret], "{text}");
        }
    }

    #[test]
    fn similar_texts_are_not_secrets() {
        for text in [
            "4242424242424241",
            "1767225600000000",
            "019b76e8-6788-7524-8431-017a3647b155",
            "42424242-4242-4242-4242-424242424242",
            // The next field of a message begins with a 2.
            "\n$01a22ab2-d779-71c0-b0f4-5284310948992\u{f}\n\rCARD_DECLINED",
            "00-4242424242424242aaaaaaaaaaaaaaaa-4242424242424242-01",
            "SKU-4242424242424242ABCD",
            "2026-01-01T00:00:00Z",
            "pm_card_visa",
            "\u{2a}\u{e}+4915123456787",
            "user@host",
            "@example.com",
            "eyJhbGciOiJFUzI1NiJ9",
            "abcdefghijklmnopqrstuvwxyz_ABCDEFGHIJKLMNOPQRSTUVWXYZ-0123456788",
        ] {
            assert_eq!(found(text), [], "{text}");
        }
    }
}
