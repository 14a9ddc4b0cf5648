//! Ids of what notifications are about.

use chassis::Id;
use contracts::souk::notification::v1::Notification;
use contracts::souk::user::v1::User;

pub(crate) type NotificationId = Id<Notification>;
pub(crate) type UserId = Id<User>;
