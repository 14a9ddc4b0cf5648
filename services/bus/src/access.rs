//! Who may write and read a topic, as access control lists (ACLs) of the brokers. `rdkafka` has no function for them, so this
//! calls librdkafka's.

#![expect(unsafe_code, reason = "librdkafka is a C library")]

use std::collections::HashSet;
use std::ffi::{CStr, CString, c_char};
use std::ptr;
use std::time::{Duration, Instant};

use rdkafka::admin::AdminClient;
use rdkafka::bindings::{
    rd_kafka_AclBinding_destroy, rd_kafka_AclBinding_name, rd_kafka_AclBinding_new, rd_kafka_AclBinding_operation,
    rd_kafka_AclBinding_principal, rd_kafka_AclBinding_restype, rd_kafka_AclBinding_t, rd_kafka_AclBindingFilter_new,
    rd_kafka_AclOperation_t, rd_kafka_AclPermissionType_t, rd_kafka_CreateAcls, rd_kafka_CreateAcls_result_acls,
    rd_kafka_DescribeAcls, rd_kafka_DescribeAcls_result_acls, rd_kafka_ResourcePatternType_t, rd_kafka_ResourceType_t,
    rd_kafka_acl_result_error, rd_kafka_error_string, rd_kafka_event_CreateAcls_result,
    rd_kafka_event_DescribeAcls_result, rd_kafka_event_destroy, rd_kafka_event_error, rd_kafka_event_error_string,
    rd_kafka_event_t, rd_kafka_queue_destroy, rd_kafka_queue_new, rd_kafka_queue_poll, rd_kafka_queue_t, rd_kafka_t,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::types::RDKafkaRespErr;

use crate::{Brokers, Error};

const LOOK_AGAIN: Duration = Duration::from_millis(20);

/// What a principal may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right<'a> {
    Write {
        topic: &'a str,
    },
    Read {
        topic: &'a str,
    },
    /// Be a member of a consumer group.
    Join {
        group: &'a str,
    },
}

