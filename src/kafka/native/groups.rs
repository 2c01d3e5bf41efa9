//! Descriptions of groups of any consumer protocol, KIP-848 among them, as rust-rdkafka asks by the
//! classic protocol only; committed offsets of any group; and the membership of a client.
//!
//! The requests are some of librdkafka's asynchronous admin requests. An answer goes to a queue
//! that is made for it, so that the calling thread can wait for it with a timeout. If the wait ends
//! first, the queue is destroyed and a late answer is dropped with it.

use super::offsets::{Committed, copied};
use super::raw::{error_code, rd_kafka_event_error};
use super::sys;
use rdkafka::TopicPartitionList;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::RDKafkaErrorCode;
use rdkafka::types::RDKafkaRespErr;
use std::collections::{BTreeMap, HashSet};
use std::ffi::{CStr, CString, c_char, c_int};
use std::ptr::{self, NonNull};
use std::time::Duration;

/// A consumer group as its coordinator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedGroup {
    pub(crate) group: String,
    /// The state in Kafka's terms. None if the client does not know it.
    pub(crate) state: Option<String>,
    /// Whether the group uses the newer protocol.
    pub(crate) is_broker_assigned: bool,
    pub(crate) assignor: String,
    pub(crate) members: Vec<DescribedMember>,
    /// Why the group could not be described.
    pub(crate) error: Option<RDKafkaErrorCode>,
}

/// A member of such a group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DescribedMember {
    pub(crate) member_id: String,
    pub(crate) client_id: String,
    pub(crate) host: String,
    pub(crate) assignment: BTreeMap<String, Vec<i32>>,
}

/// A native value that is returned to librdkafka when it is dropped. Declare values in the order of
/// their creation: they are dropped in reverse, the event before its queue.
struct Owned<T>(NonNull<T>, unsafe extern "C" fn(*mut T));

impl<T> Owned<T> {
    /// # Safety
    /// `pointer` is null or owned by the caller, and `destroy` is the function that frees it.
    unsafe fn new(pointer: *mut T, destroy: unsafe extern "C" fn(*mut T)) -> Option<Self> {
        Some(Self(NonNull::new(pointer)?, destroy))
    }

    fn get(&self) -> *mut T {
        self.0.as_ptr()
    }
}

impl<T> Drop for Owned<T> {
    fn drop(&mut self) {
        // SAFETY: `new` guarantees that the value is owned and `destroy` fits it. It is freed here
        // only.
        unsafe { (self.1)(self.0.as_ptr()) }
    }
}

/// Describes these groups; blocks up to `timeout`. A fault of one group is in its description
/// ([`DescribedGroup::error`]). A name with a NUL byte, which no group can have, is left out.
pub(crate) fn describe_groups<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    groups: &[String],
    timeout: Duration,
) -> Result<Vec<DescribedGroup>, RDKafkaErrorCode> {
    let names: Vec<CString> = groups
        .iter()
        .filter_map(|group| CString::new(group.as_str()).ok())
        .collect();
    let mut pointers: Vec<*const c_char> = names.iter().map(|name| name.as_ptr()).collect();
    if pointers.is_empty() {
        return Ok(Vec::new());
    }
    let client = consumer.client().native_ptr();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS;
    // SAFETY: client and names are alive during the whole call. The data that the answer lends is
    // copied before it is dropped.
    unsafe {
        let answer = ask(client, operation, timeout, |options, queue| {
            sys::rd_kafka_DescribeConsumerGroups(
                client,
                pointers.as_mut_ptr(),
                pointers.len(),
                options,
                queue,
            );
            Ok(())
        })?;
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(answer.event.get());
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let described = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        Ok((0..count)
            .map(|index| group(*described.add(index)))
            .collect())
    }
}

