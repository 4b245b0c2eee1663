"""The systems that are measured. Each runs on a free port of its own and ends with the bench that started it."""
import contextlib
import hashlib
import http.client
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
from dataclasses import dataclass

import tokens
from measuring import ROOT, Postgres, free_port

PEERS = ROOT / "benches" / "peers"
# Packages of the peers stay here between runs.
PACKAGES = ROOT / "target" / "bench"
CUSTOMERS = 20_000
# The same for all who use the cluster. Nothing here weakens durability; checkpoints are kept out of the short runs.
POSTGRES_SETTINGS = {
    "fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "max_connections": "400", "shared_buffers": "1GB",
    "max_wal_size": "16GB", "checkpoint_timeout": "1h", "wal_buffers": "16MB", "random_page_cost": "1.1",
}
# The four campaigns of peers/pg/peer.sql.
START = {"startsAt": "2020-01-01T00:00:00+01:00", "timeZone": "Europe/Berlin", "currency": "EUR"}


def counted(name: str, unit: str, count: int, points: int) -> dict:
    window, goal = {"calendar": {"unit": unit}}, {"purchases": {"atLeast": count}}
    return {"name": name, **START, "window": window, "goal": goal, "award": {"points": points}}


CAMPAIGNS = [
    {"name": "1 point per EUR", **START, "window": {"campaign": "WHOLE"}, "goal": {"everyPurchase": "EACH"}, "award": {"pointsPerUnit": "1"}},
    counted("3 a week", "WEEK", 3, 100),
    counted("2 a day", "DAY", 2, 50),
    counted("10 a month", "MONTH", 10, 500),
]


@dataclass(frozen=True)
class Given:
    """How thoroughly to measure."""

    quick: bool
    full: bool

    @property
    def rounds(self) -> int:
        return 1 if self.quick else 3


class Program:
    """A process that prints the address that it listens on."""

    def __init__(self, command: list, environment: dict[str, str] | None = None, directory: pathlib.Path | None = None, address=r":(\d+)"):
        # A session of its own: Ctrl-C must reach only the script, which then stops everything in order.
        self.process = subprocess.Popen(
            [str(part) for part in command], env={**os.environ, **(environment or {})}, cwd=directory,
            stdout=subprocess.PIPE, text=True, start_new_session=True,
        )
        self.pid = self.process.pid
        for line in self.process.stdout:
            if found := re.search(address, line):
                self.port = int(found.group(1))
                break
        else:
            sys.exit(f"{command[0]} did not start")
        self.address = f"127.0.0.1:{self.port}"

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def memory(self, field: str = "RssAnon") -> float:
        """Returns a field of the process's status in MiB."""
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text()
        return int(re.search(rf"{field}:\s+(\d+)", status).group(1)) / 1024

    def ask(self, query: str, variables: dict | None = None, token: str | None = None) -> bytes:
        connection = http.client.HTTPConnection(self.address, timeout=60)
        headers = {"Content-Type": "application/json", "Accept": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection.request("POST", "/graphql", json.dumps({"query": query, "variables": variables or {}}), headers)
        body = connection.getresponse().read()
        connection.close()
        if b'"errors"' in body:
            sys.exit(f"{query}: {body.decode()}")
        return body


def windfall_environment(url: str, **settings: str) -> dict[str, str]:
    """Everything is as by default, but for the limits of callers, which one load generator would reach."""
    plenty = str(10**9)
    return {
        "WINDFALL__DATABASE__URL": url,
        "WINDFALL__HTTP__LISTEN": "127.0.0.1:0",
        "WINDFALL__AUTH__HS256_SECRET": tokens.SECRET,
        "WINDFALL__LOG__FILTER": "warn",
        "WINDFALL__LIMITS__SHOP_POINTS_PER_SECOND": plenty,
        "WINDFALL__LIMITS__SHOP_BURST_POINTS": plenty,
        "WINDFALL__LIMITS__CUSTOMER_POINTS_PER_SECOND": plenty,
        "WINDFALL__LIMITS__CUSTOMER_BURST_POINTS": plenty,
        **settings,
    }


class Windfall(Program):
    """`windfall serve` on a database that exists."""

    def __init__(self, binary: pathlib.Path, url: str, directory: pathlib.Path, **settings: str):
        self.url = url
        super().__init__([binary, "serve"], windfall_environment(url, **settings), directory, r"listening on http://\S+:(\d+)")


def windfall(binary: pathlib.Path, url: str, directory: pathlib.Path, *arguments: str, **settings: str) -> str:
    """Runs a command to its end."""
    environment = {**os.environ, **windfall_environment(url, **settings)}
    command = [str(binary), *map(str, arguments)]
    done = subprocess.run(command, env=environment, cwd=directory, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        sys.exit(f"windfall {' '.join(map(str, arguments))} failed:\n{done.stdout}{done.stderr}")
    return done.stdout


def installed(peer: str) -> pathlib.Path:
    """Installs the packages of a peer, once for each content of its folder."""
    source = PEERS / peer
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in sorted(source.iterdir()))).hexdigest()[:16]
    directory = PACKAGES / f"{peer}-{digest}"
    if not (directory / "complete").exists():
        print(f"installing the packages of {peer}", file=sys.stderr)
        shutil.rmtree(directory, ignore_errors=True)
        shutil.copytree(source, directory)
        subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--silent"], cwd=directory, check=True, stdout=sys.stderr)
        (directory / "complete").touch()
    return directory


