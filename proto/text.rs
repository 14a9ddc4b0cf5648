//! Checks which characters a text contains, by the option `(souk.policy.v1.text)` of its field.

use unicode_properties::{GeneralCategory, UnicodeGeneralCategory};

use crate::email;

/// How long a code may be.
const MAX_CODE: usize = 16;

/// See `souk.policy.v1.Text`.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Text {
    Opaque,
    Line,
    Lines,
    Email,
    Code,
}

impl Text {
    /// Why the text is refused. An empty text is for other rules, and one that is not UTF-8 does not decode.
    pub(crate) fn refuse(self, bytes: &[u8]) -> Option<&'static str> {
        // PostgreSQL cannot store NUL in a text.
        if bytes.contains(&0) {
            return Some("must not contain NUL");
        }
        let text = std::str::from_utf8(bytes).ok().filter(|text| !text.is_empty())?;
        match self {
            Self::Opaque => None,
            Self::Code if text.len() > MAX_CODE || !text.bytes().all(|byte| byte.is_ascii_graphic()) => {
                Some("must be a code of at most 16 visible characters")
            }
            Self::Code => None,
            Self::Email => email::normalize(text).err(),
            Self::Line if text.chars().any(is_break) => Some("must be one line"),
            Self::Line | Self::Lines if text.chars().any(|it| it.is_control() && !is_break(it)) => {
                Some("must not contain control characters")
            }
            Self::Line | Self::Lines if text.chars().any(is_override) => {
                Some("must not contain characters that change the direction of others")
            }
            Self::Line | Self::Lines if !text.chars().any(is_visible) => Some("must have a character that is visible"),
            Self::Line | Self::Lines => None,
        }
    }
}

/// Line breaks and tabs.
fn is_break(it: char) -> bool {
    matches!(it, '\n' | '\r' | '\t' | '\u{2028}' | '\u{2029}')
}

/// Embeddings, overrides and isolates, which make a text look like another one. Mere direction marks are allowed.
fn is_override(it: char) -> bool {
    matches!(it, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn is_visible(it: char) -> bool {
    use GeneralCategory::*;
    // Their category says letter or symbol, but they are invisible.
    let blank = matches!(it, '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}' | '\u{2800}' | '\u{3164}' | '\u{ffa0}');
    let unseen = [
        Control,
        Format,
        Surrogate,
        PrivateUse,
        Unassigned,
        SpaceSeparator,
        LineSeparator,
        ParagraphSeparator,
        NonspacingMark,
        EnclosingMark,
    ];
    !blank && !unseen.contains(&it.general_category())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_something_to_see_and_nothing_that_hides() {
        for good in ["", "Mug", " Mug ", "Tasse für Tee", "كوب", "杯", "👩‍🚀", "e\u{301}", "a\u{200f}b", "—", "\u{a0}x"]
        {
            assert_eq!(Text::Line.refuse(good.as_bytes()), None, "{good:?}");
            assert_eq!(Text::Lines.refuse(good.as_bytes()), None, "{good:?}");
        }
        for bad in [
            " ",
            "\u{a0}",
            "\u{3000}",
            "\u{200b}",
            "\u{feff}",
            "\u{200d}\u{200d}",
            "\u{2800}",
            "\u{3164}",
            "\u{301}",
            "a\0",
            "a\u{1b}[2J",
            "a\u{7f}",
            "a\u{85}",
            "a\u{202e}b",
            "a\u{2066}b",
        ] {
            assert!(Text::Line.refuse(bad.as_bytes()).is_some(), "{bad:?}");
            assert!(Text::Lines.refuse(bad.as_bytes()).is_some(), "{bad:?}");
        }
        for lines in ["a\nb", "a\tb", "a\r\nb", "a\u{2028}b"] {
            assert!(Text::Line.refuse(lines.as_bytes()).is_some(), "{lines:?}");
            assert_eq!(Text::Lines.refuse(lines.as_bytes()), None, "{lines:?}");
        }
        assert!(Text::Lines.refuse(b"\n\t\n").is_some());
    }

    #[test]
    fn an_opaque_text_may_contain_anything_but_nul() {
        for any in [" ", "\n", "\u{202e}", "\u{1b}"] {
            assert_eq!(Text::Opaque.refuse(any.as_bytes()), None, "{any:?}");
        }
        assert!(Text::Opaque.refuse(b"a\0").is_some());
        assert_eq!(Text::Line.refuse(b"\xff"), None, "decoding refuses it");
    }
}
