"""topic.py create NAME PARTITIONS: for the scripts whose own client cannot create topics.

Returns when every partition answers: Kafka acknowledges a creation before its leaders are up, and a
producer without idempotence may reorder what it has to send again.
"""

import os
import sys
import time

from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}


def wait_until_served(name, partitions):
    """Asks each partition for its offsets until its leader answers, for 20 s at most."""
    consumer = Consumer({**BOOTSTRAP, "group.id": "unused"})
    deadline = time.monotonic() + 20
    for partition in range(partitions):
        while True:
            try:
                consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=20)
                break
            except KafkaException:
                # Not known or not led yet; the wait only keeps this loop from spinning.
                if time.monotonic() > deadline:
                    raise
                consumer.poll(0.02)
    consumer.close()


if __name__ == "__main__":
    _, command, topic, count = sys.argv
    assert command == "create", command
    # Kept in a variable: a client that is collected cancels what it was asked.
    admin = AdminClient(BOOTSTRAP)
    admin.create_topics([NewTopic(topic, int(count), 1)], operation_timeout=20)[topic].result(20)
    wait_until_served(topic, int(count))
