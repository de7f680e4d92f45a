import java.util.Collections;
import java.util.List;
import java.util.Properties;
import java.util.Set;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.consumer.SubscriptionPattern;
import org.apache.kafka.common.GroupType;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.errors.FencedInstanceIdException;
import org.apache.kafka.common.errors.UnreleasedInstanceIdException;

/**
 * What groups do with members that are Java clients: {@code Behaviours BOOTSTRAP NAME} prints a line
 * "ok" or "FAIL" for each behaviour, and ends with 0 if all are ok. They wait for each other's
 * heartbeats most of the time, so all run at once.
 */
public final class Behaviours {
    private static final int HALF = Scene.PARTITIONS / 2;

    interface Behaviour {
        void show(Scene scene) throws Exception;
    }

    private static volatile boolean isFailed;

    public static void main(String[] arguments) throws Exception {
        List<Thread> threads =
                List.of(
                        start(arguments, "eager-members-give-up-everything", Behaviours::eager),
                        start(arguments, "cooperative-members-keep-what-stays", Behaviours::cooperative),
                        start(arguments, "the-broker-moves-only-what-it-must", Behaviours::consumer),
                        start(arguments, "the-brokers-range-assignor", Behaviours::range),
                        start(arguments, "a-subscription-by-pattern", Behaviours::pattern),
                        start(arguments, "classic-static-members", Behaviours::classicStatic),
                        start(arguments, "consumer-static-members", Behaviours::consumerStatic),
                        start(arguments, "protocols-change-while-members-read", Behaviours::migration));
        for (Thread thread : threads) {
            thread.join();
        }
        System.exit(isFailed ? 1 : 0);
    }

    private static Thread start(String[] arguments, String behaviour, Behaviour shown) {
        Thread thread =
                new Thread(
                        () -> {
                            try (Scene scene =
                                    new Scene(arguments[0], behaviour + "-" + arguments[1])) {
                                shown.show(scene);
                                System.out.println("ok " + behaviour);
                            } catch (Throwable thrown) {
                                isFailed = true;
                                System.out.println("FAIL " + behaviour + " " + thrown + cause(thrown));
                            }
                        });
        thread.start();
        return thread;
    }

    private static String cause(Throwable thrown) {
        return thrown.getCause() == null ? "" : ", because of " + thrown.getCause();
    }

    private static void shared(Scene scene, Member one, Member other) throws Exception {
        scene.until(
                "each has one half",
                () -> one.owned().size() == HALF && other.owned().size() == HALF);
        Scene.check(Collections.disjoint(one.owned(), other.owned()), "nothing has two owners");
    }

    private static Member alone(Scene scene, Properties settings) throws Exception {
        Member member = scene.join(settings);
        scene.until("all for one", () -> member.owned().size() == Scene.PARTITIONS);
        return member;
    }

    static void eager(Scene scene) throws Exception {
        Properties settings = scene.classic(RangeAssignor.class);
        Member first = alone(scene, settings);
        Member second = scene.join(settings);
        shared(scene, first, second);
        second.leave();
        scene.until("all for one again", () -> first.owned().size() == Scene.PARTITIONS);
        Scene.check(first.revoked().size() >= 2, "every rebalance takes something");
        Scene.check(first.revoked().stream().allMatch(Member.Revoked::isTotal), "it takes all");
        Scene.same(Scene.PARTITIONS, first.revoked().get(0).taken().size(), "taken at first");
        first.leave();
    }

    static void cooperative(Scene scene) throws Exception {
        onlyWhatMoves(scene, scene.classic(CooperativeStickyAssignor.class));
    }

    static void consumer(Scene scene) throws Exception {
        onlyWhatMoves(scene, scene.settings("consumer"));
        Scene.check(
                scene.admin.listGroups().all().get().stream()
                        .anyMatch(
                                group ->
                                        group.groupId().equals(scene.name)
                                                && group.type().equals(java.util.Optional.of(GroupType.CONSUMER))),
                "it is a consumer group");
    }

