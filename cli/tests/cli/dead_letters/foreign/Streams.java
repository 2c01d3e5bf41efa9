import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.clients.producer.*;
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
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", brokers), new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < 2; number++) {
                var record = new ProducerRecord<>(topic, "o-" + number, "{\"number\":" + number + "}");
                record.headers().add("ce_id", ("o-" + number).getBytes());
                producer.send(record).get();
            }
        }
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
            print(brokers, letters);
        }
    }

    private static void print(String brokers, String topic) {
        var settings = Map.<String, Object>of("bootstrap.servers", brokers, "auto.offset.reset", "earliest", "group.id", "reads-" + topic);
        var records = new ArrayList<String>();
        long end = System.nanoTime() + 30_000_000_000L;
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (records.size() < 2 && System.nanoTime() < end) {
                for (var letter : consumer.poll(Duration.ofMillis(200))) {
                    var headers = new ArrayList<String>();
                    for (var header : letter.headers()) {
                        headers.add("      [\"" + header.key() + "\", " + base64(header.value()) + "]");
                    }
                    records.add("  {\n    \"key\": " + base64(letter.key()) + ",\n    \"headers\": [\n" + String.join(",\n", headers)
                            + "\n    ],\n    \"value\": " + base64(letter.value()) + "\n  }");
                }
            }
        }
        System.out.println("[\n" + String.join(",\n", records) + "\n]");
    }

    private static String base64(byte[] bytes) {
        return bytes == null ? "null" : "\"" + Base64.getEncoder().encodeToString(bytes) + "\"";
    }
}
