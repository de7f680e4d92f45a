"""Consumer groups and transactions of confluent-kafka (librdkafka) against the broker at BOOTSTRAP."""

import os
import sys
import threading
import time
import traceback

from confluent_kafka import (
    OFFSET_INVALID,
    Consumer,
    ConsumerGroupState,
    ConsumerGroupTopicPartitions,
    KafkaException,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, NewTopic
from topic import wait_until_served

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
RUN_NAME = f"{int(time.time())}-{os.getpid()}"
WAIT_S = 30
PROTOCOLS = os.environ.get("PROTOCOLS", "classic consumer").split()
admin = AdminClient(BOOTSTRAP)
tests = []


def test(body):
    tests.append((body.__name__, body))
    return body


def each_protocol(body):
    for protocol in PROTOCOLS:
        tests.append((f"{body.__name__} ({protocol})", lambda protocol=protocol: body(protocol)))
    return body


def create(name, partitions=1, **config):
    topic = f"groups-{name}-{RUN_NAME}"
    config = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=WAIT_S)[topic].result(WAIT_S)
    wait_until_served(topic, partitions)
    return topic


def produce(topic, values, partitions=1):
    producer = Producer({**BOOTSTRAP, "linger.ms": 5})
    for number, value in enumerate(values):
        producer.produce(topic, value, partition=number % partitions)
        producer.poll(0)
    assert producer.flush(WAIT_S) == 0


def member(group, protocol="classic", **settings):
    config = {
        **BOOTSTRAP,
        "group.id": group,
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        **{key.replace("_", "."): value for key, value in settings.items()},
    }
    if protocol == "classic":
        config.setdefault("session.timeout.ms", 6000)
        config.setdefault("heartbeat.interval.ms", 500)
    return Consumer(config)


def until(what, condition, *members, wait_s=WAIT_S):
    """Polls members until the condition holds; what was read, by member."""
    read = [[] for _ in members]
    deadline = time.monotonic() + wait_s
    while not condition(read):
        assert time.monotonic() < deadline, f"never: {what}; assigned {[len(one.assignment()) for one in members]}"
        for one, messages in zip(members, read):
            message = one.poll(0.05)
            if message is not None:
                if message.error():
                    raise KafkaException(message.error())
                messages.append(message)
    return read


def values(read):
    return sorted(message.value().decode() for messages in read for message in messages)


def numbers(first, last):
    return [f"{number:05}" for number in range(first, last)]


@each_protocol
def a_group_goes_on_where_it_committed(protocol):
    topic, group = create(f"resume-{protocol}", 4), f"resume-{protocol}-{RUN_NAME}"
    produce(topic, numbers(0, 1000), 4)
    first = member(group, protocol)
    first.subscribe([topic])
    read = until("all read", lambda read: len(read[0]) >= 1000, first)
    assert values(read) == numbers(0, 1000)
    first.commit(asynchronous=False)
    first.close()
    produce(topic, numbers(1000, 1500), 4)
    second = member(group, protocol)
    second.subscribe([topic])
    read = until("the rest read", lambda read: len(read[0]) >= 500, second)
    assert values(read) == numbers(1000, 1500)
    committed = second.committed([TopicPartition(topic, 0)], WAIT_S)
    assert committed[0].offset == 250, committed
    second.close()


@each_protocol
def members_share_the_partitions_and_take_over(protocol):
    topic, group = create(f"share-{protocol}", 6), f"share-{protocol}-{RUN_NAME}"
    first, second = member(group, protocol), member(group, protocol)
    first.subscribe([topic])
    until("one has all", lambda _: len(first.assignment()) == 6, first)
    second.subscribe([topic])
    both = lambda _: len(first.assignment()) == 3 and len(second.assignment()) == 3
    until("both have half", both, first, second)
    owned = {part.partition for part in first.assignment()} | {part.partition for part in second.assignment()}
    assert owned == set(range(6)), owned
    first.close()
    until("the other has all", lambda _: len(second.assignment()) == 6, second)
    second.close()


