"""Runs that are measured: each returns one sample. Samples of the same cell become a median with its spread."""
import glob
import os
import pathlib
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from systems import PEERS, Bench

TICKS_PER_SECOND = os.sysconf("SC_CLK_TCK")
# How long a load runs before it is measured, and how long it is measured.
WARMUP_SECONDS = 1
SECONDS = 4
# The time in which the server of PostgreSQL notices that a back end has ended.
ENDING_SECONDS = 0.3
# From this share of the machine's time on, other programs are reported. Threads of the kernel take some of it.
DISTURBED = 0.1


@dataclass
class Sample:
    """Latencies in milliseconds, CPU in core-microseconds per operation."""

    rate: float
    p50: float | None
    p99: float | None
    cpu: dict[str, float]
    failures: dict[str, int] = field(default_factory=dict)
    syncs: float | None = None
    hits: float | None = None
    # The share of the machine that programs took which are not measured.
    others: float = 0.0


@dataclass
class Cell:
    """All samples of one system under one load."""

    samples: list[Sample] = field(default_factory=list)

    def median(self, name: str) -> float | None:
        values = [value for sample in self.samples if (value := getattr(sample, name)) is not None]
        return statistics.median(values) if values else None

    @property
    def rate(self) -> float:
        return self.median("rate")

    def cpu(self, name: str) -> float | None:
        values = [sample.cpu[name] for sample in self.samples if name in sample.cpu]
        return statistics.median(values) if values else None

    @property
    def failed(self) -> dict[str, int]:
        total: dict[str, int] = {}
        for sample in self.samples:
            for kind, count in sample.failures.items():
                total[kind] = total.get(kind, 0) + count
        return total


def cpu_seconds(pid: int) -> float:
    """Returns the CPU time of a process with its descendants, also those that have ended."""
    # The time of a process that is just ending is counted by itself or by its parent only when the parent has noticed.
    time.sleep(ENDING_SECONDS)
    return sum(ticks for _, ticks in family(pid)) / TICKS_PER_SECOND


def family(pid: int) -> list[tuple[int, int]]:
    """Returns a process and its descendants: the id of each, and the ticks that it has run, with those of its children that have ended."""
    parents, ticks = {}, {}
    for stat in glob.glob("/proc/[0-9]*/stat"):
        try:
            fields = pathlib.Path(stat).read_text().rpartition(")")[2].split()
        except OSError:
            continue
        process = int(stat.split("/")[2])
        parents[process], ticks[process] = int(fields[1]), sum(map(int, fields[11:15]))
    found, members = [], [pid]
    while members:
        process = members.pop()
        found.append((process, ticks.get(process, 0)))
        members += [child for child, parent in parents.items() if parent == process]
    return found


class WalSyncs:
    """Counts how often PostgreSQL makes its log durable."""

    def __init__(self, bench: Bench):
        self.bench, self.count, self.at = bench, self.read(bench), time.monotonic()

    @staticmethod
    def read(bench: Bench) -> int:
        if int(bench.postgres.psql("SHOW server_version_num")) >= 180_000:
            return int(bench.postgres.psql("SELECT sum(fsyncs) FROM pg_stat_io WHERE object = 'wal'"))
        return int(bench.postgres.psql("SELECT wal_sync FROM pg_stat_wal"))

    def per_second(self) -> float:
        return (self.read(self.bench) - self.count) / (time.monotonic() - self.at)


def closed(bench: Bench, program, operation: str, connections: int, *arguments, seconds: float = SECONDS) -> Sample:
    """Measures a closed loop against a server."""
    processes = ["--process", f"server={program.pid}"]
    syncs = None
    if bench.cluster:
        processes += ["--process", f"postgres={bench.postgres.pid()}"]
        syncs = WalSyncs(bench)
    report = bench.program(
        "load", "closed", "--address", program.address, "--operation", operation, "--connections", connections, "--seconds", seconds,
        "--warmup", WARMUP_SECONDS, "--prefix", f"{time.monotonic_ns()}-", "--seed", time.monotonic_ns() % 2**32, *processes, *arguments,
    )
    sample = Sample(
        report["rate"], report["latency_ms"]["p50"], report["latency_ms"]["p99"], report["cpu_micros"], report["failures"],
        syncs.per_second() if syncs else None, others=others(report["cpu_seconds"], report["seconds"]),
    )
    if report["failed"]:
        print(f"{report['failed']} requests failed: {report['failures']}, for example {report['first_failure']}", file=sys.stderr)
    return sample


def others(cpu: dict[str, float], seconds: float) -> float:
    used = cpu["machine"] - sum(value for name, value in cpu.items() if name != "machine")
    return max(0.0, used / seconds / os.cpu_count())


