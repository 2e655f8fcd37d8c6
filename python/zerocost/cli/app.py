"""The command ``zerocost``: its subcommands, its exit codes, and its errors in one line each.

Exit codes: 0 success; 1 the answer is no (an artifact breaks the contract, a claim of the demo is false) or a bug;
2 wrong input; 130 interrupted.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from zerocost.cli.options import print_line
from zerocost.errors import ZerocostError

__all__ = ["app", "main"]

_COMMANDS = ["list", "describe", "validate", "run", "chain", "serve", "info", "embed", "schedule", "demo", "memory"]
"""The modules of the commands, in the order of the help. Each has an ``app``; an ``app`` with a name is a group."""

INTERRUPTED = 130

app = typer.Typer(
    name="zerocost",
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Start with [bold]zerocost list[/], then [bold]zerocost describe sparse_attention[/]. "
    "[bold]zerocost COMMAND --help[/] has an example of each.",
)
for _command in _COMMANDS:
    app.add_typer(importlib.import_module(f"zerocost.cli.{_command}").app)


def _show_version(wanted: bool) -> None:
    if wanted:
        from zerocost import __version__

        typer.echo(f"zerocost {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
) -> None:
    """Attention, tensor splitting and LRU memory as artifacts: list them, run them on files, chain them, serve them."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line and returns the exit code.

    Args:
        arguments: the arguments without the program's name; None: those of the process.
    """
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        code = app(given or ["--help"], prog_name="zerocost", standalone_mode=False)
        sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        if "--debug" in given:
            raise
        return _report(error)


def _report(error: Exception) -> int:
    """Prints an error as one line on stderr and returns the exit code."""
    code, message = _explain(error)
    print_line("error: ", "red", message)
    return code


def _explain(error: Exception) -> tuple[int, str]:
    notes = "".join(f" ({note})" for note in getattr(error, "__notes__", ()))
    if isinstance(error, typer.TyperException):  # a wrong option, a missing argument, an unknown command
        context = getattr(error, "ctx", None)
        path = context.command_path if context is not None else "zerocost"
        return 2, f"{error.format_message().rstrip('.')}; see '{path} --help'"
    if isinstance(error, ZerocostError):
        return (1 if error.code == "kernel_panic" else 2), f"{error}{notes}"
    if isinstance(error, OSError):
        about = f"{error.filename}: " if error.filename else ""
        return 2, f"{about}{error.strerror or error}{notes}"
    # A third-party artifact raises these for wrong input; anything else is a bug.
    code = 2 if isinstance(error, ValueError | TypeError) else 1
    return code, f"{type(error).__name__}: {error}{notes}; 'zerocost --debug …' shows the traceback"
