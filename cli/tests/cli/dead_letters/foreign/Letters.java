import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/**
 * What the programs of this folder share: the records that fail, and their dead letters as JSON.
 *
 * <p>From Java 22 on, {@code java -cp 'JARS/*' Share.java …} finds this file. Before, compile both:
 * {@code javac -cp 'JARS/*' -d classes Letters.java Share.java}, then {@code java -cp 'classes:JARS/*' Share …}.
 */
final class Letters {
    /** Publishes two records with the keys {@code o-0} and {@code o-1}. */
    static void publish(String brokers, String topic) throws Exception {
        try (var producer = new KafkaProducer<>(Map.of("bootstrap.servers", brokers), new StringSerializer(), new StringSerializer())) {
            for (int number = 0; number < 2; number++) {
                var record = new ProducerRecord<>(topic, "o-" + number, "{\"number\":" + number + "}");
                record.headers().add("ce_id", ("o-" + number).getBytes());
                producer.send(record).get();
            }
        }
    }

    /** Reads a topic until it has this number of records, for at most a minute. */
    static List<ConsumerRecord<byte[], byte[]>> read(String brokers, String topic, int count) {
        var settings = Map.<String, Object>of("bootstrap.servers", brokers, "auto.offset.reset", "earliest", "group.id", "reads-" + topic);
        var letters = new ArrayList<ConsumerRecord<byte[], byte[]>>();
        long end = System.nanoTime() + 60_000_000_000L;
        try (var consumer = new KafkaConsumer<>(settings, new ByteArrayDeserializer(), new ByteArrayDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (letters.size() < count && System.nanoTime() < end) {
                consumer.poll(Duration.ofMillis(200)).forEach(letters::add);
            }
        }
        return letters;
    }

    /** Key, headers and value of each record, in Base64. */
    static String json(List<ConsumerRecord<byte[], byte[]>> letters) {
        var records = new ArrayList<String>();
        for (var letter : letters) {
            var headers = new ArrayList<String>();
            for (var header : letter.headers()) {
                headers.add("      [\"" + header.key() + "\", " + base64(header.value()) + "]");
            }
            records.add("  {\n    \"key\": " + base64(letter.key()) + ",\n    \"headers\": [\n" + String.join(",\n", headers)
                    + "\n    ],\n    \"value\": " + base64(letter.value()) + "\n  }");
        }
        return "[\n" + String.join(",\n", records) + "\n]";
    }

    private static String base64(byte[] bytes) {
        return bytes == null ? "null" : "\"" + Base64.getEncoder().encodeToString(bytes) + "\"";
    }
}
