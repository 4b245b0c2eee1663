#!/usr/bin/env python3
"""Makes topics and sends purchases to them. A program of its own: the client of Kafka is only in tests/clients/.venv.

Messages are keyed by their customer. Prints a report as JSON.
"""
import argparse
import json
import pathlib
import sys
import time
from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic

# How long the broker may take to answer for the first time, and to make a topic.
PATIENCE_SECONDS = 60
# The longest sleep of a producer that is ahead of its schedule. Messages that are due meanwhile are sent together.
TICK_SECONDS = 0.002
# In this time, a new producer has connected, and has the id by which the broker recognises repeated messages. It asks for it every half second.
READY_SECONDS = 1
MICROS = 1_000_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("brokers")
    parser.add_argument("topic")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("make").add_argument("--partitions", type=int, required=True)
    commands.add_parser("fill").add_argument("file", type=pathlib.Path)
    pace = commands.add_parser("pace")
    pace.add_argument("--prefix", required=True, help="of the external ids of the purchases")
    pace.add_argument("--customers", type=int, required=True)
    pace.add_argument("--phase", type=phase, action="append", required=True, help="messages a second and seconds, such as 2000:60")
    given = parser.parse_args()
    commands = {"make": make, "fill": fill, "pace": send_on_time}
    print(json.dumps(commands[given.command](given)))


def phase(text: str) -> tuple[float, float]:
    rate, seconds = map(float, text.split(":"))
    return rate, seconds


def make(given: argparse.Namespace) -> dict:
    admin, late = AdminClient({"bootstrap.servers": given.brokers, "log_level": 0}), time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            admin.create_topics([NewTopic(given.topic, given.partitions, 1)], request_timeout=5)[given.topic].result()
            return {}
        except KafkaException as error:
            # The answer to an earlier attempt may have come too late.
            if error.args[0].code() == KafkaError.TOPIC_ALREADY_EXISTS:
                return {}
            # A broker that has just started does not answer yet.
            if time.monotonic() > late:
                sys.exit(str(error))
            time.sleep(0.1)


def producer(brokers: str) -> Producer:
    return Producer({
        "bootstrap.servers": brokers, "enable.idempotence": True, "message.timeout.ms": 0, "partitioner": "murmur2_random", "linger.ms": 1,
        "queue.buffering.max.messages": 500_000, "log_level": 3,
    })


class Sender:
    """Sends messages, and counts those that the broker has acknowledged."""

    def __init__(self, given: argparse.Namespace):
        self.producer, self.topic, self.acknowledged = producer(given.brokers), given.topic, 0

    def send(self, key: str, value: bytes | str, sent_at: int = 0) -> None:
        while True:
            try:
                self.producer.produce(self.topic, value, key, timestamp=sent_at // 1000, on_delivery=self.told)
                return
            except BufferError:
                self.producer.poll(0.1)

    def told(self, error, _) -> None:
        if error:
            sys.exit(f"a message was not sent: {error}")
        self.acknowledged += 1

    def end(self) -> int:
        self.producer.flush()
        return self.acknowledged


def fill(given: argparse.Namespace) -> dict:
    """Sends the purchases of a file, as fast as possible."""
    sender = Sender(given)
    with given.file.open("rb") as lines:
        for number, line in enumerate(lines):
            sender.send(json.loads(line)["customerExternalId"], line.rstrip())
            if number % 1000 == 0:
                sender.producer.poll(0)
    return {"count": sender.end()}


def due(phases: list[tuple[float, float]]) -> Iterator[float]:
    """Yields when each message is due, in seconds since the beginning."""
    began = 0.0
    for rate, seconds in phases:
        for number in range(round(rate * seconds)):
            yield began + number / rate
        began += seconds


def send_on_time(given: argparse.Namespace) -> dict:
    """Sends purchases of now when they are due. `purchasedAt` and the timestamp of a message say when it was really sent."""
    sender = Sender(given)
    sender.producer.list_topics(given.topic, PATIENCE_SECONDS)
    sender.producer.poll(READY_SECONDS)
    began, latest, count, formatted, second = time.time(), 0.0, 0, 0, ""
    for at in due(given.phase):
        while (now := time.time()) < began + at:
            sender.producer.poll(0)
            time.sleep(min(TICK_SECONDS, began + at - now))
        latest = max(latest, now - began - at)
        micros = int(now * MICROS)
        if micros // MICROS != formatted:
            formatted = micros // MICROS
            second = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(formatted))
        customer, euros = f"c{count * 7919 % given.customers + 1}", f"{5 + count * 7919 % 195}.{count * 104729 % 100:02}"
        value = (
            f'{{"externalId":"{given.prefix}{count}","customerExternalId":"{customer}","purchasedAt":"{second}.{micros % MICROS:06}Z",'
            f'"total":"{euros}","currency":"EUR","lines":[{{"sku":"shoes-1","category":"shoes","amount":"{euros}"}}]}}'
        )
        sender.send(customer, value, micros)
        count += 1
        if count % 100 == 0:
            sender.producer.poll(0)
    acknowledged = sender.end()
    return {"count": acknowledged, "began": began, "ended": time.time(), "latest_seconds": latest}


if __name__ == "__main__":
    main()
