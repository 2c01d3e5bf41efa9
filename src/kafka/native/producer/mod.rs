//! A producer that keeps its topics, and whose delivery reports are taken in bursts.
//!
//! The bindings' producer looks up every record's topic by its name, under the client's lock for
//! writing, and calls back for each report without a sign of the last one of a burst. Here a topic
//! is looked up once ([`ProducerTopic`]), and the reports of a batch are taken together
//! ([`DeliveryReports`]), so that accounting and wake-ups are paid once a batch.
//!
//! A record carries an `Arc<T>` through the client, which its report returns. The client copies key
//! and value: a reference to the caller's bytes could keep a much larger buffer in memory for as
//! long as the record waits.

use super::message::Message;
use super::message_headers::MessageHeaders;
use super::raw::{bytes, error_code, rd_kafka_event_error, rd_kafka_producev};
use rdkafka::bindings as sys;
use rdkafka::bindings::rd_kafka_vtype_t as Argument;
use rdkafka::client::Client;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::producer::Partitioner;
use rdkafka::types::{RDKafkaRespErr, RDKafkaType};
use rdkafka::{ClientConfig, ClientContext};
use std::borrow::Cow;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::marker::PhantomData;
use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::time::Duration;

/// The events that the client queues for [`ProducerClient::poll`], beside its log lines.
const EVENTS: c_int = sys::RD_KAFKA_EVENT_DR
    | sys::RD_KAFKA_EVENT_STATS
    | sys::RD_KAFKA_EVENT_ERROR
    | sys::RD_KAFKA_EVENT_OAUTHBEARER_TOKEN_REFRESH;
/// The key decides on the partition, or the client.
const ANY_PARTITION: i32 = -1;

/// A producer client. What a record carries is an `Arc<T>`.
///
/// Its end frees the records that it still has without a report, and what they carry is never
/// freed: purge it, and take the reports, before it is dropped.
pub(crate) struct ProducerClient<C: ClientContext, T> {
    queue: NonNull<sys::rd_kafka_queue_t>,
    // Fields drop in order: the client, which calls the partitioner until its end, comes first.
    client: Client<C>,
    _partitioner: Option<Arc<dyn Send + Sync>>,
    carried: PhantomData<Arc<T>>,
}

// SAFETY: librdkafka's queues are internally locked. Every `rd_kafka_queue_*` call may come from
// any thread. `Arc<T>` may be sent to other threads.
unsafe impl<C: ClientContext, T: Send + Sync> Send for ProducerClient<C, T> {}
// SAFETY: as above.
unsafe impl<C: ClientContext, T: Send + Sync> Sync for ProducerClient<C, T> {}

