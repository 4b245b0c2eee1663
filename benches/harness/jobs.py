"""Purchases while thousands of jobs are due, beside purchases without them."""
import contextlib
import functools
import sqlite3
import time

from measure import Cell, Sample, cell_row, closed, disturbed, in_turn, number, table, verdict_at_most
from systems import CUSTOMERS, Bench, Given, Windfall, fill, filled, windfall

CONNECTIONS = 64
# p99 while jobs are due, times p99 without: target and floor.
TARGET = (1.5, 2.0)
# A job for each customer, of whom nothing is deferred: claims and ends of jobs are all that is measured.
DUE = """INSERT INTO job (kind, unique_key, customer_id, state, requests, attempts, run_at, created_at)
    SELECT 'evaluation', 'evaluation:customer:' || id, id, 'waiting', 1, 0, 0, 0 FROM customer WHERE true
    ON CONFLICT (unique_key) DO UPDATE SET state = 'waiting', run_at = 0"""
LEFT = "SELECT count(*) FROM job WHERE kind = 'evaluation' AND state <> 'done'"
END = "UPDATE job SET state = 'done' WHERE kind = 'evaluation' AND state = 'waiting'"


def jobs(bench: Bench, given: Given) -> str:
    lines = fill(bench.directory / "fill-jobs.ndjson", 1)
    binary = next(iter(bench.binaries.values()))
    runs, done, servers = {}, {}, []
    for kind in ("PostgreSQL", "SQLite"):
        server = bench.run(Windfall(binary, filled(bench, binary, kind, "jobs", lines), bench.directory))
        servers.append(server)
        load = functools.partial(closed, bench, server, "record-now", CONNECTIONS, "--tokens", bench.shop_tokens)
        runs[kind, "none"] = load
        runs[kind, f"{CUSTOMERS}"] = functools.partial(beside_jobs, bench, kind, load, done.setdefault(kind, []))
    cells = in_turn(given.rounds, runs)
    for server in servers:
        server.stop()
        windfall(binary, server.url, bench.directory, "audit")
    return tables(cells, done) + disturbed(cells)


def beside_jobs(bench: Bench, kind: str, load, done: list[float]) -> Sample:
    """Measures while jobs are due. Notes how many of them were done in a second."""
    execute(bench, kind, DUE)
    began, before = time.monotonic(), execute(bench, kind, LEFT)
    sample = load()
    done.append((before - execute(bench, kind, LEFT)) / (time.monotonic() - began))
    execute(bench, kind, END)
    return sample


def execute(bench: Bench, kind: str, sql: str) -> int | None:
    """Runs a statement beside the server. Returns the number that it yields, if it yields one."""
    if kind == "PostgreSQL":
        answer = bench.postgres.psql(sql, "jobs").strip()
        return int(answer) if answer.isdigit() else None
    with contextlib.closing(sqlite3.connect(bench.directory / "jobs.db", timeout=60)) as database, database:
        row = database.execute(sql).fetchone()
        return row[0] if row else None


def tables(cells: dict[tuple, Cell], done: dict[str, list[float]]) -> str:
    rows = []
    for (kind, due), cell in cells.items():
        judged, rate = "", ""
        if due != "none":
            ratio = cell.median("p99") / cells[kind, "none"].median("p99")
            judged = f"{ratio:.2f} × p99, {verdict_at_most(ratio, *TARGET)}"
            rate = number(sum(done[kind]) / len(done[kind]))
        rows.append([kind, due, *cell_row(cell, kind == "PostgreSQL"), rate, judged])
    header = ["database", "jobs due", "purchases per second", "p50 / p99, ms", "µs of CPU: server / PostgreSQL / load", "jobs done per second", "ratio, target"]
    return table(header, rows)
