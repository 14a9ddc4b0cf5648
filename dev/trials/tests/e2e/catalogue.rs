//! The catalogue that `make up` seeds.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use stack::purchase::seed;

use crate::{new_sku, shared};

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
