//! Pages of lists. A page token is base64url of a version, a hash of its list, and the last key: with keyset pagination, every
//! page has the same cost.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::rpc::error::Error;

const VERSION: u8 = 1;
const DEFAULT_SIZE: usize = 50;
const MAX_SIZE: usize = 200;

/// How many rows a page has that is requested with this `page_size`.
pub fn size(page_size: i32) -> Result<usize, Error> {
    match usize::try_from(page_size) {
        Err(_) => Err(Error::field("page_size", "must not be negative")),
        Ok(0) => Ok(DEFAULT_SIZE),
        Ok(size) => Ok(size.min(MAX_SIZE)),
    }
}

/// The requested page: its size, and the key before it.
#[derive(Debug, Clone, PartialEq)]
pub struct Page<K> {
    pub size: usize,
    pub after: Option<K>,
    list: [u8; 8],
}

impl<K: Serialize + DeserializeOwned> Page<K> {
    /// `list` names the list and its filters: a token of one list is not valid for another.
    pub fn parse(page_size: i32, page_token: &str, list: &str) -> Result<Self, Error> {
        let size = size(page_size)?;
        let list = hash(list);
        let after = if page_token.is_empty() { None } else { Some(decode(page_token, list)?) };
        Ok(Self { size, after, list })
    }

    /// How many rows to read: one more than the page has, to know whether there is a next page.
    pub fn limit(&self) -> i64 {
        i64::try_from(self.size).expect("a page is small") + 1
    }

    /// Truncates rows that were read with [`Page::limit`], and returns the token of the next page.
    pub fn cut<T>(&self, rows: &mut Vec<T>, key: impl FnOnce(&T) -> K) -> String {
        if rows.len() <= self.size { String::new() } else { self.cut_short(rows, self.size, key) }
    }

    /// Ends the page after `size` rows, and returns the token of the next page.
    pub fn cut_short<T>(&self, rows: &mut Vec<T>, size: usize, key: impl FnOnce(&T) -> K) -> String {
        rows.truncate(size);
        rows.last().map(|last| self.token(&key(last))).unwrap_or_default()
    }

    /// The token of the page that begins behind this key.
    pub fn token(&self, key: &K) -> String {
        encode(key, self.list)
    }
}

fn hash(list: &str) -> [u8; 8] {
    let digest: [u8; 32] = Sha256::digest(list).into();
    let mut short = [0; 8];
    short.copy_from_slice(&digest[..8]);
    short
}

fn encode<K: Serialize>(key: &K, list: [u8; 8]) -> String {
    let mut bytes = vec![VERSION];
    bytes.extend(list);
    serde_json::to_writer(&mut bytes, key).expect("a key is plain data");
    URL_SAFE_NO_PAD.encode(bytes)
}

fn decode<K: DeserializeOwned>(token: &str, list: [u8; 8]) -> Result<K, Error> {
    let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| Error::PageTokenInvalid)?;
    match bytes.split_at_checked(9) {
        Some((head, key)) if head[0] == VERSION && head[1..] == list => {
            serde_json::from_slice(key).map_err(|_| Error::PageTokenInvalid)
        }
        _ => Err(Error::PageTokenInvalid),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_to_the_next_page_of_its_own_list_only() {
        let first = Page::<i64>::parse(2, "", "orders of a").expect("no token is the first page");
        let mut rows = vec![30, 20, 10];
        let next = first.cut(&mut rows, |row| *row);
        assert_eq!(rows, [30, 20]);
        assert_eq!(
            Page::<i64>::parse(0, &next, "orders of a").map(|page| (page.size, page.after)).ok(),
            Some((50, Some(20)))
        );
        assert!(matches!(Page::<i64>::parse(2, &next, "orders of b"), Err(Error::PageTokenInvalid)));
        assert!(matches!(Page::<i64>::parse(2, "x!", "orders of a"), Err(Error::PageTokenInvalid)));
        assert!(matches!(Page::<i64>::parse(-1, "", "orders of a"), Err(Error::FieldsInvalid(_))));
    }

    #[test]
    fn the_last_page_has_no_token_and_large_pages_are_clamped() {
        let page = Page::<i64>::parse(1_000, "", "x").expect("clamped");
        assert_eq!(page.limit(), 201);
        assert_eq!(page.cut(&mut vec![1, 2], |row| *row), "");
    }
}
