//! G9: outages, faults and parts that hang cost time, and nothing else.

/// Parts that push back, break or wait delay nothing else, or end the run with the reason.
mod breakdown;
/// Faults of brokers (refused commits, moved coordinators, slow round trips) lose no record.
mod faults;
/// The only broker freezes again and again: every member is at work afterwards.
mod frozen_broker;
/// G9, G4: a few waiting records stop no others.
mod g9_few_keys;
/// G9: a dependency that hangs is an outage too, and a probe that hangs stops nobody.
mod g9_hanging;
/// G9: an outage pauses the consumer, which probes the dependency; it costs nothing but time.
mod g9_outage;
/// A broker that is down: only the partitions that it leads wait.
mod slow_brokers;
