package evenkeel.peers;

import java.sql.ResultSet;
import java.sql.SQLException;
import java.util.List;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.stereotype.Component;

/**
 * The outbox as its relay sees it. Plain JDBC: a page of entities would be kept in a persistence
 * context for nothing, and deleted by a list of parameters instead of one array.
 */
@Component
class Outbox {
    /** Rows of a page: as many as every contestant's relay reads. */
    private static final int PAGE_ROWS = 2_000;

    private static final String READ =
            "SELECT number, event_id, record_key, payload FROM outbox ORDER BY number LIMIT ?";

    /** Does not wait for the disk: a row that a crash brings back is published again. */
    private static final String DELETE =
            """
            WITH unsynced AS MATERIALIZED (
                SELECT set_config('synchronous_commit', 'off', true)
            )
            DELETE FROM outbox
            WHERE number = ANY (?) AND (SELECT count(*) FROM unsynced) > 0
            """;

    private final JdbcTemplate jdbc;

    Outbox(JdbcTemplate jdbc) {
        this.jdbc = jdbc;
    }

    record Row(long number, String eventId, String key, byte[] payload) {}

    /** The first rows that wait, in their order. */
    List<Row> page() {
        return jdbc.query(READ, (row, at) -> row(row), PAGE_ROWS);
    }

    private static Row row(ResultSet row) throws SQLException {
        return new Row(row.getLong(1), row.getString(2), row.getString(3), row.getBytes(4));
    }

    /** Deletes rows that were published. */
    void delete(List<Row> rows) {
        Long[] numbers = rows.stream().map(Row::number).toArray(Long[]::new);
        jdbc.update(
                DELETE,
                statement ->
                        statement.setArray(
                                1, statement.getConnection().createArrayOf("bigint", numbers)));
    }
}
