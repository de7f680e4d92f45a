"""Writes and reads the records of exchange.sh with confluent-kafka."""

import os
import sys
import time

from confluent_kafka import Consumer, Producer, TopicPartition

BOOTSTRAP = os.environ["BOOTSTRAP"]
CODECS = ["none", "gzip", "snappy", "lz4", "zstd"]
RECORDS = 120


def write(topic):
    for partition, codec in enumerate(CODECS):
        producer = Producer({"bootstrap.servers": BOOTSTRAP, "compression.type": codec, "linger.ms": 20})
        offsets, errors = [], []

        def delivered(error, message):
            if error:
                errors.append(error)
            else:
                offsets.append(message.offset())

        for index in range(RECORDS):
            value = f"python-{codec}-{index:04d}-" + "x" * (index * 13 % 700)
            producer.produce(topic, value, f"k{index:04d}", partition, delivered, headers=[("origin", b"python")])
        left = producer.flush(20)
        assert not left and not errors, (left, errors)
        assert offsets == list(range(RECORDS)), offsets


def read(topic):
    consumer = Consumer({"bootstrap.servers": BOOTSTRAP, "group.id": "unused", "enable.auto.commit": False, "fetch.wait.max.ms": 20})
    for partition in range(len(CODECS)):
        _, end = consumer.get_watermark_offsets(TopicPartition(topic, partition), timeout=10)
        consumer.assign([TopicPartition(topic, partition, 0)])
        seen, deadline = 0, time.monotonic() + 20
        while seen < end:
            assert time.monotonic() < deadline, "no records within 20 s"
            message = consumer.poll(0.5)
            if message is None:
                continue
            assert message.error() is None, message.error()
            name, origin = message.headers()[0]
            sys.stdout.write(
                f"{topic} {partition} {message.offset()} {message.key().decode()} "
                f"{name}={origin.decode()} {message.value().decode()}\n"
            )
            seen += 1
        consumer.unassign()
    consumer.close()


if sys.argv[1] == "write":
    write(sys.argv[2])
else:
    for name in sys.argv[2:]:
        read(name)
