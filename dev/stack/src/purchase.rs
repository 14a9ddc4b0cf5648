//! The test purchase, which shows that everything works, and the catalogue for it: the end of `make up`, and a job of
//! `docker compose up`.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use clap::Args;

use crate::client::{Client, product_id};
use crate::mail::Inbox;

#[derive(Debug, Args)]
pub struct Options {
    /// The URL of the edge.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    edge: String,
    /// The operator's e-mail address.
    #[arg(long)]
    email: String,
    /// A file with the operator's password in its first line.
    #[arg(long)]
    password_file: PathBuf,
    /// The URL of the mail server's page: the mail about the order must arrive there.
    #[arg(long)]
    mail_page: Option<String>,
}

/// It takes milliseconds, and longer while replicas join their group.
const COUNTED_WITHIN: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
/// How many units the test purchase buys.
const TEST_PURCHASE: u32 = 2;

/// The seeded products: SKU, title, cents, units.
const CATALOGUE: [(&str, &str, i64, u32); 8] = [
    ("TEA-ASSAM", "Assam tea, 250 g", 890, 500),
    ("TEA-MINT", "Mint tea, 100 g", 450, 500),
    ("SAFFRON-1G", "Saffron, 1 g", 1_290, 200),
    ("LAMP-BRASS", "Brass lamp", 7_900, 40),
    ("RUG-KILIM", "Kilim rug, 120 x 180 cm", 24_900, 10),
    ("CUP-COPPER", "Copper cup", 1_650, 300),
    ("SOAP-OLIVE", "Olive oil soap", 350, 1_000),
    ("TRAY-SILVER", "Silver tray", 12_500, 15),
];

/// Creates the catalogue, and makes the test purchase.
pub async fn run(options: &Options) -> Result<()> {
    let file = &options.password_file;
    let password = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    let edge = Client::at(options.edge.clone());
    let operator = edge.sign_in(&options.email, password.lines().next().unwrap_or_default()).await;
    let operator = operator.context("the operator cannot sign in")?;
    match seed(&operator).await? {
        Some(product_id) => {
            let order_id = buy(&edge, &operator, &product_id).await?;
            match options.mail_page.clone() {
                Some(mail_page) => Inbox { mail_page, sms: None }.show(&order_id).await,
                None => Ok(()),
            }
        }
        None => bail!("nothing can be bought: all products of the catalogue are archived"),
    }
}

/// Creates missing products of the catalogue, and receives units of those that are sold out. Returns the id of the first
/// product that is not archived.
pub async fn seed(operator: &Client) -> Result<Option<String>> {
    let for_sale = operator.products().await?;
    let mut first = None;
    for (sku, title, cents, units) in CATALOGUE {
        let id = match for_sale.get(sku) {
            Some(id) => id.clone(),
            None => {
                let created = operator.create_product(sku, title, ("EUR", cents)).await?;
                if created.reason() == "SKU_TAKEN" {
                    continue;
                }
                product_id(&created.ok()?)?
            }
        };
        if operator.available(sku).await? < i64::from(TEST_PURCHASE) {
            operator.receive(sku, units).await?.ok()?;
        }
        first.get_or_insert(id);
    }
    Ok(first)
}

/// A new customer buys a product, and waits until it is paid; the operator, until it is in the figures. The id of the order.
pub(crate) async fn buy(edge: &Client, operator: &Client, product_id: &str) -> Result<String> {
    let before = sales_of_today(operator).await?;
    let customer = edge.register().await?;
    customer.set_phone("+4930123456").await?;
    let begun = Instant::now();
    let order = customer.order(product_id, TEST_PURCHASE.cast_signed(), "pm_card_visa").await?.ok()?["order"].clone();
    let order_id = order["orderId"].as_str().context("an order has an id")?;
    customer.wait_for_state(order_id, "CONFIRMED").await?;
    let took = begun.elapsed();
    let paid = |order: &serde_json::Value| order["payment"]["captured"] == true;
    let order = customer.wait_for(order_id, Duration::from_secs(60), "paid", paid).await?;
    println!("order {order_id} was confirmed in {} ms and is paid", took.as_millis());
    println!("{}", serde_json::to_string_pretty(&order)?);
    show_sales(operator, before).await?;
    Ok(order_id.to_owned())
}

/// What was sold today, in cents.
async fn sales_of_today(operator: &Client) -> Result<i64> {
    let today = operator.get("/v1/analytics/sales?currency=EUR").await?.ok()?;
    // The last period is today's, if anything was sold today.
    let periods = today["periods"].as_array().context("a list")?;
    let ends_today = |period: &&serde_json::Value| {
        let starts = period["localStart"].as_str().unwrap_or_default();
        today["endDate"].as_str().is_some_and(|date| starts.starts_with(date))
    };
    let gross = periods.iter().rfind(ends_today).map(|period| &period["sales"]["gross"]["minor"]);
    Ok(gross.and_then(|minor| minor.as_str()).and_then(|minor| minor.parse().ok()).unwrap_or_default())
}

/// Shows the sales figure that the order moved.
async fn show_sales(operator: &Client, before: i64) -> Result<()> {
    let begun = Instant::now();
    loop {
        let now = sales_of_today(operator).await?;
        if now != before {
            let euros = |cents: i64| format!("{}.{:02}", cents / 100, cents % 100);
            println!("sales of today: {} EUR, before {} EUR", euros(now), euros(before));
            return Ok(());
        }
        ensure!(begun.elapsed() < COUNTED_WITHIN, "the order is not in the figures of analytics");
        tokio::time::sleep(LOOK_AGAIN).await;
    }
}
