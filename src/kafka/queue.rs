//! The one audited module of unsafe code: partition queues forwarded to a queue of our own.
