//! Which roles there are. What needs all of them (settings, the edge, `make up`, trials) reads them here.

/// One role of Souk, such as `order`: a process of its own in a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Role {
    pub name: &'static str,
    /// Of its errors; also the package of its contract, without its version.
    pub domain: &'static str,
    /// Its place in each range of ports.
    pub number: u16,
    /// Whether it has a database of its own.
    pub has_database: bool,
}

pub const GATEWAY: Role = Role { name: "gateway", domain: "souk.gateway", number: 1, has_database: false };
pub const USER: Role = Role { name: "user", domain: "souk.user", number: 2, has_database: true };
pub const PRODUCT: Role = Role { name: "product", domain: "souk.product", number: 3, has_database: true };
pub const INVENTORY: Role = Role { name: "inventory", domain: "souk.inventory", number: 4, has_database: true };
pub const ORDER: Role = Role { name: "order", domain: "souk.order", number: 5, has_database: true };
pub const PAYMENT: Role = Role { name: "payment", domain: "souk.payment", number: 6, has_database: true };
pub const NOTIFICATION: Role =
    Role { name: "notification", domain: "souk.notification", number: 7, has_database: true };
pub const ANALYTICS: Role = Role { name: "analytics", domain: "souk.analytics", number: 8, has_database: true };

/// In the order in which requests meet them.
pub const ROLES: [Role; 8] = [GATEWAY, USER, PRODUCT, INVENTORY, ORDER, PAYMENT, NOTIFICATION, ANALYTICS];

/// Those that have a database.
pub fn services() -> impl Iterator<Item = Role> {
    ROLES.into_iter().filter(|role| role.has_database)
}

impl Role {
    /// Where it listens for gRPC by default.
    pub const fn port(self) -> u16 {
        9_000 + self.number
    }

    /// Its database by default, on the Postgres of `make up`.
    pub fn database_url(self) -> String {
        format!("postgres://souk_{0}@127.0.0.1:15432/souk_{0}", self.name)
    }

    /// Of one of its settings, such as `ORDER_DATABASE_URL`.
    pub fn variable(self, setting: &str) -> String {
        format!("{}_{}", self.name, setting).to_uppercase()
    }
}
