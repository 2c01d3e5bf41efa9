//! G3: one effect for each event, on every store.

/// G3 in batches: one transaction for several events, an effect and an outcome for each.
mod g3_batches;
/// G3 under drills: kills, crashes at every point, refused commits, stores that are down.
mod g3_drills;
/// G3: one effect for each event however often it is delivered, and replies with the same ids.
mod g3_effects_once;
/// G3 for records without an id, and for an id that returns with other content.
mod g3_identity;
/// G3 where handlers share rows: no attempt is counted, and the sum is right.
mod g3_shared_rows;
/// Redis as the inbox: effects once while nothing crashes, and events wait while it is down.
mod redis;
