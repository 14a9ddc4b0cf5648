//! The token buckets of Envoy's own limits.

use gateway::Limits;
use serde::Serialize;

use crate::seconds;

/// It holds `burst` tokens at the most, and gets `rate` tokens in each period `per`.
#[derive(Debug, Serialize)]
struct Bucket {
    burst: u32,
    rate: u32,
    per: String,
}

impl Bucket {
    fn per_second(rate: u32, burst: u32) -> Self {
        Self { burst, rate, per: "1s".to_owned() }
    }

    /// For a network of many clients.
    fn times(self, factor: u32) -> Self {
        Self { burst: self.burst.saturating_mul(factor), rate: self.rate.saturating_mul(factor), ..self }
    }

    /// A tenth wider: a count elsewhere that this bucket repeats is not delayed by the same time for each request.
    fn wider(self) -> Self {
        Self { burst: self.burst + self.burst.div_ceil(10), ..self }
    }
}

/// By their names in the template.
#[derive(Debug, Serialize)]
pub(crate) struct Buckets {
    read: Bucket,
    write: Bucket,
    network_read: Bucket,
    network_write: Bucket,
    customer_read: Bucket,
    customer_write: Bucket,
    operator_read: Bucket,
    operator_write: Bucket,
    account: Bucket,
    network_account: Bucket,
}

pub(crate) fn buckets(limits: &Limits) -> Buckets {
    let read = || Bucket::per_second(limits.read_rate, limits.read_burst);
    let write = || Bucket::per_second(limits.write_rate, limits.write_burst);
    let count = limits.account_count;
    let account = || Bucket { burst: count, rate: count, per: seconds(limits.account_window) };
    Buckets {
        read: read(),
        write: write(),
        network_read: read().times(limits.network_factor),
        network_write: write().times(limits.network_factor),
        customer_read: Bucket::per_second(limits.customer_read_rate, limits.customer_read_burst),
        customer_write: Bucket::per_second(limits.customer_write_rate, limits.customer_write_burst).wider(),
        operator_read: Bucket::per_second(limits.operator_read_rate, limits.operator_read_burst),
        operator_write: Bucket::per_second(limits.operator_write_rate, limits.operator_write_burst).wider(),
        account: account().wider(),
        network_account: account().times(limits.network_factor).wider(),
    }
}
