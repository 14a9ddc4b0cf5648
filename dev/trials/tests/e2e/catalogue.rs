//! The catalogue that `make up` seeds.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use stack::client::Client;
use stack::controlled::Stack;
use stack::purchase::seed;
use tokio::process::Command;

use crate::{new_sku, order_id, shared, wait};

#[test]
fn seeding_again_leaves_something_to_buy() -> Result<()> {
    shared(async |stack| {
        let operator = stack.operator().await?;
        let first = seed(&operator).await?.context("a fresh catalogue can be bought from")?;
        ensure!(seed(&operator).await?.as_ref() == Some(&first), "the same product");

        // More than one page of other products, whose titles come first.
        for _ in 0..200 {
            operator.create_product(&new_sku(), "A thing", ("EUR", 1)).await?.ok()?;
        }
        let units = operator.available("TEA-ASSAM").await?;
        let lost = json!({"change": 1 - units, "reason": "ADJUST_REASON_LOSS"});
        operator.post("/v1/stock/TEA-ASSAM:adjust", lost).await?.ok()?;
        ensure!(seed(&operator).await?.as_ref() == Some(&first), "still the same product");
        ensure!(operator.available("TEA-ASSAM").await? > 1, "there are units again");

        operator.post(&format!("/v1/products/{first}:archive"), json!({})).await?.ok()?;
        let second = seed(&operator).await?.context("the others can be bought")?;
        ensure!(second != first && operator.products().await?.get("TEA-MINT") == Some(&second));
        Ok(())
    })
}

/// Runs `souk product import` at the edge. Returns the exit code, and what it printed.
async fn import(stack: &Stack, file: &str, password: &str, arguments: &[&str]) -> Result<(Option<i32>, String)> {
    let folder = tempfile::tempdir()?;
    let (products, secret) = (folder.path().join("products.csv"), folder.path().join("operator.password"));
    std::fs::write(&products, file)?;
    std::fs::write(&secret, password)?;
    let mut souk = Command::new(stack.layout.program("souk"));
    souk.args(["product", "import"])
        .arg(&products)
        .args(["--email", &stack.operator.0, "--password-file"])
        .arg(&secret);
    souk.arg(format!("--edge=http://127.0.0.1:{}", stack.ports().edge())).args(arguments);
    let output = souk.output().await?;
    let printed = [output.stdout, output.stderr].concat();
    Ok((output.status.code(), String::from_utf8(printed)?))
}

#[test]
fn a_file_of_products_is_imported_at_the_edge() -> Result<()> {
    shared(async |stack| {
        let (name, password) = (new_sku(), &stack.operator.1);
        let lines = (0..50).map(|number| format!("{name}-{number},An imported thing,EUR,{}\n", number + 1));
        let file = format!("sku,title,currency,price_minor\n{}", lines.collect::<String>());
        let dry = import(stack, &file, password, &["--dry-run"]).await?;
        ensure!(dry.0 == Some(0) && dry.1.starts_with("50 products would be created, 0 existed"), "{dry:?}");
        let first = import(stack, &file, password, &[]).await?;
        // On a slow machine, a call is repeated whose response is late, and finds what it has created.
        let all =
            (0..=5).any(|late| first.1.starts_with(&format!("{} products were created, {late} existed", 50 - late)));
        ensure!(first.0 == Some(0) && all, "{first:?}");
        let again = import(stack, &format!("{file}{name}-X,Free,EUR,0\n"), password, &[]).await?;
        ensure!(again.0 == Some(1) && again.1.contains("line 52, "), "{again:?}");
        ensure!(
            again.1.contains("price_minor: ") && again.1.contains("0 products were created, 50 existed"),
            "{again:?}"
        );
        let refused = import(stack, &file, "a wrong password", &[]).await?;
        ensure!(refused.0 == Some(1) && refused.1.contains("signing in: "), "{refused:?}");
        let unknown = import(stack, "sku,colour\n", password, &[]).await?;
        ensure!(unknown.0 == Some(64) && unknown.1.contains("no column `colour`"), "{unknown:?}");
        Ok(())
    })
}

/// The SKUs in stock of all products with a price in Swedish crowns, which only this test has.
async fn in_stock(client: &Client) -> Result<Vec<String>> {
    let listed = client.get("/v1/products?inStock=true&currency=SEK").await?.ok()?;
    let products = listed["products"].as_array().context("a list")?.iter();
    Ok(products.filter_map(|it: &Value| Some(it["sku"].as_str()?.to_owned())).collect())
}

#[test]
fn what_was_sold_out_is_not_listed_among_what_is_in_stock() -> Result<()> {
    shared(async |stack| {
        let (operator, customer) = (stack.operator().await?, stack.customer().await?);
        let (sku, other) = (new_sku(), new_sku());
        let product = operator.stock(&sku, "The last one", ("SEK", 100), 1).await?;
        operator.stock(&other, "None", ("SEK", 100), 0).await?;
        ensure!(in_stock(&customer).await? == [sku], "{:?}", in_stock(&customer).await?);
        order_id(&customer.order(&product, 1, "pm_card_visa").await?)?;
        wait("it to be sold out", async || Ok(in_stock(&customer).await?.is_empty())).await?;
        operator.receive(&other, 2).await?.ok()?;
        ensure!(in_stock(&customer).await? == [other], "{:?}", in_stock(&customer).await?);
        Ok(())
    })
}
