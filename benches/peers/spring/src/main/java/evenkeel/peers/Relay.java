package evenkeel.peers;

import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.scheduling.annotation.Scheduled;
import org.springframework.stereotype.Component;

/** Publishes what waits in the outbox, in its order, and deletes it once it is acknowledged. */
@Component
class Relay {
    private final Outbox outbox;
    private final KafkaTemplate<String, byte[]> kafka;
    private final String results;

    Relay(
            Outbox outbox,
            KafkaTemplate<String, byte[]> kafka,
            @Value("${peers.results}") String results) {
        this.outbox = outbox;
        this.kafka = kafka;
        this.results = results;
    }

    @Scheduled(fixedDelay = 50)
    void publish() {
        List<Outbox.Row> rows = outbox.page();
        while (!rows.isEmpty()) {
            List<CompletableFuture<?>> sent = new ArrayList<>(rows.size());
            for (Outbox.Row row : rows) {
                sent.add(kafka.send(record(row)));
            }
            sent.forEach(CompletableFuture::join);
            outbox.delete(rows);
            rows = outbox.page();
        }
    }

    private ProducerRecord<String, byte[]> record(Outbox.Row row) {
        ProducerRecord<String, byte[]> record =
                new ProducerRecord<>(results, row.key(), row.payload());
        Map.of(
                        "ce_specversion", "1.0",
                        "ce_id", row.eventId(),
                        "ce_source", "/bench/peers",
                        "ce_type", "bench.effect-booked.v1",
                        "content-type", "application/json")
                .forEach(
                        (name, value) ->
                                record.headers()
                                        .add(name, value.getBytes(StandardCharsets.UTF_8)));
        return record;
    }
}
