//! G5, G6, G7: the place in the group, from the first assignment to a stop or a revoke.

/// G5: slow handlers keep their member's place, and stuck ones are named.
mod g5_slow_handler;
/// G6: a clean stop redelivers nothing; a stuck handler delays it up to its deadline only.
mod g6_clean_stop;
/// G7: revokes drain, commit and fence, with every assignor.
mod g7_revoke;
/// A member is not ready without a place in the group, and is ready again after a fault.
mod readiness;
/// KIP-848: members without partitions are ready, and their bounded runs end.
mod surplus;
/// Several consumers in one process report to one health, and none hides another.
mod together;
