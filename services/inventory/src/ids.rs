//! Ids of what reservations are about.

use chassis::Id;

pub(crate) enum Order {}
pub(crate) enum User {}

pub(crate) type OrderId = Id<Order>;
pub(crate) type UserId = Id<User>;