/// Gives rights to principals, such as `order`, and waits until brokers apply them: a producer that begins before may fail for good.
/// What they have already stays. Blocks.
pub fn grant(brokers: &Brokers, rights: &[(&str, Right<'_>)], patience: Duration) -> Result<(), Error> {
    let begun = Instant::now();
    let admin: AdminClient<DefaultClientContext> = brokers.config().create()?;
    let bindings = rights.iter().map(|(principal, right)| Binding::new(principal, *right));
    let bindings = bindings.collect::<Result<Vec<_>, Error>>()?;
    let mut pointers: Vec<_> = bindings.iter().map(|binding| binding.0).collect();
    let client = admin.inner().native_ptr();
    // SAFETY: the client lives until the end of this function.
    let queue = Queue(unsafe { rd_kafka_queue_new(client) });
    // SAFETY: client, bindings and queue live until the end of this function; librdkafka copies the bindings.
    unsafe { rd_kafka_CreateAcls(client, pointers.as_mut_ptr(), pointers.len(), ptr::null(), queue.0) };
    let event = queue.wait(patience)?;
    // SAFETY: what the event returns lives as long as it does.
    unsafe {
        let mut count = 0;
        let results = rd_kafka_CreateAcls_result_acls(rd_kafka_event_CreateAcls_result(event.0), &raw mut count);
        for at in 0..count {
            let error = rd_kafka_acl_result_error(*results.add(at));
            if !error.is_null() {
                return Err(Error::Access(text(rd_kafka_error_string(error))));
            }
        }
    }
    // SAFETY: the bindings are alive.
    let wanted: HashSet<_> = bindings.iter().map(|binding| unsafe { Applied::of(binding.0) }).collect();
    while !wanted.is_subset(&applied(client, &queue, patience)?) {
        if begun.elapsed() >= patience {
            return Err(Error::Slow);
        }
        std::thread::sleep(LOOK_AGAIN);
    }
    Ok(())
}

/// All rights that the broker applies.
fn applied(client: *mut rd_kafka_t, queue: &Queue, patience: Duration) -> Result<HashSet<Applied>, Error> {
    let mut why = [0 as c_char; 256];
    // SAFETY: no text is passed, and the buffer has the length that is passed.
    let all = unsafe {
        rd_kafka_AclBindingFilter_new(
            rd_kafka_ResourceType_t::RD_KAFKA_RESOURCE_ANY,
            ptr::null(),
            rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_ANY,
            ptr::null(),
            ptr::null(),
            rd_kafka_AclOperation_t::RD_KAFKA_ACL_OPERATION_ANY,
            rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ANY,
            why.as_mut_ptr(),
            why.len(),
        )
    };
    if all.is_null() {
        // SAFETY: librdkafka has written a text that ends with NUL.
        return Err(Error::Access(unsafe { text(why.as_ptr()) }));
    }
    let all = Binding(all);
    // SAFETY: client, filter and queue are alive during the call; librdkafka copies the filter.
    unsafe { rd_kafka_DescribeAcls(client, all.0, ptr::null(), queue.0) };
    let event = queue.wait(patience)?;
    // SAFETY: what the event returns lives as long as it does, and is copied.
    unsafe {
        let mut count = 0;
        let acls = rd_kafka_DescribeAcls_result_acls(rd_kafka_event_DescribeAcls_result(event.0), &raw mut count);
        Ok((0..count).map(|at| Applied::of(*acls.add(at))).collect())
    }
}

/// What tells bindings apart.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Applied {
    kind: u32,
    name: String,
    principal: String,
    operation: u32,
}

impl Applied {
    /// # Safety
    ///
    /// The binding must be alive.
    unsafe fn of(binding: *const rd_kafka_AclBinding_t) -> Self {
        // SAFETY: the caller's promise; texts live as long as the binding, and are copied.
        unsafe {
            Self {
                kind: rd_kafka_AclBinding_restype(binding) as u32,
                name: text(rd_kafka_AclBinding_name(binding)),
                principal: text(rd_kafka_AclBinding_principal(binding)),
                operation: rd_kafka_AclBinding_operation(binding) as u32,
            }
        }
    }
}

struct Binding(*mut rd_kafka_AclBinding_t);

impl Binding {
    fn new(principal: &str, right: Right<'_>) -> Result<Self, Error> {
        use rd_kafka_AclOperation_t::{RD_KAFKA_ACL_OPERATION_READ as READ, RD_KAFKA_ACL_OPERATION_WRITE as WRITE};
        use rd_kafka_ResourceType_t::{RD_KAFKA_RESOURCE_GROUP as GROUP, RD_KAFKA_RESOURCE_TOPIC as TOPIC};

        // A right to read or to write includes the one to describe.
        let (kind, name, operation) = match right {
            Right::Write { topic } => (TOPIC, topic, WRITE),
            Right::Read { topic } => (TOPIC, topic, READ),
            Right::Join { group } => (GROUP, group, READ),
        };
        let c_string = |text: &str| CString::new(text).map_err(|_| Error::Access(format!("{text:?} has a NUL")));
        let (name, principal) = (c_string(name)?, c_string(&format!("User:{principal}"))?);
        let mut why = [0 as c_char; 256];
        // SAFETY: the texts end with NUL and live during the call, and the buffer has the length that is passed.
        let binding = unsafe {
            rd_kafka_AclBinding_new(
                kind,
                name.as_ptr(),
                rd_kafka_ResourcePatternType_t::RD_KAFKA_RESOURCE_PATTERN_LITERAL,
                principal.as_ptr(),
                c"*".as_ptr(),
                operation,
                rd_kafka_AclPermissionType_t::RD_KAFKA_ACL_PERMISSION_TYPE_ALLOW,
                why.as_mut_ptr(),
                why.len(),
            )
        };
        if binding.is_null() {
            // SAFETY: librdkafka has written a text that ends with NUL.
            return Err(Error::Access(unsafe { text(why.as_ptr()) }));
        }
        Ok(Self(binding))
    }
}

impl Drop for Binding {
    fn drop(&mut self) {
        // SAFETY: it came from `rd_kafka_AclBinding_new`, and nothing else frees it.
        unsafe { rd_kafka_AclBinding_destroy(self.0) };
    }
}

struct Queue(*mut rd_kafka_queue_t);

impl Queue {
    /// The next event, which is not null and no error.
    fn wait(&self, patience: Duration) -> Result<Event, Error> {
        let patience = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive.
        let event = Event(unsafe { rd_kafka_queue_poll(self.0, patience) });
        if event.0.is_null() {
            return Err(Error::Slow);
        }
        // SAFETY: the event is not null, and the text lives as long as it does.
        unsafe {
            if rd_kafka_event_error(event.0) != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
                return Err(Error::Access(text(rd_kafka_event_error_string(event.0))));
            }
        }
        Ok(event)
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // SAFETY: it came from `rd_kafka_queue_new`, and nothing else frees it.
        unsafe { rd_kafka_queue_destroy(self.0) };
    }
}

struct Event(*mut rd_kafka_event_t);

impl Drop for Event {
    fn drop(&mut self) {
        if !self.0.is_null() {
            // SAFETY: it came from `rd_kafka_queue_poll`, and nothing else frees it.
            unsafe { rd_kafka_event_destroy(self.0) };
        }
    }
}

/// # Safety
///
/// It must be null, or a text that ends with NUL.
unsafe fn text(from: *const c_char) -> String {
    if from.is_null() {
        return "librdkafka says no reason".to_owned();
    }
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(from) }.to_string_lossy().into_owned()
}
