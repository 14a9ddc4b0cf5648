//! The catalogue, by title, price or age; and what is archived.
//!
//! The sessions of `Service::lists` plan each statement for its parameters: a filter that is not given costs nothing, and the plan
//! for a small category is not that for a large one.

use chassis::rpc::error::Violation;
use chassis::rpc::page::{self, Page};
use contracts::souk::product::v1::*;
use uuid::Uuid;

use crate::category::{CategoryId, find_tree, parse_category};
use crate::error::Error;
use crate::product::{Product, ProductId};
use crate::service::Service;

/// Which products; the same for all orders.
struct Filter {
    /// None: of all.
    categories: Option<Vec<Uuid>>,
    currency: Option<String>,
    least: i64,
    most: i64,
}

/// A product of a list.
pub(crate) struct Listed {
    pub(crate) product_id: ProductId,
    pub(crate) sku: String,
    /// Of the page that begins behind it.
    pub(crate) page_token: String,
}

/// Whether or not they are in stock.
pub(crate) async fn list(service: &Service, request: &ListProductsRequest) -> Result<ListProductsResponse, Error> {
    let mut listed = read(service, request).await?;
    let next_page_token = cut(&mut listed, page::size(request.page_size)?);
    let products = Product::find_in_order(&service.lists, &ids(&listed)).await?;
    Ok(ListProductsResponse { products, next_page_token })
}

pub(crate) fn ids(listed: &[Listed]) -> Vec<ProductId> {
    listed.iter().map(|it| it.product_id).collect()
}

/// Truncates a page of which more was read, and returns the token of the next.
pub(crate) fn cut(listed: &mut Vec<Listed>, size: usize) -> String {
    if listed.len() <= size {
        return String::new();
    }
    listed.truncate(size);
    listed.last().map(|last| last.page_token.clone()).unwrap_or_default()
}

/// The products of a page, and one more if there is a next page.
pub(crate) async fn read(service: &Service, request: &ListProductsRequest) -> Result<Vec<Listed>, Error> {
    let category_id = parse_category(&request.category_id, "category_id")?;
    check_prices(request).map_err(|violation| chassis::Error::FieldsInvalid(vec![violation]))?;
    // A token is valid for one filter and order. Without any, the list has its old name, so that older tokens stay valid.
    let plain = ListProductsRequest {
        page_size: request.page_size,
        page_token: request.page_token.clone(),
        ..Default::default()
    };
    let list = if *request == plain {
        "products".to_owned()
    } else {
        let ListProductsRequest { currency, min_price_minor, max_price_minor, order_by, .. } = request;
        format!("products of {category_id:?}, {currency:?}, {min_price_minor} to {max_price_minor}, by {order_by}")
    };
    let (size, token) = (request.page_size, request.page_token.as_str());
    match request.order_by.as_str() {
        "" | "title" => {
            let page = Page::parse(size, token, &list)?;
            by_title(service, &page, &filter(service, category_id, request).await?).await
        }
        "price" | "price desc" => {
            let page = Page::parse(size, token, &list)?;
            let filter = filter(service, category_id, request).await?;
            match request.order_by.as_str() {
                "price" => by_price(service, &page, &filter).await,
                _ => by_price_descending(service, &page, &filter).await,
            }
        }
        _ => {
            let page = Page::parse(size, token, &list)?;
            newest(service, &page, &filter(service, category_id, request).await?).await
        }
    }
}

pub(crate) async fn list_archived(
    service: &Service,
    request: ListArchivedProductsRequest,
) -> Result<ListArchivedProductsResponse, Error> {
    let category_id = parse_category(&request.category_id, "category_id")?;
    let list = format!("archived products of {category_id:?}");
    let page = Page::<Uuid>::parse(request.page_size, &request.page_token, &list)?;
    let categories = find_categories(service, category_id).await?;
    let query = sqlx::query_scalar!(
        r#"select product_id as "product_id: ProductId" from product
           where state = 'ARCHIVED' and product_id < $1 and ($2::uuid[] is null or category_id = any($2))
           order by product_id desc limit $3"#,
        page.after.unwrap_or(Uuid::max()),
        categories as Option<Vec<Uuid>>,
        page.limit(),
    );
    let mut product_ids = query.fetch_all(&service.lists).await?;
    let next_page_token = page.cut(&mut product_ids, |product_id| product_id.0);
    let products = Product::find_in_order(&service.lists, &product_ids).await?;
    Ok(ListArchivedProductsResponse { products, next_page_token })
}

/// Prices in different currencies are not compared.
fn check_prices(request: &ListProductsRequest) -> Result<(), Violation> {
    let (least, most) = (request.min_price_minor, request.max_price_minor);
    let concerns_prices = least > 0 || most > 0 || request.order_by.starts_with("price");
    if request.currency.is_empty() && concerns_prices {
        return Err(("currency".to_owned(), "is required with what concerns prices".to_owned()));
    }
    if most > 0 && most < least {
        return Err(("max_price_minor".to_owned(), "must not be less than min_price_minor".to_owned()));
    }
    Ok(())
}

