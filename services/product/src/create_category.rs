//! Add a category. Its name and parent are its idempotency key: a repeated call finds the name taken.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use contracts::souk::product::v1::{CreateCategoryRequest, CreateCategoryResponse};

use crate::category::{Category, CategoryId, MOST, check_parent, lock_tree, parse_category};
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn create(
    service: &Service,
    caller: &Caller,
    request: CreateCategoryRequest,
) -> Result<CreateCategoryResponse, Error> {
    let wanted = request.category.unwrap_or_default();
    if wanted.name.is_empty() {
        return Err(chassis::Error::field("category.name", "is required").into());
    }
    let parent_id = parse_category(&wanted.parent_id, "category.parent_id")?;

    let mut tx = service.db.begin().await?;
    lock_tree(&mut tx).await?;
    let count = sqlx::query_scalar!(r#"select count(*) as "count!" from category"#).fetch_one(&mut *tx).await?;
    if count >= MOST {
        return Err(Error::CategoriesTooMany);
    }
    check_parent(&mut tx, parent_id, None, 1).await?;
    let now = service.clock.now();
    let category = Category {
        category_id: CategoryId::new(service.clock.new_id()),
        parent_id,
        name: wanted.name,
        version: 1,
        created_at: now,
        updated_at: now,
    };
    category.insert(&mut tx).await.map_err(on_constraint("category_name", Error::CategoryNameTaken))?;
    tx.commit().await?;
    tracing::info!(category_id = %category.category_id, actor = caller.actor(), "a category was created");
    Ok(CreateCategoryResponse { category: Some(category.into_proto()) })
}
