//! Rename a category, or move it with all that is below it.

use chassis::Caller;
use chassis::rpc::error::on_constraint;
use chassis::rpc::update::{Mask, check_etag};
use contracts::souk::product::v1::{UpdateCategoryRequest, UpdateCategoryResponse};

use crate::category::{Category, CategoryId, check_parent, find_tree, lock_tree, parse_category};
use crate::error::Error;
use crate::service::Service;

pub(crate) async fn update(
    service: &Service,
    caller: &Caller,
    request: UpdateCategoryRequest,
) -> Result<UpdateCategoryResponse, Error> {
    let wanted = request.category.unwrap_or_default();
    let category_id = CategoryId::parse(&wanted.category_id)
        .ok_or_else(|| chassis::Error::field("category.category_id", "must be a UUID"))?;
    let mask = Mask::parse(request.update_mask, &["name", "parent_id"])?;
    let name = mask.pick("name", Some(wanted.name).filter(|it| !it.is_empty()));
    if name.as_deref() == Some("") {
        return Err(chassis::Error::field("category.name", "must have 1 to 100 characters").into());
    }
    let parent_id = mask.pick("parent_id", Some(wanted.parent_id).filter(|it| !it.is_empty()));
    let parent_id = parent_id.map(|it| parse_category(&it, "category.parent_id")).transpose()?;

    let mut tx = service.db.begin().await?;
    lock_tree(&mut tx).await?;
    let mut category = Category::find(&mut tx, category_id).await?.ok_or(Error::CategoryNotFound)?;
    check_etag(&wanted.etag, category.version)?;
    let before = category.clone();
    category.name = name.unwrap_or(category.name);
    if let Some(parent_id) = parent_id.filter(|it| *it != before.parent_id) {
        let levels = find_tree(&mut *tx, category_id).await?.into_iter().map(|(_, level)| level).max().unwrap_or(1);
        check_parent(&mut tx, parent_id, Some(category_id), levels).await?;
        category.parent_id = parent_id;
    }
    let changed = category != before;
    if changed {
        let saved = category.save(&mut tx, service.clock.now()).await;
        saved.map_err(on_constraint("category_name", Error::CategoryNameTaken))?;
    }
    tx.commit().await?;
    if changed {
        tracing::info!(%category_id, version = category.version, actor = caller.actor(), "a category was changed");
    }
    Ok(UpdateCategoryResponse { category: Some(category.into_proto()) })
}
