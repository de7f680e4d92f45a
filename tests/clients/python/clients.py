"""confluent-kafka (librdkafka) against the broker at BOOTSTRAP, by explicit assignment."""

import os
import sys
import time
import traceback

from confluent_kafka import OFFSET_BEGINNING, OFFSET_END, Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewPartitions,
    NewTopic,
    OffsetSpec,
    ResourceType,
)
from topic import wait_until_served

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RUN_NAME = f"{int(time.time())}-{os.getpid()}"
WAIT_S = 20
admin = AdminClient(BOOTSTRAP)
tests = []


def test(body):
    tests.append(body)
    return body


def create(name, partitions=1, **config):
    topic = f"python-{name}-{RUN_NAME}"
    config = {key.replace("_", "."): value for key, value in config.items()}
    admin.create_topics([NewTopic(topic, partitions, 1, config=config)], operation_timeout=WAIT_S)[topic].result(WAIT_S)
    wait_until_served(topic, partitions)
    return topic


def produce(topic, records, partition=0, **settings):
    """Produces (key, value, headers, timestamp) and returns offsets as the reports came."""
    producer = Producer({**BOOTSTRAP, "linger.ms": 5, **{k.replace("_", "."): v for k, v in settings.items()}})
    offsets, errors = [], []

    def delivered(error, message):
        errors.append(error) if error else offsets.append(message.offset())

    for key, value, headers, timestamp in records:
        producer.produce(topic, value, key, partition, on_delivery=delivered, timestamp=timestamp, headers=headers or [])
        producer.poll(0)
    left = producer.flush(WAIT_S)
    if errors:
        raise KafkaException(errors[0])
    assert left == 0, f"{left} records not delivered"
    return offsets


def consumer(**settings):
    return Consumer({
        **BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 200,
        **{k.replace("_", "."): v for k, v in settings.items()},
    })


def read(reader, count):
    messages, deadline = [], time.monotonic() + WAIT_S
    while len(messages) < count:
        assert time.monotonic() < deadline, f"{len(messages)} of {count} records within {WAIT_S} s"
        message = reader.poll(0.5)
        if message is None:
            continue
        if message.error():
            raise KafkaException(message.error())
        messages.append(message)
    return messages


def consume(topic, count, partition=0, start=0, **settings):
    reader = consumer(**settings)
    reader.assign([TopicPartition(topic, partition, start)])
    messages = read(reader, count)
    reader.close()
    return messages


def sample(label, count, base_ms=1_700_000_000_000):
    return [
        (f"key-{index}".encode(), f"{label}-{index}-".encode() + b"y" * (index * 7 % 500),
         [("index", str(index).encode()), ("empty", b""), ("null", None)], base_ms + index * 1000)
        for index in range(count)
    ]


def assert_same(records, messages, first_offset=0):
    assert len(records) == len(messages), (len(records), len(messages))
    for index, ((key, value, headers, timestamp), message) in enumerate(zip(records, messages)):
        got = (message.offset(), message.key(), message.value(), message.headers(), message.timestamp()[1])
        wanted = (first_offset + index, key, value, headers, timestamp)
        assert got == wanted, f"record {index}: got {got}, wanted {wanted}"


def eventually(condition, what):
    """Kafka answers an administrator before every broker has applied the change."""
    deadline = time.monotonic() + WAIT_S
    waiter = consumer()
    while not condition():
        assert time.monotonic() < deadline, what
        waiter.poll(0.02)
    waiter.close()


def refused(code, action):
    try:
        action()
    except KafkaException as failure:
        assert failure.args[0].code() == code, f"refused with {failure}, wanted code {code}"
        return
    raise AssertionError(f"not refused, wanted code {code}")


@test
def codecs_round_trip():
    topic = create("codecs", len(CODECS))
    for partition, codec in enumerate(CODECS):
        records = sample(codec, 500)
        offsets = produce(topic, records, partition, compression_type=codec)
        assert offsets == list(range(500)), (codec, offsets[:20])
        assert_same(records, consume(topic, 500, partition, OFFSET_BEGINNING))
        # From the middle of a (compressed) batch.
        assert_same(records[7:], consume(topic, 493, partition, 7), 7)


