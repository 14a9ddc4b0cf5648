//! Categories: a tree in one table. Only one transaction at a time changes it, so that what it has checked stays true.

use chassis::rpc::update::etag;
use chassis::{Error as ChassisError, Id, Unexpected, timestamp};
use contracts::souk::product::v1 as proto;
use sqlx::{PgConnection, PgExecutor};
use time::OffsetDateTime;

use crate::error::Error;

pub(crate) type CategoryId = Id<Category>;

/// Levels of the tree.
pub(crate) const DEEPEST: i64 = 10;
/// All of them are read to find what is below one.
pub(crate) const MOST: i64 = 10_000;

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Category {
    pub(crate) category_id: CategoryId,
    pub(crate) parent_id: Option<CategoryId>,
    pub(crate) name: String,
    pub(crate) version: i64,
    pub(crate) created_at: OffsetDateTime,
    pub(crate) updated_at: OffsetDateTime,
}

/// Empty: none. `field` is where the id stands in the request.
pub(crate) fn parse_category(text: &str, field: &str) -> Result<Option<CategoryId>, ChassisError> {
    if text.is_empty() {
        return Ok(None);
    }
    CategoryId::parse(text).map(Some).ok_or_else(|| ChassisError::field(field, "must be a UUID"))
}

/// Waits until no other transaction changes the tree. Readers, and products that name a category, do not wait.
pub(crate) async fn lock_tree(db: &mut PgConnection) -> Result<(), Unexpected> {
    sqlx::query!("lock table category in share row exclusive mode").execute(db).await?;
    Ok(())
}

/// The category and all that are above it, nearest first. Empty: there is none.
pub(crate) async fn find_path(db: &mut PgConnection, category_id: CategoryId) -> Result<Vec<CategoryId>, Unexpected> {
    let path = sqlx::query_scalar!(
        r#"with recursive path as (
             select category_id, parent_id, 1 as level from category where category_id = $1
             union all
             select above.category_id, above.parent_id, level + 1 from path join category as above
               on above.category_id = path.parent_id where level < 100)
           select category_id as "category_id!: CategoryId" from path order by level"#,
        category_id as CategoryId,
    );
    Ok(path.fetch_all(db).await?)
}

/// The category and all that are below it, with their levels, from 1. Empty: there is none.
pub(crate) async fn find_tree(
    db: impl PgExecutor<'_>,
    category_id: CategoryId,
) -> Result<Vec<(CategoryId, i64)>, Unexpected> {
    let tree = sqlx::query!(
        r#"with recursive tree as (
             select category_id, 1::bigint as level from category where category_id = $1
             union all
             select below.category_id, level + 1 from tree join category as below
               on below.parent_id = tree.category_id where level < 100)
           select category_id as "category_id!: CategoryId", level as "level!" from tree"#,
        category_id as CategoryId,
    );
    Ok(tree.fetch_all(db).await?.into_iter().map(|row| (row.category_id, row.level)).collect())
}

/// Checks that `levels` fit below `parent_id`. The tree is locked.
pub(crate) async fn check_parent(
    db: &mut PgConnection,
    parent_id: Option<CategoryId>,
    moved: Option<CategoryId>,
    levels: i64,
) -> Result<(), Error> {
    let Some(parent_id) = parent_id else { return Ok(()) };
    let path = find_path(db, parent_id).await?;
    if path.is_empty() {
        return Err(Error::CategoryUnknown { field: "category.parent_id" });
    }
    if moved.is_some_and(|moved| path.contains(&moved)) {
        return Err(Error::CategoryCycle);
    }
    let above = i64::try_from(path.len()).expect("it is short");
    if above + levels > DEEPEST { Err(Error::CategoryTooDeep) } else { Ok(()) }
}

impl Category {
    pub(crate) async fn insert(&self, db: &mut PgConnection) -> Result<(), Unexpected> {
        sqlx::query!(
            "insert into category (category_id, parent_id, name, version, created_at, updated_at)
             values ($1, $2, $3, $4, $5, $6)",
            self.category_id as CategoryId,
            self.parent_id as Option<CategoryId>,
            self.name,
            self.version,
            self.created_at,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) async fn find(db: &mut PgConnection, category_id: CategoryId) -> Result<Option<Self>, Unexpected> {
        let category = sqlx::query_as!(
            Self,
            r#"select category_id as "category_id: _", parent_id as "parent_id: _", name, version, created_at, updated_at
               from category where category_id = $1"#,
            category_id as CategoryId,
        );
        Ok(category.fetch_optional(db).await?)
    }

    pub(crate) async fn save(&mut self, db: &mut PgConnection, now: OffsetDateTime) -> Result<(), Unexpected> {
        self.version += 1;
        self.updated_at = now;
        sqlx::query!(
            "update category set parent_id = $2, name = $3, version = $4, updated_at = $5 where category_id = $1",
            self.category_id as CategoryId,
            self.parent_id as Option<CategoryId>,
            self.name,
            self.version,
            self.updated_at,
        )
        .execute(db)
        .await?;
        Ok(())
    }

    pub(crate) fn into_proto(self) -> proto::Category {
        proto::Category {
            category_id: self.category_id.to_string(),
            parent_id: self.parent_id.map(|it| it.to_string()).unwrap_or_default(),
            name: self.name,
            create_time: Some(timestamp(self.created_at)),
            update_time: Some(timestamp(self.updated_at)),
            etag: etag(self.version),
        }
    }
}
