import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.springframework.context.annotation.AnnotationConfigApplicationContext;
import org.springframework.context.annotation.Bean;
import org.springframework.context.annotation.Configuration;
import org.springframework.kafka.annotation.EnableKafka;
import org.springframework.kafka.annotation.EnableKafkaRetryTopic;
import org.springframework.kafka.annotation.KafkaListener;
import org.springframework.kafka.annotation.RetryableTopic;
import org.springframework.kafka.config.ConcurrentKafkaListenerContainerFactory;
import org.springframework.kafka.core.DefaultKafkaConsumerFactory;
import org.springframework.kafka.core.DefaultKafkaProducerFactory;
import org.springframework.kafka.core.KafkaTemplate;
import org.springframework.retry.annotation.Backoff;
import org.springframework.scheduling.TaskScheduler;
import org.springframework.scheduling.concurrent.ThreadPoolTaskScheduler;

/**
 * A Spring Kafka application whose listener has a {@code @RetryableTopic} and fails at each record.
 *
 * <p>{@code Retryable.java BROKERS TOPIC GROUP RECORDS} runs until RECORDS letters are in TOPIC-dlt, and prints these as JSON: key,
 * headers and value in Base64.
 */
public class Retryable {
    public static void main(String[] args) throws Exception {
        System.setProperty("brokers", args[0]);
        System.setProperty("topic", args[1]);
        System.setProperty("group", args[2]);
        int count = Integer.parseInt(args[3]);
        List<ConsumerRecord<byte[], byte[]>> letters;
        try (var context = new AnnotationConfigApplicationContext(Application.class)) {
            letters = Letters.read(args[0], args[1] + "-dlt", count);
        }
        System.out.println(Letters.json(letters));
        System.exit(letters.size() == count ? 0 : 1);
    }

    @Configuration(proxyBeanMethods = false)
    @EnableKafka
    @EnableKafkaRetryTopic
    public static class Application {
        @Bean
        Listener listener() {
            return new Listener();
        }

        @Bean
        TaskScheduler taskScheduler() {
            return new ThreadPoolTaskScheduler();
        }

        @Bean
        KafkaTemplate<byte[], byte[]> defaultRetryTopicKafkaTemplate() {
            return new KafkaTemplate<>(new DefaultKafkaProducerFactory<>(
                    Map.of("bootstrap.servers", System.getProperty("brokers")),
                    new ByteArraySerializer(), new ByteArraySerializer()));
        }

        @Bean
        ConcurrentKafkaListenerContainerFactory<byte[], byte[]> kafkaListenerContainerFactory() {
            var factory = new ConcurrentKafkaListenerContainerFactory<byte[], byte[]>();
            factory.setConsumerFactory(new DefaultKafkaConsumerFactory<>(
                    Map.of("bootstrap.servers", System.getProperty("brokers"), "auto.offset.reset", "earliest"),
                    new ByteArrayDeserializer(), new ByteArrayDeserializer()));
            return factory;
        }
    }

    public static class Listener {
        @RetryableTopic(attempts = "3", backoff = @Backoff(delay = 200), autoCreateTopics = "false")
        @KafkaListener(topics = "#{systemProperties['topic']}", groupId = "#{systemProperties['group']}")
        public void handle(ConsumerRecord<byte[], byte[]> record) {
            throw new IllegalStateException("card " + new String(record.value(), StandardCharsets.UTF_8) + " refused");
        }
    }
}
