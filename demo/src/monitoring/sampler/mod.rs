//! Takes samples in rounds of all parts.
//!
//! A round requests every part and awaits the answers for a limited time. A part that is late does
//! not delay the others: it keeps its last numbers until the answer comes, in a later round. Parts
//! have no order within a round; the end of the drain does not rely on one (`run/drain.rs`).
//!
//! [`watch`]: runs a round once per second, on a thread of its own.

pub(crate) mod watch;

#[cfg(test)]
mod tests;

use super::brokers::{Answers, Brokers, Place, fault};
use super::latest::{Latest, Reading, Round, keep};
use super::log_requests::{LogAnswer, LogRequests};
use super::request::Request;
use super::store::{StoreProbe, StoreState};
use crate::shop::services::{GATEWAY, SERVICES};
use evenkeel::kafka::KafkaConfig;
use rdkafka::error::KafkaError;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::Mutex;

/// How long a round awaits answers. It is less than the interval between rounds, so that a late
/// part delays the others by less.
const ROUND_WITHIN: Duration = Duration::from_millis(700);

/// Reads all parts. Its clients and connections live as long as it does.
pub(crate) struct Sampler {
    brokers: Arc<Brokers>,
    latest: Latest,
    partitions: Request<BTreeSet<Place>>,
    committed: BTreeMap<&'static str, Request<Answers<Option<i64>>>>,
    logs: LogRequests,
    stores: Vec<Store>,
}

/// The store of a service, or of the gateways.
struct Store {
    service: &'static str,
    probe: Arc<Mutex<StoreProbe>>,
    request: Request<StoreState>,
}

impl Sampler {
    /// A sampler of the groups and of the stores in `directory`. Reads nothing yet.
    pub(crate) fn new(kafka: &KafkaConfig, directory: &Path) -> anyhow::Result<Self> {
        let services = || SERVICES.iter().map(|(service, _)| *service);
        let store = |service| Store {
            service,
            probe: Arc::new(Mutex::new(StoreProbe::new(directory, service))),
            request: Request::default(),
        };
        Ok(Self {
            brokers: Arc::new(Brokers::new(kafka)?),
            latest: Latest::new(Instant::now()),
            partitions: Request::default(),
            committed: services()
                .map(|service| (service, Request::default()))
                .collect(),
            logs: LogRequests::default(),
            stores: services().chain([GATEWAY]).map(store).collect(),
        })
    }

    /// Whether partitions of all these topics are listed.
    pub(crate) fn lists(&self, topics: impl IntoIterator<Item = String>) -> bool {
        self.latest.lists(topics)
    }

    /// Runs a round. It has no rates. Partitions that it lists are read in the next one.
    pub(crate) async fn round(&mut self) -> Round {
        // The late answers of earlier rounds.
        self.receive(Instant::now()).await;
        self.send();
        self.receive(Instant::now() + ROUND_WITHIN).await;
        self.latest.merge(Instant::now())
    }

    /// Sends the requests of a round, except those that are still under way.
    fn send(&mut self) {
        let brokers = Arc::clone(&self.brokers);
        self.partitions.send_blocking(move || brokers.partitions());
        let partitions = &self.latest.partitions;
        if !partitions.is_empty() {
            for (service, request) in &mut self.committed {
                let (brokers, partitions) = (Arc::clone(&self.brokers), Arc::clone(partitions));
                let service = *service;
                request.send_blocking(move || brokers.committed(service, &partitions));
            }
            self.logs.send(&self.brokers, partitions);
        }
        for Store { probe, request, .. } in &mut self.stores {
            let probe = Arc::clone(probe);
            request.send(async move { probe.lock_owned().await.read().await });
        }
    }

    /// Keeps the answers that have come by `until`.
    async fn receive(&mut self, until: Instant) {
        let latest = &mut self.latest;
        if let Some((at, answer)) = self.partitions.answer(until).await {
            let listed = answer.map(|listed| latest.add_partitions(at, listed));
            latest.set_fault(
                "the list of topics".to_owned(),
                listed.err().as_ref().and_then(fault),
            );
        }
        for (service, request) in &mut self.committed {
            if let Some((at, answer)) = request.answer(until).await {
                let readings = latest.committed.entry(*service).or_default();
                let refused = match answer {
                    Ok(answers) => first_refusal(&keep(readings, at, answers)),
                    Err(error) => fault(&error),
                };
                latest.set_fault(format!("the group {service}"), refused);
            }
        }
        for answer in self.logs.answers(until).await {
            keep_logs(latest, answer);
        }
        for Store {
            service, request, ..
        } in &mut self.stores
        {
            if let Some((at, answer)) = request.answer(until).await {
                let state = answer.map(|value| {
                    latest.stores.insert(*service, Reading { at, value });
                });
                latest.set_fault(
                    format!("the store of {service}"),
                    state.err().as_ref().and_then(fault),
                );
            }
        }
    }
}

/// Keeps the answer to a request for offsets.
fn keep_logs(latest: &mut Latest, received: LogAnswer) {
    let LogAnswer {
        topics,
        sent,
        answer,
    } = received;
    let part = |topic: &str| format!("the topic {topic}");
    match answer {
        Ok(answers) => {
            for topic in &topics {
                latest.set_fault(part(topic), None);
            }
            for ((topic, partition), error) in keep(&mut latest.logs, sent, answers) {
                let fault = format!("partition {partition}: {error}");
                latest.set_fault(part(&topic), Some(fault));
            }
        }
        // Each topic has a request of its own now, which fails too if the fault lasts.
        Err(_) if topics.len() > 1 => {}
        Err(error) => {
            let fault = fault(&error);
            for topic in &topics {
                latest.set_fault(part(topic), fault.clone());
            }
        }
    }
}

/// Why the first of the partitions was refused.
fn first_refusal(refused: &[(Place, KafkaError)]) -> Option<String> {
    let ((topic, partition), error) = refused.first()?;
    Some(format!("{topic}/{partition}: {error}"))
}
