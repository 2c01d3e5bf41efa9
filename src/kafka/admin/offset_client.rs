//! The client that asks for committed offsets, one for all groups.
//!
//! It is not the client of the other requests, for two reasons. It needs a group of its own
//! ([`committed_by`]), which the others do not have. And it must be replaceable: a client asks the
//! same coordinator of a group for ever.

use crate::kafka::error::connection_fault::LastFault;
use crate::kafka::error::{ServedClient, failed};
use crate::kafka::native::groups::committed_by;
use crate::kafka::native::{Committed, Login, logged_in};
use crate::kafka::{KafkaConfig, KafkaError};
use rdkafka::TopicPartitionList;
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::RDKafkaErrorCode as Code;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// A client with a group that it never joins.
pub(super) struct OffsetClient {
    // Fields drop in order: it must be dropped before the client.
    _login: Login,
    client: ServedClient,
}

impl OffsetClient {
    fn new(config: &KafkaConfig, group: &str) -> Result<Self, KafkaError> {
        let mut config = config.consumer(group)?;
        // It must not use a static member's id.
        config.remove("group.instance.id");
        let made = logged_in(&config, LastFault::default());
        let (client, login) = made.map_err(|error| failed("creating a client", error))?;
        Ok(Self {
            _login: login,
            client: ServedClient::new(client),
        })
    }

    /// The committed offsets of any group. Blocks up to `timeout`. Nothing else polls the client.
    pub(super) fn committed(
        &self,
        group: &str,
        partitions: &TopicPartitionList,
        timeout: Duration,
    ) -> Result<Vec<Committed>, Code> {
        let _request = self.client.begin();
        committed_by(self.client.get(), group, partitions, timeout)
    }

    /// The client, which knows why its connections failed.
    pub(super) fn client(&self) -> &BaseConsumer<LastFault> {
        self.client.get()
    }
}

/// The client of the present, if there is one.
#[derive(Default)]
pub(super) struct OffsetClients(Mutex<Option<Arc<OffsetClient>>>);

impl OffsetClients {
    /// The client. The first caller makes it, with the group that it asks for: the one group that
    /// it surely wants to see. Two callers may make it at the same time; one of the two is kept.
    pub(super) fn get(
        &self,
        config: &KafkaConfig,
        group: &str,
    ) -> Result<Arc<OffsetClient>, KafkaError> {
        let present = self.slot().clone();
        if let Some(client) = present {
            return Ok(client);
        }
        let made = Arc::new(OffsetClient::new(config, group)?);
        let kept = Arc::clone(self.slot().get_or_insert_with(|| Arc::clone(&made)));
        Ok(kept)
    }

    /// Gives up a client, so that the next request makes another one. Does nothing if that has
    /// been done. The client ends with the last request that uses it.
    pub(super) fn discard(&self, client: &Arc<OffsetClient>) {
        let mut slot = self.slot();
        if slot
            .as_ref()
            .is_some_and(|present| Arc::ptr_eq(present, client))
        {
            *slot = None;
        }
    }

    fn slot(&self) -> MutexGuard<'_, Option<Arc<OffsetClient>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rdkafka::consumer::Consumer;
    use std::time::Instant;

    /// Longer than any step takes on a busy machine.
    const LONG: Duration = Duration::from_secs(30);

    #[test]
    fn a_request_for_offsets_serves_the_events_of_its_client() {
        // Nothing listens on port 1.
        let config = KafkaConfig::new("127.0.0.1:1");
        let client = OffsetClient::new(&config, "one").expect("the settings are valid");
        let mut list = TopicPartitionList::new();
        list.add_partition("t", 0);
        let begun = Instant::now();
        while client.client().context().get().is_none() {
            let answer = client.committed("one", &list, Duration::from_millis(100));
            answer.expect_err("no broker answers");
            assert!(begun.elapsed() < LONG, "no event is served");
        }
    }

    #[test]
    fn all_groups_share_a_client_until_it_is_discarded() {
        // Nothing listens on port 1, and nothing is asked.
        let config = KafkaConfig::new("127.0.0.1:1");
        let clients = OffsetClients::default();
        let get = |group| clients.get(&config, group).expect("the settings are valid");
        let first = get("one");
        assert!(Arc::ptr_eq(&first, &get("another")));
        clients.discard(&first);
        let second = get("one");
        assert!(!Arc::ptr_eq(&first, &second));
        clients.discard(&first);
        assert!(
            Arc::ptr_eq(&second, &get("one")),
            "it was not the failed one"
        );
    }
}
