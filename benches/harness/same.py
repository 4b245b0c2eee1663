"""All systems record the same purchases: they must award each customer the same points."""
import json
import subprocess
import sys
import time

import tokens
from systems import NOBODY, PEERS, Bench, PostGraphile, Program, Windfall, record, uncounted, windfall

PURCHASES = 2_000
# So few that all campaigns award something.
CUSTOMERS = 100
PREFIX = "same-"
PAGE = 100
LIST = """query($after: String) { customers(first: %d, after: $after) {
    nodes { externalId balance { available } } pageInfo { hasNextPage endCursor } } }""" % PAGE


def check(bench: Bench) -> str:
    """Returns what was compared. Ends the script if anything differs."""
    chosen = [
        "--operation", "record-late", "--count", PURCHASES, "--customers", CUSTOMERS, "--seed", 7, "--prefix", PREFIX,
        "--began-at", int(time.time()),
    ]
    found = {}
    binary = next(iter(bench.binaries.values()))
    for kind in ("PostgreSQL", "SQLite"):
        url = bench.database(kind, "same_windfall")
        windfall(binary, url, bench.directory, "import", uncounted(bench.directory), "--campaigns", bench.campaigns)
        server = bench.run(Windfall(binary, url, bench.directory))
        send(bench, server, *chosen, "--tokens", bench.shop_tokens)
        found[f"Windfall on {kind}"] = windfall_points(server)
        server.stop()
    for name, database in (("PL/pgSQL", "same_plain"), ("PostGraphile", "same_graphile")):
        bench.postgres.psql(f"CREATE DATABASE {database}")
        bench.postgres.psql_file(PEERS / "pg" / "peer.sql", database)
        if name == "PostGraphile":
            server = bench.run(PostGraphile(bench.postgres, database))
            send(bench, server, *chosen, "--api", "postgraphile")
            server.stop()
        else:
            command = [bench.directory / "load", "purchases", *chosen]
            rows = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=True).stdout
            record(bench.postgres, database, rows)
        lines = bench.postgres.psql("SELECT external_id, available FROM customer", database).splitlines()
        found[name] = {customer: int(points) for customer, points in (line.split("\t") for line in lines)}
    first, expected = next(iter(found.items()))
    for name, points in found.items():
        if points != expected:
            differing = {customer for customer in {*points, *expected} if points.get(customer) != expected.get(customer)}
            sys.exit(f"{name} and {first} differ at {len(differing)} customers, such as {sorted(differing)[:3]}")
    total = sum(expected.values())
    return f"{PURCHASES} purchases, recorded by each of {', '.join(found)}: the same points for each customer, {total} in all."


def send(bench: Bench, server: Program, *arguments) -> None:
    report = bench.program("load", "closed", "--address", server.address, "--connections", 16, *arguments)
    if report["failed"] or report["count"] != PURCHASES:
        sys.exit(f"purchases failed: {report}")


def windfall_points(server: Windfall) -> dict[str, int]:
    shop, after, points = tokens.token("storefront", "shop"), None, {}
    while True:
        page = json.loads(server.ask(LIST, {"after": after}, shop))["data"]["customers"]
        points |= {node["externalId"]: node["balance"]["available"] for node in page["nodes"] if node["externalId"] != NOBODY}
        if not page["pageInfo"]["hasNextPage"]:
            return points
        after = page["pageInfo"]["endCursor"]
