"""A model: an encoder with its tokenizer and its way of pooling, from a Hugging Face folder or built in."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from zerocost.errors import InvalidModel
from zerocost.models.architecture import Architecture
from zerocost.models.checkpoint import Checkpoint
from zerocost.models.encoder import Encoder
from zerocost.models.sentence_files import SentenceFiles
from zerocost.models.tokenizer import ByteTokenizer, FileTokenizer, TextTokenizer

__all__ = ["Model", "load_model", "untrained_model"]

UNTRAINED = "untrained-bytes"
"""The name of the built-in model: its weights are random, its vectors mean nothing."""


@dataclass(frozen=True)
class Model:
    """What a model service runs.

    Attributes:
        name: the folder's name, or ``"untrained-bytes"``.
        trained: whether the weights are anybody's work.
        encoder: the weights.
        tokenizer: text to ids.
        pooling: ``"mean"`` or ``"first"``: how the tokens' vectors become the text's.
        max_tokens: texts are truncated to that many tokens, specials included.
    """

    name: str
    trained: bool
    encoder: Encoder
    tokenizer: TextTokenizer
    pooling: str
    max_tokens: int
    _identity: Callable[[], str]

    @property
    def identity(self) -> str:
        """What tells this model from every other: a digest of its weights and its configuration.

        Raises:
            InvalidModel: its file was written to or touched after it was loaded, so nobody knows what the weights are.
        """
        return self._identity()


def load_model(folder: str | Path) -> Model:
    """Loads ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    sentence-transformers' files are honoured where they are there: ``modules.json``, ``1_Pooling/config.json`` and
    ``sentence_bert_config.json``.

    The file is mapped, and only its embedding tables stay so: the layers' matrices are laid out for the kernels in
    memory of their own. Who replaces the file should put another one under its name and not write over it.

    Raises:
        InvalidModel: a file is missing or damaged, or the model is of a kind that is not supported.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InvalidModel(f"{path}: there is no such folder")
    architecture = Architecture.of_folder(path)
    sentences = SentenceFiles.of_folder(path, architecture.family)
    pooling = sentences.pooling
    tokenizer = FileTokenizer(path / "tokenizer.json", architecture.vocabulary, lower=sentences.lower)
    checkpoint = Checkpoint(path / "model.safetensors")
    encoder = Encoder(architecture, checkpoint)
    return Model(
        name=path.resolve().name,
        trained=True,
        encoder=encoder,
        tokenizer=tokenizer,
        pooling=pooling,
        max_tokens=min(architecture.positions, sentences.max_tokens or architecture.positions),
        _identity=lambda: hashlib.sha256(f"{checkpoint.digest} {architecture} {pooling}".encode()).hexdigest(),
    )


def untrained_model(seed: int = 0) -> Model:
    """A small encoder with random weights, and bytes as its tokens. It runs anywhere, and its vectors mean nothing."""
    architecture = Architecture(
        family="bert",
        vocabulary=ByteTokenizer.VOCABULARY,
        width=64,
        layers=2,
        heads=4,
        inner_width=256,
        positions=512,
        padding=None,
        types=1,
        activation="gelu",
        epsilon=1e-12,
    )
    return Model(
        name=UNTRAINED,
        trained=False,
        encoder=Encoder(architecture, _Seeded(seed)),
        tokenizer=ByteTokenizer(),
        pooling="mean",
        max_tokens=architecture.positions,
        _identity=lambda: f"{UNTRAINED} {seed}",
    )


class _Seeded:
    """Random weights by name: the same for the same seed, whatever the order in which they are asked for."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __contains__(self, name: str) -> bool:
        return True

    def release(self) -> None:
        pass

    def tensor(self, name: str, shape: tuple[int, ...], *, is_table: bool = False) -> npt.NDArray[np.float32]:
        if name.endswith("LayerNorm.weight"):
            return np.ones(shape, np.float32)
        if name.endswith("bias"):
            return np.zeros(shape, np.float32)
        digest = hashlib.sha256(f"{self._seed} {name}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "little"))
        return generator.standard_normal(shape, np.float32) * np.float32(shape[-1] ** -0.5)