@test
def cooperative_members_keep_what_they_have():
    topic, group = create("cooperative", 6), f"cooperative-{RUN_NAME}"
    revoked = []
    settings = {"partition_assignment_strategy": "cooperative-sticky"}
    first, second = member(group, **settings), member(group, **settings)
    first.subscribe([topic], on_revoke=lambda _, parts: revoked.extend(part.partition for part in parts))
    until("one has all", lambda _: len(first.assignment()) == 6, first)
    second.subscribe([topic])
    both = lambda _: len(first.assignment()) == 3 and len(second.assignment()) == 3
    until("both have half", both, first, second)
    assert len(revoked) == 3, f"only what moves is revoked: {revoked}"
    first.close()
    second.close()


@each_protocol
def a_static_member_comes_back_without_a_rebalance(protocol):
    topic, group = create(f"static-{protocol}", 4), f"static-{protocol}-{RUN_NAME}"
    start = lambda name: member(group, protocol, group_instance_id=name)
    one, two = start("one"), start("two")
    revoked = []
    two.subscribe([topic], on_revoke=lambda _, parts: revoked.append(parts))
    one.subscribe([topic])
    both = lambda _: len(one.assignment()) == 2 and len(two.assignment()) == 2
    until("both have half", both, one, two)
    before = sorted(part.partition for part in one.assignment())
    revoked.clear()
    one.close()
    one = start("one")
    one.subscribe([topic])
    until("it is back", lambda _: len(one.assignment()) == 2, one, two)
    assert sorted(part.partition for part in one.assignment()) == before
    assert not revoked, "the other one noticed"
    one.close()
    two.close()


@test
def subscriptions_by_expression_find_new_topics():
    group = f"expression-{RUN_NAME}"
    first_topic = create("expression-a")
    one = member(group, topic_metadata_refresh_interval_ms=500)
    one.subscribe([f"^groups-expression-.*-{RUN_NAME}"])
    until("the first topic", lambda _: len(one.assignment()) == 1, one)
    create("expression-b")
    until("the second topic", lambda _: len(one.assignment()) == 2, one)
    assert first_topic in {part.topic for part in one.assignment()}
    one.close()


@test
def operators_see_groups_and_move_offsets():
    topic, group = create("admin", 2), f"admin-{RUN_NAME}"
    produce(topic, numbers(0, 100), 2)
    one = member(group, client_id="admin-client")
    one.subscribe([topic])
    until("all read", lambda read: len(read[0]) >= 100, one)
    one.commit(asynchronous=False)
    described = admin.describe_consumer_groups([group])[group].result(WAIT_S)
    assert described.state == ConsumerGroupState.STABLE, described.state
    assert [one.client_id for one in described.members] == ["admin-client"]
    listed = admin.list_consumer_groups().result(WAIT_S)
    assert group in {one.group_id for one in listed.valid}
    one.close()
    part = TopicPartition(topic, 0, 10)
    admin.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, [part])])[group].result(WAIT_S)
    asked = ConsumerGroupTopicPartitions(group, None)
    offsets = admin.list_consumer_group_offsets([asked])[group].result(WAIT_S)
    assert {part.partition: part.offset for part in offsets.topic_partitions} == {0: 10, 1: 50}
    admin.delete_consumer_groups([group])[group].result(WAIT_S)
    offsets = admin.list_consumer_group_offsets([asked])[group].result(WAIT_S)
    assert all(part.offset == OFFSET_INVALID for part in offsets.topic_partitions)


def transactional(name, **settings):
    producer = Producer({**BOOTSTRAP, "transactional.id": f"{name}-{RUN_NAME}", **settings})
    producer.init_transactions(WAIT_S)
    return producer


def read_all(topic, isolation, expected):
    one = Consumer({**BOOTSTRAP, "group.id": "unused", "isolation.level": isolation, "enable.partition.eof": True,
                    "auto.offset.reset": "earliest"})
    one.assign([TopicPartition(topic, 0, 0)])
    read, deadline = [], time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        message = one.poll(0.2)
        if message is not None and not message.error():
            read.append(message.value().decode())
        elif message is not None:
            break
    one.close()
    assert read == expected, f"{isolation}: {read[:5]}... {len(read)} instead of {len(expected)}"


