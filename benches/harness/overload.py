"""What is offered against what is served, in an open loop: beyond its capacity, the server must shed at once and serve on."""
import functools
import sys
import threading
import time

import plots
import tokens
from measure import SECONDS, closed, number, table, verdict
from systems import Bench, Given, Windfall, fill, filled

# The load of the first measurement, which finds the capacity.
CONNECTIONS = 256
# Connections of the open loop. They are more than the requests that the server admits, so that it has to shed.
OPEN_CONNECTIONS = 2000
# Offered rates, as shares of the capacity.
SHARES = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0)
QUICK_SHARES = (0.5, 1.0, 2.0)
# Before, during and after the peak whose end is watched.
CALM, PEAK = 0.5, 3.0
CALM_SECONDS, PEAK_SECONDS, AFTER_SECONDS = 4, 5, 5
# Targets: at least this share of the capacity is served, and p99 is back below so many times its calm value in a second.
SERVED, RECOVERED = 0.9, 2.0
RECOVERY_SECONDS = 1.0
MEMORY_PERIOD_SECONDS = 0.1


def overload(bench: Bench, given: Given) -> str:
    lines = fill(bench.directory / "fill-overload.ndjson", 1)
    # The admission is shared by role and subject: with one shop only, half of the places would stay free.
    shops = tokens.write(bench.directory / "shops.tokens", "storefront", [f"shop-{n}" for n in range(4)])
    binary = next(iter(bench.binaries.values()))
    server = bench.run(Windfall(binary, filled(bench, binary, "PostgreSQL", "overload", lines), bench.directory))
    capacity = closed(bench, server, "record-now", CONNECTIONS, "--tokens", shops).rate
    peak = Peak(server)
    measured = functools.partial(offered, bench, server, shops, capacity)
    points = []
    for share in QUICK_SHARES if given.quick else SHARES:
        report = measured([(share, SECONDS)])
        points.append({"share": share, "cpu": report["cpu_seconds"], **report["phases"][0]})
        print(f"  {share} × capacity: {points[-1]['served']:.0f}/s served", file=sys.stderr, flush=True)
        time.sleep(1)
    recovery = measured([(CALM, CALM_SECONDS), (PEAK, PEAK_SECONDS), (CALM, AFTER_SECONDS)])
    memory = peak.stop()
    server.stop()
    plots.overload("overload", points, capacity)
    return tables(points, recovery, capacity, memory)


class Peak:
    """Watches the memory of the server."""

    def __init__(self, server: Windfall):
        self.server, self.first, self.highest, self.stopping = server, server.memory(), 0.0, threading.Event()
        self.thread = threading.Thread(target=self.watch, daemon=True)
        self.thread.start()

    def watch(self) -> None:
        while not self.stopping.wait(MEMORY_PERIOD_SECONDS):
            self.highest = max(self.highest, self.server.memory())

    def stop(self) -> tuple[float, float, float]:
        """Returns the MiB at first, at most and at last."""
        self.stopping.set()
        self.thread.join()
        return self.first, self.highest, self.server.memory()


def offered(bench: Bench, server: Windfall, shops, capacity: float, phases: list[tuple[float, float]]) -> dict:
    spans = [part for share, seconds in phases for part in ("--phase", f"{share * capacity:.0f}:{seconds}")]
    return bench.program(
        "load", "open", "--address", server.address, "--operation", "record-now", "--connections", OPEN_CONNECTIONS, "--tokens", shops,
        "--prefix", f"{time.monotonic_ns()}-", "--process", f"server={server.pid}", "--process", f"postgres={bench.postgres.pid()}", *spans,
    )


def recovery_seconds(recovery: dict) -> float | None:
    """Returns the time from the end of the peak until p99 is back below RECOVERED times that of the calm before it."""
    window = recovery["window_seconds"]
    calm = recovery["phases"][0]["served_ms"]["p99"]
    end = CALM_SECONDS + PEAK_SECONDS
    after = recovery["windows"][round(end / window):]
    for at, found in enumerate(after):
        if found["served_ms"]["p99"] is not None and found["served_ms"]["p99"] <= RECOVERED * calm and not found["shed"]:
            return at * window
    return None


def tables(points: list[dict], recovery: dict, capacity: float, memory: tuple[float, float, float]) -> str:
    rows = []
    for point in points:
        served, shed = point["served_ms"], point["shed_ms"]
        target = ""
        if point["share"] > 1:
            target = f"{point['served'] / capacity:.2f} × the capacity, {verdict(point['served'] / capacity, SERVED, SERVED)}"
        rows.append([
            f"{point['share']} ×", number(point["offered"]), number(point["served"]), number(point["shed"]),
            ", ".join(f"{count} {kind}" for kind, count in point["failures"].items()) or "0",
            f"{number(served['p50'])} / {number(served['p99'])}", f"{number(shed['p50'])} / {number(shed['p99'])}",
            " / ".join(f"{point['cpu'][name] / SECONDS:.2f}" for name in ("server", "postgres", "load")), target,
        ])
    header = ["of the capacity", "offered/s", "served/s", "shed/s", "failed", "served: p50 / p99, ms", "shed: p50 / p99, ms", "cores: server / PostgreSQL / load", "target"]
    took = recovery_seconds(recovery)
    judged = "missed" if took is None or took > RECOVERY_SECONDS else "met"
    calm, during, after = (phase["served_ms"]["p99"] for phase in recovery["phases"])
    text = f"\nCapacity in a closed loop of {CONNECTIONS} connections: {capacity:.0f} per second.\n\n"
    text += f"After {PEAK_SECONDS} s at {PEAK} × the capacity, p99 is back below {RECOVERED} × its value before ({number(calm)} ms) "
    text += f"{'within ' + str(took) + ' s' if took is not None else f'not within {AFTER_SECONDS} s'} (target: {RECOVERY_SECONDS} s, {judged}); "
    text += f"p99 during the peak is {number(during)} ms, in the whole time after it {number(after)} ms.\n\n"
    text += f"Memory (RssAnon): {memory[0]:.0f} MiB before, {memory[1]:.0f} at most, {memory[2]:.0f} after.\n"
    return table(header, rows) + text
