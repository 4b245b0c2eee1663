"""What must not make a purchase dearer: a long history, campaigns that do not match, and the number that do."""
import json

from measure import Cell, cell_row, closed, disturbed, in_turn, number, table, verdict_at_most
from systems import CAMPAIGNS, START, Bench, Given, Windfall, fill, filled

LONG, SHORT = 200_000, 10
QUICK_LONG = 20_000
CONNECTIONS = 32
TARGET = 1.3
# The CPU, which is compared, varies little.
SECONDS = 2
EACH = {**START, "window": {"campaign": "WHOLE"}, "goal": {"everyPurchase": "EACH"}, "award": {"pointsPerUnit": "1"}}
CAMPAIGN_SETS = {
    "1 campaign": [{"name": "1 point per EUR", **EACH}],
    "1 campaign and 99 that do not match": [
        {"name": "1 point per EUR", **EACH}, *({"name": f"Elsewhere {n}", **EACH, "filter": {"channels": ["elsewhere"]}} for n in range(99)),
    ],
    "50 campaigns that match": [{"name": f"Point {n}", **EACH} for n in range(50)],
}


def scale(bench: Bench, given: Given) -> str:
    binary = next(iter(bench.binaries.values()))
    long = QUICK_LONG if given.quick else LONG
    runs, servers = {}, []

    def add(key: str, lines, campaigns: list[dict], connections: int, customers: int) -> None:
        bench.campaigns.write_text(json.dumps(campaigns))
        server = bench.run(Windfall(binary, filled(bench, binary, "PostgreSQL", f"scale_{len(servers)}", lines), bench.directory))
        servers.append(server)
        arguments = ["--tokens", bench.shop_tokens, "--customers", customers]
        runs[key,] = lambda: closed(bench, server, "record-now", connections, *arguments, seconds=SECONDS)

    for count in (SHORT, long):
        add(f"one customer with {count} purchases", fill(bench.directory / f"fill-{count}.ndjson", count, 1), CAMPAIGNS, 1, 1)
    few = fill(bench.directory / "fill-few.ndjson", 1)
    for key, campaigns in CAMPAIGN_SETS.items():
        add(key, few, campaigns, CONNECTIONS, 20_000)
    cells = in_turn(given.rounds, runs)
    for server in servers:
        server.stop()
    return tables(cells, long)


def tables(cells: dict[tuple, Cell], long: int) -> str:
    cost = {key[0]: cell.cpu("server") + cell.cpu("postgres") for key, cell in cells.items()}
    ratios = {
        f"one customer with {long} purchases": cost[f"one customer with {long} purchases"] / cost[f"one customer with {SHORT} purchases"],
        "1 campaign and 99 that do not match": cost["1 campaign and 99 that do not match"] / cost["1 campaign"],
        "50 campaigns that match": cost["50 campaigns that match"] / 50 / cost["1 campaign"],
    }
    rows = []
    for (key,), cell in cells.items():
        ratio = ratios.get(key)
        judged = "" if ratio is None else f"{ratio:.2f} × {'per award' if key.startswith('50') else 'per purchase'}, {verdict_at_most(ratio, TARGET, TARGET)}"
        rows.append([key, *cell_row(cell, True), number(cost[key]), judged])
    header = ["", "purchases per second", "p50 / p99, ms", "µs of CPU: server / PostgreSQL / load", "server and PostgreSQL, µs", "ratio of the CPU, target"]
    return table(header, rows) + disturbed(cells)
