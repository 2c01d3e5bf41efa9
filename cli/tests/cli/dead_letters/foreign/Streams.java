import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.common.serialization.*;
import org.apache.kafka.streams.*;
import org.apache.kafka.streams.errors.LogAndContinueProcessingExceptionHandler;

/**
 * A Kafka Streams application (4.2 and later) that fails at every record, with a dead-letter topic (KIP-1034).
 *
 * <p>{@code Streams.java BROKERS TOPIC GROUP LETTERS} publishes two records to TOPIC, and prints what Streams writes to LETTERS as
 * JSON: key, headers and value in Base64.
 */
public class Streams {
    public static void main(String[] args) throws Exception {
        String brokers = args[0], topic = args[1], group = args[2], letters = args[3];
        try (var admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1), new NewTopic(letters, 1, (short) 1))).all().get();
        }
        Letters.publish(brokers, topic);
        var settings = new Properties();
        settings.put("bootstrap.servers", brokers);
        settings.put("application.id", group);
        settings.put("auto.offset.reset", "earliest");
        settings.put("default.key.serde", Serdes.StringSerde.class);
        settings.put("default.value.serde", Serdes.StringSerde.class);
        settings.put("commit.interval.ms", 200);
        settings.put("processing.exception.handler", LogAndContinueProcessingExceptionHandler.class);
        settings.put("errors.dead.letter.queue.topic.name", letters);
        var builder = new StreamsBuilder();
        builder.<String, String>stream(topic).foreach((key, value) -> {
            throw new IllegalStateException("card " + value + " refused");
        });
        try (var streams = new KafkaStreams(builder.build(), settings)) {
            streams.start();
            System.out.println(Letters.json(Letters.read(brokers, letters, 2)));
        }
    }
}
