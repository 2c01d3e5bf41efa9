//! The requests for the first and the end offsets of all partitions.
//!
//! One partition whose leader is not known yet, or that its leader rejects, delays and fails all
//! others of its request. So a topic has a request of its own until it has answered one. Topics
//! that answer share a request; if it fails, each has its own again.

use super::brokers::{Answers, Brokers, LogBounds, Place};
use super::request::Request;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

/// The requests under way, and which topics share the next one.
#[derive(Default)]
pub(super) struct LogRequests {
    /// The topics whose last request was answered.
    answering: BTreeSet<String>,
    under_way: Vec<(Vec<Place>, Request<Answers<LogBounds>>)>,
}

/// The answer to a request.
pub(super) struct LogAnswer {
    /// The topics of the request.
    pub(super) topics: BTreeSet<String>,
    /// The time at which it was sent.
    pub(super) sent: Instant,
    pub(super) answer: anyhow::Result<Answers<LogBounds>>,
}

impl LogRequests {
    /// Requests the offsets of all partitions that no request under way is for.
    pub(super) fn send(&mut self, brokers: &Arc<Brokers>, partitions: &BTreeSet<Place>) {
        let batches = {
            let under_way = self.under_way.iter().flat_map(|(places, _)| places);
            let under_way: BTreeSet<&Place> = under_way.collect();
            let others = partitions.iter().filter(|place| !under_way.contains(place));
            batches(others, &self.answering)
        };
        for places in batches {
            let (brokers, asked) = (Arc::clone(brokers), places.clone());
            let mut request = Request::default();
            request.send_blocking(move || brokers.log_bounds(&asked));
            self.under_way.push((places, request));
        }
    }

    /// The answers that have come by `until`.
    pub(super) async fn answers(&mut self, until: Instant) -> Vec<LogAnswer> {
        let mut answers = Vec::new();
        for (places, mut request) in std::mem::take(&mut self.under_way) {
            let Some((sent, answer)) = request.answer(until).await else {
                self.under_way.push((places, request));
                continue;
            };
            let topics: BTreeSet<String> = places.into_iter().map(|(topic, _)| topic).collect();
            match answer.is_ok() {
                true => self.answering.extend(topics.iter().cloned()),
                false => self.answering.retain(|topic| !topics.contains(topic)),
            }
            answers.push(LogAnswer {
                topics,
                sent,
                answer,
            });
        }
        answers
    }
}

/// The partitions of each request: one for the topics that answer, one for each other topic.
fn batches<'a>(
    places: impl Iterator<Item = &'a Place>,
    answering: &BTreeSet<String>,
) -> Vec<Vec<Place>> {
    // By topic. `None` for the request that is shared.
    let mut batches: BTreeMap<Option<&str>, Vec<Place>> = BTreeMap::new();
    for place in places {
        let (topic, _) = place;
        let own = (!answering.contains(topic)).then_some(topic.as_str());
        batches.entry(own).or_default().push(place.clone());
    }
    batches.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn only_topics_that_answer_share_a_request() {
        let place = |topic: &str, partition| (topic.to_owned(), partition);
        let places = [place("a", 0), place("a", 1), place("b", 0), place("c", 0)];
        let check = |answering: &[&str], expected: &[&[Place]]| {
            let answering = answering.iter().map(|topic| (*topic).to_owned());
            let found = batches(places.iter(), &answering.collect());
            assert_eq!(found, expected, "{places:?}");
        };
        let [a0, a1, b, c] = places.clone();
        check(
            &[],
            &[
                &[a0.clone(), a1.clone()],
                std::slice::from_ref(&b),
                std::slice::from_ref(&c),
            ],
        );
        check(
            &["a", "c"],
            &[
                &[a0.clone(), a1.clone(), c.clone()],
                std::slice::from_ref(&b),
            ],
        );
        check(&["a", "b", "c"], &[&[a0, a1, b, c]]);
    }

    #[tokio::test]
    async fn a_topic_shares_a_request_until_one_fails() {
        let mut requests = LogRequests::default();
        let place = || ("a".to_owned(), 0);
        for (is_answered, answering) in [(true, &["a"][..]), (false, &[][..])] {
            let mut request = Request::default();
            request.send(async move {
                match is_answered {
                    true => Ok(Answers::new()),
                    false => anyhow::bail!("rejected"),
                }
            });
            requests.under_way.push((vec![place()], request));
            let until = Instant::now() + Duration::from_secs(60);
            let answers = requests.answers(until).await;
            assert_eq!(answers.len(), 1);
            assert_eq!(answers[0].answer.is_ok(), is_answered);
            assert!(requests.under_way.is_empty());
            let found: Vec<&str> = requests.answering.iter().map(String::as_str).collect();
            assert_eq!(found, answering);
        }
    }
}
