"""The copier of kills.sh with confluent-kafka (librdkafka): copier.py PROTOCOL NAME NUMBER."""

import os
import signal
import sys

from confluent_kafka import OFFSET_BEGINNING, OFFSET_INVALID, Consumer, KafkaException, Producer

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"], "reconnect.backoff.max.ms": 100}
WAIT_S = 5
# librdkafka may wait without an end for a broker that is back (it sends no TxnOffsetCommit): then this
# process ends.
STUCK_S = 10


def member(protocol, name):
    config = {
        **BOOTSTRAP,
        "group.id": name,
        "group.protocol": protocol,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "fetch.wait.max.ms": 100,
    }
    if protocol == "classic":
        config.update({"session.timeout.ms": 1000, "heartbeat.interval.ms": 200})
    consumer = Consumer(config)
    consumer.subscribe([f"{name}-in"])
    return consumer


def copy_some(consumer, producer, output):
    # From before the records are read: if the group rebalances meanwhile, the coordinator refuses it.
    metadata = consumer.consumer_group_metadata()
    messages = consumer.consume(50, 0.2)
    for message in messages:
        if message.error():
            raise KafkaException(message.error())
    if not messages:
        return
    producer.begin_transaction()
    for message in messages:
        producer.produce(output, message.value(), partition=message.partition())
    producer.flush(WAIT_S)
    producer.send_offsets_to_transaction(consumer.position(consumer.assignment()), metadata, WAIT_S)
    producer.commit_transaction(WAIT_S)
    print(f"copied {len(messages)}", flush=True)


def go_back(consumer):
    """What was aborted is read again."""
    for partition in consumer.committed(consumer.assignment(), WAIT_S):
        if partition.offset == OFFSET_INVALID:
            partition.offset = OFFSET_BEGINNING
        consumer.seek(partition)


def copy(protocol, name, number):
    producer = Producer({**BOOTSTRAP, "transactional.id": f"{name}-{number}", "linger.ms": 1})
    producer.init_transactions(WAIT_S)
    consumer = member(protocol, name)
    while True:
        signal.alarm(STUCK_S)
        try:
            copy_some(consumer, producer, f"{name}-out")
        except KafkaException as exception:
            print(exception, file=sys.stderr)
            # What is not known to be over is ended by the process that comes next.
            if not exception.args[0].txn_requires_abort():
                sys.exit(1)
            producer.abort_transaction(WAIT_S)
            go_back(consumer)


copy(*sys.argv[1:])
