//! Ids of what orders are about.

use chassis::Id;

use crate::order::Order;

pub(crate) enum User {}
pub(crate) enum Product {}
pub(crate) enum Payment {}

pub(crate) type OrderId = Id<Order>;
pub(crate) type UserId = Id<User>;
pub(crate) type ProductId = Id<Product>;
pub(crate) type PaymentId = Id<Payment>;