    /** One half goes to a second member and comes back; the other half is never touched. */
    private static void onlyWhatMoves(Scene scene, Properties settings) throws Exception {
        scene.produce(100);
        Member first = alone(scene, settings);
        scene.until("all is read", () -> first.records() == 100 * Scene.PARTITIONS);
        first.ask(
                consumer -> {
                    consumer.commitSync();
                    return null;
                });
        Member second = scene.join(settings);
        shared(scene, first, second);
        Set<TopicPartition> moved = second.owned();
        second.leave();
        scene.until("all for one again", () -> first.owned().size() == Scene.PARTITIONS);
        List<Member.Revoked> taken =
                first.revoked().stream().filter(revoked -> !revoked.taken().isEmpty()).toList();
        Scene.same(1, taken.size(), "times that something was taken");
        Scene.same(moved, taken.get(0).taken(), "what was taken");
        Scene.same(0L, second.records(), "records of the second, which begins at what is committed");
        Scene.same(100L * Scene.PARTITIONS, first.records(), "records of the first");
        first.leave();
    }

    static void range(Scene scene) throws Exception {
        Properties settings = scene.settings("consumer");
        settings.put("group.remote.assignor", "range");
        Member first = alone(scene, settings);
        Member second = scene.join(settings);
        shared(scene, first, second);
        for (Member member : List.of(first, second)) {
            int[] numbers =
                    member.owned().stream().mapToInt(TopicPartition::partition).sorted().toArray();
            Scene.same(numbers[0] + 1, numbers[1], "a range without holes");
        }
        first.leave();
        second.leave();
    }

    static void pattern(Scene scene) throws Exception {
        scene.createTopic(scene.name + "-too");
        Member member =
                new Member(
                        scene,
                        scene.settings("consumer"),
                        made ->
                                made.consumer()
                                        .subscribe(
                                                new SubscriptionPattern(scene.name + "(-too)?"), made));
        scene.until("both topics", () -> member.owned().size() == 2 * Scene.PARTITIONS);
        member.leave();
    }

    private static Properties named(Properties settings, String instance) {
        Properties named = new Properties();
        named.putAll(settings);
        named.put("group.instance.id", instance);
        return named;
    }

    static void classicStatic(Scene scene) throws Exception {
        Properties settings = scene.classic(CooperativeStickyAssignor.class);
        Member returned = comesBack(scene, settings);
        // Whoever comes last has the name.
        scene.replace(returned);
        Member last = scene.join(named(settings, "one"));
        scene.until("the older one is told", () -> returned.failure() != null);
        Scene.check(
                returned.failure() instanceof FencedInstanceIdException,
                "fenced: " + returned.failure());
        scene.until("the last one has it", () -> last.owned().size() == Scene.PARTITIONS);
        last.leave();
    }

    static void consumerStatic(Scene scene) throws Exception {
        Properties settings = scene.settings("consumer");
        Member returned = comesBack(scene, settings);
        // Whoever is there keeps the name.
        Member last = scene.join(named(settings, "one"));
        scene.until("the newer one is told", () -> last.failure() != null);
        Scene.check(
                last.failure() instanceof UnreleasedInstanceIdException,
                "unreleased: " + last.failure());
        Scene.same(Scene.PARTITIONS, returned.owned().size(), "what the older one keeps");
        returned.leave();
    }

    /** A member goes and comes back under its name, and gets what it had; nobody else notices. */
    private static Member comesBack(Scene scene, Properties settings) throws Exception {
        Member one = alone(scene, named(settings, "one"));
        Member two = scene.join(named(settings, "two"));
        shared(scene, one, two);
        Set<TopicPartition> had = one.owned();
        int generation = two.ask(consumer -> consumer.groupMetadata().generationId());
        int changes = two.assignments() + two.revoked().size();
        one.vanish();
        Member back = scene.join(named(settings, "one"));
        scene.until("it has something again", () -> !back.owned().isEmpty());
        Scene.same(had, back.owned(), "what it has when it is back");
        int now =
                two.ask(
                        consumer -> {
                            consumer.commitSync();
                            return consumer.groupMetadata().generationId();
                        });
        Scene.same(generation, now, "the generation of the other");
        Scene.same(changes, two.assignments() + two.revoked().size(), "changes that the other saw");
        two.leave();
        scene.until("all is its own", () -> back.owned().size() == Scene.PARTITIONS);
        return back;
    }

    static void migration(Scene scene) throws Exception {
        Member classic = alone(scene, scene.classic(CooperativeStickyAssignor.class));
        Member consumer = scene.join(scene.settings("consumer"));
        shared(scene, classic, consumer);
        classic.leave();
        scene.until("all for the newer", () -> consumer.owned().size() == Scene.PARTITIONS);
        Member again = scene.join(scene.classic(CooperativeStickyAssignor.class));
        shared(scene, again, consumer);
        consumer.leave();
        scene.until("all for the older", () -> again.owned().size() == Scene.PARTITIONS);
        again.leave();
    }
}
