"""Where the time of one write and of one read goes, against what the hardware allows."""
import functools
import os
import pathlib
import statistics
import subprocess
import time

import tokens
from engine import measured as engine_rates
from measure import SECONDS, Cell, Sample, closed, cpu_seconds, disturbed, in_turn, number, table
from reads import CONNECTIONS as READ_CONNECTIONS
from reads import HOT, ME
from systems import Bare, Bench, Given, Windfall, fill, filled

WRITE_CONNECTIONS = 256
# Rows that one transaction of the floor inserts, as one batch of the server does.
BATCH = 128
SYNCS = 300
SYNC_BYTES = 8192
# The least that a purchase must leave in PostgreSQL: the fact, an award, an entry, and the new balance.
FLOOR = f"""
CREATE TABLE customer (id bigint PRIMARY KEY, available bigint NOT NULL) WITH (fillfactor = 70);
CREATE TABLE purchase (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, external_id text UNIQUE, customer_id bigint, at bigint, total bigint);
CREATE TABLE award (customer_id bigint, id bigint, points bigint, at bigint, PRIMARY KEY (customer_id, id));
CREATE TABLE entry (customer_id bigint, sequence bigint, points bigint, after bigint, PRIMARY KEY (customer_id, sequence));
INSERT INTO customer SELECT n, 0 FROM generate_series(1, 20000) AS n;
"""
FLOOR_BATCH = f"""
\\set n random(1, 1000000000000000)
\\set c random(0, {20_000 - BATCH})
BEGIN;
INSERT INTO purchase (external_id, customer_id, at, total) SELECT 'o' || (:n::bigint + i), :c::bigint + i, :n::bigint, i FROM generate_series(1, {BATCH}) AS i;
INSERT INTO award SELECT :c::bigint + i, :n::bigint, i, :n::bigint FROM generate_series(1, {BATCH}) AS i;
INSERT INTO entry SELECT :c::bigint + i, :n::bigint, i, i FROM generate_series(1, {BATCH}) AS i;
UPDATE customer SET available = available + 1 WHERE id BETWEEN :c::bigint + 1 AND :c::bigint + {BATCH};
COMMIT;
"""


def limit(bench: Bench, given: Given) -> str:
    binary = next(iter(bench.binaries.values()))
    lines = fill(bench.directory / "fill-limit.ndjson", 1)
    server = bench.run(Windfall(binary, filled(bench, binary, "PostgreSQL", "limits", lines), bench.directory))
    hot = tokens.write(bench.directory / "hot.tokens", "customer", [f"c{n + 1}" for n in range(HOT)])
    body = bench.directory / "body.json"
    body.write_bytes(server.ask(ME, token=tokens.token("customer", "c1")))
    bare = bench.run(Bare(bench.directory, body))
    bench.postgres.psql("CREATE DATABASE rows")
    (bench.directory / "floor.sql").write_text(FLOOR)
    bench.postgres.psql_file(bench.directory / "floor.sql", "rows")
    reading = ["--tokens", hot, "--customers", HOT]
    cells = in_turn(given.rounds, {
        ("write",): functools.partial(closed, bench, server, "record-now", WRITE_CONNECTIONS, "--tokens", bench.shop_tokens),
        ("read",): functools.partial(closed, bench, server, "me", READ_CONNECTIONS, *reading),
        ("bare",): functools.partial(closed, bench, bare, "me", READ_CONNECTIONS, *reading),
        ("rows",): functools.partial(rows_alone, bench),
    })
    server.stop()
    bare.stop()
    return tables(cells, statistics.median(engine_rates(bench)), sync_seconds(bench.directory))


def rows_alone(bench: Bench) -> Sample:
    """Inserts the rows of purchases in batches, from one client. Returns what one purchase takes."""
    script = bench.directory / "floor.pgbench"
    script.write_text(FLOOR_BATCH)
    before = cpu_seconds(bench.postgres.pid())
    command = [bench.postgres.bin / "pgbench", "-n", "-M", "prepared", "-c", "1", "-f", script, "-T", str(SECONDS), bench.postgres.url("rows")]
    output = subprocess.run(list(map(str, command)), check=True, capture_output=True, text=True).stdout
    used = cpu_seconds(bench.postgres.pid()) - before
    batches = int(output.partition("actually processed: ")[2].split()[0])
    return Sample(batches * BATCH / SECONDS, None, None, {"postgres": used / (batches * BATCH) * 1e6})


def sync_seconds(directory: pathlib.Path) -> float:
    """Returns how long the disk takes to make a small write durable."""
    file = os.open(directory / "synced", os.O_CREAT | os.O_WRONLY)
    took = []
    for _ in range(SYNCS):
        began = time.monotonic()
        os.pwrite(file, b"x" * SYNC_BYTES, 0)
        os.fdatasync(file)
        took.append(time.monotonic() - began)
    os.close(file)
    return statistics.median(took)


def tables(cells: dict[tuple, Cell], engine_rate: float, sync: float) -> str:
    write, read, bare, rows = (cells[key,] for key in ("write", "read", "bare", "rows"))
    cores = os.cpu_count() or 1
    http, engine, floor = bare.cpu("server"), 1e6 / engine_rate, rows.cpu("postgres")
    sums = {key: sum(cell.cpu(name) or 0 for name in ("server", "postgres", "load")) for key, cell in (("write", write), ("read", read), ("bare", bare))}
    lines = [
        ["load generator", number(write.cpu("load")), number(read.cpu("load")), number(bare.cpu("load"))],
        ["server: HTTP, as in `bare`", number(http), number(http), number(http)],
        ["server: the engine, alone", number(engine), "–", "–"],
        ["server: everything else", number(write.cpu("server") - http - engine), number(read.cpu("server") - http), "–"],
        [f"PostgreSQL: the rows alone, {BATCH} purchases a transaction", number(floor), "–", "–"],
        ["PostgreSQL: everything else", number(write.cpu("postgres") - floor), number(read.cpu("postgres")), "–"],
        ["**sum, µs of CPU**", *(number(sums[key]) for key in ("write", "read", "bare"))],
        [f"**per second, if all {cores} cores did nothing else**", *(number(cores * 1e6 / sums[key]) for key in ("write", "read", "bare"))],
        ["**measured per second**", *(number(cell.rate) for cell in (write, read, bare))],
        ["of the cores' time", *(f"{cell.rate * sums[key] / cores / 1e6:.0%}" for key, cell in (("write", write), ("read", read), ("bare", bare)))],
    ]
    least = (write.cpu("load") + http + engine + floor, read.cpu("load") + http)
    text = (
        f"\nThe load generator, HTTP, the engine and the rows alone take {least[0]:.0f} µs a purchase: with nothing else, there would be "
        f"{cores * 1e6 / least[0]:.0f} per second. The load generator and HTTP take {least[1]:.0f} µs a read. The disk makes {SYNC_BYTES} bytes durable in "
        f"{sync * 1e3:.2f} ms (median of {SYNCS}), so a client that waits for each purchase gets at most {1 / sync:.0f} per second.\n"
    )
    header = ["µs of CPU", f"write, {WRITE_CONNECTIONS} connections", f"warm read, {READ_CONNECTIONS} connections", "`bare`"]
    return table(header, lines) + text + disturbed(cells)
