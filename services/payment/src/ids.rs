//! Ids of what payments are about.

use chassis::Id;
use contracts::souk::order::v1::Order;

use crate::payment::Payment;
use crate::refund::Refund;

pub(crate) type PaymentId = Id<Payment>;
pub(crate) type OrderId = Id<Order>;
pub(crate) type RefundId = Id<Refund>;