async fn filter(
    service: &Service,
    category_id: Option<CategoryId>,
    request: &ListProductsRequest,
) -> Result<Filter, Error> {
    Ok(Filter {
        categories: find_categories(service, category_id).await?,
        currency: Some(request.currency.clone()).filter(|it| !it.is_empty()),
        least: request.min_price_minor,
        most: if request.max_price_minor == 0 { i64::MAX } else { request.max_price_minor },
    })
}

/// The category and those below it; none, if no category was asked for.
async fn find_categories(service: &Service, category_id: Option<CategoryId>) -> Result<Option<Vec<Uuid>>, Error> {
    let Some(category_id) = category_id else { return Ok(None) };
    let tree = find_tree(&service.lists, category_id).await?;
    if tree.is_empty() {
        Err(Error::CategoryNotFound)
    } else {
        Ok(Some(tree.into_iter().map(|(id, _)| id.0).collect()))
    }
}

/// Postgres has no such text. It can only be in a token that somebody made.
pub(crate) fn check_text(text: &str) -> Result<(), chassis::Error> {
    if text.contains('\0') { Err(chassis::Error::PageTokenInvalid) } else { Ok(()) }
}

async fn by_title(service: &Service, page: &Page<(String, Uuid)>, filter: &Filter) -> Result<Vec<Listed>, Error> {
    // Every title is behind the empty one, so that the first page is a range of the index like all others.
    let (title, product_id) = page.after.clone().unwrap_or_default();
    check_text(&title)?;
    let query = sqlx::query!(
        r#"select product_id as "product_id: ProductId", sku, title from product
           where state = 'ACTIVE' and (title collate "C", product_id) > ($1, $2)
             and ($3::uuid[] is null or category_id = any($3))
             and ($4::text is null or currency = $4 and price_minor between $5 and $6)
           order by title collate "C", product_id limit $7"#,
        title,
        product_id,
        filter.categories.as_deref(),
        filter.currency.as_deref(),
        filter.least,
        filter.most,
        page.limit(),
    );
    let rows = query.fetch_all(&service.lists).await?.into_iter();
    Ok(rows
        .map(|row| {
            let page_token = page.token(&(row.title, row.product_id.0));
            Listed { product_id: row.product_id, sku: row.sku, page_token }
        })
        .collect())
}

async fn by_price(service: &Service, page: &Page<(i64, Uuid)>, filter: &Filter) -> Result<Vec<Listed>, Error> {
    let (price, product_id) = page.after.unwrap_or((0, Uuid::nil()));
    let query = sqlx::query!(
        r#"select product_id as "product_id: ProductId", sku, price_minor from product
           where state = 'ACTIVE' and currency = $4 and (price_minor, product_id) > ($1, $2)
             and ($3::uuid[] is null or category_id = any($3)) and price_minor between $5 and $6
           order by price_minor, product_id limit $7"#,
        price,
        product_id,
        filter.categories.as_deref(),
        filter.currency.as_deref(),
        filter.least,
        filter.most,
        page.limit(),
    );
    let rows = query.fetch_all(&service.lists).await?.into_iter();
    Ok(rows
        .map(|row| {
            let page_token = page.token(&(row.price_minor, row.product_id.0));
            Listed { product_id: row.product_id, sku: row.sku, page_token }
        })
        .collect())
}

async fn by_price_descending(
    service: &Service,
    page: &Page<(i64, Uuid)>,
    filter: &Filter,
) -> Result<Vec<Listed>, Error> {
    let (price, product_id) = page.after.unwrap_or((i64::MAX, Uuid::nil()));
    let query = sqlx::query!(
        r#"select product_id as "product_id: ProductId", sku, price_minor from product
           where state = 'ACTIVE' and currency = $4 and (price_minor, product_id) < ($1, $2)
             and ($3::uuid[] is null or category_id = any($3)) and price_minor between $5 and $6
           order by price_minor desc, product_id desc limit $7"#,
        price,
        product_id,
        filter.categories.as_deref(),
        filter.currency.as_deref(),
        filter.least,
        filter.most,
        page.limit(),
    );
    let rows = query.fetch_all(&service.lists).await?.into_iter();
    Ok(rows
        .map(|row| {
            let page_token = page.token(&(row.price_minor, row.product_id.0));
            Listed { product_id: row.product_id, sku: row.sku, page_token }
        })
        .collect())
}

/// Ids begin with the time.
async fn newest(service: &Service, page: &Page<Uuid>, filter: &Filter) -> Result<Vec<Listed>, Error> {
    let query = sqlx::query!(
        r#"select product_id as "product_id: ProductId", sku from product
           where state = 'ACTIVE' and product_id < $1 and ($2::uuid[] is null or category_id = any($2))
             and ($3::text is null or currency = $3 and price_minor between $4 and $5)
           order by product_id desc limit $6"#,
        page.after.unwrap_or(Uuid::max()),
        filter.categories.as_deref(),
        filter.currency.as_deref(),
        filter.least,
        filter.most,
        page.limit(),
    );
    let rows = query.fetch_all(&service.lists).await?.into_iter();
    Ok(rows
        .map(|row| Listed { product_id: row.product_id, sku: row.sku, page_token: page.token(&row.product_id.0) })
        .collect())
}