/// The committed offsets of any group, with their metadata; blocks up to `timeout`. A fault of one
/// partition is in its element ([`Committed::error`]). While a transaction has a pending offset of
/// a partition, its error is `UnstableOffsetCommit`. An answer without one of the partitions is the
/// error `Fail`: it does not say that the group has committed nothing.
///
/// The answer may be `NotCoordinator`, and then stays so: librdkafka keeps the coordinators that a
/// client has found, and looks none up again while the old one is connected. Only a new client
/// does.
///
/// The client must have a group of its own, of any name: when a coordinator has moved, librdkafka
/// 2.12 notifies the client's group without a check that it has one, which ends the process.
/// Without a group the result is `UnknownGroup`.
pub(crate) fn committed_by<C: ConsumerContext>(
    consumer: &BaseConsumer<C>,
    group: &str,
    partitions: &TopicPartitionList,
    timeout: Duration,
) -> Result<Vec<Committed>, RDKafkaErrorCode> {
    if partitions.count() == 0 {
        return Ok(Vec::new());
    }
    let group = CString::new(group).map_err(|_| RDKafkaErrorCode::InvalidGroupId)?;
    if !has_group(consumer) {
        return Err(RDKafkaErrorCode::UnknownGroup);
    }
    let client = consumer.client().native_ptr();
    let operation = sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_LISTCONSUMERGROUPOFFSETS;
    // SAFETY: client, name and list are alive during the whole call, and the client has a group.
    // The request copies name and list; it is owned here and freed when it is dropped, and so is an
    // error of the options. The data that the answer lends is copied before it is dropped.
    unsafe {
        let request = sys::rd_kafka_ListConsumerGroupOffsets_new(group.as_ptr(), partitions.ptr());
        let request = Owned::new(request, sys::rd_kafka_ListConsumerGroupOffsets_destroy)
            .ok_or(RDKafkaErrorCode::Fail)?;
        let mut requests = [request.get()];
        let answer = ask(client, operation, timeout, |options, queue| {
            let error = sys::rd_kafka_AdminOptions_set_require_stable_offsets(options, 1);
            if let Some(error) = Owned::new(error, sys::rd_kafka_error_destroy) {
                return Err(code_of(error.get()));
            }
            sys::rd_kafka_ListConsumerGroupOffsets(
                client,
                requests.as_mut_ptr(),
                requests.len(),
                options,
                queue,
            );
            Ok(())
        })?;
        let result = sys::rd_kafka_event_ListConsumerGroupOffsets_result(answer.event.get());
        if result.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let mut count = 0;
        let groups = sys::rd_kafka_ListConsumerGroupOffsets_result_groups(result, &mut count);
        if count == 0 || groups.is_null() {
            return Err(RDKafkaErrorCode::Fail);
        }
        let error = sys::rd_kafka_group_result_error(*groups);
        if !error.is_null() {
            return Err(code_of(error));
        }
        let found = copied(sys::rd_kafka_group_result_partitions(*groups));
        match has_all(&found, partitions) {
            true => Ok(found),
            false => Err(RDKafkaErrorCode::Fail),
        }
    }
}

/// Whether an answer has an element for each of these partitions.
pub(super) fn has_all(found: &[Committed], wanted: &TopicPartitionList) -> bool {
    let found: HashSet<(&str, i32)> = found
        .iter()
        .map(|part| (part.topic.as_str(), part.partition))
        .collect();
    let wanted = wanted.elements();
    let mut wanted = wanted.iter();
    wanted.all(|part| found.contains(&(part.topic(), part.partition())))
}

/// The answer to an admin request. Fields drop in order: the event before its queue.
struct Answer {
    event: Owned<sys::rd_kafka_event_t>,
    _queue: Owned<sys::rd_kafka_queue_t>,
}

/// Makes an admin request, and waits up to `timeout` for its answer.
///
/// # Safety
/// The client is alive during the call and the life of the answer. `send` sends one request of
/// this operation, with the options and the queue that it is passed.
unsafe fn ask(
    client: *mut sys::rd_kafka_t,
    operation: sys::rd_kafka_admin_op_t,
    timeout: Duration,
    send: impl FnOnce(
        *mut sys::rd_kafka_AdminOptions_t,
        *mut sys::rd_kafka_queue_t,
    ) -> Result<(), RDKafkaErrorCode>,
) -> Result<Answer, RDKafkaErrorCode> {
    let timeout_ms = i32::try_from(timeout.as_millis())
        .unwrap_or(i32::MAX)
        .max(1);
    // SAFETY: the caller guarantees that the client is alive. Options, queue and event are owned
    // and freed when they are dropped, the event before the queue.
    unsafe {
        let options = sys::rd_kafka_AdminOptions_new(client, operation);
        let options = Owned::new(options, sys::rd_kafka_AdminOptions_destroy)
            .ok_or(RDKafkaErrorCode::Fail)?;
        let error = sys::rd_kafka_AdminOptions_set_request_timeout(
            options.get(),
            timeout_ms,
            ptr::null_mut(),
            0,
        );
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(error.into());
        }
        let queue = Owned::new(sys::rd_kafka_queue_new(client), sys::rd_kafka_queue_destroy)
            .ok_or(RDKafkaErrorCode::Fail)?;
        send(options.get(), queue.get())?;
        let event = sys::rd_kafka_queue_poll(queue.get(), timeout_ms);
        let event = Owned::new(event, sys::rd_kafka_event_destroy)
            .ok_or(RDKafkaErrorCode::OperationTimedOut)?;
        match error_code(rd_kafka_event_error(event.get())) {
            Some(error) => Err(error),
            None => Ok(Answer {
                event,
                _queue: queue,
            }),
        }
    }
}

/// The code of an error.
///
/// # Safety
/// `error` is valid during the call.
unsafe fn code_of(error: *const sys::rd_kafka_error_t) -> RDKafkaErrorCode {
    // SAFETY: the caller guarantees that the error is valid.
    error_code(unsafe { rd_kafka_error_code(error) }).unwrap_or(RDKafkaErrorCode::Fail)
}

