//! Ids of what reservations are about.

use chassis::Id;
use contracts::souk::order::v1::Order;
use contracts::souk::user::v1::User;

pub(crate) type OrderId = Id<Order>;
pub(crate) type UserId = Id<User>;
