"""How late messages were recorded. Each purchase says when its message was sent, and PostgreSQL when it was committed."""
import math
from dataclasses import dataclass

from systems import Bench

# Needed for `pg_xact_commit_timestamp`.
POSTGRES_SETTINGS = {"track_commit_timestamp": "on"}
MICROS = 1_000_000
# A message is delayed by an outage if it is later than half of those before by more than this: as in `windfall simulate ingest`.
DELAYED = MICROS // 10
# For so long no message must be delayed once the outage is made up for.
CALM = MICROS


@dataclass(frozen=True)
class Message:
    """In microseconds since 1970."""

    sent: int
    committed: int

    @property
    def lag(self) -> int:
        return self.committed - self.sent


def messages(bench: Bench, database: str, prefix: str) -> list[Message]:
    """Returns the messages with this prefix, in the order in which they were sent."""
    sql = f"""SELECT purchased_at, (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * {MICROS})::bigint FROM purchase
        WHERE external_id LIKE '{prefix}%' ORDER BY purchased_at, external_id"""
    return [Message(*map(int, line.split("\t"))) for line in bench.postgres.psql(sql, database).splitlines()]


def percentile(lags: list[int], percent: float) -> float:
    """Returns the lag, in seconds, that this part of the lags is not above."""
    return sorted(lags)[max(0, math.ceil(len(lags) * percent / 100) - 1)] / MICROS


@dataclass(frozen=True)
class Outage:
    """A time in which nothing was committed, and how long it took to make up for it, in seconds."""

    began: float
    length: float
    catch_up: float


def outage(found: list[Message]) -> Outage:
    """Finds the longest time without a commit."""
    commits = sorted({message.committed for message in found})
    length, began = max((after - before, before) for before, after in zip(commits, commits[1:]))
    ended = began + length
    usual = percentile([message.lag for message in found if message.committed <= began], 50) * MICROS
    late = [message for message in found if message.committed >= ended and message.lag > usual + DELAYED]
    last_sent, caught_up = began, ended
    for message in late:
        # What is late only long after the others was not delayed by the outage.
        if message.sent > max(last_sent, ended) + CALM:
            break
        last_sent, caught_up = message.sent, max(caught_up, message.committed)
    return Outage(began / MICROS, length / MICROS, (caught_up - ended) / MICROS)
