package evenkeel.peers;

import java.nio.charset.StandardCharsets;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.stereotype.Component;
import org.springframework.transaction.annotation.Transactional;
import tools.jackson.databind.json.JsonMapper;

/**
 * Handles an order: a transaction an event. Offsets are committed after it, by the container's
 * default acknowledgement mode, so that a record comes at least once.
 */
@Component
class OrderListener {
    private final HandledEvents handled;
    private final Effects effects;
    private final WaitingRecords waiting;
    private final JsonMapper json;

    OrderListener(
            HandledEvents handled, Effects effects, WaitingRecords waiting, JsonMapper json) {
        this.handled = handled;
        this.effects = effects;
        this.waiting = waiting;
        this.json = json;
    }

    record Order(
            int key,
            long place,
            String customer,
            long total_cents,
            boolean express,
            List<Line> lines,
            String note) {}

    record Line(String article, int quantity, long price_cents) {}

    record EffectBooked(int key, long place) {}

    @KafkaListener(topics = "${peers.topic}")
    @Transactional
    public void handle(ConsumerRecord<String, byte[]> record) {
        String id = header(record, "ce_id");
        if (handled.claim(header(record, "ce_source") + " " + id) == 0) {
            return;
        }
        Order order = json.readValue(record.value(), Order.class);
        effects.save(new Effect(order.key(), order.place(), order.total_cents()));
        byte[] payload = json.writeValueAsBytes(new EffectBooked(order.key(), order.place()));
        waiting.save(new Waiting(id, record.key(), payload));
    }

    private static String header(ConsumerRecord<?, ?> record, String name) {
        return new String(record.headers().lastHeader(name).value(), StandardCharsets.UTF_8);
    }
}
