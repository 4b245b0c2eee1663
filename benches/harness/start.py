"""The time until the server is ready on a database that exists, and the memory that it needs when it has nothing to do."""
import statistics
import sys
import time
import urllib.request

from measure import table, verdict_at_most
from systems import Bench, Given, Windfall, fill, filled

STARTS = 5
IDLE_SECONDS = 5
# Targets.
READY_SECONDS, IDLE_MIB = 1.0, 60.0


def start(bench: Bench, _: Given) -> str:
    lines = fill(bench.directory / "fill-start.ndjson", 1)
    rows = []
    for kind in ("SQLite", "PostgreSQL"):
        for name, binary in bench.binaries.items():
            url = filled(bench, binary, kind, f"start_{name}", lines)
            took = []
            for turn in range(STARTS):
                began = time.monotonic()
                server = bench.run(Windfall(binary, url, bench.directory))
                with urllib.request.urlopen(f"http://{server.address}/readyz") as answer:
                    if answer.status != 200:
                        sys.exit(f"/readyz: {answer.status}")
                took.append(time.monotonic() - began)
                if turn < STARTS - 1:
                    server.stop()
            time.sleep(IDLE_SECONDS)
            resident, own = server.memory("VmRSS"), server.memory("RssAnon")
            server.stop()
            ready = statistics.median(took)
            rows.append([
                f"{name}, {kind}", f"{ready:.2f} ({min(took):.2f}–{max(took):.2f})", verdict_at_most(ready, READY_SECONDS, READY_SECONDS),
                f"{resident:.0f}", f"{own:.0f}", verdict_at_most(resident, IDLE_MIB, IDLE_MIB),
            ])
    return table(["system", "ready after, s", "target", "resident when idle, MiB", "of it without files (RssAnon)", "target"], rows)
