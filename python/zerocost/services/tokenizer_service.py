"""The tokenizer service: encode, decode and count. An active memory artifact remembers encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, overload

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import DatatypeError, InvalidInput, RangeError
from zerocost.models.tokenizer import ByteTokenizer, Encoding, TextTokenizer
from zerocost.services.active import Active, own_key, recall, remember
from zerocost.services.service import Service
from zerocost.services.twins import twin

__all__ = ["TokenizerService", "read_texts"]

_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}


class TokenizerService(Service):
    """Text to token ids and back.

    Args:
        artifact_registry: where :meth:`use_artifact` looks.
        tokenizer: a model's tokenizer; bytes by default.
        max_tokens: texts are truncated to that many tokens unless a call says otherwise; None: not at all.
    """

    def __init__(
        self, artifact_registry: ArtifactRegistry, tokenizer: TextTokenizer | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__(artifact_registry, ("memory",))
        self.tokenizer = tokenizer if tokenizer is not None else ByteTokenizer()
        self.max_tokens = max_tokens

    @overload
    def encode(self, text: str, *, max_tokens: int | None = None) -> Encoding: ...
    @overload
    def encode(self, text: list[str] | tuple[str, ...], *, max_tokens: int | None = None) -> list[Encoding]: ...
    def encode(
        self,
        text: str | list[str] | tuple[str, ...],
        *,
        max_tokens: Annotated[int | None, {"minimum": 1}] = None,
    ) -> Encoding | list[Encoding]:
        """The ids of one text, or of several. :attr:`Encoding.truncated` says whether a text's end is missing.

        Args:
            text: one text or a list of texts.
            max_tokens: the most ids that a text may have; by default the service's own limit.

        Raises:
            DatatypeError: something else than text.
            InvalidInput: a text that cannot be written as UTF-8.
            RangeError: a limit that is too small for the special tokens.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise RangeError(f"max_tokens: {limit!r} was given, a whole number of at least 1 is allowed", "max_tokens")
        texts = read_texts(text, "text")
        encodings = self._encode(texts, limit)
        return encodings[0] if isinstance(text, str) else encodings

    def _encode(self, texts: list[str], limit: int | None) -> list[Encoding]:
        memory = self._active.get("memory")
        if memory is None:
            return self.tokenizer.encode(texts, limit)
        about = f"{self.tokenizer.identity} {limit}".encode()
        keys = [own_key("encoding", about, text.encode()) for text in texts]
        found = [recall(memory, key) for key in keys]
        missing = [index for index, value in enumerate(found) if value is None]
        fresh = iter(self.tokenizer.encode([texts[index] for index in missing], limit) if missing else [])
        encodings = []
        for key, value in zip(keys, found, strict=True):
            if value is None:
                encoding = next(fresh)
                remember(memory, key, [encoding.tokens, *encoding.input_ids])
            else:
                encoding = _remembered(memory, value)
            encodings.append(encoding)
        return encodings

    def decode(self, ids: Annotated[Sequence[int] | npt.NDArray[np.integer[Any]], _IDS]) -> str:
        """The text of the ids, special tokens left out.

        Args:
            ids: a list of whole numbers, or an array ``[n]``.

        Raises:
            DatatypeError: something else than whole numbers.
            RangeError: an id that the tokenizer does not have.
        """
        is_list = isinstance(ids, Sequence) and not isinstance(ids, str)
        given: list[Any] = list(ids) if is_list or (isinstance(ids, np.ndarray) and ids.ndim == 1) else [None]
        if not all(isinstance(token, int | np.integer) and not isinstance(token, bool) for token in given):
            raise DatatypeError("ids: a list of whole numbers is needed", "ids")
        return self.tokenizer.decode([int(token) for token in given])

    @overload
    def count(self, text: str) -> int: ...
    @overload
    def count(self, text: list[str] | tuple[str, ...]) -> list[int]: ...
    def count(self, text: str | list[str] | tuple[str, ...]) -> int | list[int]:
        """How many tokens one text has, or each of several, special tokens included, before truncation."""
        counts = [encoding.tokens for encoding in self._encode(read_texts(text, "text"), None)]
        return counts[0] if isinstance(text, str) else counts

    post_encode = twin(encode, lambda encoded: _plain(encoded))
    post_decode = twin(decode)
    post_count = twin(count)


def read_texts(text: Any, argument: str) -> list[str]:
    """One text or several as a list of texts that UTF-8 can write.

    Raises:
        DatatypeError: something else than text.
        InvalidInput: a lone surrogate: half a character, which no encoding can write.
    """
    texts = [text] if isinstance(text, str) else text
    if not isinstance(texts, list | tuple):
        raise DatatypeError(f"{argument}: {type(text).__name__} was given, text or a list of texts is needed", argument)
    for index, item in enumerate(texts):
        if not isinstance(item, str):
            kind = type(item).__name__
            raise DatatypeError(f"{argument}: item {index} is {kind}, text is needed", argument)
        try:
            item.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"{argument}: item {index} cannot be written as UTF-8: {error.reason} at position {error.start}",
                argument,
            ) from error
    return list(texts)


def _remembered(memory: Active, value: Any) -> Encoding:
    """What a memory artifact had: how many tokens there were before truncation, and the ids."""
    fits = isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
    if not fits or not 0 < len(value) <= value[0] + 1:
        raise InvalidInput(f"artifact {memory.spec.name!r} remembered something else than the token ids that were put")
    return Encoding(value[1:], value[0])


def _plain(encoded: Encoding | list[Encoding]) -> Any:
    if isinstance(encoded, list):
        return [_plain(item) for item in encoded]
    return {"input_ids": encoded.input_ids, "tokens": encoded.tokens, "truncated": encoded.truncated}
