//! Templates: files that are compiled in, two of each kind and language. The first line of a text is the subject.
//!
//! What is missing in the data is an error, and values are escaped in HTML.

use minijinja::{Environment, UndefinedBehavior, Value, context};
use serde::Serialize;

use crate::kind::Kind;
use crate::locale::Language;

macro_rules! files {
    ($($stem:literal)*) => {
        [("layout.html", include_str!("../templates/layout.html")), ("sms.txt", include_str!("../templates/sms.txt")), $((concat!($stem, ".txt"), include_str!(concat!("../templates/", $stem, ".txt"))),
           (concat!($stem, ".html"), include_str!(concat!("../templates/", $stem, ".html"))),)*]
    };
}

const FILES: [(&str, &str); 36] = files!(
    "lines"
    "order_confirmed.de" "order_confirmed.en"
    "order_fulfilled.de" "order_fulfilled.en"
    "order_rejected.de" "order_rejected.en"
    "order_payment_failed.de" "order_payment_failed.en"
    "order_cancelled.de" "order_cancelled.en"
    "order_expired.de" "order_expired.en"
    "reset_password.de" "reset_password.en"
    "verify_email.de" "verify_email.en"
);

/// What a template gets.
#[derive(Debug, Serialize)]
pub(crate) struct Data<'a> {
    pub(crate) shop: &'a str,
    /// The name of the account. None to an address that nobody has proved to be theirs: a name may be anybody's text.
    pub(crate) name: Option<&'a str>,
    pub(crate) order: Option<Order>,
    pub(crate) link: Option<Link<'a>>,
}

#[derive(Debug, Serialize)]
pub(crate) struct Order {
    pub(crate) id: String,
    /// When it was placed.
    pub(crate) date: String,
    /// When it was sent, or ended.
    pub(crate) event_date: String,
    pub(crate) total: String,
    /// Only of a confirmed order.
    pub(crate) lines: Vec<Line>,
    /// Only of a fulfilled order.
    pub(crate) carrier: String,
    pub(crate) tracking_number: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Line {
    pub(crate) title: String,
    pub(crate) quantity: i32,
    /// Of one unit.
    pub(crate) price: String,
}

#[derive(Debug, Serialize)]
pub(crate) struct Link<'a> {
    pub(crate) url: &'a str,
    pub(crate) expires: String,
}

/// A rendered mail, and the text message instead of it.
#[derive(Debug, PartialEq)]
pub(crate) struct Text {
    pub(crate) subject: String,
    pub(crate) text: String,
    pub(crate) html: String,
    /// A text message.
    pub(crate) sms: String,
}

pub(crate) struct Templates {
    environment: Environment<'static>,
    pub(crate) shop: String,
}

impl Templates {
    pub(crate) fn new(shop: &str) -> Self {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        for (name, source) in FILES {
            environment.add_template(name, source).unwrap_or_else(|error| panic!("{name}: {error:#}"));
        }
        Self { environment, shop: shop.to_owned() }
    }

    pub(crate) fn render(&self, kind: Kind, language: Language, data: &Data<'_>) -> Result<Text, minijinja::Error> {
        let name = |ending| format!("{}.{}.{ending}", kind.name().to_lowercase(), language.code());
        let text = self.environment.get_template(&name("txt"))?.render(data)?;
        let html = self.environment.get_template(&name("html"))?.render(data)?;
        let (subject, text) = text.split_once('\n').unwrap_or((&text, ""));
        let (subject, text) = (subject.trim().to_owned(), text.trim_start().to_owned());
        let sms = self.environment.get_template("sms.txt")?;
        let sms = sms.render(context! { subject => &subject, ..Value::from_serialize(data) })?;
        // A no-break space is not in the alphabet of text messages (GSM 03.38): with it, half as many characters are in one.
        let sms = sms.replace('\u{a0}', " ");
        Ok(Text { subject, text, html, sms })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data() -> Data<'static> {
        let line = |title: &str| Line { title: title.to_owned(), quantity: 2, price: "€12.90".to_owned() };
        Data {
            shop: "Souk",
            name: Some("<b>Ada & Co</b>"),
            order: Some(Order {
                id: "01a21008-31bf-734b-ab66-d08b4f7932bf".to_owned(),
                date: "1 January 2026".to_owned(),
                event_date: "2 January 2026".to_owned(),
                total: "€51.60".to_owned(),
                lines: vec![line("Saffron, 1 g"), line("<script>alert(1)</script>")],
                carrier: "DHL".to_owned(),
                tracking_number: "\"00340\"".to_owned(),
            }),
            link: Some(Link { url: "https://shop.test/reset#token=a_b", expires: "1 January 2026".to_owned() }),
        }
    }

    #[test]
    fn every_template_renders_and_html_is_escaped() {
        let templates = Templates::new("Souk");
        for (kind, language) in Kind::ALL.into_iter().flat_map(|kind| Language::ALL.map(|language| (kind, language))) {
            let mail = templates.render(kind, language, &data()).unwrap_or_else(|error| panic!("{kind:?}: {error:#}"));
            let Text { subject, text, html, sms } = mail;
            assert!((1..=78).contains(&subject.chars().count()), "{kind:?}: {subject:?}");
            assert!(
                !text.contains("&lt;") && !html.contains("<b>Ada"),
                "texts are not escaped, HTML is: {text} {html}"
            );
            let is_named = text.contains("<b>Ada & Co</b>") && html.contains("&lt;b&gt;Ada &amp; Co&lt;");
            assert_eq!(is_named, kind.is_of_order(), "links go to strangers, too: {kind:?}: {text} {html}");
            assert!(!html.contains("<script>"), "{kind:?}: {html}");
            assert!(sms.starts_with(&format!("Souk: {subject}")) && sms.chars().count() < 160, "{kind:?}: {sms}");
            assert!(html.contains(&format!("lang=\"{}\"", language.code())), "{kind:?}: {html}");
            let what = if kind.is_of_order() { "01a21008" } else { "reset#token=a_b" };
            assert!(text.contains(what) && html.contains(what), "{kind:?}: {text} {html}");
        }
    }

    /// The address may be a stranger's, and the name anybody's text.
    #[test]
    fn mails_about_orders_need_no_name() {
        let (templates, data) = (Templates::new("Souk"), Data { name: None, ..data() });
        for (kind, language) in Kind::ALL.into_iter().flat_map(|kind| Language::ALL.map(|language| (kind, language))) {
            let Text { text, html, .. } = templates.render(kind, language, &data).expect("rendered");
            let is_greeted = [&text, &html].iter().all(|it| it.contains("Hello,") || it.contains("Guten Tag,"));
            assert!(is_greeted, "{kind:?}: {text} {html}");
        }
    }

    /// Also in branches that no rendering takes.
    #[test]
    fn templates_use_only_what_they_get() {
        let templates = Templates::new("Souk");
        let data = context! { subject => "Your order", ..Value::from_serialize(data()) };
        for (name, template) in templates.environment.templates() {
            for path in template.undeclared_variables(true) {
                let found = path.split('.').try_fold(data.clone(), |value, field| value.get_attr(field).ok());
                let known = found.is_some_and(|value| !value.is_undefined());
                assert!(known, "{name} uses {path}, which is not in the data");
            }
        }
    }
}
