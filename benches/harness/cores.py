"""Which cores the processes of a measurement run on.

Usually they share all. Where a load is compared with a prediction, its producer and its broker must not slow down what is measured: a shop
has them on other machines.
"""
import contextlib
import glob
import os
from collections.abc import Iterator

from measure import family

CORES = sorted(os.sched_getaffinity(0))
# What is measured has the first half, at least one. All else has the other half.
MEASURED, OTHERS = set(CORES[:max(1, len(CORES) // 2)]), set(CORES[len(CORES) // 2:])


@contextlib.contextmanager
def apart(*others: int) -> Iterator[None]:
    """Leaves the half of what is measured to it: these processes, this one, and what it starts from now on use the other half."""
    for pid in others:
        keep(pid, OTHERS)
    os.sched_setaffinity(0, OTHERS)
    try:
        yield
    finally:
        os.sched_setaffinity(0, CORES)


def keep(pid: int, cores: set[int]) -> None:
    """Keeps all threads of a process and its descendants to these cores, and what they start from now on."""
    for process, _ in family(pid):
        for thread in glob.glob(f"/proc/{process}/task/*"):
            # It may have ended in the meantime.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(int(thread.rpartition("/")[2]), cores)
