//! G8 and parking: records that fail, and the group's own topics that hold them.

/// G8: where a dead letter cannot be written in full, it is made smaller, or its partition stops.
mod g8_dead_letters;
/// G8: a panic of a service's own code costs one record a dead letter, and nothing else.
mod g8_panics;
/// G8: poison goes to the dead-letter topic or stops its partition, and blocks nothing else.
mod g8_poison;
/// Partitions that wait for their retry topic: in bounded memory, once and in order.
mod gates;
/// Names of own topics that could be confused with those of other groups.
mod own_names;
/// Own topics with unsuitable settings, from others or from defaults of the brokers.
mod own_topics;
/// Parking: failing keys wait in the retry topic, over restarts, and delay no other key.
mod parking;
/// A failure that names a delay is not retried earlier.
mod retry_after;
/// Retry topics that are closed or deleted: which records wait, and which do not.
mod retry_topics;
