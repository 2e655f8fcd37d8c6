"""The architecture of a model: ``config.json`` of a Hugging Face folder of the BERT family."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from zerocost.errors import InvalidModel

__all__ = ["Architecture", "read_json", "read_json_file"]

_ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Hugging Face's names of the activations, and the kernels' names."""
_FAMILIES = ("bert", "roberta", "xlm-roberta", "camembert")


@dataclass(frozen=True)
class Architecture:
    """The shape of an encoder of the BERT family.

    Attributes:
        family: Hugging Face's ``model_type``.
        vocabulary: the number of token ids.
        width: the length of a token's vector.
        layers: the number of layers.
        heads: the number of attention heads in each layer.
        inner_width: the width between the two linear layers of a feed-forward block.
        positions: the largest number of tokens of a sequence.
        padding: the id of padding tokens (RoBERTa). They share the row of that number in the position table; the rows
            of other tokens begin after it. None: a token has the row of its place (BERT).
        types: the number of token types; every token has the first.
        activation: between the two linear layers: ``"gelu"``, ``"gelu_tanh"`` or ``"relu"``.
        epsilon: the epsilon of the layer norms.
    """

    family: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    inner_width: int
    positions: int
    padding: int | None
    types: int
    activation: str
    epsilon: float

    @classmethod
    def from_folder(cls, folder: Path) -> Architecture:
        """Reads ``config.json``.

        Raises:
            InvalidModel: the file is missing or incomplete, or asks for something unsupported, which is named.
        """
        path = folder / "config.json"
        config = read_json(path)
        family = config.get("model_type")
        if family not in _FAMILIES:
            supported = ", ".join(_FAMILIES)
            raise InvalidModel(f"{path}: model_type {family!r} is not supported, only {supported}")
        required: dict[str, Any] = {"position_embedding_type": "absolute", "is_decoder": False}
        for key, value in required.items():
            if config.get(key, value) != value:
                raise InvalidModel(f"{path}: {key} {config[key]!r} is not supported, only {value!r}")
        activation = config.get("hidden_act", "gelu")
        if activation not in _ACTIVATIONS:
            raise InvalidModel(f"{path}: hidden_act {activation!r} is not supported, only {', '.join(_ACTIVATIONS)}")
        # Hugging Face leaves out values that are its defaults.
        padding = None if family == "bert" else _whole(path, {"pad_token_id": 1, **config}, "pad_token_id", least=0)
        first = 0 if padding is None else padding + 1
        width, heads = _whole(path, config, "hidden_size"), _whole(path, config, "num_attention_heads")
        if width % heads:
            raise InvalidModel(f"{path}: hidden_size {width} is not a multiple of num_attention_heads {heads}")
        epsilon = config.get("layer_norm_eps", 1e-12)
        if not isinstance(epsilon, int | float) or not 0 <= epsilon < 1:
            raise InvalidModel(f"{path}: layer_norm_eps is {epsilon!r}, a number from 0 to 1 is needed")
        table = _whole(path, config, "max_position_embeddings")
        if table <= first:
            raise InvalidModel(f"{path}: max_position_embeddings {table} leaves no position after that of padding")
        return cls(
            family=family,
            vocabulary=_whole(path, config, "vocab_size"),
            width=width,
            layers=_whole(path, config, "num_hidden_layers"),
            heads=heads,
            inner_width=_whole(path, config, "intermediate_size"),
            positions=table - first,
            padding=padding,
            types=_whole(path, config, "type_vocab_size"),
            activation=_ACTIVATIONS[activation],
            epsilon=float(epsilon),
        )


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file.

    Raises:
        InvalidModel: the file is missing, or holds something other than a JSON object.
    """
    content = read_json_file(path)
    if not isinstance(content, dict):
        raise InvalidModel(f"{path}: a JSON object is needed")
    return content


def read_json_file(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        InvalidModel: the file is missing, or is not JSON.
    """
    try:
        return orjson.loads(path.read_bytes())
    except OSError as error:
        raise InvalidModel(f"{path}: cannot be read ({error.strerror or error})") from error
    except orjson.JSONDecodeError as error:
        raise InvalidModel(f"{path}: is not JSON ({error})") from error


def _whole(path: Path, config: dict[str, Any], key: str, least: int = 1) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InvalidModel(f"{path}: {key} is {value!r}, a whole number of at least {least} is needed")
    return value
