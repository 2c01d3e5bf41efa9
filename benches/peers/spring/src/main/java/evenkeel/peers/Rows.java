package evenkeel.peers;

import jakarta.persistence.Column;
import jakarta.persistence.Entity;
import jakarta.persistence.GeneratedValue;
import jakarta.persistence.GenerationType;
import jakarta.persistence.Id;
import jakarta.persistence.Table;

// The rows of the service, one entity a table. A transaction inserts one row into each table, so
// there is nothing for Hibernate to batch, and an identity costs no more statements than a sequence
// would: the number comes back with the insert.

/** An event that was handled. */
@Entity
@Table(name = "handled")
class Handled {
    @Id
    String event;
}

/** The effect of an event. */
@Entity
@Table(name = "effects")
class Effect {
    @Id
    @GeneratedValue(strategy = GenerationType.IDENTITY)
    Long number;

    int key;
    long place;

    @Column(name = "total_cents")
    long totalCents;

    protected Effect() {}

    Effect(int key, long place, long totalCents) {
        this.key = key;
        this.place = place;
        this.totalCents = totalCents;
    }
}

/** A record that waits for the relay. */
@Entity
@Table(name = "outbox")
class Waiting {
    @Id
    @GeneratedValue(strategy = GenerationType.IDENTITY)
    Long number;

    @Column(name = "event_id")
    String eventId;

    @Column(name = "record_key")
    String recordKey;

    byte[] payload;

    protected Waiting() {}

    Waiting(String eventId, String recordKey, byte[] payload) {
        this.eventId = eventId;
        this.recordKey = recordKey;
        this.payload = payload;
    }
}
