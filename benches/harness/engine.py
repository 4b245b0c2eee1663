"""The engine alone: purchases evaluated in the four campaigns, without any input or output."""
from measure import median, number, spread, table
from systems import Bench, Given

ROUNDS = 5


def measured(bench: Bench) -> list[float]:
    """Returns the rates of several runs, in purchases per second on one core."""
    return [bench.program("engine")["rate"] for _ in range(ROUNDS)]


def engine(bench: Bench, _: Given) -> str:
    rates = measured(bench)
    micros = 1e6 / median(rates)
    row = ["evaluated in four campaigns, one core", f"{number(median(rates))}{spread(rates)}", number(micros)]
    return table(["purchases", "per second", "µs each"], [row])
