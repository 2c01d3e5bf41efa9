package evenkeel.peers;

import org.springframework.data.jpa.repository.JpaRepository;
import org.springframework.data.jpa.repository.Modifying;
import org.springframework.data.jpa.repository.Query;
import org.springframework.data.repository.Repository;

// The repositories of the service's rows.

interface HandledEvents extends Repository<Handled, String> {
    /**
     * Claims an event: 1 if it is new, 0 if it was handled before. One statement, because a failed
     * insert would fail the transaction.
     */
    @Modifying
    @Query(
            value = "INSERT INTO handled (event) VALUES (?1) ON CONFLICT DO NOTHING",
            nativeQuery = true)
    int claim(String event);
}

interface Effects extends JpaRepository<Effect, Long> {}

interface WaitingRecords extends JpaRepository<Waiting, Long> {}
