#!/usr/bin/env python3
"""Follows the events of Windfall and keeps a copy of all ledgers in an SQLite file. It shows what a consumer must do:

- An event that comes again, or late, changes nothing: the version of its customer has been passed.
- What an event changes and how far the topic was read are stored together. So a crash repeats nothing and loses nothing.
- An entry that does not continue the ledger means that the database of Windfall was restored to an earlier state, or that events were
  switched off meanwhile. The customer must then be loaded again from the API.

usage: consume_events.py BROKERS TOPIC FILE [--once]

With --once, it ends at the end of the topic.
"""

import json
import sqlite3
import sys
from datetime import datetime

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition

TABLES = """
CREATE TABLE IF NOT EXISTS place (partition INTEGER PRIMARY KEY, next_offset INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS customer (
    name TEXT PRIMARY KEY, version INTEGER NOT NULL, part INTEGER NOT NULL, committed_at TEXT NOT NULL, sequence INTEGER NOT NULL,
    points INTEGER NOT NULL, cursor TEXT NOT NULL, must_be_loaded INTEGER NOT NULL DEFAULT 0
);
"""


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


def record(db: sqlite3.Connection, headers: dict[str, str], event: dict) -> None:
    name, version = event["customerExternalId"], event["version"]
    if headers["ce_type"] == "windfall.customer.erased.v1":
        db.execute("DELETE FROM customer WHERE name = ?", [name])
        return
    if headers["ce_type"] != "windfall.points.changed.v1":
        return  # Later versions of Windfall may have further types.
    found = db.execute("SELECT version, part, committed_at, sequence, points FROM customer WHERE name = ?", [name]).fetchone()
    known_version, known_part, known_at, sequence, points = found or (0, 0, "", 0, 0)
    if (version, event["part"]) <= (known_version, known_part):
        if instant(event["committedAt"]) > instant(known_at):
            # A later commit has an earlier version: the database was restored.
            db.execute("UPDATE customer SET must_be_loaded = 1 WHERE name = ?", [name])
        return
    must_be_loaded = False
    for entry in event["entries"]:
        must_be_loaded |= entry["sequence"] != sequence + 1
        sequence, points = entry["sequence"], points + entry["points"]
    db.execute(
        "INSERT INTO customer VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (name) DO UPDATE SET version = excluded.version, "
        "part = excluded.part, committed_at = excluded.committed_at, sequence = excluded.sequence, points = excluded.points, cursor = excluded.cursor, "
        "must_be_loaded = max(must_be_loaded, excluded.must_be_loaded)",
        [name, version, event["part"], event["committedAt"], sequence, points, headers["ce_id"], must_be_loaded],
    )


def main(brokers: str, topic: str, file: str, once: bool) -> None:
    db = sqlite3.connect(file, isolation_level=None)
    db.executescript(TABLES)
    # The file knows where to go on, so no group and no commit is needed.
    consumer = Consumer(
        {
            "bootstrap.servers": brokers,
            "group.id": "ledger-copy",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    partitions = sorted(consumer.list_topics(topic, timeout=10).topics[topic].partitions)
    places = dict(db.execute("SELECT partition, next_offset FROM place"))
    begin = lambda partition: TopicPartition(topic, partition, places.get(partition, OFFSET_BEGINNING))
    consumer.assign([begin(partition) for partition in partitions])
    ended: set[int] = set()
    while not once or len(ended) < len(partitions):
        messages = consumer.consume(500, timeout=1)
        db.execute("BEGIN")
        for message in messages:
            if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                ended.add(message.partition())
                continue
            if message.error():
                raise SystemExit(f"the topic cannot be read: {message.error()}")
            headers = {name: value.decode() for name, value in message.headers()}
            record(db, headers, json.loads(message.value()))
            places[message.partition()] = message.offset() + 1
        db.executemany("INSERT OR REPLACE INTO place VALUES (?, ?)", places.items())
        db.execute("COMMIT")
    consumer.close()


if __name__ == "__main__":
    arguments = [argument for argument in sys.argv[1:] if argument != "--once"]
    if len(arguments) != 3:
        raise SystemExit(__doc__)
    main(*arguments, once="--once" in sys.argv)
