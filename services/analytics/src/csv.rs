//! CSV (RFC 4180), for spreadsheets.

/// The media type of what [`line`] writes, with a line of names first.
pub(crate) const MEDIA_TYPE: &str = "text/csv; charset=utf-8; header=present";

/// One field.
pub(crate) enum Field<'a> {
    Text(&'a str),
    Number(i64),
}

/// Writes one line.
pub(crate) fn write(csv: &mut String, fields: &[Field<'_>]) {
    for (at, field) in fields.iter().enumerate() {
        if at > 0 {
            csv.push(',');
        }
        match field {
            Field::Number(number) => csv.push_str(&number.to_string()),
            Field::Text(text) => write_text(csv, text),
        }
    }
    csv.push_str("\r\n");
}

/// A spreadsheet takes a text that begins like a formula for one, and runs it: such a text begins with an apostrophe instead.
fn write_text(csv: &mut String, text: &str) {
    let is_formula = text.starts_with(['=', '+', '-', '@', '\t', '\r', '\n', '＝', '＋', '－', '＠']);
    let is_quoted = text.contains([',', '"', '\r', '\n']);
    if is_quoted {
        csv.push('"');
    }
    if is_formula {
        csv.push('\'');
    }
    csv.push_str(&text.replace('"', "\"\""));
    if is_quoted {
        csv.push('"');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> String {
        let mut csv = String::new();
        write_text(&mut csv, text);
        csv
    }

    #[test]
    fn texts_are_quoted_where_they_must_be() {
        assert_eq!(text("EUR"), "EUR");
        assert_eq!(text("a, b"), "\"a, b\"");
        assert_eq!(text("the \"best\""), "\"the \"\"best\"\"\"");
        assert_eq!(text("two\r\nlines"), "\"two\r\nlines\"");
    }

    #[test]
    fn no_text_is_a_formula() {
        assert_eq!(text("=1+1"), "'=1+1");
        assert_eq!(text("=HYPERLINK(\"http://x\",\"y\")"), "\"'=HYPERLINK(\"\"http://x\"\",\"\"y\"\")\"");
        for begins in ["+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "＝1"] {
            let field = text(begins);
            assert!(field.trim_start_matches('"').starts_with('\''), "{field:?}");
        }
    }

    #[test]
    fn numbers_stay_numbers() {
        let mut csv = String::new();
        write(&mut csv, &[Field::Text("a"), Field::Number(-5), Field::Number(7)]);
        assert_eq!(csv, "a,-5,7\r\n");
    }
}