class PostGraphile(Program):
    def __init__(self, postgres: Postgres, database: str):
        directory = installed("postgraphile")
        port = free_port()
        environment = {
            "DATABASE_URL": postgres.url(database), "PORT": str(port), "NODE_ENV": "production", "GRAPHILE_ENV": "production",
        }
        command = [directory / "node_modules/.bin/node", directory / "node_modules/.bin/postgraphile"]
        super().__init__(command, environment, directory, rf":({port})")


class Redis:
    """Redis without files."""

    def __init__(self):
        self.port = free_port()
        self.address = f"127.0.0.1:{self.port}"
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port)):
                return
            time.sleep(0.05)
        sys.exit("redis-server did not start")

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class LivePeer(Program):
    """graphql-ws on Node, which passes on what is published in Redis."""

    def __init__(self, redis: Redis):
        directory = installed("live")
        # The same Node as for the other peer.
        node = installed("postgraphile") / "node_modules/.bin/node"
        environment = {"PORT": "0", "REDIS_URL": f"redis://{redis.address}", "NODE_ENV": "production"}
        super().__init__([node, directory / "server.mjs"], environment, directory, r"listening on (\d+)")


class Bare(Program):
    def __init__(self, programs: pathlib.Path, body: pathlib.Path):
        super().__init__([programs / "bare", body], address=r"listening on http://\S+:(\d+)")


