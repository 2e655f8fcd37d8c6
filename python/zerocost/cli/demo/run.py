"""The demo from beginning to end."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.api.application import create_app
from zerocost.api.server.run import background_server
from zerocost.api.settings import Settings
from zerocost.artifacts.builtin import default_registry
from zerocost.cli.demo.claims import Claim, claims_about_copies, claims_about_equality
from zerocost.cli.demo.client import ChainClient, connected
from zerocost.cli.demo.picture import Panel, draw
from zerocost.cli.demo.real_scores import RealScores, load_scores
from zerocost.cli.demo.sentences import show_sentences
from zerocost.cli.output import console, in_bytes, in_seconds, print_table
from zerocost.core.artifact_base import ExecutionContext
from zerocost.core.artifact_communication import ArtifactCommunicationService
from zerocost.core.artifact_registry import ArtifactRegistry

__all__ = ["run_demo"]

PIPELINE: list[dict[str, Any]] = [
    {"artifact": "sparse_attention", "params": {"sparsity_ratio": 0.8, "normalization": "softmax"}},
    {"artifact": "tensor_parallel", "params": {"num_splits": 2, "axis": 0}},
]

WINDOW = 16
PICTURED_HEAD = 4
PICTURED_WORD = 36
"""The second "control" of the text. It attends to words near and far."""

_ROUNDS = 15


def run_demo(out: Path, registry: ArtifactRegistry | None = None) -> bool:
    """Runs the chain both ways, prints claims and timings, embeds sentences, and draws two pictures.

    Args:
        out: the folder for the pictures; it is created if it does not exist.
        registry: the artifacts; by default the built-in ones.

    Returns:
        Whether all claims are true.
    """
    registry = default_registry() if registry is None else registry
    service = ArtifactCommunicationService(registry)
    screen = console()
    out.mkdir(parents=True, exist_ok=True)

    real = load_scores()
    heads, length = len(real.heads), len(real.tokens)
    screen.print("Data", style="bold")
    screen.print(
        f"  attention scores of {real.model}, layer {real.layer}, heads "
        f"{', '.join(map(str, real.heads))}, on {length} tokens of real text: "
        f"{real.scores.dtype} [{heads}, {length}, {length}], {in_bytes(real.scores.nbytes)}"
    )
    screen.print("\nChain", style="bold")
    screen.print(
        "  sparse_attention (softmax over the 20 % largest of each row) → tensor_parallel (2 shards of heads)\n"
    )

    screen.print("In this process", style="bold")
    here = service.run_chain(PIPELINE, {"attention_matrix": real.scores})
    print_table(
        ("  step", "took", "in", "out", "copied"),
        [
            (
                f"  {step.artifact}",
                in_seconds(step.duration),
                in_bytes(step.bytes_in),
                in_bytes(step.bytes_out),
                in_bytes(step.bytes_copied),
            )
            for step in here.trace
        ],
        right=(1, 2, 3, 4),
    )
    claims = _print_claims(claims_about_copies(registry, PIPELINE, real.scores))

    # The demo's server ignores the environment: a token there would lock the demo out.
    with background_server(create_app(registry, Settings())) as url, connected(url) as client:
        screen.print(f"\nOver HTTP ({url}, typed JSON)", style="bold")
        there = client.run_chain(PIPELINE, real.scores)
        claims += _print_claims(claims_about_equality(here.result["result"], there))
        _print_times(service, client, real.scores)
    screen.print("  the server has stopped")

    picture = out / "attention.png"
    _draw(picture, real, registry)
    screen.print("\nPicture", style="bold")
    screen.print(f"  {picture}")
    show_sentences(registry, out / "embedding.png")
    false = [claim for claim in claims if not claim.holds]
    if false:
        screen.print(f"\n{len(false)} of {len(claims)} claims are FALSE", style="bold red")
        return False
    command = _command()
    screen.print(f"\nAll {len(claims)} claims are true. Serve it yourself:", style="bold")
    screen.print(f"  {command} serve")
    screen.print("  curl http://127.0.0.1:8000/artifacts")
    return True


def _print_claims(claims: list[Claim]) -> list[Claim]:
    for claim in claims:
        mark, style = ("✓", "green") if claim.holds else ("FALSE:", "bold red")
        console().print(f"  {mark} {claim.text}", style=style)
    return claims


def _print_times(service: ArtifactCommunicationService, client: ChainClient, matrix: npt.NDArray[Any]) -> None:
    """Times both ways in turn, so that other load on the machine affects both."""
    initial = {"attention_matrix": matrix}
    ways: list[tuple[str, Callable[[], object]]] = [
        ("in this process", lambda: service.chain_artifacts(PIPELINE, initial)),
        ("over HTTP", lambda: client.run_chain(PIPELINE, matrix)),
    ]
    seconds: dict[str, list[float]] = {name: [] for name, _ in ways}
    for attempt in range(_ROUNDS + 2):
        for name, call in ways:
            start = time.perf_counter()
            call()
            if attempt >= 2:  # the first two warm up
                seconds[name].append(time.perf_counter() - start)
    medians = {name: median(times) for name, times in seconds.items()}
    screen = console()
    screen.print(f"\nTime of the whole chain, median of {_ROUNDS}, both ways in turn", style="bold")
    for name, _ in ways:
        screen.print(f"  {name:<16} {in_seconds(medians[name]):>8}")
    share = medians["over HTTP"] / medians["in this process"]
    screen.print(
        f"  HTTP costs {share:.0f} × as much: {in_bytes(client.bytes_sent)} of JSON written, sent and read, "
        f"{in_bytes(client.bytes_received)} back"
    )


def _draw(path: Path, real: RealScores, registry: ArtifactRegistry) -> None:
    head = real.heads.index(PICTURED_HEAD)

    def weights(name: str, **parameters: Any) -> npt.NDArray[np.float32]:
        spec = registry[name]
        inputs = {"attention_matrix": real.scores[head], "normalization": "softmax", **parameters}
        context = ExecutionContext(name, spec.interface, "zero_cost")
        result: npt.NDArray[np.float32] = spec.implementation.execute(inputs, context)["processed_attention"]
        return result

    dense = weights("sparse_attention", sparsity_ratio=0.0)

    def panel(title: str, kept: npt.NDArray[np.float32]) -> Panel:
        is_kept = kept != 0
        entries, attention = is_kept.mean(), dense[is_kept].sum() / len(dense)
        return Panel(title, f"{entries:.0%} of the entries, {attention:.0%} of the attention", kept)

    draw(
        path,
        f"Attention before and after: {real.model}, layer {real.layer}, head {PICTURED_HEAD}, on real text",
        [
            panel("before: softmax of all scores", dense),
            panel(
                f"sliding_window_attention, {WINDOW} each side",
                weights("sliding_window_attention", window_size=[WINDOW, WINDOW]),
            ),
            panel("sparse_attention, sparsity_ratio 0.8", weights("sparse_attention", sparsity_ratio=0.8)),
        ],
        real.tokens,
        PICTURED_WORD,
    )


def _command() -> str:
    """The command that runs this installation from the working folder."""
    found = shutil.which("zerocost")
    mine = Path(sys.executable).with_name("zerocost")
    if found is not None and Path(found).resolve() == mine.resolve():
        return "zerocost"
    if not mine.exists():
        return f"{sys.executable} -m zerocost"
    return str(mine.relative_to(Path.cwd())) if mine.is_relative_to(Path.cwd()) else str(mine)
