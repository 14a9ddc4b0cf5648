//! Where the database of each service is, for the commands that work on all of them.

use chassis::boot::config::Secret;
use clap::Args;

/// The databases of all services.
#[derive(Debug, Clone, Args)]
pub(crate) struct Databases {
    /// The user service's database, with its role.
    #[arg(
        id = "USER_DATABASE_URL",
        long = "user-database-url",
        env = "USER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_user@127.0.0.1:15432/souk_user"
    )]
    pub(crate) user: Secret,
    /// The product service's database, with its role.
    #[arg(
        id = "PRODUCT_DATABASE_URL",
        long = "product-database-url",
        env = "PRODUCT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_product@127.0.0.1:15432/souk_product"
    )]
    pub(crate) product: Secret,
    /// The inventory service's database, with its role.
    #[arg(
        id = "INVENTORY_DATABASE_URL",
        long = "inventory-database-url",
        env = "INVENTORY_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_inventory@127.0.0.1:15432/souk_inventory"
    )]
    pub(crate) inventory: Secret,
    /// The order service's database, with its role.
    #[arg(
        id = "ORDER_DATABASE_URL",
        long = "order-database-url",
        env = "ORDER_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_order@127.0.0.1:15432/souk_order"
    )]
    pub(crate) order: Secret,
    /// The payment service's database, with its role.
    #[arg(
        id = "PAYMENT_DATABASE_URL",
        long = "payment-database-url",
        env = "PAYMENT_DATABASE_URL",
        hide_env_values = true,
        default_value = "postgres://souk_payment@127.0.0.1:15432/souk_payment"
    )]
    pub(crate) payment: Secret,
}

impl Databases {
    pub(crate) fn for_check(&self) -> check::Databases<'_> {
        let Self { user, product, inventory, order, payment } = self;
        check::Databases { user, product, inventory, order, payment }
    }
}