@test
def acks_and_idempotence():
    topic = create("acks", 4)
    cases = [{"acks": "0"}, {"acks": "1"}, {"acks": "all"}, {"enable_idempotence": True}]
    for partition, settings in enumerate(cases):
        records = sample(str(settings), 1000)
        offsets = produce(topic, records, partition, batch_num_messages=20, **settings)
        if settings != {"acks": "0"}:
            assert offsets == list(range(1000)), (settings, offsets[:20])
        assert_same(records, consume(topic, 1000, partition))


@test
def sizes_and_nulls():
    topic = create("sizes")
    records = [
        (None, b"no key", None, 1_700_000_000_000),
        (b"tombstone", None, None, 1_700_000_000_001),
        (b"", b"", None, 1_700_000_000_002),
        (b"large", os.urandom(900_000), None, 1_700_000_000_003),
        (os.urandom(1000), b"\x00\xff binary", None, 1_700_000_000_004),
    ]
    assert produce(topic, records) == [0, 1, 2, 3, 4]
    assert_same(records, consume(topic, 5))
    # A record that is larger than what one fetch asks for comes all the same.
    assert_same(records, consume(topic, 5, fetch_message_max_bytes=1000, fetch_max_bytes=2000, message_max_bytes=1000))
    too_large = [(b"k", b"z" * 1_500_000, None, 1_700_000_000_005)]
    refused(KafkaError.MSG_SIZE_TOO_LARGE, lambda: produce(topic, too_large, message_max_bytes=5_000_000))
    assert produce(topic, records) == [5, 6, 7, 8, 9]


@test
def seek_and_watermarks():
    topic = create("seek")
    records = sample("seek", 300)
    produce(topic, records, batch_num_messages=50)
    reader = consumer(enable_partition_eof=True)
    partition = TopicPartition(topic, 0)
    assert reader.get_watermark_offsets(partition, timeout=WAIT_S) == (0, 300)
    reader.assign([TopicPartition(topic, 0, OFFSET_END)])
    message = reader.poll(WAIT_S)
    assert message.error().code() == KafkaError._PARTITION_EOF and message.offset() == 300, message
    for offset in [299, 0, 123, 50, 49]:
        reader.seek(TopicPartition(topic, 0, offset))
        message = reader.poll(WAIT_S)
        assert message.error() is None and message.offset() == offset, (offset, message.error(), message.offset())
        assert message.value() == records[offset][1]
    reader.close()


@test
def offsets_for_times():
    topic = create("times", 2)
    records = sample("times", 200)
    for partition, codec in enumerate(["none", "lz4"]):
        produce(topic, records, partition, batch_num_messages=30, compression_type=codec)
        reader = consumer()
        for back_ms, index in [(0, 0), (0, 57), (999, 100), (0, 199)]:
            timestamp = records[index][3] - back_ms
            [found] = reader.offsets_for_times([TopicPartition(topic, partition, timestamp)], timeout=WAIT_S)
            assert found.error is None and found.offset == index, (codec, index, found)
        [found] = reader.offsets_for_times([TopicPartition(topic, partition, records[-1][3] + 1)], timeout=WAIT_S)
        assert found.offset == OFFSET_END, found
        [found] = reader.offsets_for_times([TopicPartition(topic, partition, 1)], timeout=WAIT_S)
        assert found.offset == 0, found
        # And reading goes on from there.
        [found] = reader.offsets_for_times([TopicPartition(topic, partition, records[57][3])], timeout=WAIT_S)
        reader.assign([found])
        assert_same(records[57:], read(reader, 143), 57)
        reader.close()


