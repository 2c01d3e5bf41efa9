//! The statements of relays and operators, in SQLite's SQL.
//!
//! Owns all SQL except that which writes events and creates tables. Lists are JSON arrays, because
//! SQLite has no other list type. Times are the machine's clock in milliseconds.

/// The time of the machine in milliseconds, as SQL. All processes on the file are on one machine.
macro_rules! now {
    () => {
        "CAST(unixepoch('subsec') * 1000 AS INTEGER)"
    };
}

/// Registers a relay, or extends its registration.
pub(super) const REGISTER: &str = concat!(
    "INSERT INTO evenkeel_outbox_relay (id, expires_at) VALUES (?1, ",
    now!(),
    " + ?2) ON CONFLICT (id) DO UPDATE SET expires_at = excluded.expires_at"
);

/// Removes the registrations of other relays that have expired, or are from before the machine's
/// clock was set back.
pub(super) const REMOVE_EXPIRED_RELAYS: &str = concat!(
    "DELETE FROM evenkeel_outbox_relay WHERE id <> ?1 AND (expires_at < ",
    now!(),
    " OR expires_at > ",
    now!(),
    " + ?2)"
);

/// Frees the slots of other relays that are leased since before the clock was set back.
pub(super) const FREE_OUTDATED_LEASES: &str = concat!(
    "UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL WHERE owner <> ?1 AND expires_at > ",
    now!(),
    " + ?2"
);

/// The registered relays, in binary order: all relays must agree on it.
pub(super) const RELAYS: &str = concat!(
    "SELECT id FROM evenkeel_outbox_relay WHERE expires_at > ",
    now!(),
    " ORDER BY id"
);

/// The leases that hold, with the time that is left.
pub(super) const LEASES: &str = concat!(
    "SELECT slot, owner, expires_at - ",
    now!(),
    " AS expires_in_ms FROM evenkeel_outbox_lease WHERE owner IS NOT NULL AND expires_at > ",
    now!(),
    " ORDER BY slot"
);

/// Takes slots that are free, expired or already this relay's. The condition is part of the update,
/// so of two relays that want one slot, one gets it.
pub(super) const LEASE: &str = concat!(
    "UPDATE evenkeel_outbox_lease SET owner = ?1, expires_at = ",
    now!(),
    " + ?3 WHERE slot IN (SELECT value FROM json_each(?2)) AND (owner IS NULL OR owner = ?1 OR expires_at <= ",
    now!(),
    ") RETURNING slot"
);

/// Frees slots of this relay. Those that another one has taken meanwhile stay untouched.
pub(super) const RELEASE: &str = "
    UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL
    WHERE owner = ?1 AND slot IN (SELECT value FROM json_each(?2))";

/// Frees all slots of this relay.
pub(super) const RELEASE_ALL: &str =
    "UPDATE evenkeel_outbox_lease SET owner = NULL, expires_at = NULL WHERE owner = ?1";

/// Removes the registration of this relay.
pub(super) const DEREGISTER: &str = "DELETE FROM evenkeel_outbox_relay WHERE id = ?1";

