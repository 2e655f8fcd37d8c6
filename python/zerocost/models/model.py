"""A model: an encoder with its tokenizer and its pooling, from a Hugging Face folder or built in."""

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
from zerocost.models.sentence_config import SentenceConfig
from zerocost.models.tokenizer import ByteTokenizer, FileTokenizer, TextTokenizer

__all__ = ["Model", "load_model", "untrained_model"]

UNTRAINED = "untrained-bytes"
"""The name of the built-in model. Its weights are random, so its vectors mean nothing."""


@dataclass(frozen=True)
class Model:
    """A model as a service runs it.

    Attributes:
        name: the folder's name, or ``"untrained-bytes"``.
        trained: False if the weights are random.
        encoder: the weights and the forward pass.
        tokenizer: text to ids.
        pooling: ``"mean"`` or ``"first"``, see :func:`zerocost.models.pooling.pool`.
        max_tokens: texts are truncated to this many tokens, with special tokens.
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
        """A digest of the weights and the configuration.

        Raises:
            InvalidModel: the file was written to or touched after it was loaded, so its weights are unknown.
        """
        return self._identity()


def load_model(folder: str | Path) -> Model:
    """Loads ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    The files of sentence-transformers are read if they exist: ``modules.json``, ``1_Pooling/config.json`` and
    ``sentence_bert_config.json``.

    The embedding tables stay mapped from the file; the layers' matrices are laid out for the kernels in memory of their
    own. To replace the file, put another file under its name: do not write into it.

    Raises:
        InvalidModel: a file is missing or damaged, or the kind of model is not supported.
    """
    path = Path(folder)
    if not path.is_dir():
        raise InvalidModel(f"{path}: there is no such folder")
    architecture = Architecture.from_folder(path)
    sentences = SentenceConfig.from_folder(path, architecture.family)
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
    """A small encoder with random weights whose tokens are bytes. It needs no files, and its vectors mean nothing."""
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
        encoder=Encoder(architecture, RandomWeights(seed)),
        tokenizer=ByteTokenizer(),
        pooling="mean",
        max_tokens=architecture.positions,
        _identity=lambda: f"{UNTRAINED} {seed}",
    )


class RandomWeights:
    """Random weights that depend on the seed and the name only, not on the order of the calls."""

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