@test
def list_offsets():
    topic = create("list")
    produce(topic, sample("list", 100))
    partition = TopicPartition(topic, 0)
    wanted = [
        (OffsetSpec.earliest(), 0), (OffsetSpec.latest(), 100), (OffsetSpec.max_timestamp(), 99),
        (OffsetSpec.for_timestamp(1_700_000_042_000), 42),
    ]
    for specification, offset in wanted:
        found = admin.list_offsets({partition: specification}, request_timeout=WAIT_S)[partition].result(WAIT_S)
        assert found.offset == offset, (specification, found.offset, offset)


@test
def tail():
    topic = create("tail")
    reader = consumer(fetch_wait_max_ms=500)
    reader.assign([TopicPartition(topic, 0, 0)])
    for round in range(20):
        records = sample(f"tail-{round}", 3)
        assert produce(topic, records) == [round * 3, round * 3 + 1, round * 3 + 2]
        assert_same(records, read(reader, 3), round * 3)
    reader.close()


@test
def delete_records():
    topic = create("delete-records")
    records = sample("delete", 100)
    produce(topic, records, batch_num_messages=30)
    partition = TopicPartition(topic, 0, 40)
    assert admin.delete_records([partition], operation_timeout=WAIT_S)[partition].result(WAIT_S).low_watermark == 40
    reader = consumer()
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S) == (40, 100)
    reader.close()
    assert_same(records[40:], consume(topic, 60, start=OFFSET_BEGINNING), 40)
    # An offset that is gone resets to the earliest, or is reported when no reset is wanted.
    assert consume(topic, 1, start=3, auto_offset_reset="earliest")[0].offset() == 40
    refused(KafkaError._AUTO_OFFSET_RESET, lambda: consume(topic, 1, start=3, auto_offset_reset="error"))
    beyond = TopicPartition(topic, 0, 1000)
    refused(KafkaError.OFFSET_OUT_OF_RANGE, lambda: admin.delete_records([beyond])[beyond].result(WAIT_S))
    everything = TopicPartition(topic, 0, OFFSET_END)
    assert admin.delete_records([everything])[everything].result(WAIT_S).low_watermark == 100


def describe(topic):
    resource = ConfigResource(ResourceType.TOPIC, topic)
    return admin.describe_configs([resource])[resource].result(WAIT_S)


@test
def configs():
    topic = create("configs", retention_ms="86400000")
    before = describe(topic)
    assert before["retention.ms"].value == "86400000" and not before["retention.ms"].is_default
    assert before["cleanup.policy"].value == "delete" and before["cleanup.policy"].is_default

    def change(*entries):
        resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[
            ConfigEntry(name, value, incremental_operation=operation) for name, value, operation in entries
        ])
        admin.incremental_alter_configs([resource])[resource].result(WAIT_S)

    change(("max.message.bytes", "5000", AlterConfigOpType.SET), ("retention.ms", None, AlterConfigOpType.DELETE),
           ("cleanup.policy", "compact", AlterConfigOpType.APPEND))
    eventually(lambda: describe(topic)["max.message.bytes"].value == "5000", "max.message.bytes is not 5000")
    after = describe(topic)
    assert after["max.message.bytes"].value == "5000", after["max.message.bytes"]
    assert after["retention.ms"].value == "604800000" and after["retention.ms"].is_default
    assert set(after["cleanup.policy"].value.split(",")) == {"delete", "compact"}, after["cleanup.policy"].value
    refused(KafkaError.MSG_SIZE_TOO_LARGE, lambda: produce(topic, [(b"k", b"v" * 6000, None, 1_700_000_000_000)]))
    refused(KafkaError.INVALID_CONFIG, lambda: change(("max.message.bytes", "many", AlterConfigOpType.SET)))
    refused(KafkaError.INVALID_CONFIG, lambda: change(("no.such.config", "1", AlterConfigOpType.SET)))


