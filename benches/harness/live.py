"""Followers of live updates, beside graphql-ws on Node with Redis: memory for each, and the time an update takes."""
import json
import subprocess
import sys
import time

import tokens
from measure import median, number, spread, table, verdict_at_most
from systems import CUSTOMERS, Bench, Given, LivePeer, Program, Redis, Windfall, fill, filled

PEER = "graphql-ws"
RATE = 1000
SECONDS = 6
FOLLOWERS = 15_000
QUICK_FOLLOWERS = 5_000
# KiB for each follower: the target and the floor.
TARGET_KIB, FLOOR_KIB = 13.0, 14.0
# The server has started its tasks and is idle.
SETTLING_SECONDS = 2


def live(bench: Bench, given: Given) -> str:
    followers = QUICK_FOLLOWERS if given.quick else FOLLOWERS
    # One purchase each, and so one ledger entry.
    lines = fill(bench.directory / "fill-live.ndjson", 1)
    customers = tokens.write(bench.directory / "customers.tokens", "customer", [f"c{n + 1}" for n in range(CUSTOMERS)])
    arguments = ["--tokens", customers, "--shop-tokens", bench.shop_tokens, "--sequence", 1]
    reports: dict[str, list[dict]] = {}
    for turn in range(given.rounds):
        for name, binary in bench.binaries.items():
            url = filled(bench, binary, "PostgreSQL", f"live_{name}_{turn}", lines)
            server = bench.run(Windfall(binary, url, bench.directory))
            reports.setdefault(name, []).append(followed(bench, server, followers, arguments))
            server.stop()
        redis = bench.run(Redis())
        server = bench.run(LivePeer(redis))
        reports.setdefault(PEER, []).append(followed(bench, server, followers, ["--server", PEER, "--redis", redis.address]))
        server.stop()
        redis.stop()
    return tables(bench, reports)


def followed(bench: Bench, server: Program, followers: int, arguments: list) -> dict:
    """Opens the followers, reads the server's memory, and then makes updates."""
    time.sleep(SETTLING_SECONDS)
    before = server.memory()
    command = [
        bench.directory / "load", "live", "--address", server.address, "--followers", followers, "--rate", RATE, "--seconds", SECONDS,
        "--prefix", f"{time.monotonic_ns()}-", "--process", f"server={server.pid}", *arguments,
    ]
    process = subprocess.Popen(list(map(str, command)), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)
    bench.callback(process.kill)
    opened = process.stdout.readline()
    if not opened:
        sys.exit("the followers could not be opened")
    after = server.memory()
    process.stdin.write("\n")
    process.stdin.flush()
    report = json.loads(process.stdout.readline())
    process.wait()
    return {**report, "kib_each": (after - before) * 1024 / followers, "busy_mib": server.memory(), **json.loads(opened)}


def tables(bench: Bench, reports: dict[str, list[dict]]) -> str:
    rows = []
    for name, runs in reports.items():
        each = [run["kib_each"] for run in runs]
        p99 = median([run["from_response_ms"]["p99"] for run in runs])
        peer = median([run["from_response_ms"]["p99"] for run in reports[PEER]])
        faults = {key: sum(run[key] for run in runs) for key in ("gaps", "missing", "lost_sockets", "failed_requests")}
        target = ""
        if name in bench.binaries:
            target = f"KiB {verdict_at_most(median(each), TARGET_KIB, FLOOR_KIB)}<br>p99 {verdict_at_most(p99, peer, peer)}"
            target += f"<br>no fault: {'met' if not any(faults.values()) else 'missed'}"
        rows.append([
            name, str(runs[0]["followers"]), f"{number(median(each))}{spread(each)}", number(median([run["busy_mib"] for run in runs])),
            *(latencies(runs, key) for key in ("from_request_ms", "from_response_ms")),
            ", ".join(f"{count} {key.replace('_', ' ')}" for key, count in faults.items()), target,
        ])
    header = [
        "system", "followers", "KiB each", "MiB under load", "request to update: p50 / p99 / max, ms", "commit to update: p50 / p99 / max, ms",
        f"faults at {RATE} updates/s", "target",
    ]
    return table(header, rows)


def latencies(runs: list[dict], key: str) -> str:
    return " / ".join(number(median([run[key][name] for run in runs])) for name in ("p50", "p99", "max"))
