//! G1, G2, G4: every record reaches a handler, in the order of its key and in bounded memory.

/// G1: no loss, whatever is killed at any time, and no commit past an unsettled record.
mod g1_no_loss;
/// G2: order per key, through retries too, and no waiting between keys.
mod g2_key_order;
/// G4: records, bytes and resident memory stay bounded under any backlog.
mod g4_bounded_memory;
/// Routers: events without a handler are counted, and a fallback handler receives them.
mod routing;