@test
def topics():
    topic = create("topics", 3)
    refused(KafkaError.TOPIC_ALREADY_EXISTS, lambda: create("topics", 3))
    refused(KafkaError.INVALID_REPLICATION_FACTOR,
            lambda: admin.create_topics([NewTopic(topic + "-rf", 1, 5)])[topic + "-rf"].result(WAIT_S))
    refused(KafkaError.TOPIC_EXCEPTION, lambda: admin.create_topics([NewTopic("bad name!", 1, 1)])["bad name!"].result(WAIT_S))
    refused(KafkaError.INVALID_CONFIG, lambda: create("bad-config", 1, retention_ms="soon"))
    metadata = admin.list_topics(topic, timeout=WAIT_S)
    assert sorted(metadata.topics[topic].partitions) == [0, 1, 2]
    assert all(p.leader in metadata.brokers and p.error is None for p in metadata.topics[topic].partitions.values())
    cluster = admin.describe_cluster().result(WAIT_S)
    assert cluster.cluster_id and len(cluster.nodes) >= 1 and cluster.controller is not None
    admin.create_partitions([NewPartitions(topic, 6)])[topic].result(WAIT_S)
    wait_until_served(topic, 6)
    records = sample("new partition", 10)
    assert produce(topic, records, partition=5) == list(range(10))
    assert_same(records, consume(topic, 10, partition=5))
    refused(KafkaError.INVALID_PARTITIONS, lambda: admin.create_partitions([NewPartitions(topic, 2)])[topic].result(WAIT_S))


@test
def delete_and_create_again():
    topic = create("again", 2)
    produce(topic, sample("old", 50))
    admin.delete_topics([topic], operation_timeout=WAIT_S)[topic].result(WAIT_S)
    refused(KafkaError.UNKNOWN_TOPIC_OR_PART, lambda: admin.delete_topics([topic])[topic].result(WAIT_S))
    eventually(lambda: topic not in admin.list_topics(timeout=WAIT_S).topics, "deleted topic is still listed")
    assert create("again", 1) == topic
    reader = consumer()
    assert reader.get_watermark_offsets(TopicPartition(topic, 0), timeout=WAIT_S) == (0, 0)
    reader.close()
    records = sample("new", 5)
    assert produce(topic, records) == [0, 1, 2, 3, 4]
    assert_same(records, consume(topic, 5))


@test
def many_partitions_interleaved():
    topic = create("interleaved", 12)
    producer = Producer({**BOOTSTRAP, "enable.idempotence": True, "linger.ms": 1})
    for index in range(6000):
        producer.produce(topic, str(index).encode(), partition=index % 12)
    assert producer.flush(WAIT_S) == 0
    reader = consumer()
    reader.assign([TopicPartition(topic, partition, 0) for partition in range(12)])
    by_partition = {}
    for message in read(reader, 6000):
        by_partition.setdefault(message.partition(), []).append((message.offset(), int(message.value())))
    reader.close()
    for partition in range(12):
        assert by_partition[partition] == [(n, n * 12 + partition) for n in range(500)], partition


@test
def segments_roll():
    """Several sealed segments with every codec; the suite dumps them with Kafka's own tool afterwards."""
    # The records are old: retention would take them before the suite gets to the dump.
    topic = create("segments", segment_bytes="1048576", retention_ms="-1")
    records = []
    for codec in CODECS:
        part = [(None, os.urandom(50).hex().encode(), None, 1_700_000_000_000 + index) for index in range(20_000)]
        assert produce(topic, part, compression_type=codec) == list(range(len(records), len(records) + len(part)))
        records += part
    messages = consume(topic, len(records))
    assert [(m.offset(), m.value()) for m in messages] == [(n, record[1]) for n, record in enumerate(records)]


passed = failed = 0
for body in tests:
    started = time.monotonic()
    try:
        body()
        passed += 1
        print(f"ok    python: {body.__name__} ({time.monotonic() - started:.1f} s)", flush=True)
    except Exception:
        failed += 1
        print(f"FAIL  python: {body.__name__}\n{traceback.format_exc(limit=-3)}", flush=True)
print(f"{passed} passed, {failed} failed")
sys.exit(1 if failed or not passed else 0)
