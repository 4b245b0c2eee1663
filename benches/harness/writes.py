"""Purchases, one a request, beside the same work as one PL/pgSQL transaction each and through PostGraphile."""
import functools

import plots
import same
from measure import Cell, Runs, cell_row, closed, disturbed, in_turn, paired, pgbench, table, verdict
from systems import Bench, Given, PostGraphile, Windfall, fill, fill_peer, filled, windfall

CONNECTIONS = (1, 32, 64, 256)
# The counts of clients among which pgbench finds its best.
CLIENTS = (16, 32, 64)
QUICK_CLIENTS = (16, 32)
PEER_CONNECTIONS = 32
# Times the best of pgbench: target and floor.
TARGETS = {("record-now", 32): (1.5, 1.25), ("record-now", 256): (3.0, 2.5), ("record-late", 256): (2.5, 2.0)}
# SQLite, times PostgreSQL at the same number of connections.
SQLITE_TARGETS = {1: (1.0, 0.75), 32: (1.0, 0.75), 64: (0.75, 0.75), 256: (0.75, 0.75)}
# Windfall at its best, times PostGraphile.
POSTGRAPHILE_TARGET = (7.0, 5.0)
CAPTIONS = {"record-now": "of now", "record-late": "late"}


def writes(bench: Bench, given: Given) -> str:
    lines = fill(bench.directory / "fill-writes.ndjson", 1)
    bench.postgres.psql("CREATE DATABASE peer")
    fill_peer(bench.postgres, "peer", lines)
    calls = {("pgbench", "PL/pgSQL", "record-late", count): functools.partial(pgbench, bench, "peer", count) for count in (QUICK_CLIENTS if given.quick else CLIENTS)}
    # Only the best of them takes turns with the others.
    found = in_turn(1, calls)
    best = max(found, key=lambda key: found[key].rate)
    runs: Runs = {} if given.quick else {best: calls[best]}
    servers = []
    for kind in ("PostgreSQL", "SQLite"):
        for name, binary in bench.binaries.items():
            server = bench.run(Windfall(binary, filled(bench, binary, kind, f"writes_{name}", lines), bench.directory))
            servers.append((binary, server))
            for operation, connections in [("record-now", count) for count in CONNECTIONS] + [("record-late", 256)]:
                runs[name, kind, operation, connections] = functools.partial(
                    closed, bench, server, operation, connections, "--tokens", bench.shop_tokens
                )
    peer = bench.run(PostGraphile(bench.postgres, "peer"))
    runs["PostGraphile", "PL/pgSQL", "record-late", PEER_CONNECTIONS] = functools.partial(
        closed, bench, peer, "record-late", PEER_CONNECTIONS, "--api", "postgraphile"
    )
    cells = {**found, **in_turn(given.rounds, runs)}
    peer.stop()
    for binary, server in servers:
        server.stop()
        # Exits with an error if anything differs.
        windfall(binary, server.url, bench.directory, "audit")
    checked = f"\n`windfall audit` found no difference. {same.check(bench)}\n"
    draw(bench, cells)
    return tables(bench, cells) + checked + disturbed(cells)


def tables(bench: Bench, cells: dict[tuple, Cell]) -> str:
    best = best_of_pgbench(cells)
    first = next(iter(bench.binaries))
    rows = []
    for key, cell in cells.items():
        system, database, operation, connections = key
        ratio, target = f"{cell.rate / best:.2f} × pgbench", ""
        if system in bench.binaries and database == "PostgreSQL" and (aim := TARGETS.get((operation, connections))):
            target = verdict(cell.rate / best, *aim)
        if database == "SQLite" and operation == "record-now":
            times = cell.rate / cells[system, "PostgreSQL", operation, connections].rate
            ratio, target = f"{times:.2f} × PostgreSQL", verdict(times, *SQLITE_TARGETS[connections])
        if system == "PostGraphile":
            times = cells[first, "PostgreSQL", "record-now", 256].rate / cell.rate
            ratio, target = f"{first} at 256: {times:.1f} × this", verdict(times, *POSTGRAPHILE_TARGET)
        syncs = cell.median("syncs") if database != "SQLite" else None
        rows.append([system, database, CAPTIONS[operation], str(connections), *cell_row(cell, database != "SQLite", syncs), ratio, target])
    header = ["system", "database", "purchases", "connections", "per second", "p50 / p99, ms", "µs of CPU: server / PostgreSQL / load", "WAL syncs/s", "ratio", "target"]
    return table(header, rows) + paired(list(bench.binaries), cells)


def best_of_pgbench(cells: dict[tuple, Cell]) -> float:
    return max(cell.rate for key, cell in cells.items() if key[0] == "pgbench")


def draw(bench: Bench, cells: dict[tuple, Cell]) -> None:
    values = [
        (f"{key[0]}, {key[1]}, {CAPTIONS[key[2]]}, {key[3]}", cell.rate, key[0] in bench.binaries) for key, cell in cells.items()
    ]
    plots.bars("writes", "Purchases, one a request, by the number of connections", "per second", values)
