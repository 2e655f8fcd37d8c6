"""``zerocost info``: the version, the CPU and the plug-ins."""

from __future__ import annotations

import platform
from typing import Any

import typer

from zerocost.cli.options import AsJson

app = typer.Typer()


@app.command(epilog="Example:\n\n[bold]zerocost info --json[/]")
def info(as_json: AsJson = False) -> None:
    """Show the version, the CPU level in use, the threads, and the plug-ins that could not be loaded."""
    import numpy as np

    from zerocost import __version__, _kernels
    from zerocost.cli.options import open_registry
    from zerocost.cli.output import console, print_json

    registry, failures = open_registry()
    plugins = [spec.name for spec in registry.list_artifacts() if "entry_point" in spec.metadata]
    facts: dict[str, Any] = {
        "version": __version__,
        "cpu_level": _kernels.cpu_level(),
        "cpu_levels": _kernels.cpu_levels(),
        "threads": _kernels.num_threads(),
        "numpy": np.__version__,
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "artifacts": len(registry),
        "plugins": plugins,
        "failed_plugins": {name: str(error) for name, error in failures.items()},
    }
    if as_json:
        print_json(facts)
        return
    screen = console()
    lines = {
        "zerocost": facts["version"],
        "CPU level": f"{facts['cpu_level']} (of {', '.join(facts['cpu_levels'])}; ZEROCOST_CPU forces one)",
        "threads": facts["threads"],
        "NumPy": facts["numpy"],
        "Python": f"{facts['python']} on {facts['platform']}",
        "artifacts": facts["artifacts"],
        "plug-ins": ", ".join(plugins) or "none",
        "failed": "; ".join(facts["failed_plugins"].values()) or "none",
    }
    for name, value in lines.items():
        screen.print(f"{name:<11}{value}")
