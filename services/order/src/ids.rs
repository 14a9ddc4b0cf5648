//! Ids of what orders are about.

use chassis::Id;
use contracts::souk::payment::v1::Payment;
use contracts::souk::product::v1::Product;
use contracts::souk::user::v1::User;

use crate::order::Order;

pub(crate) type OrderId = Id<Order>;
pub(crate) type UserId = Id<User>;
pub(crate) type ProductId = Id<Product>;
pub(crate) type PaymentId = Id<Payment>;
