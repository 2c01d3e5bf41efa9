//! The events that a client queues for whoever polls it: its log lines and its errors.

use rdkafka::ClientContext;
use rdkafka::bindings as sys;
use rdkafka::client::Client;

/// Discards the events of a client that nobody polls, those of the future too: they would queue for
/// as long as it lives. The answers to its requests have queues of their own.
///
/// The client's main queue, to which its log is forwarded, is forwarded to a queue that is closed:
/// librdkafka frees what is sent to one.
pub(crate) fn discard_events<C: ClientContext>(client: &Client<C>) {
    // SAFETY: the client is alive, and the calls never return null. Both references to queues are
    // returned once. The main queue keeps the closed one alive until the client ends.
    unsafe {
        let main = sys::rd_kafka_queue_get_main(client.native_ptr());
        let closed = sys::rd_kafka_queue_new(client.native_ptr());
        sys::rd_kafka_queue_forward(main, closed);
        sys::rd_kafka_queue_destroy(closed);
        sys::rd_kafka_queue_destroy(main);
    }
}

/// The number of events that wait for a poll of the client.
pub(crate) fn queued_events<C: ClientContext>(client: &Client<C>) -> usize {
    // SAFETY: the client is alive, and the call never returns null. The reference is returned once.
    unsafe {
        let main = sys::rd_kafka_queue_get_main(client.native_ptr());
        let events = sys::rd_kafka_queue_length(main);
        sys::rd_kafka_queue_destroy(main);
        events
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::log::LoggingContext;
    use rdkafka::ClientConfig;
    use rdkafka::admin::AdminClient;
    use rdkafka::config::RDKafkaLogLevel;
    use std::time::Duration;

    #[test]
    fn discarded_events_do_not_queue() {
        let mut config = ClientConfig::new();
        // Nothing listens on port 1.
        config.set("bootstrap.servers", "127.0.0.1:1");
        config.set("debug", "broker");
        config.set_log_level(RDKafkaLogLevel::Debug);
        let admin: AdminClient<LoggingContext> = config
            .create_with_context(LoggingContext)
            .expect("a client");
        let client = admin.inner();
        let fail = || {
            let answer = client.fetch_metadata(None, Duration::from_millis(300));
            answer.expect_err("no broker answers");
        };
        fail();
        assert!(queued_events(client) > 0, "a failed request is logged");
        discard_events(client);
        assert_eq!(queued_events(client), 0, "the old ones are freed");
        fail();
        assert_eq!(queued_events(client), 0);
    }
}
