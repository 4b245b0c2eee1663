"""Purchases through Kafka: beside an import of the same file, at a steady rate for minutes, and in a flash sale."""
import sys
import time

import alike
import lags
import sale
from broker import WARM_UP, Broker, Topic
from imports import CAMPAIGNS, DATA, KINDS, QUICK_ROWS
from measure import number, table, verdict, verdict_at_most
from reader import Reader
from systems import POSTGRES_SETTINGS, Bench, Given, fill, filled, uncounted, windfall

# The rate through Kafka, times that of the import: target and floor.
IMPORT = (0.8, 0.7)
# Messages a second, seconds, and the length of the first and the last part that are compared.
STEADY, QUICK_STEADY = (2_000, 300, 60), (300, 30, 6)
# p99 of the last part, times that of the first: target and floor.
RISE = (1.0, 1.2)


def kafka(bench: Bench, given: Given) -> str:
    bench.postgres_settings = {**POSTGRES_SETTINGS, **lags.POSTGRES_SETTINGS}
    broker = bench.run(Broker(bench.directory))
    lines = fill(bench.directory / "fill-kafka.ndjson", 1)
    binary = next(iter(bench.binaries.values()))
    database = filled(bench, binary, "PostgreSQL", "sold", lines)
    text = beside_import(bench, given, broker)
    text += steady(bench, given, broker, binary, database)
    return text + sale.section(bench, given, broker, binary, database)


def beside_import(bench: Bench, given: Given, broker: Broker) -> str:
    """Records a shop's history through a topic and by an import: the awards must be the same, and the rate about the same."""
    if not DATA.exists():
        sys.exit(f"{DATA} is missing: run scripts/fetch-data")
    lines = DATA.read_text().splitlines(keepends=True)
    file = bench.directory / "history.ndjson"
    file.write_text("".join(lines[:QUICK_ROWS] if given.quick else lines))
    topic = broker.topic("history")
    count = topic.run("fill", file)["count"]
    rows, databases, rounds = [], [], given.rounds if given.full else 1
    for name, binary in bench.binaries.items():
        for kind in KINDS:
            pairs = []
            for turn in range(rounds):
                imported, through = f"import_{len(databases)}", f"topic_{len(databases)}"
                pairs.append((import_rate(bench, binary, kind, imported, file, count), topic_rate(bench, binary, kind, through, topic, count)))
                databases += [(kind, imported), (kind, through)]
                print(f"  {turn + 1}/{rounds} {name} {kind}: import {pairs[-1][0]:.0f}/s, Kafka {pairs[-1][1]:.0f}/s", file=sys.stderr, flush=True)
            (by_import, by_topic), ratios = zip(*pairs), sorted(topic / imported for imported, topic in pairs)
            ratio = ratios[len(ratios) // 2]
            rows.append([kind if len(bench.binaries) == 1 else f"{name}, {kind}", spread(by_import), spread(by_topic), f"{ratio:.2f} × import, {verdict(ratio, *IMPORT)}"])
    awards, entries = alike.check(bench, databases)
    same = f"\nAll {len(databases)} databases have the same {awards} awards and {entries} entries of the ledger. The audit found no difference.\n"
    return table([f"{count} rows", "import, rows/s", "Kafka, rows/s", "target"], rows) + same


def spread(values: tuple[float, ...]) -> str:
    values = sorted(values)
    return number(values[len(values) // 2]) + (f" ({number(values[0])}–{number(values[-1])})" if len(values) > 1 else "")


def import_rate(bench: Bench, binary, kind: str, name: str, file, count: int) -> float:
    """Imports the file, and returns the rows a second, from the start of the program to its end."""
    url = bench.database(kind, name)
    prepare(bench, binary, url)
    began = time.monotonic()
    windfall(binary, url, bench.directory, "import", file)
    rate = count / (time.monotonic() - began)
    windfall(binary, url, bench.directory, "audit")
    return rate


def topic_rate(bench: Bench, binary, kind: str, name: str, topic: Topic, count: int) -> float:
    """Reads the topic, and returns the messages a second, from the start of the server until all are recorded."""
    url = bench.database(kind, name)
    prepare(bench, binary, url)
    began = time.monotonic()
    server = bench.run(Reader(binary, url, bench.directory, topic, name))
    first = server.wait(count) - began
    rate = count / (time.monotonic() - began)
    print(f"  the first messages are recorded after {first:.1f} s", file=sys.stderr, flush=True)
    server.stop()
    windfall(binary, url, bench.directory, "audit")
    return rate


def prepare(bench: Bench, binary, url: str) -> None:
    """Creates the campaigns, which both ways find active."""
    windfall(binary, url, bench.directory, "import", uncounted(bench.directory), "--campaigns", CAMPAIGNS)


def steady(bench: Bench, given: Given, broker: Broker, binary, database: str) -> str:
    """Sends purchases at a constant rate: the lag must not grow."""
    rate, seconds, part = QUICK_STEADY if given.quick else STEADY
    topic = broker.topic("steady")
    server = bench.run(Reader(binary, database, bench.directory, topic))
    warm = topic.send("warm-", WARM_UP)["count"]
    server.wait(warm)
    report = topic.send("steady-", (rate, seconds))
    server.wait(warm + report["count"])
    server.stop()
    found = lags.messages(bench, "sold", "steady-")
    if len(found) != report["count"]:
        sys.exit(f"{report['count']} messages were sent, and {len(found)} purchases are recorded")
    last_sent = found[-1].sent
    parts = {
        f"the first {part} s": [message.lag for message in found if message.sent <= found[0].sent + part * lags.MICROS],
        f"the last {part} s": [message.lag for message in found if message.sent > last_sent - part * lags.MICROS],
        f"all {seconds} s": [message.lag for message in found],
    }
    first, last, _ = (lags.percentile(values, 99) for values in parts.values())
    rows = []
    for name, values in parts.items():
        milliseconds = " / ".join(number(lags.percentile(values, percent) * 1e3) for percent in (50, 99, 100))
        rise = f"{last / first:.2f} × the first, {verdict_at_most(last / first, *RISE)}" if name.startswith("the last") else ""
        rows.append([name, str(len(values)), milliseconds, rise])
    word = "above" if last > first else "not above"
    text = f"\nThe p99 of the last part is {word} that of the first. No message was sent more than {report['latest_seconds'] * 1e3:.0f} ms late.\n"
    return "\n" + table([f"{rate} messages a second", "messages", "lag: p50 / p99 / max, ms", "p99, target"], rows) + text
