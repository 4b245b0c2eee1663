"""A flash sale and an outage of the consumer, beside what `windfall simulate ingest` says about the same messages."""
import math
import re
import sys
import time

import cores
import lags
from broker import PARTITIONS, WARM_UP, Broker, Topic
from measure import table
from reader import Reader, wait_in_database
from systems import Bench, Given, windfall

# The size of the burst from which the capacity follows.
BURST, QUICK_BURST = 40_000, 4_000
# The rate of the burst: as fast as the producer can.
UNLIMITED = 1_000_000
# Shares of the capacity and seconds.
SALE = ((0.125, 15), (2.0, 10), (1.0, 5), (0.5, 5), (0.25, 5), (0.125, 20))
QUICK_SALE = ((0.125, 5), (2.0, 4), (1.0, 2), (0.5, 2), (0.25, 2), (0.125, 8))
# How busy the consumer is before and after the outage; the seconds before, in and after it.
OUTAGE_SHARE, OUTAGE, QUICK_OUTAGE = 0.33, (15, 30, 45), (5, 8, 15)
# The burst before is left out of the trace.
PAUSE_SECONDS = 3
# What the database works on at a time: as many transactions as it has cores.
POOL = len(cores.MEASURED)
# How far a prediction may be from what was measured.
TOLERANCE = 0.2


def section(bench: Bench, given: Given, broker: Broker, binary, database: str) -> str:
    cores.keep(bench.postgres.pid(), cores.MEASURED)
    with cores.apart(broker.process.pid):
        capacity, rows = flash_sale(bench, given, broker, binary, database)
        rows += outage(bench, given, broker, binary, database, capacity)
    text = f"\nCapacity: a burst of {QUICK_BURST if given.quick else BURST} messages was recorded at {capacity:.0f} per second.\n"
    return "\n" + table(["", "measured", "predicted", "target"], rows) + text


def flash_sale(bench: Bench, given: Given, broker: Broker, binary, database: str) -> tuple[float, list[list[str]]]:
    """Measures the capacity with a burst, and then sends more than that for a while."""
    topic = broker.topic("sale")
    server = started(bench, binary, database, topic)
    count = topic.send("joined-", WARM_UP)["count"]
    server.wait(count)
    burst = QUICK_BURST if given.quick else BURST
    count += topic.send("burst-", (UNLIMITED, burst / UNLIMITED))["count"]
    server.wait(count)
    commits = [message.committed for message in lags.messages(bench, "sold", "burst-")]
    capacity = burst / (max(commits) - min(commits)) * lags.MICROS
    time.sleep(PAUSE_SECONDS)
    report = topic.send("sale-", *((capacity * share, seconds) for share, seconds in (QUICK_SALE if given.quick else SALE)))
    server.wait(count + report["count"])
    found = lags.messages(bench, "sold", "sale-")
    predicted = simulate(binary, bench, server, topic, report["began"])
    server.stop()
    values = [message.lag for message in found]
    sold = f"flash sale, {len(found)} messages: lag"
    print(f"  {sold} p99 {lags.percentile(values, 99):.1f} s, predicted {predicted['p99']:.1f} s", file=sys.stderr, flush=True)
    return capacity, [
        row(f"{sold} p50", lags.percentile(values, 50), predicted["lag p50"], False),
        row(f"{sold} p99", lags.percentile(values, 99), predicted["p99"], True),
        row(f"{sold} at most", lags.percentile(values, 100), predicted["max"], False),
    ]


def outage(bench: Bench, given: Given, broker: Broker, binary, database: str, capacity: float) -> list[list[str]]:
    """Stops the server while messages go on to come, and starts it again."""
    before, stopped, after = QUICK_OUTAGE if given.quick else OUTAGE
    topic = broker.topic("outage")
    server = started(bench, binary, database, topic)
    server.wait(topic.send("joined-again-", WARM_UP)["count"])
    time.sleep(PAUSE_SECONDS)
    with topic.sending("outage-", (capacity * OUTAGE_SHARE, before + stopped + after)) as sending:
        time.sleep(before)
        server.stop()
        time.sleep(stopped)
        server = started(bench, binary, database, topic)
        report = sending.report()
    wait_in_database(bench, "sold", "outage-", report["count"])
    real = lags.outage(lags.messages(bench, "sold", "outage-"))
    at = real.began - report["began"]
    span = [f"--outage={round(real.length)}s", f"--outage-at={round(at)}s"]
    predicted = simulate(binary, bench, server, topic, report["began"], *span)
    server.stop()
    print(f"  outage of {real.length:.1f} s: caught up after {real.catch_up:.1f} s, predicted {predicted['catch-up']:.1f} s", file=sys.stderr, flush=True)
    name = f"server stopped for {stopped} s, nothing recorded for {real.length:.1f} s: time to catch up"
    return [row(name, real.catch_up, predicted["catch-up"], True)]


def started(bench: Bench, binary, database: str, topic: Topic) -> Reader:
    server = bench.run(Reader(binary, database, bench.directory, topic))
    cores.keep(server.pid, cores.MEASURED)
    return server


def simulate(binary, bench: Bench, server: Reader, topic: Topic, began: float, *outage: str) -> dict[str, float]:
    """Returns what is predicted for the messages since this instant, in seconds, by column. The costs are those of the server."""
    last = math.ceil(time.time() - began) + 1
    told = windfall(
        binary, server.url, bench.directory, "simulate", "ingest", "--topic", topic.name, "--last", f"{last}s",
        "--metrics", f"http://{server.address}/metrics", "--partitions", PARTITIONS, "--pool", POOL, *outage, **topic.settings(),
    )
    print("".join(f"  | {line}\n" for line in told.splitlines()), file=sys.stderr, flush=True)
    lines = told.splitlines()
    head = next(at for at, line in enumerate(lines) if line.lstrip().startswith("partitions"))
    columns, values = (re.split(r"\s{2,}", line.strip()) for line in lines[head:head + 2])
    return {name: seconds(value) for name, value in zip(columns, values) if name in ("lag p50", "p99", "max", "catch-up")}


def seconds(span: str) -> float | None:
    """Reads a span as the program prints it, such as `34 ms`. A dash: there is none."""
    if span == "-":
        return None
    value, unit = span.split()
    return float(value) * {"ms": 1e-3, "s": 1, "min": 60, "h": 3600}[unit]


def row(name: str, measured: float, predicted: float, is_target: bool) -> list[str]:
    judged = ""
    if is_target:
        off = predicted / measured - 1
        judged = f"{off:+.0%}, within {TOLERANCE:.0%}: {'met' if abs(off) <= TOLERANCE else 'missed'}"
    return [name, span(measured), span(predicted), judged]


def span(value: float) -> str:
    return f"{value * 1e3:.0f} ms" if value < 1 else f"{value:.1f} s"
