import java.time.Duration;
import java.util.*;
import org.apache.kafka.clients.admin.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.serialization.*;

/**
 * A share group that rejects every record, so that Kafka (4.4 and later) writes them to the group's dead-letter topic (KIP-1191).
 *
 * <p>{@code Share.java BROKERS TOPIC GROUP LETTERS COPY} publishes two records to TOPIC, rejects them, and prints what stands in LETTERS
 * as JSON: key, headers and value in Base64. COPY is the group's {@code errors.deadletterqueue.copy.record.enable}.
 */
public class Share {
    public static void main(String[] args) throws Exception {
        String brokers = args[0], topic = args[1], group = args[2], letters = args[3];
        try (var admin = Admin.create(Map.of("bootstrap.servers", brokers))) {
            admin.createTopics(List.of(new NewTopic(topic, 1, (short) 1),
                    new NewTopic(letters, 1, (short) 1).configs(Map.of("errors.deadletterqueue.group.enable", "true")))).all().get();
            var resource = new ConfigResource(ConfigResource.Type.GROUP, group);
            admin.incrementalAlterConfigs(Map.of(resource, List.of(
                    set("share.auto.offset.reset", "earliest"), set("errors.deadletterqueue.topic.name", letters),
                    set("errors.deadletterqueue.copy.record.enable", args[4])))).all().get();
        }
        Letters.publish(brokers, topic);
        var settings = Map.<String, Object>of("bootstrap.servers", brokers, "group.id", group, "share.acknowledgement.mode", "explicit");
        int rejected = 0;
        try (var consumer = new KafkaShareConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            consumer.subscribe(List.of(topic));
            while (rejected < 2) {
                for (var record : consumer.poll(Duration.ofMillis(500))) {
                    consumer.acknowledge(record, AcknowledgeType.REJECT);
                    rejected++;
                }
            }
            consumer.commitSync();
        }
        System.out.println(Letters.json(Letters.read(brokers, letters, 2)));
    }

    private static AlterConfigOp set(String name, String value) {
        return new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET);
    }
}
