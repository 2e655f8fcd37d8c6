"""The data of the demo: attention scores of a sentence encoder on real text.

``minilm_scores.safetensors`` holds the scores before the softmax, scaled by ``1/sqrt(32)``, of four heads of layer 0 of
sentence-transformers/all-MiniLM-L6-v2 on 128 tokens of the Apache License 2.0.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from importlib.resources import files

import numpy as np
import numpy.typing as npt

from zerocost.core.safetensors import Message

__all__ = ["RealScores", "load_scores"]


@dataclass(frozen=True)
class RealScores:
    """Attention scores and their origin.

    Attributes:
        scores: ``[heads, n, n]`` float32, before the softmax.
        heads: the number of each head in the model.
        tokens: the ``n`` word pieces.
        model: the name of the model.
        layer: the layer, from 0.
    """

    scores: npt.NDArray[np.float32]
    heads: list[int]
    tokens: list[str]
    model: str
    layer: int


def load_scores() -> RealScores:
    """The scores that are part of the package."""
    message = Message((files("zerocost.cli.demo") / "minilm_scores.safetensors").read_bytes())
    about = message.metadata
    return RealScores(
        scores=message.array("scores").copy(),
        heads=json.loads(about["heads"]),
        tokens=json.loads(about["tokens"]),
        model=about["model"].rpartition("/")[2],
        layer=int(about["layer"]),
    )