def pgbench(bench: Bench, database: str, clients: int) -> Sample:
    """Measures one call of the peer's function for each purchase: one transaction each."""
    command = [
        str(bench.postgres.bin / "pgbench"), "-n", "-M", "prepared", "-c", str(clients), "-j", str(min(2, clients)), "-f", str(PEERS / "pg" / "record.pgbench"),
        bench.postgres.url(database),
    ]
    subprocess.run([*command, "-T", str(WARMUP_SECONDS)], check=True, capture_output=True)
    log = bench.directory / f"pgbench-{time.monotonic_ns()}"
    syncs, server, own = WalSyncs(bench), cpu_seconds(bench.postgres.pid()), children_seconds()
    logged = ["-T", str(SECONDS), "-l", "--sampling-rate=0.2", f"--log-prefix={log}"]
    done = subprocess.run([*command, *logged], check=True, capture_output=True, text=True)
    own, server = children_seconds() - own, cpu_seconds(bench.postgres.pid()) - server
    count = int(re.search(r"actually processed: (\d+)", done.stdout).group(1))
    failed = re.search(r"failed transactions: ([1-9]\d*)", done.stdout)
    rate = float(re.search(r"tps = ([\d.]+)", done.stdout).group(1))
    lines = (line for file in glob.glob(f"{log}*") for line in open(file))
    latencies = sorted(int(line.split()[2]) / 1000 for line in lines)
    at = lambda share: latencies[int(len(latencies) * share)]
    cpu = {"postgres": server / count * 1e6, "load": own / count * 1e6}
    return Sample(rate, at(0.5), at(0.99), cpu, {"failed transactions": int(failed.group(1))} if failed else {}, syncs.per_second())


def children_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


Runs = dict[tuple, Callable[[], Sample]]


def in_turn(rounds: int, runs: Runs) -> dict[tuple, Cell]:
    """Runs all of them once, then once more, so that a slow minute of the machine meets all systems."""
    cells: dict[tuple, Cell] = {key: Cell() for key in runs}
    for turn in range(rounds):
        for key, run in runs.items():
            sample = run()
            cells[key].samples.append(sample)
            print(f"  {turn + 1}/{rounds} {' '.join(map(str, key))}: {sample.rate:.0f}/s", file=sys.stderr, flush=True)
    return cells


def median(values: list[float]) -> float:
    return statistics.median(values)


def number(value: float | None) -> str:
    if value is None:
        return "–"
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}"


def spread(values: list[float]) -> str:
    """Returns the smallest and the largest value in parentheses, to be put behind the median."""
    return f" ({number(min(values))}–{number(max(values))})" if len(values) > 1 else ""


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in lines) + "\n"


def verdict(value: float, target: float, floor: float) -> str:
    """Judges a value that must not be below the target."""
    if value >= target:
        return f"≥ {target:g}: met"
    return f"≥ {target:g}: missed ({value / target:.0%}){'' if value >= floor else f', below the floor {floor:g}'}"


def verdict_at_most(value: float, target: float, floor: float) -> str:
    """Judges a value that must not be above the target."""
    if value <= target:
        return f"≤ {target:g}: met"
    return f"≤ {target:g}: missed ({value / target:.0%}){'' if value <= floor else f', above the floor {floor:g}'}"


def cell_row(cell: Cell, postgres: bool, *extra: float | None) -> list[str]:
    """The columns that all tables of rates have: the rate, the latency, the CPU, and further numbers."""
    latency = f"{number(cell.median('p50'))} / {number(cell.median('p99'))}"
    cpu = " / ".join(number(cell.cpu(name)) if postgres or name != "postgres" else "–" for name in ("server", "postgres", "load"))
    rate = f"{number(cell.rate)}{spread([sample.rate for sample in cell.samples])}"
    failed = "".join(f", {count} failed: {kind}" for kind, count in cell.failed.items())
    return [rate + failed, latency, cpu, *map(number, extra)]


def disturbed(cells: dict[tuple, Cell]) -> str:
    """Says so if other programs have used the machine."""
    shares = [sample.others for cell in cells.values() for sample in cell.samples]
    if max(shares) < DISTURBED:
        return ""
    return f"\n**Disturbed:** other programs took {median(shares):.0%} of the machine's time (median), {max(shares):.0%} at most.\n"


def paired(binaries: list[str], cells: dict[tuple, Cell]) -> str:
    """The second binary against the first, run by run."""
    if len(binaries) < 2:
        return ""
    first, second = binaries
    rows = []
    for key, cell in cells.items():
        if key[0] != first:
            continue
        other = cells[second, *key[1:]]
        ratios = [theirs.rate / ours.rate for ours, theirs in zip(cell.samples, other.samples)]
        ratio = f"{median(ratios):.3f}" + (f" ({min(ratios):.3f}–{max(ratios):.3f})" if len(ratios) > 1 else "")
        cpu = " → ".join(" / ".join(number(side.cpu(name)) for name in ("server", "postgres")) for side in (cell, other))
        rows.append([", ".join(map(str, key[1:])), number(cell.rate), number(other.rate), ratio, cpu])
    return "\n" + table(["", first, second, "ratio of the rates", "µs of CPU: server / PostgreSQL"], rows)
