//! E-mail addresses, in the form in which they are compared and stored.

use idna::AsciiDenyList;
use idna::uts46::{DnsLength, Hyphens, Uts46};

/// Bytes before the `@` (RFC 5321, 4.5.3.1.1).
const MAX_LOCAL: usize = 64;
/// Bytes of the whole address, in its ASCII form.
const MAX_LENGTH: usize = 254;

/// In lower case, an international domain in its ASCII form: `Ada@Bücher.example` becomes `ada@xn--bcher-kva.example`. The
/// error says what is wrong with the address.
pub fn normalize(text: &str) -> Result<String, &'static str> {
    let (local, domain) = text.rsplit_once('@').ok_or("must be an e-mail address: it has no @")?;
    let is_atom = |atom: &str| !atom.is_empty() && atom.bytes().all(is_atom_text);
    if local.len() > MAX_LOCAL {
        return Err("must be an e-mail address: at most 64 characters may precede the @");
    }
    if !local.split('.').all(is_atom) {
        return Err(
            "must be an e-mail address: only ASCII letters, digits, most signs, and single dots between them may precede the @",
        );
    }
    let domain =
        Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify);
    let domain = domain.map_err(|_| "must be an e-mail address: what follows the @ is not a domain name")?;
    let address = format!("{}@{domain}", local.to_ascii_lowercase());
    if address.len() > MAX_LENGTH {
        return Err("must be an e-mail address of at most 254 characters");
    }
    Ok(address)
}

/// `atext` of RFC 5322, 3.2.3.
fn is_atom_text(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_compared_in_their_ascii_form() {
        for (given, stored) in [
            ("ada@example.com", "ada@example.com"),
            ("Ada.Love+shop@Example.COM", "ada.love+shop@example.com"),
            ("ada@bücher.example", "ada@xn--bcher-kva.example"),
            ("ada@BÜCHER.example", "ada@xn--bcher-kva.example"),
            ("ada@xn--bcher-kva.example", "ada@xn--bcher-kva.example"),
            ("ada@例え.jp", "ada@xn--r8jz45g.jp"),
            ("o'neil@localhost", "o'neil@localhost"),
        ] {
            assert_eq!(normalize(given).as_deref(), Ok(stored), "{given}");
        }
    }

    #[test]
    fn what_cannot_be_an_address_is_refused() {
        let long_local = format!("{}@example.com", "a".repeat(65));
        let long_label = format!("ada@{}.com", "a".repeat(64));
        let long = format!("ada@{}com", format!("{}.", "a".repeat(63)).repeat(4));
        let odd = [
            "",
            "ada",
            "@",
            "ada@",
            "@example.com",
            "a..b@x.com",
            "a.@x.com",
            ".a@x.com",
            "a b@x.com",
            "a@b@x.com",
            "a@-x.com",
            "a@x-.com",
            "a@x..com",
            "a@.com",
            "a@x.com.",
            "a@x_y.com",
            "a@x y.com",
            "ä@x.com",
            "a@[127.0.0.1]",
            "\"a\"@x.com",
            "a@xn--a.com",
            "a\n@x.com",
            "a@x.com\n",
            "a,b@x.com",
        ];
        for bad in odd.into_iter().chain([long_local.as_str(), &long_label, &long]) {
            assert!(normalize(bad).is_err(), "{bad:?}");
        }
    }
}