/// Copies a group's description.
///
/// # Safety
/// `description` is valid during the call.
unsafe fn group(description: *const sys::rd_kafka_ConsumerGroupDescription_t) -> DescribedGroup {
    // SAFETY: the caller guarantees that the description is valid. All lent data is copied.
    unsafe {
        let error = sys::rd_kafka_ConsumerGroupDescription_error(description);
        let error = (!error.is_null()).then(|| code_of(error));
        let state = sys::rd_kafka_ConsumerGroupDescription_state(description);
        let state = match state {
            sys::rd_kafka_consumer_group_state_t::RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN => None,
            state => Some(text(sys::rd_kafka_consumer_group_state_name(state))),
        };
        let kind = sys::rd_kafka_ConsumerGroupDescription_type(description);
        let count = sys::rd_kafka_ConsumerGroupDescription_member_count(description);
        let member_at = |index| {
            member(sys::rd_kafka_ConsumerGroupDescription_member(
                description,
                index,
            ))
        };
        DescribedGroup {
            group: text(sys::rd_kafka_ConsumerGroupDescription_group_id(description)),
            state,
            is_broker_assigned: kind
                == sys::rd_kafka_consumer_group_type_t::RD_KAFKA_CONSUMER_GROUP_TYPE_CONSUMER,
            assignor: text(sys::rd_kafka_ConsumerGroupDescription_partition_assignor(
                description,
            )),
            members: (0..count).map(member_at).collect(),
            error,
        }
    }
}

/// Copies a member's description. A member without an assignment has an empty one.
///
/// # Safety
/// `description` is valid during the call.
unsafe fn member(description: *const sys::rd_kafka_MemberDescription_t) -> DescribedMember {
    let mut assignment: BTreeMap<String, Vec<i32>> = BTreeMap::new();
    // SAFETY: the caller guarantees that the description is valid. All lent data is copied. `elems`
    // points to `cnt` elements that the list owns.
    unsafe {
        let assigned = sys::rd_kafka_MemberDescription_assignment(description);
        if !assigned.is_null() {
            let list = sys::rd_kafka_MemberAssignment_partitions(assigned);
            if let Some(list) = list.as_ref()
                && list.cnt > 0
            {
                for element in std::slice::from_raw_parts(list.elems, list.cnt as usize) {
                    let partitions = assignment.entry(text(element.topic)).or_default();
                    partitions.push(element.partition);
                }
            }
        }
        assignment
            .values_mut()
            .for_each(|partitions| partitions.sort_unstable());
        DescribedMember {
            member_id: text(sys::rd_kafka_MemberDescription_consumer_id(description)),
            client_id: text(sys::rd_kafka_MemberDescription_client_id(description)),
            host: text(sys::rd_kafka_MemberDescription_host(description)),
            assignment,
        }
    }
}

/// Copies a text. Null becomes an empty text, and bytes that are not UTF-8 are replaced.
///
/// # Safety
/// `pointer` is null or a C string.
unsafe fn text(pointer: *const c_char) -> String {
    // SAFETY: the caller guarantees that the pointer is null or a C string.
    match pointer.is_null() {
        true => String::new(),
        false => unsafe { CStr::from_ptr(pointer) }
            .to_string_lossy()
            .into_owned(),
    }
}

/// Whether the group has accepted this client as a member: the client knows a generation or, with
/// KIP-848, a member epoch.
pub(crate) fn is_member<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is alive. The result is null, or owned here and freed once.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        if metadata.is_null() {
            return false;
        }
        let generation = sys::rd_kafka_consumer_group_metadata_generation_id(metadata);
        sys::rd_kafka_consumer_group_metadata_destroy(metadata);
        generation > 0
    }
}

/// Whether the client has a group, which it need not have joined.
fn has_group<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> bool {
    // SAFETY: the client is alive. The result is null, or owned here and freed once.
    unsafe {
        let metadata = sys::rd_kafka_consumer_group_metadata(consumer.client().native_ptr());
        Owned::new(metadata, sys::rd_kafka_consumer_group_metadata_destroy).is_some()
    }
}

/// The id that the group assigned to this member. None before it has joined.
pub(crate) fn member_id<C: ConsumerContext>(consumer: &BaseConsumer<C>) -> Option<String> {
    // SAFETY: the client is alive. The result is null, or a C string that is owned here and freed
    // once, after it was copied.
    unsafe {
        let client = consumer.client().native_ptr();
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return None;
        }
        let copy = CStr::from_ptr(id).to_string_lossy().into_owned();
        sys::rd_kafka_mem_free(client, id.cast());
        Some(copy).filter(|id| !id.is_empty())
    }
}

unsafe extern "C" {
    /// As in the bindings, except for the type of the result, which may be a broker's code.
    fn rd_kafka_error_code(error: *const sys::rd_kafka_error_t) -> c_int;
}
