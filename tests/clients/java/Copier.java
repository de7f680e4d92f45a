import java.time.Duration;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.ConsumerRecords;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.OffsetAndMetadata;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** The copier of kills.sh with Kafka's own client: {@code Copier PROTOCOL NAME NUMBER}. */
public final class Copier {
    private final KafkaConsumer<String, String> consumer;
    private final KafkaProducer<String, String> producer;
    private final String output;

    public static void main(String[] arguments) {
        try {
            new Copier(arguments[0], arguments[1], arguments[2]).copy();
        } catch (Throwable thrown) {
            thrown.printStackTrace();
            System.exit(1);
        }
    }

    private Copier(String protocol, String name, String number) {
        Map<String, Object> reading = new HashMap<>();
        reading.put("bootstrap.servers", System.getenv("BOOTSTRAP"));
        reading.put("group.id", name);
        reading.put("group.protocol", protocol);
        reading.put("auto.offset.reset", "earliest");
        reading.put("enable.auto.commit", false);
        reading.put("max.poll.records", 50);
        reading.put("reconnect.backoff.max.ms", 100);
        if (protocol.equals("classic")) {
            reading.put("session.timeout.ms", 1000);
            reading.put("heartbeat.interval.ms", 200);
        }
        Map<String, Object> writing = Map.of(
            "bootstrap.servers", System.getenv("BOOTSTRAP"), "transactional.id", name + "-" + number,
            "reconnect.backoff.max.ms", 100);
        consumer = new KafkaConsumer<>(reading, new StringDeserializer(), new StringDeserializer());
        producer = new KafkaProducer<>(writing, new StringSerializer(), new StringSerializer());
        output = name + "-out";
        producer.initTransactions();
        consumer.subscribe(List.of(name + "-in"));
    }

    private void copy() {
        for (;;) {
            ConsumerRecords<String, String> records = consumer.poll(Duration.ofMillis(200));
            if (records.isEmpty()) continue;
            try {
                producer.beginTransaction();
                for (ConsumerRecord<String, String> record : records) {
                    producer.send(new ProducerRecord<>(output, record.partition(), record.key(), record.value()));
                }
                producer.sendOffsetsToTransaction(records.nextOffsets(), consumer.groupMetadata());
                producer.commitTransaction();
                System.out.println("copied " + records.count());
            } catch (KafkaException exception) {
                System.err.println(exception);
                // Ends this process where somebody else has taken over, or nobody knows how it ended.
                producer.abortTransaction();
                goBack();
            }
        }
    }

    /** What was aborted is read again. */
    private void goBack() {
        Set<TopicPartition> assigned = consumer.assignment();
        Map<TopicPartition, OffsetAndMetadata> committed = consumer.committed(assigned);
        for (TopicPartition partition : assigned) {
            OffsetAndMetadata offset = committed.get(partition);
            if (offset == null) {
                consumer.seekToBeginning(List.of(partition));
            } else {
                consumer.seek(partition, offset);
            }
        }
    }
}