/// Removes the registration of this relay, if another one is registered. Statements that write run
/// one after the other, so of two relays that leave at once the second sees that the first has
/// left.
pub(super) const LEAVE_TO_ANOTHER: &str = concat!(
    "DELETE FROM evenkeel_outbox_relay WHERE id = ?1 AND EXISTS
         (SELECT 1 FROM evenkeel_outbox_relay WHERE id <> ?1 AND expires_at > ",
    now!(),
    ")"
);

/// Whether another relay is registered and this one is not.
pub(super) const HAS_LEFT_TO_ANOTHER: &str = concat!(
    "SELECT NOT EXISTS (SELECT 1 FROM evenkeel_outbox_relay WHERE id = ?1) AND EXISTS
         (SELECT 1 FROM evenkeel_outbox_relay WHERE id <> ?1 AND expires_at > ",
    now!(),
    ")"
);

/// Sums the sizes in the order of the rows, and takes the rows that begin within the limit. With a
/// bare parameter as its `LIMIT`, SQLite would prepare the statement anew each time.
pub(super) const READ: &str = "
    SELECT * FROM (
        SELECT *, sum(size) OVER (ORDER BY sequence) AS total, count(*) OVER () AS found FROM (
            SELECT sequence, id, key_hash, slot, aggregatetype, aggregateid, binary_key, payload, headers, \"partition\",
                   timestamp_ms, coalesce(length(payload), 0) + length(CAST(headers AS BLOB)) + 256 AS size
            FROM evenkeel_outbox
            WHERE slot IN (SELECT value FROM json_each(?1)) AND key_hash NOT IN (SELECT value FROM json_each(?2))
              AND (aggregatetype NOT IN (SELECT value FROM json_each(?3)) OR key_hash IN (SELECT value FROM json_each(?4)))
            ORDER BY sequence LIMIT ?5 + 0
        )
    )
    WHERE total - size < ?6 ORDER BY sequence";

/// The numbers find the rows, and the pairs decide.
pub(super) const DELETE: &str = "
    DELETE FROM evenkeel_outbox
    WHERE sequence IN (SELECT value ->> 0 FROM json_each(?1))
      AND (sequence, id) IN (SELECT value ->> 0, value ->> 1 FROM json_each(?1))";

/// Writes reasons beside rows. The first time is kept, so operators see since when a key is held.
pub(super) const MARK: &str = concat!(
    "UPDATE evenkeel_outbox SET failure = mark.value ->> 2, failed_at = coalesce(failed_at, ",
    now!(),
    ") FROM json_each(?1) AS mark WHERE sequence = mark.value ->> 0 AND evenkeel_outbox.id = mark.value ->> 1"
);

/// A key with a marked row counts as held, whichever of its rows it is: its later rows wait behind
/// it.
pub(super) const IS_DRAINED: &str = "
    SELECT NOT EXISTS (
        SELECT 1 FROM evenkeel_outbox
        WHERE aggregatetype NOT IN (SELECT value FROM json_each(?1))
          AND key_hash NOT IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL)
    )";

/// Counts up to the limit, and estimates beyond it: rows are deleted in about the order of their
/// numbers. The extremes are separate queries: SQLite looks each up in the tree, but scans the
/// whole table for both in one.
pub(super) const BACKLOG: &str = concat!(
    "SELECT (SELECT count(*) FROM (SELECT 1 FROM evenkeel_outbox LIMIT ?1 + 0)) AS counted,
            coalesce((SELECT max(sequence) FROM evenkeel_outbox)
                     - (SELECT min(sequence) FROM evenkeel_outbox) + 1, 0) AS estimated,
            (SELECT ",
    now!(),
    " - created_at FROM evenkeel_outbox ORDER BY sequence LIMIT 1) AS oldest_ms,
            (SELECT count(DISTINCT key_hash) FROM evenkeel_outbox WHERE failure IS NOT NULL) AS held"
);

/// The held keys, the longest wait first, each with the number of its rows.
pub(super) const HELD: &str = "
    SELECT sequence, id, type, aggregatetype, aggregateid, failure, failed_at AS since_ms,
           waiting.rows AS pending
    FROM evenkeel_outbox JOIN (
        SELECT key_hash, count(*) AS rows FROM evenkeel_outbox
        WHERE key_hash IN (SELECT key_hash FROM evenkeel_outbox WHERE failure IS NOT NULL) GROUP BY key_hash
    ) AS waiting USING (key_hash)
    WHERE failure IS NOT NULL ORDER BY failed_at, sequence LIMIT 1000";

/// The registered relays, with the number of slots of each.
pub(super) const SHARES: &str = concat!(
    "SELECT id, (SELECT count(*) FROM evenkeel_outbox_lease AS lease WHERE owner = id AND lease.expires_at > ",
    now!(),
    ") FROM evenkeel_outbox_relay WHERE expires_at > ",
    now!(),
    " ORDER BY id"
);

/// The number of slots whose lease holds.
pub(super) const LEASED: &str = concat!(
    "SELECT count(*) FROM evenkeel_outbox_lease WHERE owner IS NOT NULL AND expires_at > ",
    now!()
);
