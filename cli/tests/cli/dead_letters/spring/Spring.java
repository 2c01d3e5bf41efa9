import java.nio.charset.StandardCharsets;
import java.util.HashMap;
import java.util.Map;
import java.util.TreeMap;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.kafka.listener.ConcurrentMessageListenerContainer;
import org.springframework.kafka.listener.ContainerProperties;
import org.springframework.kafka.listener.DeadLetterPublishingRecoverer;
import org.springframework.kafka.listener.DefaultErrorHandler;
import org.springframework.kafka.listener.MessageListener;
import org.springframework.kafka.support.SimpleKafkaHeaderMapper;
import org.springframework.util.backoff.FixedBackOff;

/**
 * A Spring Kafka application.
 *
 * <p>{@code Spring.java fail BROKERS TOPIC GROUP RECORDS LETTERS}: a listener that fails at each record, whose error handler
 * tries three times and has Spring's own recoverer publish it to LETTERS. {@code Spring.java read BROKERS TOPIC GROUP RECORDS}:
 * a listener that prints each record, its headers as Spring's mapper gives them, one to a line.
 */
public class Spring {
    public static void main(String[] args) throws Exception {
        var records = new CountDownLatch(Integer.parseInt(args[4]));
        var properties = new ContainerProperties(args[2]);
        properties.setGroupId(args[3]);
        properties.setMissingTopicsFatal(true);
        properties.setMessageListener(args[0].equals("fail") ? failing() : printing(records));
        var container = new ConcurrentMessageListenerContainer<byte[], byte[]>(consumers(args[1]), properties);
        if (args[0].equals("fail")) {
            container.setCommonErrorHandler(errorHandler(args[1], args[5], records));
        }
        container.start();
        boolean done = records.await(40, TimeUnit.SECONDS);
        container.stop();
        System.exit(done ? 0 : 1);
    }

    private static MessageListener<byte[], byte[]> failing() {
        return record -> {
            throw new IllegalStateException("card " + text(record.value()) + " refused");
        };
    }

    private static MessageListener<byte[], byte[]> printing(CountDownLatch records) {
        var mapper = new SimpleKafkaHeaderMapper();
        return record -> {
            print("key", record.key());
            print("value", record.value());
            var headers = new HashMap<String, Object>();
            mapper.toHeaders(record.headers(), headers);
            new TreeMap<>(headers).forEach(Spring::print);
            records.countDown();
        };
    }

    private static DefaultErrorHandler errorHandler(String brokers, String letters, CountDownLatch records) {
        var template = new KafkaTemplate<byte[], byte[]>(new DefaultKafkaProducerFactory<>(
                Map.of("bootstrap.servers", brokers), new ByteArraySerializer(), new ByteArraySerializer()));
        var recoverer = new DeadLetterPublishingRecoverer(
                template, (record, error) -> new TopicPartition(letters, record.partition()));
        recoverer.setFailIfSendResultIsError(true);
        return new DefaultErrorHandler((record, error) -> {
            recoverer.accept(record, error);
            records.countDown();
        }, new FixedBackOff(0, 2));
    }

    private static DefaultKafkaConsumerFactory<byte[], byte[]> consumers(String brokers) {
        return new DefaultKafkaConsumerFactory<>(
                Map.of("bootstrap.servers", brokers, "auto.offset.reset", "earliest"),
                new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    private static void print(String name, Object value) {
        System.out.println(name + "=" + (value instanceof byte[] bytes ? text(bytes) : value));
    }

    private static String text(byte[] bytes) {
        return bytes == null ? "null" : new String(bytes, StandardCharsets.UTF_8);
    }
}
