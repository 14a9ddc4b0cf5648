//! The categories, by name.

use chassis::rpc::page::Page;
use contracts::souk::product::v1::{ListCategoriesRequest, ListCategoriesResponse};
use uuid::Uuid;

use crate::category::{Category, CategoryId, parse_category};
use crate::error::Error;
use crate::list::check_text;
use crate::service::Service;

pub(crate) async fn list(service: &Service, request: ListCategoriesRequest) -> Result<ListCategoriesResponse, Error> {
    let parent_id = parse_category(&request.parent_id, "parent_id")?;
    let list = format!("categories of {parent_id:?}");
    let page = Page::<(String, Uuid)>::parse(request.page_size, &request.page_token, &list)?;
    let (name, category_id) = page.after.clone().unwrap_or_default();
    check_text(&name)?;
    let mut categories = sqlx::query_as!(
        Category,
        r#"select category_id as "category_id: _", parent_id as "parent_id: _", name, version, created_at, updated_at
           from category
           where (name collate "C", category_id) > ($1, $2) and ($3::uuid is null or parent_id = $3)
           order by name collate "C", category_id limit $4"#,
        name,
        category_id,
        parent_id as Option<CategoryId>,
        page.limit(),
    )
    .fetch_all(&service.db)
    .await?;
    let next_page_token = page.cut(&mut categories, |category| (category.name.clone(), category.category_id.0));
    Ok(ListCategoriesResponse {
        categories: categories.into_iter().map(Category::into_proto).collect(),
        next_page_token,
    })
}
