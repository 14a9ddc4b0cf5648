//! A line of the file, as a product. Only what is no product at all is an error here: the service checks the rest.

use std::collections::HashMap;
use std::io::Read;

use contracts::souk::product::v1::{Image, Product};
use contracts::souk::r#type::v1::Money;
use csv::{Reader, StringRecord};

const REQUIRED: [&str; 4] = ["sku", "title", "currency", "price_minor"];
const OPTIONAL: [&str; 5] = ["description", "language", "category", "image_url", "image_alt"];
/// As many as a product may have.
const MOST_IMAGES: usize = 10;

/// The ids of categories by their paths, such as `Kitchen > Mugs`. Rarely, several have one path.
pub(crate) type Categories = HashMap<String, Vec<String>>;

/// A column, and what is wrong with its value.
pub(crate) type Wrong = (String, String);

/// Which column is where.
#[derive(Debug)]
pub(crate) struct Columns {
    at: HashMap<&'static str, usize>,
    images: Vec<(usize, usize)>,
    count: usize,
}

impl Columns {
    pub(crate) fn read(file: &mut Reader<impl Read>) -> Result<Self, String> {
        let names = file.headers().map_err(|error| error.to_string())?;
        let (mut at, mut urls, mut alts) = (HashMap::new(), Vec::new(), Vec::new());
        for (place, name) in names.iter().enumerate() {
            // Some programs write a mark of the encoding first.
            let name = name.trim_start_matches('\u{feff}').trim();
            let known = REQUIRED.iter().chain(&OPTIONAL).find(|it| **it == name);
            let known = known.ok_or_else(|| {
                format!(
                    "there is no column `{name}`: the columns are {} and {}",
                    REQUIRED.join(", "),
                    OPTIONAL.join(", ")
                )
            })?;
            match *known {
                "image_url" => urls.push(place),
                "image_alt" => alts.push(place),
                known if at.insert(known, place).is_some() => {
                    return Err(format!("the column `{known}` is there twice"));
                }
                _ => {}
            }
        }
        if let Some(missing) = REQUIRED.iter().find(|it| !at.contains_key(**it)) {
            return Err(format!("the column `{missing}` is missing"));
        }
        if urls.len() != alts.len() || urls.len() > MOST_IMAGES {
            return Err(format!("each image_url needs an image_alt, and there are {MOST_IMAGES} at most"));
        }
        Ok(Self { at, images: urls.into_iter().zip(alts).collect(), count: names.len() })
    }

    pub(crate) fn has_category(&self) -> bool {
        self.at.contains_key("category")
    }

    /// What stands where the SKU should.
    pub(crate) fn sku<'a>(&self, line: &'a StringRecord) -> &'a str {
        self.at.get("sku").and_then(|at| line.get(*at)).unwrap_or_default()
    }

    /// The product of a line, or all that is wrong with it.
    pub(crate) fn parse(&self, line: &StringRecord, categories: &Categories) -> Result<Product, Vec<Wrong>> {
        if line.len() != self.count {
            let why = format!("there are {} values for {} columns", line.len(), self.count);
            return Err(vec![("line".to_owned(), why)]);
        }
        let text = |column: &str| self.at.get(column).and_then(|at| line.get(*at)).unwrap_or_default().to_owned();
        let mut wrong = Vec::new();
        let minor = text("price_minor").trim().parse().unwrap_or_else(|_| {
            wrong.push(("price_minor".to_owned(), "must be a number without a decimal point".to_owned()));
            1
        });
        let category = text("category");
        let category_id = match categories.get(category.trim()).map(Vec::as_slice) {
            Some([category_id]) => category_id.clone(),
            None if category.trim().is_empty() => String::new(),
            several => {
                let why =
                    if several.is_some() { "several categories have this path" } else { "there is no such category" };
                wrong.push(("category".to_owned(), why.to_owned()));
                String::new()
            }
        };
        let images = self.images.iter().map(|(url, alt)| [*url, *alt].map(|at| line.get(at).unwrap_or_default()));
        let images = images.filter(|image| image.iter().any(|it| !it.is_empty()));
        let images = images.map(|[url, alt]| Image { url: url.to_owned(), alt: alt.to_owned() }).collect();
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Product {
            sku: text("sku"),
            title: text("title"),
            description: text("description"),
            language: text("language"),
            price: Some(Money::new(text("currency"), minor)),
            category_id,
            images,
            ..Default::default()
        })
    }
}

/// The column of a field that the service names.
pub(crate) fn column(field: &str) -> String {
    let field = field.strip_prefix("product.").unwrap_or(field);
    match field {
        "price.currency" => "currency".to_owned(),
        "price.minor" | "price" => "price_minor".to_owned(),
        "category_id" => "category".to_owned(),
        field => match field.strip_prefix("images[").and_then(|rest| rest.split_once("].")) {
            Some((number, part)) => format!("image_{part} {}", number.parse().unwrap_or(0_usize) + 1),
            None => field.to_owned(),
        },
    }
}
