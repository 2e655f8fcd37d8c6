"""The configuration of sentence-transformers in a folder: pooling, largest number of tokens, lower case."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zerocost.errors import InvalidModel
from zerocost.models.architecture import read_json, read_json_file

__all__ = ["SentenceConfig"]

_MODULES = ("Transformer", "Pooling", "Normalize")
"""The supported modules. Vectors are normalized whether the folder asks for it or not."""


@dataclass(frozen=True)
class SentenceConfig:
    """The settings of a folder, or the defaults without such files.

    Attributes:
        pooling: ``"mean"`` or ``"first"``, see :func:`zerocost.models.pooling.pool`.
        max_tokens: the largest number of tokens of a text; None: the number of positions of the model.
        lower: whether text is converted to lower case first.
    """

    pooling: str = "mean"
    max_tokens: int | None = None
    lower: bool = False

    @classmethod
    def from_folder(cls, folder: Path, family: str) -> SentenceConfig:
        """Reads ``modules.json``, the pooling module's ``config.json``, and ``sentence_bert_config.json``.

        Args:
            folder: the folder of the model.
            family: the ``model_type``; the last file may be named after it.

        Raises:
            InvalidModel: a file is damaged, or asks for something unsupported, which is named.
        """
        names = [f"sentence_{name}_config.json" for name in dict.fromkeys(("bert", family))]
        path = next((folder / name for name in names if (folder / name).is_file()), None)
        settings = {} if path is None else read_json(path)
        asked = settings.get("max_seq_length")
        return cls(
            pooling=_pooling(folder / _pooling_folder(folder) / "config.json"),
            max_tokens=asked if isinstance(asked, int) and asked > 0 else None,
            lower=settings.get("do_lower_case") is True,
        )


def _pooling_folder(folder: Path) -> str:
    path, found = folder / "modules.json", "1_Pooling"
    if not path.is_file():
        return found
    modules = read_json_file(path)
    if not isinstance(modules, list):
        raise InvalidModel(f"{path}: a JSON array of modules is needed")
    for module in modules:
        kind = module.get("type") if isinstance(module, dict) else None
        if not isinstance(kind, str) or kind.rpartition(".")[2] not in _MODULES:
            raise InvalidModel(f"{path}: the module {kind!r} is not supported, only {', '.join(_MODULES)}")
        if kind.endswith(".Pooling") and isinstance(module.get("path"), str):
            found = module["path"] or found
    return found


def _pooling(path: Path) -> str:
    if not path.is_file():
        return "mean"
    asked = {key for key, value in read_json(path).items() if key.startswith("pooling_mode_") and value is True}
    if asked == {"pooling_mode_mean_tokens"}:
        return "mean"
    if asked == {"pooling_mode_cls_token"}:
        return "first"
    names = ", ".join(sorted(asked)) or "no mode"
    raise InvalidModel(f"{path}: {names} is not supported, only pooling_mode_mean_tokens or pooling_mode_cls_token")
