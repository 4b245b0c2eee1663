"""The hit ratio of the cache's first tier on a zipf(0.99) trace, beside Caffeine's on the same trace."""
import json
import shutil
import subprocess
import sys

from measure import table
from systems import PACKAGES, PEERS, Bench, Given

CASES = (("customers", 32), ("texts", 32), ("customers", 256), ("texts", 256))
QUICK_CASES = CASES[:2]
# How far the hit ratio may be below Caffeine's.
MARGIN = 0.01


def cache(bench: Bench, given: Given) -> str:
    rows = []
    for values, mib in QUICK_CASES if given.quick else CASES:
        ours = bench.program("cache", values, mib)
        theirs = caffeine(values, mib) if given.full and shutil.which("mvn") else None
        target = "" if theirs is None else judged(ours["hit"] - theirs)
        rows.append([
            f"{values}, {mib} MiB", f"{ours['hit']:.3f}", "not run" if theirs is None else f"{theirs:.3f}", target,
            str(ours["entries"]), f"{ours['payload']:.0%}", f"{ours['growth']:.0%}",
        ])
        print(f"  {values} {mib}: {ours['hit']:.3f}", file=sys.stderr, flush=True)
    header = ["values, budget", "hit ratio", "Caffeine", "difference", "entries", "keys and values held, of the budget",
              "memory, of the budget"]
    return table(header, rows)


def judged(difference: float) -> str:
    return f"{difference:+.3f}, ≥ −{MARGIN}: {'met' if difference >= -MARGIN else 'missed'}"


def caffeine(values: str, mib: int) -> float:
    """Runs the trace through Caffeine."""
    directory = PACKAGES / "caffeine"
    if not (directory / "target" / "classes").exists():
        shutil.copytree(PEERS / "caffeine", directory, dirs_exist_ok=True)
        subprocess.run(["mvn", "-q", "-B", "compile"], cwd=directory, check=True, stdout=sys.stderr)
    # Room for the library and for the garbage between two collections.
    heap = f"-Xmx{2 * mib + 128}m"
    command = ["java", heap, "-cp", "target/classes:target/dependency/*", "HitRatio", values, str(mib)]
    return json.loads(subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout)["hit"]
