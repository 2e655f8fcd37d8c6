"""Text to token ids and back: a ``tokenizer.json`` of the tokenizers library, or the bytes of the text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from zerocost.errors import InvalidModel, RangeError

__all__ = ["ByteTokenizer", "Encoding", "FileTokenizer", "TextTokenizer"]


@dataclass(frozen=True)
class Encoding:
    """The token ids of one text.

    Attributes:
        input_ids: the ids, with special tokens.
        tokens: the number of tokens before truncation.
    """

    input_ids: list[int]
    tokens: int

    @property
    def truncated(self) -> bool:
        """Whether the end of the text is missing."""
        return self.tokens > len(self.input_ids)


class TextTokenizer(Protocol):
    """The tokenizer of a model."""

    identity: str
    """Differs for every other tokenizer."""

    def encode(self, texts: Sequence[str], limit: int | None) -> list[Encoding]:
        """The ids of each text, truncated to ``limit``."""

    def decode(self, input_ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""


class FileTokenizer:
    """A tokenizer of the tokenizers library; truncation and padding of its file are turned off.

    Args:
        path: the ``tokenizer.json``.
        vocabulary: the number of ids of the model; None without a model.
        lower: whether text is converted to lower case first (``do_lower_case`` of sentence-transformers).

    Raises:
        InvalidModel: the file is missing or damaged, or it has more ids than the model.
    """

    def __init__(self, path: Path, vocabulary: int | None = None, *, lower: bool = False) -> None:
        import hashlib

        from tokenizers import Tokenizer  # slow to import, and callers of artifacts do not need it

        try:
            content = path.read_bytes()
        except OSError as error:
            raise InvalidModel(f"{path}: cannot be read ({error.strerror or error})") from error
        try:
            self._tokenizer = Tokenizer.from_str(content.decode())
        except Exception as error:  # the library raises bare Exception
            raise InvalidModel(f"{path}: is not a tokenizer ({error})") from error
        self._tokenizer.no_truncation()
        self._tokenizer.no_padding()
        size = self._tokenizer.get_vocab_size(with_added_tokens=True)
        if vocabulary is not None and size > vocabulary:
            raise InvalidModel(f"{path}: has {size} ids, the model has {vocabulary}")
        self._size = size
        self._lower = lower
        self.identity = hashlib.sha256(content).hexdigest() + (" lower" if lower else "")

    def encode(self, texts: Sequence[str], limit: int | None) -> list[Encoding]:
        """The ids of each text. Truncation keeps the special tokens at the end."""
        given = [text.lower() for text in texts] if self._lower else list(texts)
        encodings = []
        for encoded in self._tokenizer.encode_batch_fast(given):
            ids = encoded.ids
            total = len(ids)
            if limit is not None and total > limit:
                closing = 0
                while closing < total and encoded.special_tokens_mask[total - 1 - closing]:
                    closing += 1
                if limit < closing:
                    raise RangeError(f"max_tokens: {limit} was given, at least {closing} is needed", "max_tokens")
                ids = ids[: limit - closing] + ids[total - closing :]
            encodings.append(Encoding(ids, total))
        return encodings

    def decode(self, input_ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens."""
        _check_ids(input_ids, self._size)
        text: str = self._tokenizer.decode(list(input_ids), skip_special_tokens=True)
        return text


class ByteTokenizer:
    """UTF-8 bytes between an opening and a closing token. Decoding returns every text unchanged."""

    SPECIALS = 3
    """0 is padding, 1 opens a text, 2 closes it."""
    VOCABULARY = 256 + SPECIALS

    identity = "bytes"

    def encode(self, texts: Sequence[str], limit: int | None) -> list[Encoding]:
        """The bytes of each text. Truncation may split a character, which decodes to the replacement character."""
        if limit is not None and limit < 2:
            raise RangeError(f"max_tokens: {limit} was given, at least 2 is needed", "max_tokens")
        encodings = []
        for text in texts:
            content = text.encode()
            total = len(content) + 2
            kept = content if limit is None else content[: limit - 2]
            encodings.append(Encoding([1, *(byte + self.SPECIALS for byte in kept), 2], total))
        return encodings

    def decode(self, input_ids: Sequence[int]) -> str:
        """The text of the ids, without special tokens. Invalid UTF-8 becomes the replacement character."""
        _check_ids(input_ids, self.VOCABULARY)
        return bytes(token - self.SPECIALS for token in input_ids if token >= self.SPECIALS).decode(errors="replace")


def _check_ids(input_ids: Sequence[int], size: int) -> None:
    for token in input_ids:
        if not 0 <= token < size:
            raise RangeError(f"input_ids: {token} was given, ids from 0 to {size - 1} are allowed", "input_ids")
