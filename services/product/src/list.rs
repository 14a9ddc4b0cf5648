//! The catalogue, by title.

use chassis::rpc::page::Page;
use contracts::souk::product::v1::{ListProductsRequest, ListProductsResponse};
use uuid::Uuid;

use crate::error::Error;
use crate::product::Product;
use crate::service::Service;

pub(crate) async fn list(service: &Service, request: ListProductsRequest) -> Result<ListProductsResponse, Error> {
    let page = Page::<(String, Uuid)>::parse(request.page_size, &request.page_token, "products")?;
    // Every title is behind the empty one, so that the first page is a range of the index like all others.
    let (title, product_id) = page.after.clone().unwrap_or_default();
    if title.contains('\0') {
        return Err(chassis::Error::PageTokenInvalid.into());
    }
    let mut products = sqlx::query_as!(
        Product,
        r#"select product_id as "product_id: _", sku, title, description, currency, price_minor, state as "state: _", version,
           created_at, updated_at
         from product
         where state = 'ACTIVE' and (title collate "C", product_id) > ($1, $2)
         order by title collate "C", product_id limit $3"#,
        title,
        product_id,
        page.limit(),
    )
    .fetch_all(&service.db)
    .await?;
    let next_page_token = page.cut(&mut products, |product| (product.title.clone(), product.product_id.0));
    Ok(ListProductsResponse { products: products.into_iter().map(Product::into_proto).collect(), next_page_token })
}