class Bench(contextlib.ExitStack):
    """A folder for the databases, one cluster of PostgreSQL, and copies of the programs. All of it is gone afterwards."""

    def __init__(self, directory: pathlib.Path, binaries: dict[str, pathlib.Path], programs: pathlib.Path):
        super().__init__()
        self.directory = directory
        # Copies, so that a build beside the measurement changes nothing.
        self.binaries = {name: self.copy(binary, f"windfall-{number}") for number, (name, binary) in enumerate(binaries.items())}
        for name in ("load", "bare", "engine", "cache"):
            self.copy(programs / name, name)
        self.campaigns = directory / "campaigns.json"
        self.campaigns.write_text(json.dumps(CAMPAIGNS))
        self.shop_tokens = tokens.write(directory / "shop.tokens", "storefront", ["shop"])
        # A section may change them before it uses the cluster.
        self.postgres_settings = POSTGRES_SETTINGS
        self.cluster: Postgres | None = None

    def copy(self, program: pathlib.Path, name: str) -> pathlib.Path:
        if not program.exists():
            sys.exit(f"{program} is missing: run `cargo build --profile dist -p windfall -p benches --features windfall/kafka`")
        return pathlib.Path(shutil.copy2(program, self.directory / name))

    @property
    def postgres(self) -> Postgres:
        """The cluster, which all share. It starts when it is first used."""
        if self.cluster is None:
            self.cluster = Postgres(self.directory, self.postgres_settings)
            self.callback(self.cluster.stop)
            for name in ("fsync", "synchronous_commit"):
                if self.cluster.psql(f"SHOW {name}").strip() != "on":
                    sys.exit(f"{name} is off")
        return self.cluster

    def run(self, program):
        """Stops a program that was started with the bench, at the latest."""
        self.callback(program.stop)
        return program

    def database(self, kind: str, name: str) -> str:
        """Creates a database and returns its URL."""
        if kind == "SQLite":
            return f"sqlite://{self.directory / name}.db"
        self.postgres.psql(f"CREATE DATABASE {name}")
        return self.postgres.url(name)

    def program(self, name: str, *arguments) -> dict:
        """Runs one of the programs of `benches` and returns its report."""
        command = [str(self.directory / name), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{done.stdout}{done.stderr}")
        return json.loads(done.stdout)


def fill(file: pathlib.Path, purchases_each: int, customers: int = CUSTOMERS) -> pathlib.Path:
    """Writes purchases of all customers, from 90 days ago until a minute ago, as lines for an import."""
    now = int(time.time()) - 60
    with file.open("w") as out:
        for n in range(customers * purchases_each):
            # The order of time, as an import of a shop's history has it.
            age = 90 * 24 * 3600 * (1 - (n + 1) / (customers * purchases_each))
            at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(now - age))
            total = f"{5 + n * 7919 % 195}.{n * 104729 % 100:02}"
            out.write(json.dumps({
                "externalId": f"fill-{n}", "customerExternalId": f"c{n * 7919 % customers + 1}", "purchasedAt": at, "total": total,
                "currency": "EUR", "lines": [{"sku": "shoes-1", "category": "shoes", "amount": total}],
            }) + "\n")
    return file


# The customer of a purchase that counts nowhere.
NOBODY = "nobody"


def uncounted(directory: pathlib.Path) -> pathlib.Path:
    """Writes a file with one purchase that counts nowhere: an import of nothing but campaigns needs a file that is not empty."""
    file = directory / "uncounted.ndjson"
    order = {"externalId": NOBODY, "customerExternalId": NOBODY, "purchasedAt": "2026-01-01T00:00:00Z", "total": "0", "currency": "EUR"}
    file.write_text(json.dumps(order) + "\n")
    return file


def filled(bench: Bench, binary: pathlib.Path, kind: str, name: str, lines: pathlib.Path) -> str:
    """Creates a database with the campaigns and these purchases. Returns its URL."""
    url = bench.database(kind, name)
    windfall(binary, url, bench.directory, "import", lines, "--campaigns", bench.campaigns)
    if kind == "PostgreSQL":
        # So that it does not happen while something is measured.
        bench.postgres.psql("VACUUM ANALYZE", name)
    return url


def fill_peer(postgres: Postgres, database: str, lines: pathlib.Path) -> None:
    """Records the same purchases through the peer's function."""
    postgres.psql_file(PEERS / "pg" / "peer.sql", database)
    rows = (json.loads(line) for line in lines.open())
    values = "".join(
        f"{row['externalId']}\t{row['customerExternalId']}\t{row['total'].replace('.', '')}\tshoes\t{row['purchasedAt']}\n" for row in rows
    )
    record(postgres, database, values)


def record(postgres: Postgres, database: str, rows: str) -> None:
    """Records purchases through the peer's function: lines of external id, customer, cents, category and instant."""
    postgres.psql("CREATE TABLE IF NOT EXISTS incoming (n bigint GENERATED ALWAYS AS IDENTITY, e text, c text, a bigint, g text, t timestamptz)", database)
    copy = ["psql", "-qX", postgres.url(database), "-c", "COPY incoming (e, c, a, g, t) FROM STDIN"]
    subprocess.run(copy, input=rows, text=True, check=True)
    postgres.psql("SELECT count(record_purchase(e, c, a, g, t)) FROM (SELECT * FROM incoming ORDER BY n) AS ordered", database)
    postgres.psql("DROP TABLE incoming", database)
    postgres.psql("VACUUM ANALYZE", database)