impl<C: ClientContext, T> ProducerClient<C, T> {
    /// Creates a client. With a partitioner, that assigns records with a key to partitions, instead
    /// of the client's own hash.
    pub(crate) fn new<P: Partitioner + Send + Sync + 'static>(
        config: &ClientConfig,
        context: C,
        partitioner: Option<P>,
    ) -> KafkaResult<Self> {
        let native = config.create_native_config()?;
        let partitioner = partitioner.map(Arc::new);
        // SAFETY: the settings are alive. The partitioner lives longer than the client, which calls
        // it as the type that it has.
        unsafe {
            sys::rd_kafka_conf_set_events(native.ptr(), EVENTS);
            if let Some(partitioner) = &partitioner {
                let topics = topic_settings(native.ptr());
                let opaque = Arc::as_ptr(partitioner).cast_mut().cast();
                sys::rd_kafka_topic_conf_set_opaque(topics, opaque);
                sys::rd_kafka_topic_conf_set_partitioner_cb(topics, Some(partition_of::<P>));
            }
        }
        let client = Client::new(config, native, RDKafkaType::RD_KAFKA_PRODUCER, context)?;
        // SAFETY: the client is alive, and the call never returns null. The reference is returned
        // when `Self` is dropped.
        let queue =
            unsafe { NonNull::new_unchecked(sys::rd_kafka_queue_get_main(client.native_ptr())) };
        Ok(Self {
            queue,
            client,
            _partitioner: partitioner.map(|partitioner| partitioner as Arc<dyn Send + Sync>),
            carried: PhantomData,
        })
    }

    /// The client, for requests.
    pub(crate) fn client(&self) -> &Client<C> {
        &self.client
    }

    /// Looks a topic up, and asks the brokers for its partitions in the background. The topic is
    /// kept until the result is dropped.
    pub(crate) fn topic(
        self: &Arc<Self>,
        name: &str,
    ) -> Result<ProducerTopic<C, T>, RDKafkaErrorCode> {
        let name = CString::new(name).map_err(|_| RDKafkaErrorCode::InvalidTopic)?;
        // SAFETY: the client is alive, and the name is copied. Null settings mean the client's own.
        let topic = unsafe {
            sys::rd_kafka_topic_new(self.client.native_ptr(), name.as_ptr(), ptr::null_mut())
        };
        Ok(ProducerTopic {
            topic: NonNull::new(topic).ok_or(RDKafkaErrorCode::InvalidArgument)?,
            producer: Arc::clone(self),
        })
    }

    /// Waits up to `timeout` for an event. Log lines, errors and statistics are passed to the
    /// context, and delivery reports are returned. None for another event, or none.
    ///
    /// May be called from several threads. Requests for tokens are left to
    /// [`Login`](super::Login).
    pub(crate) fn poll(&self, timeout: Duration) -> Option<DeliveryReports<'_, T>> {
        let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
        // SAFETY: the queue is alive. The event is owned here, and destroyed by its drop.
        let event = unsafe { sys::rd_kafka_queue_poll(self.queue.as_ptr(), timeout_ms) };
        let event = Event {
            pointer: NonNull::new(event)?,
            client: PhantomData,
        };
        match event.kind() {
            sys::RD_KAFKA_EVENT_DR => {
                return Some(DeliveryReports {
                    event,
                    carried: PhantomData,
                });
            }
            sys::RD_KAFKA_EVENT_LOG => {
                if let Some((level, facility, line)) = event.log_line() {
                    let context = self.client.context();
                    context.log(level, facility.trim(), line.trim());
                }
            }
            sys::RD_KAFKA_EVENT_STATS => self.client.context().stats_raw(event.statistics()),
            sys::RD_KAFKA_EVENT_ERROR => {
                let (code, reason) = event.error();
                let error = KafkaError::Global(code);
                self.client.context().error(error, reason.trim());
            }
            _ => {}
        }
        None
    }

    /// Gives up all records that are not delivered: their reports follow. Does not block: each of
    /// the client's threads gives up its records when it is not busy.
    pub(crate) fn purge(&self) -> Result<(), RDKafkaErrorCode> {
        self.purge_with(sys::RD_KAFKA_PURGE_F_NON_BLOCKING)
    }

    /// As [`Self::purge`], and waits until all reports are queued. Blocks as long as one of the
    /// client's threads is busy, for example with the lookup of a host's name.
    pub(crate) fn purge_and_wait(&self) -> Result<(), RDKafkaErrorCode> {
        self.purge_with(0)
    }

    fn purge_with(&self, flags: c_int) -> Result<(), RDKafkaErrorCode> {
        let all = sys::RD_KAFKA_PURGE_F_QUEUE | sys::RD_KAFKA_PURGE_F_INFLIGHT;
        // SAFETY: the client is alive.
        match unsafe { sys::rd_kafka_purge(self.client.native_ptr(), all | flags) } {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => Ok(()),
            error => Err(error.into()),
        }
    }

    /// The number of records whose reports are not taken and freed, and of other events.
    pub(crate) fn unserved(&self) -> usize {
        // SAFETY: the client is alive.
        let unserved = unsafe { sys::rd_kafka_outq_len(self.client.native_ptr()) };
        usize::try_from(unserved).unwrap_or(0)
    }
}

impl<C: ClientContext, T> Drop for ProducerClient<C, T> {
    fn drop(&mut self) {
        // SAFETY: the reference is owned here, and the client is still alive.
        unsafe { sys::rd_kafka_queue_destroy(self.queue.as_ptr()) }
    }
}

/// The settings of topics within those of a client.
///
/// # Safety
/// `settings` are alive, and own the result.
unsafe fn topic_settings(settings: *mut sys::rd_kafka_conf_t) -> *mut sys::rd_kafka_topic_conf_t {
    // SAFETY: the caller guarantees that the settings are alive. They become the owner of new ones.
    unsafe {
        let present = sys::rd_kafka_conf_get_default_topic_conf(settings);
        if !present.is_null() {
            return present;
        }
        let new = sys::rd_kafka_topic_conf_new();
        sys::rd_kafka_conf_set_default_topic_conf(settings, new);
        new
    }
}

