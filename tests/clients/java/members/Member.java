import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Comparator;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.function.Consumer;
import java.util.function.Function;
import org.apache.kafka.clients.consumer.CloseOptions;
import org.apache.kafka.clients.consumer.CloseOptions.GroupMembershipOperation;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.common.TopicPartition;

/** A consumer that polls in a thread of its own and notes what its group does with it. */
final class Member implements ConsumerRebalanceListener {
    /** Partitions that were taken, and all that the member had when it happened. */
    record Revoked(Set<TopicPartition> taken, Set<TopicPartition> had) {
        boolean isTotal() {
            return taken.equals(had);
        }
    }

    private final Scene scene;
    private final KafkaConsumer<String, String> consumer;
    private final Thread thread;
    private final ConcurrentLinkedQueue<Runnable> tasks = new ConcurrentLinkedQueue<>();
    private final Set<TopicPartition> owned = sorted(List.of());
    private final List<Revoked> revoked = new ArrayList<>();
    private int assignments;
    private long records;
    private Throwable failure;
    private GroupMembershipOperation ending;

    Member(Scene scene, Properties properties, Consumer<Member> subscribe) {
        this.scene = scene;
        consumer = new KafkaConsumer<>(properties);
        subscribe.accept(this);
        thread = new Thread(this::live);
        thread.setDaemon(true);
        thread.start();
    }

    KafkaConsumer<String, String> consumer() {
        return consumer;
    }

    private static Set<TopicPartition> sorted(Collection<TopicPartition> partitions) {
        Set<TopicPartition> set =
                new TreeSet<>(
                        Comparator.comparing(TopicPartition::topic)
                                .thenComparing(TopicPartition::partition));
        set.addAll(partitions);
        return set;
    }

    private void live() {
        try {
            while (ending() == null) {
                long polled = consumer.poll(Duration.ofMillis(50)).count();
                scene.change(() -> records += polled);
                for (Runnable task = tasks.poll(); task != null; task = tasks.poll()) {
                    task.run();
                }
            }
            consumer.close(CloseOptions.groupMembershipOperation(ending()));
        } catch (Throwable thrown) {
            scene.change(() -> failure = thrown);
            consumer.close(
                    CloseOptions.groupMembershipOperation(GroupMembershipOperation.REMAIN_IN_GROUP));
        }
    }

    private GroupMembershipOperation ending() {
        return scene.look(() -> ending);
    }

    @Override
    public void onPartitionsAssigned(Collection<TopicPartition> partitions) {
        scene.change(
                () -> {
                    assignments++;
                    owned.addAll(partitions);
                    scene.own(this, partitions);
                });
    }

    @Override
    public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
        scene.change(
                () -> {
                    revoked.add(new Revoked(sorted(partitions), sorted(owned)));
                    owned.removeAll(partitions);
                    scene.disown(this, partitions);
                });
    }

    @Override
    public void onPartitionsLost(Collection<TopicPartition> partitions) {
        scene.change(
                () -> {
                    owned.removeAll(partitions);
                    scene.disown(this, partitions);
                });
    }

    Set<TopicPartition> owned() {
        return scene.look(() -> sorted(owned));
    }

    List<Revoked> revoked() {
        return scene.look(() -> List.copyOf(revoked));
    }

    int assignments() {
        return scene.look(() -> assignments);
    }

    long records() {
        return scene.look(() -> records);
    }

    Throwable failure() {
        return scene.look(() -> failure);
    }

    /** Asks the consumer in its own thread. */
    <T> T ask(Function<KafkaConsumer<String, String>, T> question) throws Exception {
        CompletableFuture<T> answer = new CompletableFuture<>();
        tasks.add(
                () -> {
                    try {
                        answer.complete(question.apply(consumer));
                    } catch (Throwable thrown) {
                        answer.completeExceptionally(thrown);
                    }
                });
        scene.until("an answer of a member", () -> answer.isDone() || failure() != null);
        if (failure() != null) {
            throw new AssertionError("the member failed", failure());
        }
        return answer.get();
    }

    /** Ends it; what a static member does is up to it. */
    void end(GroupMembershipOperation how) throws InterruptedException {
        scene.change(() -> ending = how);
        thread.join(Scene.PATIENCE.toMillis());
        Scene.check(!thread.isAlive(), "a member ends");
        if (failure() != null) {
            throw new AssertionError("a member failed", failure());
        }
    }

    void leave() throws InterruptedException {
        end(GroupMembershipOperation.LEAVE_GROUP);
    }

    void vanish() throws InterruptedException {
        end(GroupMembershipOperation.REMAIN_IN_GROUP);
    }
}