@test
def readers_of_committed_records_see_no_aborted_ones():
    topic = create("isolation")
    producer = transactional("isolation")
    expected = []
    for turn in range(6):
        producer.begin_transaction()
        batch = numbers(turn * 10, turn * 10 + 10)
        for value in batch:
            producer.produce(topic, value, partition=0)
        if turn % 2:
            producer.flush(WAIT_S)
            producer.abort_transaction(WAIT_S)
        else:
            producer.commit_transaction(WAIT_S)
            expected += batch
    read_all(topic, "read_committed", expected)
    read_all(topic, "read_uncommitted", numbers(0, 60))
    producer.begin_transaction()
    producer.produce(topic, "open", partition=0)
    producer.flush(WAIT_S)
    read_all(topic, "read_committed", expected)
    producer.commit_transaction(WAIT_S)
    read_all(topic, "read_committed", expected + ["open"])


@test
def a_second_producer_fences_the_first():
    topic = create("fence")
    first = transactional("fence")
    first.begin_transaction()
    first.produce(topic, "lost", partition=0)
    first.flush(WAIT_S)
    second = transactional("fence")
    try:
        first.commit_transaction(WAIT_S)
        raise AssertionError("the first one is fenced")
    except KafkaException as error:
        assert error.args[0].fatal() or error.args[0].txn_requires_abort(), error
    second.begin_transaction()
    second.produce(topic, "kept", partition=0)
    second.commit_transaction(WAIT_S)
    read_all(topic, "read_committed", ["kept"])


def transform(group, source, target, protocol, count, crash_after=None):
    """Copies with exactly-once; with `crash_after` it vanishes in the middle of a transaction."""
    one = member(group, protocol, isolation_level="read_committed")
    producer = transactional(f"copy-{group}")
    one.subscribe([source])
    copied, deadline = 0, time.monotonic() + WAIT_S
    while copied < count:
        assert time.monotonic() < deadline, f"{copied} of {count}"
        messages = [message for message in one.consume(50, 0.5) if not message.error()]
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, message.value(), partition=0)
        positions = one.position(one.assignment())
        producer.send_offsets_to_transaction(positions, one.consumer_group_metadata(), WAIT_S)
        if crash_after is not None and copied >= crash_after:
            producer.flush(WAIT_S)
            return copied, (one, producer)
        producer.commit_transaction(WAIT_S)
        copied += len(messages)
    one.close()
    return copied, None


@each_protocol
def what_is_transformed_is_there_exactly_once(protocol):
    source, target = create(f"source-{protocol}", 2), create(f"target-{protocol}")
    group = f"copy-{protocol}-{RUN_NAME}"
    produce(source, numbers(0, 1000), 2)
    copied, left = transform(group, source, target, protocol, 1000, crash_after=300)
    assert copied < 1000
    # The one that vanished leaves its transaction open; the next one of its name aborts it.
    left[0].close()
    transform(group, source, target, protocol, 1000 - copied)
    one = Consumer({**BOOTSTRAP, "group.id": "unused", "isolation.level": "read_committed",
                    "enable.partition.eof": True, "auto.offset.reset": "earliest"})
    one.assign([TopicPartition(target, 0, 0)])
    read, ended, deadline = [], False, time.monotonic() + WAIT_S
    while not ended and time.monotonic() < deadline:
        message = one.poll(0.2)
        if message is not None and message.error():
            ended = True
        elif message is not None:
            read.append(message.value().decode())
    one.close()
    assert sorted(read) == numbers(0, 1000), f"{len(read)} records, {len(set(read))} different ones"


def run():
    passed = failed = 0
    wanted = sys.argv[1] if len(sys.argv) > 1 else ""
    for name, body in tests:
        if wanted not in name:
            continue
        started = time.monotonic()
        try:
            body()
            passed += 1
            print(f"ok {name} ({time.monotonic() - started:.1f} s)", flush=True)
        except Exception:
            failed += 1
            print(f"FAILED {name}", flush=True)
            traceback.print_exc()
    print(f"{passed} passed, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    threading.current_thread().name = "groups"
    sys.exit(run())
