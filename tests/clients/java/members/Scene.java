import java.time.Duration;
import java.util.Collection;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Properties;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.consumer.ConsumerConfig;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.serialization.StringDeserializer;
import org.apache.kafka.common.serialization.StringSerializer;

/** One group with its topic, and who has which partition: never two at a time. */
final class Scene implements AutoCloseable {
    static final Duration PATIENCE = Duration.ofSeconds(60);
    static final int PARTITIONS = 4;

    final String bootstrap;
    final String name;
    final Admin admin;
    private final Map<TopicPartition, Member> owners = new HashMap<>();
    private Member replaced;
    private String broken;

    Scene(String bootstrap, String name) throws Exception {
        this.bootstrap = bootstrap;
        this.name = name;
        admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        createTopic(name);
    }

    @Override
    public void close() {
        admin.close();
    }

    void createTopic(String topic) throws Exception {
        admin.createTopics(List.of(new NewTopic(topic, PARTITIONS, (short) 1))).all().get();
    }

    /** Records to every partition. */
    void produce(int each) {
        Map<String, Object> settings =
                Map.of(
                        "bootstrap.servers", bootstrap,
                        "key.serializer", StringSerializer.class,
                        "value.serializer", StringSerializer.class);
        try (KafkaProducer<String, String> producer = new KafkaProducer<>(settings)) {
            for (int number = 0; number < each * PARTITIONS; number++) {
                producer.send(
                        new ProducerRecord<>(name, number % PARTITIONS, null, "" + number));
            }
            producer.flush();
        }
    }

    Properties settings(String protocol) {
        Properties settings = new Properties();
        settings.put("bootstrap.servers", bootstrap);
        settings.put("group.id", name);
        settings.put("group.protocol", protocol);
        settings.put("auto.offset.reset", "earliest");
        settings.put("enable.auto.commit", "false");
        settings.put("key.deserializer", StringDeserializer.class.getName());
        settings.put("value.deserializer", StringDeserializer.class.getName());
        if (protocol.equals("classic")) {
            settings.put("session.timeout.ms", "30000");
            settings.put("heartbeat.interval.ms", "200");
        }
        return settings;
    }

    Properties classic(Class<?> assignor) {
        Properties settings = settings("classic");
        settings.put(ConsumerConfig.PARTITION_ASSIGNMENT_STRATEGY_CONFIG, assignor.getName());
        return settings;
    }

    Member join(Properties settings) {
        return new Member(
                this, settings, member -> member.consumer().subscribe(List.of(name), member));
    }

    synchronized void change(Runnable change) {
        change.run();
        notifyAll();
    }

    synchronized <T> T look(Supplier<T> look) {
        return look.get();
    }

    /** Called within {@link #change}. */
    void own(Member member, Collection<TopicPartition> partitions) {
        for (TopicPartition partition : partitions) {
            Member other = owners.put(partition, member);
            if (other != null && other != member && other != replaced) {
                broken = partition + " has two owners";
            }
        }
    }

    /** From now on somebody else may have what this member has, before it learns of it. */
    void replace(Member member) {
        change(() -> replaced = member);
    }

    /** Called within {@link #change}. */
    void disown(Member member, Collection<TopicPartition> partitions) {
        partitions.forEach(partition -> owners.remove(partition, member));
    }

    /** Waits for something that members do. */
    synchronized void until(String what, BooleanSupplier holds) throws InterruptedException {
        long end = System.nanoTime() + PATIENCE.toNanos();
        while (!holds.getAsBoolean()) {
            check(broken == null, broken);
            long left = (end - System.nanoTime()) / 1_000_000;
            check(left > 0, "not reached: " + what);
            wait(Math.min(left, 1000));
        }
        check(broken == null, broken);
    }

    static void check(boolean holds, String what) {
        if (!holds) {
            throw new AssertionError(what);
        }
    }

    static <T> void same(T expected, T actual, String what) {
        check(expected.equals(actual), what + ": expected " + expected + ", got " + actual);
    }
}
