"""``python -m benches.peers [NAME …] [--json FILE]``: the table of every comparison, or of those named."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import pkgutil
import platform
import sys
from datetime import date
from pathlib import Path

from rich.console import Console
from rich.progress import track
from rich.table import Table

import benches.peers
import zerocost
from benches.peers.measure import Row
from zerocost._kernels import cpu_level

PEERS = [
    "numpy",
    "numba",
    "onnx",
    "onnxruntime",
    "jax",
    "torch",
    "transformers",
    "cachebox",
    "cachetools",
    "lru-dict",
    "moka-py",
    "theine",
]


def main() -> int:
    """Runs the comparisons and prints one table."""
    modules = [info.name for info in pkgutil.iter_modules(benches.peers.__path__) if not info.ispkg]
    names = sorted(name for name in modules if name not in ("__main__", "measure", "sessions"))
    parser = argparse.ArgumentParser(prog="python -m benches.peers", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(names)}; all by default")
    parser.add_argument("--json", type=Path, metavar="FILE", help="keep the rows here")
    arguments = parser.parse_args()
    unknown = sorted(set(arguments.names) - set(names))
    if unknown:
        parser.error(f"no comparison named {', '.join(unknown)}; there are {', '.join(names)}")

    console = Console(stderr=True)
    rows: list[Row] = []
    for name in track(arguments.names or names, description="comparing", console=console):
        rows += importlib.import_module(f"benches.peers.{name}").rows()
    machine = {
        "cpu": _cpu(),
        "level": cpu_level(),
        "threads": zerocost.num_threads(),
        "python": platform.python_version(),
        "date": date.today().isoformat(),
        "zerocost": zerocost.__version__,
        **{name: _version(name) for name in PEERS},
    }
    _print(rows, machine)
    if arguments.json:
        arguments.json.write_text(json.dumps({"machine": machine, "rows": [row.to_dict() for row in rows]}, indent=2))
    return 0


def _cpu() -> str:
    information = Path("/proc/cpuinfo")
    lines = information.read_text().splitlines() if information.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{len(models)} × {models[0]}" if models else platform.machine()


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _print(rows: list[Row], machine: dict[str, object]) -> None:
    table = Table("work", "ours", "peer", "its own", "ratio", "limit", "share of it")
    for row in rows:
        table.add_row(
            row.work,
            _amount(row.ours, row.unit),
            row.peer,
            _amount(row.theirs, row.unit) if row.theirs is not None else row.missing if row.peer else "",
            "" if row.ratio is None else f"{row.ratio:.2f} ×",
            row.limit,
            "" if row.share is None else f"{row.share:.0%}",
        )
        if row.notes:
            table.add_row(f"  {row.notes}")
    # Piped into a file the table keeps its width.
    console = Console(width=None if sys.stdout.isatty() else 160)
    console.print(table)
    console.print(", ".join(f"{key} {value}" for key, value in machine.items()))


def _amount(value: float, unit: str) -> str:
    if unit == "B":
        return f"{value / 2**20:.0f} MiB"
    for factor, unit in ((1, "s"), (1e3, "ms"), (1e6, "µs")):
        if value * factor >= 1:
            return f"{value * factor:.3g} {unit}"
    return f"{value * 1e9:.0f} ns"


if __name__ == "__main__":
    sys.exit(main())
