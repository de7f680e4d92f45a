import java.nio.charset.StandardCharsets;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.Future;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** Writes and reads the records of exchange.sh with Kafka's own client. */
public final class Exchange {
    private static final String[] CODECS = {"none", "gzip", "snappy", "lz4", "zstd"};
    private static final int RECORDS = 120;

    public static void main(String[] arguments) throws Exception {
        if (arguments[0].equals("write")) {
            write(arguments[1]);
        } else {
            for (int index = 1; index < arguments.length; index++) read(arguments[index]);
        }
        System.out.flush();
    }

    private static void write(String topic) throws Exception {
        for (int partition = 0; partition < CODECS.length; partition++) {
            Map<String, Object> settings = Map.of(
                "bootstrap.servers", System.getenv("BOOTSTRAP"), "compression.type", CODECS[partition], "linger.ms", 20);
            try (var producer = new KafkaProducer<>(settings, new StringSerializer(), new StringSerializer())) {
                List<Future<RecordMetadata>> sent = new ArrayList<>();
                for (int index = 0; index < RECORDS; index++) {
                    var value = String.format("java-%s-%04d-", CODECS[partition], index) + "x".repeat(index * 13 % 700);
                    var message = new ProducerRecord<>(topic, partition, String.format("k%04d", index), value);
                    message.headers().add("origin", "java".getBytes(StandardCharsets.UTF_8));
                    sent.add(producer.send(message));
                }
                for (int index = 0; index < RECORDS; index++) {
                    long offset = sent.get(index).get().offset();
                    if (offset != index) throw new IllegalStateException("record " + index + " got offset " + offset);
                }
            }
        }
    }

    private static void read(String topic) {
        Map<String, Object> settings = Map.of(
            "bootstrap.servers", System.getenv("BOOTSTRAP"), "enable.auto.commit", false, "auto.offset.reset", "none",
            "fetch.max.wait.ms", 20);
        try (var consumer = new KafkaConsumer<>(settings, new StringDeserializer(), new StringDeserializer())) {
            for (int partition = 0; partition < CODECS.length; partition++) {
                var from = new TopicPartition(topic, partition);
                consumer.assign(List.of(from));
                consumer.seekToBeginning(List.of(from));
                long end = consumer.endOffsets(List.of(from)).get(from);
                long deadline = System.nanoTime() + 20_000_000_000L;
                while (consumer.position(from) < end) {
                    if (System.nanoTime() > deadline) throw new IllegalStateException("no records within 20 s");
                    for (ConsumerRecord<String, String> record : consumer.poll(Duration.ofMillis(500))) {
                        var origin = new String(record.headers().lastHeader("origin").value(), StandardCharsets.UTF_8);
                        System.out.println(topic + " " + record.partition() + " " + record.offset() + " "
                            + record.key() + " origin=" + origin + " " + record.value());
                    }
                }
            }
        }
    }
}
