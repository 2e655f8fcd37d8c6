"""What sentence-transformers' files in a folder say: how to pool, how much text to take, and how to write it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from zerocost.errors import InvalidModel
from zerocost.models.architecture import read_json, read_json_file

__all__ = ["SentenceFiles"]

_MODULES = ("Transformer", "Pooling", "Normalize")
"""What a model may be made of here. A vector is normalised whether the folder asks for it or not."""


@dataclass(frozen=True)
class SentenceFiles:
    """The settings of a folder; the defaults where the files are not there.

    Attributes:
        pooling: ``"mean"`` or ``"first"``: how the tokens' vectors become the text's.
        max_tokens: the most tokens of a text, None: as many as the model has positions.
        lower: whether text is put in small letters before it is cut into tokens.
    """

    pooling: str = "mean"
    max_tokens: int | None = None
    lower: bool = False

    @classmethod
    def of_folder(cls, folder: Path, family: str) -> SentenceFiles:
        """Reads ``modules.json``, the configuration of its pooling, and ``sentence_bert_config.json``.

        Args:
            folder: the model's.
            family: the ``model_type``, under whose name the last file may stand as well.

        Raises:
            InvalidModel: a file is damaged, or asks for something that is not supported, which is named.
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
            raise InvalidModel(f"{path}: the module {kind!r} is not supported; {', '.join(_MODULES)} are")
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
    raise InvalidModel(f"{path}: {names} is not supported; pooling_mode_mean_tokens and pooling_mode_cls_token are")