/// Called by the client, on its own threads and on those that produce. A panic ends the process.
///
/// # Safety
/// `partitioner` points to a `P` that outlives the call. The client lends the other arguments.
unsafe extern "C" fn partition_of<P: Partitioner>(
    topic: *const sys::rd_kafka_topic_t,
    key: *const c_void,
    key_length: usize,
    partitions: i32,
    partitioner: *mut c_void,
    _carried: *mut c_void,
) -> i32 {
    // SAFETY: the caller guarantees it. The topic's name is a C string.
    let (name, key, partitioner) = unsafe {
        let name = CStr::from_ptr(sys::rd_kafka_topic_name(topic));
        (name, bytes(key, key_length), &*partitioner.cast::<P>())
    };
    let is_available = |partition| {
        // SAFETY: the topic is alive, and the call is made within the callback, as it must be.
        unsafe { sys::rd_kafka_topic_partition_available(topic, partition) == 1 }
    };
    partitioner.partition(&name.to_string_lossy(), key, partitions, is_available)
}

/// A topic of a producer, which it keeps alive.
pub(crate) struct ProducerTopic<C: ClientContext, T> {
    topic: NonNull<sys::rd_kafka_topic_t>,
    // Last field: the topic must be returned before the client ends.
    producer: Arc<ProducerClient<C, T>>,
}

// SAFETY: librdkafka's topics are internally locked, and any thread may produce to them. `Arc<T>`
// may be sent to other threads.
unsafe impl<C: ClientContext, T: Send + Sync> Send for ProducerTopic<C, T> {}
// SAFETY: as above.
unsafe impl<C: ClientContext, T: Send + Sync> Sync for ProducerTopic<C, T> {}

/// A record to be sent. The client takes the headers and copies the rest.
pub(crate) struct ToProduce<'a> {
    /// None lets the key decide.
    pub(crate) partition: Option<i32>,
    pub(crate) key: Option<&'a [u8]>,
    pub(crate) value: Option<&'a [u8]>,
    pub(crate) headers: MessageHeaders,
    /// None is the present time.
    pub(crate) timestamp_ms: Option<i64>,
}

impl<C: ClientContext, T: Send + Sync> ProducerTopic<C, T> {
    /// Passes a record to the client without blocking. Its report returns `carried`. On an error
    /// the client has kept nothing, and sends no report.
    pub(crate) fn produce(
        &self,
        record: ToProduce<'_>,
        carried: Arc<T>,
    ) -> Result<(), RDKafkaErrorCode> {
        let (key, key_length) = address(record.key);
        let (value, value_length) = address(record.value);
        let carried = Arc::into_raw(carried);
        // SAFETY: client and topic are alive, and belong together. Each argument has the type that
        // librdkafka reads for the name before it: a topic, an `int32_t`, an `int`, a pointer with
        // a size for value and key, a pointer, an `int64_t` and a list of headers. Key and value
        // are copied before the call returns, so that they are not written to.
        let error = unsafe {
            rd_kafka_producev(
                self.producer.client.native_ptr(),
                Argument::RD_KAFKA_VTYPE_RKT,
                self.topic.as_ptr(),
                Argument::RD_KAFKA_VTYPE_PARTITION,
                record.partition.unwrap_or(ANY_PARTITION),
                Argument::RD_KAFKA_VTYPE_MSGFLAGS,
                sys::RD_KAFKA_MSG_F_COPY,
                Argument::RD_KAFKA_VTYPE_VALUE,
                value,
                value_length,
                Argument::RD_KAFKA_VTYPE_KEY,
                key,
                key_length,
                Argument::RD_KAFKA_VTYPE_OPAQUE,
                carried.cast_mut().cast::<c_void>(),
                Argument::RD_KAFKA_VTYPE_TIMESTAMP,
                record.timestamp_ms.unwrap_or(0),
                Argument::RD_KAFKA_VTYPE_HEADERS,
                record.headers.as_ptr(),
                Argument::RD_KAFKA_VTYPE_END,
            )
        };
        let Some(code) = error_code(error) else {
            // The client owns the headers from now on.
            std::mem::forget(record.headers);
            return Ok(());
        };
        // SAFETY: the client has not kept the pointer, which came from `into_raw` above.
        drop(unsafe { Arc::from_raw(carried) });
        Err(code)
    }
}

impl<C: ClientContext, T> Drop for ProducerTopic<C, T> {
    fn drop(&mut self) {
        // SAFETY: the handle is owned here, and `self.producer` keeps its client alive.
        unsafe { sys::rd_kafka_topic_destroy(self.topic.as_ptr()) }
    }
}

/// Address and length of bytes, for an argument that is only read. Null is an absent value, which
/// differs from an empty one.
fn address(bytes: Option<&[u8]>) -> (*mut c_void, usize) {
    bytes.map_or((ptr::null_mut(), 0), |bytes| {
        (bytes.as_ptr().cast_mut().cast(), bytes.len())
    })
}

