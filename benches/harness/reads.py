"""Reads of the balance and the progress, beside PostGraphile and beside a handler that only returns the same bytes."""
import functools
import urllib.request

import plots
import tokens
from measure import Cell, Runs, Sample, cell_row, closed, disturbed, in_turn, paired, table, verdict
from systems import CUSTOMERS, Bare, Bench, Given, PostGraphile, Windfall, fill, fill_peer, filled

CONNECTIONS = 64
PEER_CONNECTIONS = 32
# Customers that are read over and over.
HOT = 200
# In so little memory, hardly any of the customers stays.
COLD_CACHE_BYTES = 1 << 20
STALENESS_SECONDS = "2"
ME = "query Points { me { balance { available lifetime version asOf } progress { campaign { name } state unit current target window { closesAt } } } }"
# Target and floor against (the peer, the bare handler).
TARGETS = {
    "warm": (("PostGraphile", 10.0, 6.0), ("bare", 0.25, 0.25)),
    "max_staleness": (("bare", 0.4, 0.4),),
    "cold": (("PostGraphile", 3.0, 2.0),),
}


def reads(bench: Bench, given: Given) -> str:
    lines = fill(bench.directory / "fill-reads.ndjson", 2)
    bench.postgres.psql("CREATE DATABASE readpeer")
    fill_peer(bench.postgres, "readpeer", lines)
    hot = tokens.write(bench.directory / "hot.tokens", "customer", [f"c{n + 1}" for n in range(HOT)])
    warm = ["--tokens", hot, "--customers", HOT]
    all_customers = ["--tokens", bench.shop_tokens, "--customers", CUSTOMERS]
    runs: Runs = {}
    programs, body = [], None
    for name, binary in bench.binaries.items():
        url = filled(bench, binary, "PostgreSQL", f"reads_{name}", lines)
        strong = bench.run(Windfall(binary, url, bench.directory))
        stale = bench.run(Windfall(binary, url, bench.directory, WINDFALL__CACHE__MAX_STALENESS=STALENESS_SECONDS))
        cold = bench.run(Windfall(binary, url, bench.directory, WINDFALL__CACHE__L1_BYTES=str(COLD_CACHE_BYTES)))
        programs += [strong, stale, cold]
        body = body or strong.ask(ME, token=tokens.token("customer", "c1"))
        measured = functools.partial(closed, bench)
        runs[name, "warm"] = functools.partial(measured, strong, "me", CONNECTIONS, *warm)
        runs[name, "max_staleness"] = functools.partial(measured, stale, "me", CONNECTIONS, *warm)
        runs[name, "cold"] = functools.partial(measured_cold, bench, cold, all_customers)
    (bench.directory / "body.json").write_bytes(body)
    bare = bench.run(Bare(bench.directory, bench.directory / "body.json"))
    runs["bare",] = functools.partial(closed, bench, bare, "me", CONNECTIONS, *warm)
    peer = bench.run(PostGraphile(bench.postgres, "readpeer"))
    peer_reads = ["--api", "postgraphile", "--customers", CUSTOMERS]
    runs["PostGraphile",] = functools.partial(closed, bench, peer, "customer", PEER_CONNECTIONS, *peer_reads)
    cells = in_turn(given.rounds, runs)
    for program in (*programs, bare, peer):
        program.stop()
    draw(bench, cells)
    return tables(bench, cells, len(body))


def measured_cold(bench: Bench, server: Windfall, arguments: list) -> Sample:
    """Also measures which share of the customers was in the cache."""
    before = found_by_tier(server)
    sample = closed(bench, server, "customer", CONNECTIONS, *arguments)
    found = {tier: count - before.get(tier, 0) for tier, count in found_by_tier(server).items()}
    sample.hits = found.get("l1", 0) / max(1, sum(found.values()))
    return sample


def found_by_tier(server: Windfall) -> dict[str, float]:
    """Reads the server's count of customers by the tier in which they were found."""
    found: dict[str, float] = {}
    with urllib.request.urlopen(f"http://{server.address}/metrics") as answer:
        for line in answer.read().decode().splitlines():
            if line.startswith("windfall_cache_reads_total") and (tier := line.partition('tier="')[2].partition('"')[0]):
                found[tier] = found.get(tier, 0) + float(line.rpartition(" ")[2])
    return found


def tables(bench: Bench, cells: dict[tuple, Cell], body_bytes: int) -> str:
    rows = []
    for key, cell in cells.items():
        judged = []
        for against, target, floor in TARGETS.get(key[-1], ()):
            ratio = cell.rate / cells[against,].rate
            judged.append(f"{ratio:.2f} × {against}, {verdict(ratio, target, floor)}")
        hits = cell.median("hits")
        label = ", ".join(key) + (f" ({hits:.0%} of the customers in the cache)" if hits is not None else "")
        rows.append([label, *cell_row(cell, key[0] != "bare"), "<br>".join(judged)])
    header = ["system", "per second", "p50 / p99, ms", "µs of CPU: server / PostgreSQL / load", "ratio, target"]
    size = f"\nA warm read returns {body_bytes} bytes. `bare` returns the same bytes.\n"
    return table(header, rows) + paired(list(bench.binaries), cells) + size + disturbed(cells)


def draw(bench: Bench, cells: dict[tuple, Cell]) -> None:
    values = [(", ".join(key), cell.rate, key[0] in bench.binaries) for key, cell in cells.items()]
    plots.bars("reads", "Reads of the balance and the progress", "per second", values)
