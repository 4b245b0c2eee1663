"""The measured parts of docs/performance.md. Each stands between two comments, which name its section."""
import os
import pathlib
import re
import subprocess
import sys
import time

import plots
from measuring import ROOT

PAGE = ROOT / "docs" / "performance.md"


def write(section: str, text: str, built: str) -> None:
    """Replaces a part of the page, and its plots."""
    first, last = f"<!-- bench:{section} -->", f"<!-- /bench:{section} -->"
    before = PAGE.read_text()
    if first not in before or last not in before:
        print(f"{PAGE.name} has no part for {section}", file=sys.stderr)
        return
    images = "".join(f"\n![{title(file)}]({file.relative_to(PAGE.parent)})\n" for file in plots.write())
    part = f"{first}\n{machine(built)}\n\n{text}{images}{last}"
    PAGE.write_text(re.sub(f"{re.escape(first)}.*{re.escape(last)}", lambda _: part, before, flags=re.DOTALL))


def title(file: pathlib.Path) -> str:
    return re.search("<title>(.*)</title>", file.read_text()).group(1)


def machine(built: str) -> str:
    """Says when and on what the figures were measured."""
    cpus = re.findall(r"model name\s*: (.*)", pathlib.Path("/proc/cpuinfo").read_text())
    model = f" of {cpus[0].strip()}" if cpus else ""
    memory = int(re.search(r"MemTotal:\s+(\d+)", pathlib.Path("/proc/meminfo").read_text()).group(1)) / 2**20
    return (
        f"Measured on {time.strftime('%Y-%m-%d')}: {os.cpu_count()} cores{model}, {memory:.0f} GiB of memory, Linux {kernel()}, "
        f"PostgreSQL {version('psql', '--version')}, rustc {version('rustc', '--version')}, {built}."
    )


def kernel() -> str:
    return ".".join(pathlib.Path("/proc/sys/kernel/osrelease").read_text().split(".")[:2])


def version(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"\d[\d.]+", done.stdout)
    return found.group() if found else "unknown"
