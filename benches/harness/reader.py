"""A server that reads facts from a topic."""
import http.client
import pathlib
import re
import sys
import time

from broker import Topic
from systems import Bench, Windfall

POLL_SECONDS = 0.05
# To count rows takes longer, and costs the database something.
COUNT_SECONDS = 1
# How long it may record nothing although there is something to record.
PATIENCE_SECONDS = 60


class Reader(Windfall):
    def __init__(self, binary: pathlib.Path, url: str, directory: pathlib.Path, topic: Topic, group: str | None = None):
        super().__init__(binary, url, directory, **topic.settings(group))

    def done(self) -> int:
        """Returns how many messages are recorded. Ends the script if one could not be."""
        connection = http.client.HTTPConnection(self.address, timeout=60)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
        counts = re.findall(r'^windfall_ingest_messages_total\{.*outcome="(\w+)".*\} (\d+)', text, re.MULTILINE)
        for outcome, count in counts:
            if outcome not in ("recorded", "replayed") and int(count) > 0:
                sys.exit(f"messages were not recorded: {count} {outcome}")
        return sum(int(count) for _, count in counts)

    def wait(self, count: int) -> float:
        """Waits until so many messages are recorded. Returns when the first of them were."""
        until(self.done, 1)
        first = time.monotonic()
        until(self.done, count)
        return first


def wait_in_database(bench: Bench, database: str, prefix: str, count: int) -> None:
    """Waits until so many purchases with this prefix are committed, by whatever servers."""
    sql = f"SELECT count(*) FROM purchase WHERE external_id LIKE '{prefix}%'"
    until(lambda: int(bench.postgres.psql(sql, database)), count, COUNT_SECONDS)


def until(done, count: int, pause: float = POLL_SECONDS) -> None:
    """Waits until a number has reached another one. Ends the script if it does not grow any more."""
    last, grown = -1, time.monotonic()
    while (now := done()) < count:
        if now > last:
            last, grown = now, time.monotonic()
        if time.monotonic() > grown + PATIENCE_SECONDS:
            sys.exit(f"only {now} of {count} messages are recorded, and no more come")
        time.sleep(pause)
