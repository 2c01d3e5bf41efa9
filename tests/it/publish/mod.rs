//! G10 and the outbox: publishing, and the meaning of receipts; the trace of what is published.

/// G10: a receipt means acknowledged, an unknown result is reported as unknown, and a full buffer
/// applies back-pressure.
mod g10_publish;
/// Outbox: committed events are published in order per key, rolled-back ones are not, also when
/// relays are killed or brokers are down.
mod outbox;
/// Traces: the spans of an event's way through publisher, handlers, outbox and relay, as a
/// collector receives them.
mod traces;