/// The reports of a batch: its records, and what they carried. The client frees the records when
/// this is dropped. What was not taken until then is dropped too.
pub(crate) struct DeliveryReports<'a, T> {
    event: Event<'a>,
    carried: PhantomData<Arc<T>>,
}

impl<T> DeliveryReports<'_, T> {
    /// The number of reports that are not taken.
    pub(crate) fn len(&self) -> usize {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_message_count(self.event.pointer.as_ptr()) }
    }

    /// Takes the next report: the record, with its position or [`Message::error`], and what it
    /// carried.
    pub(crate) fn next_report(&mut self) -> Option<(Message<'_>, Arc<T>)> {
        // SAFETY: the event is alive and consists of delivery reports. Each message is returned
        // once, lives as long as the event, and is used by this thread alone.
        let message = unsafe {
            let message = sys::rd_kafka_event_message_next(self.event.pointer.as_ptr());
            Message::lent(NonNull::new(message.cast_mut())?)
        };
        // SAFETY: all records of this client come from `ProducerTopic::produce`, which has passed
        // the pointer of an `Arc<T>`, and each has one report.
        let carried = unsafe { Arc::from_raw(message.carried().cast_const().cast::<T>()) };
        Some((message, carried))
    }
}

impl<T> Drop for DeliveryReports<'_, T> {
    fn drop(&mut self) {
        while self.next_report().is_some() {}
    }
}

/// An event of the client, freed when dropped.
struct Event<'a> {
    pointer: NonNull<sys::rd_kafka_event_t>,
    client: PhantomData<&'a ()>,
}

impl Event<'_> {
    fn kind(&self) -> sys::rd_kafka_event_type_t {
        // SAFETY: the event is alive.
        unsafe { sys::rd_kafka_event_type(self.pointer.as_ptr()) }
    }

    /// Level, facility and text of a log line.
    fn log_line(&self) -> Option<(RDKafkaLogLevel, Cow<'_, str>, Cow<'_, str>)> {
        let (mut facility, mut line, mut level) = (ptr::null(), ptr::null(), 0);
        // SAFETY: the event is alive. The texts are set if the call returns 0, and live as long as
        // the event.
        unsafe {
            let event = self.pointer.as_ptr();
            let failed = sys::rd_kafka_event_log(event, &mut facility, &mut line, &mut level);
            (failed == 0).then(|| (log_level(level), text(facility), text(line)))
        }
    }

    /// The statistics, as JSON.
    fn statistics(&self) -> &[u8] {
        // SAFETY: the event has statistics, which are a C string that lives as long as it.
        unsafe { CStr::from_ptr(sys::rd_kafka_event_stats(self.pointer.as_ptr())).to_bytes() }
    }

    /// An error of the client, with its reason. If the client can no longer be used, the code is
    /// [`RDKafkaErrorCode::Fatal`]: the event has the cause in its place.
    fn error(&self) -> (RDKafkaErrorCode, Cow<'_, str>) {
        // SAFETY: the event is alive and has an error. The reason is a C string that lives as long
        // as it.
        unsafe {
            let event = self.pointer.as_ptr();
            let code = match sys::rd_kafka_event_error_is_fatal(event) {
                0 => error_code(rd_kafka_event_error(event)).unwrap_or(RDKafkaErrorCode::Fail),
                _ => RDKafkaErrorCode::Fatal,
            };
            (code, text(sys::rd_kafka_event_error_string(event)))
        }
    }
}

impl Drop for Event<'_> {
    fn drop(&mut self) {
        // SAFETY: the event is owned here, and its client is alive.
        unsafe { sys::rd_kafka_event_destroy(self.pointer.as_ptr()) }
    }
}

/// A text that the client lends.
///
/// # Safety
/// `text` is a C string that lives for `'a`.
unsafe fn text<'a>(text: *const c_char) -> Cow<'a, str> {
    // SAFETY: the caller guarantees it.
    unsafe { CStr::from_ptr(text) }.to_string_lossy()
}

/// The level of a log line, by its number in syslog.
fn log_level(level: c_int) -> RDKafkaLogLevel {
    match level {
        0 => RDKafkaLogLevel::Emerg,
        1 => RDKafkaLogLevel::Alert,
        2 => RDKafkaLogLevel::Critical,
        3 => RDKafkaLogLevel::Error,
        4 => RDKafkaLogLevel::Warning,
        5 => RDKafkaLogLevel::Notice,
        6 => RDKafkaLogLevel::Info,
        _ => RDKafkaLogLevel::Debug,
    }
}

#[cfg(test)]
mod tests;
