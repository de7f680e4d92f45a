"""topic.py create NAME PARTITIONS: for the scripts whose own client cannot create topics.

Returns when every partition answers: Kafka acknowledges a creation before its leaders are up, and a
producer without idempotence may reorder what it has to send again.
"""

import os
import sys

from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ["BOOTSTRAP"]}


def wait_until_served(name, partitions):
    """The client asks again by itself until the leader answers or the time is over."""
    consumer = Consumer({**BOOTSTRAP, "group.id": "unused"})
    for partition in range(partitions):
        consumer.get_watermark_offsets(TopicPartition(name, partition), timeout=20)
    consumer.close()


if __name__ == "__main__":
    _, command, topic, count = sys.argv
    assert command == "create", command
    created = AdminClient(BOOTSTRAP).create_topics([NewTopic(topic, int(count), 1)], operation_timeout=20)
    created[topic].result(20)
    wait_until_served(topic, int(count))
