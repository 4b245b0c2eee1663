"""The import of Complete Journey: in order, with lines in another order, and with the campaigns activated afterwards."""
import os
import pathlib
import random
import sqlite3
import subprocess
import sys
import time

from measure import Cell, Sample, number, spread, table, verdict
from measuring import ROOT
from systems import Bench, Given, uncounted, windfall, windfall_environment

DATA = pathlib.Path(os.environ.get("WINDFALL_DATA", ROOT / "fetched")) / "complete_journey.ndjson"
CAMPAIGNS = ROOT / "data" / "complete-journey-campaigns.json"
QUICK_ROWS = 20_000
# An import that takes longer is stopped, but with --full. Then its rate is that of what it has recorded by then.
LIMIT_SECONDS = 30
# Rows per second in order; the share of it with a third shuffled; of `whole, then campaigns` when wholly shuffled.
ORDERED, SHUFFLED, WHOLE = (10_000, 8_000), (0.5, 0.35), (0.5, 0.5)
KINDS = ("SQLite", "PostgreSQL")


def shuffled(lines: list[str], share: float) -> list[str]:
    """Returns the lines, of which a random share trade places with each other."""
    chance, lines = random.Random(7), list(lines)
    places = sorted(chance.sample(range(len(lines)), round(len(lines) * share)))
    moved = [lines[place] for place in places]
    chance.shuffle(moved)
    for place, line in zip(places, moved):
        lines[place] = line
    return lines


def imports(bench: Bench, given: Given) -> str:
    if not DATA.exists():
        sys.exit(f"{DATA} is missing: run scripts/fetch-data")
    lines = DATA.read_text().splitlines(keepends=True)
    lines = lines[:QUICK_ROWS] if given.quick else lines
    orders = {"in order": lines, "a third shuffled": shuffled(lines, 1 / 3), "wholly shuffled": shuffled(lines, 1)}
    files = {order: bench.directory / f"{order.replace(' ', '-')}.ndjson" for order in orders}
    for order, file in files.items():
        file.write_text("".join(orders[order]))
    cells: dict[tuple, Cell] = {}
    summaries: dict[str, str] = {}
    for turn in range(given.rounds if given.full else 1):
        for order in (*orders, "wholly shuffled, campaigns afterwards"):
            for kind in KINDS:
                for name, binary in bench.binaries.items():
                    database = f"import_{name}_{turn}_{len(cells)}_{list(files).index(order) if order in files else 9}"
                    run = Import(bench, binary, kind, database, None if given.full else LIMIT_SECONDS)
                    sample, summary = run.afterwards(files["wholly shuffled"]) if order not in files else run.during(files[order])
                    cells.setdefault((name, order, kind), Cell()).samples.append(sample)
                    if summary:
                        summaries[f"{name}, {order}, {kind}"] = summary
                    print(f"  {name} {order} {kind}: {sample.rate:.0f} rows/s{'' if summary else ' (stopped)'}", file=sys.stderr, flush=True)
    if len(set(summaries.values())) > 1:
        sys.exit(f"the imports award different points: {summaries}")
    return tables(bench, cells, summaries, len(lines))


class Import:
    """One import into a database of its own."""

    def __init__(self, bench: Bench, binary: pathlib.Path, kind: str, database: str, limit: float | None):
        self.bench, self.binary, self.kind, self.name, self.limit = bench, binary, kind, database, limit
        self.url = bench.database(kind, database)

    def during(self, file: pathlib.Path) -> tuple[Sample, str | None]:
        """Returns the sample, and what was awarded; None if the import was stopped."""
        return self.measured(["import", file, "--campaigns", CAMPAIGNS], None)

    def afterwards(self, file: pathlib.Path) -> tuple[Sample, str | None]:
        return self.measured(["import", file], ["import", uncounted(self.bench.directory), "--campaigns", CAMPAIGNS])

    def measured(self, first: list, second: list | None) -> tuple[Sample, str | None]:
        began = time.monotonic()
        output = self.run(first)
        if output is not None and second:
            output = self.run(second)
        seconds = time.monotonic() - began
        rows = self.count()
        sample = Sample(rows / seconds, None, None, {})
        if output is None:
            return sample, None
        windfall(self.binary, self.url, self.bench.directory, "audit")
        return sample, awarded(output)

    def run(self, arguments: list) -> str | None:
        environment = {**os.environ, **windfall_environment(self.url)}
        command = [str(self.binary), *map(str, arguments)]
        process = subprocess.Popen(
            command, env=environment, cwd=self.bench.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        self.bench.callback(process.kill)
        try:
            output, errors = process.communicate(timeout=self.limit)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            return None
        if process.returncode != 0:
            sys.exit(f"{' '.join(command)} failed:\n{output}{errors}")
        return output

    def count(self) -> int:
        sql = "SELECT count(*) FROM purchase"
        if self.kind == "PostgreSQL":
            return int(self.bench.postgres.psql(sql, self.name))
        connection = sqlite3.connect(self.url.removeprefix("sqlite://"))
        try:
            return connection.execute(sql).fetchone()[0]
        finally:
            connection.close()


def awarded(output: str) -> str:
    """Returns the part of the output that says what each campaign has awarded."""
    lines = output.splitlines()
    first = next(at for at, line in enumerate(lines) if line.startswith("campaign"))
    return "\n".join(lines[first:])


def tables(bench: Bench, cells: dict[tuple, Cell], summaries: dict[str, str], rows: int) -> str:
    lines = []
    for key, cell in cells.items():
        name, order, kind = key
        target = ""
        if order == "in order":
            target = verdict(cell.rate, *ORDERED)
        elif order == "a third shuffled":
            target = judged(cell.rate / cells[name, "in order", kind].rate, SHUFFLED, "in order")
        elif order == "wholly shuffled":
            target = judged(cell.rate / cells[name, "wholly shuffled, campaigns afterwards", kind].rate, WHOLE, "campaigns afterwards")
        stopped = "" if ", ".join(key) in summaries else f" (stopped after {LIMIT_SECONDS} s)"
        lines.append([f"{order}{stopped}" if name == next(iter(bench.binaries)) else f"{name}, {order}{stopped}", kind, f"{number(cell.rate)}{spread([sample.rate for sample in cell.samples])}", target])
    same = f"\nThe audit found no difference, and the {len(summaries)} imports that ran to the end have awarded the same points.\n"
    return table([f"{rows} rows", "database", "rows/s", "target"], lines) + same


def judged(ratio: float, aim: tuple[float, float], against: str) -> str:
    return f"{ratio:.2f} × {against}, {verdict(ratio, *aim)}"
