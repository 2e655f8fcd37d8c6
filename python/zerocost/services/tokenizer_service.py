"""The tokenizer service: ``encode``, ``decode`` and ``count``. An active memory artifact caches encodings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, overload

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import DatatypeError, InvalidInput, RangeError
from zerocost.models.tokenizer import ByteTokenizer, Encoding, TextTokenizer
from zerocost.services import result_cache
from zerocost.services.active_artifacts import ActiveArtifact
from zerocost.services.endpoints import Endpoint
from zerocost.services.service import Service

__all__ = ["TokenizerService", "check_texts"]

_INPUT_IDS = {"type": "array", "items": {"type": "integer", "minimum": 0}}

Texts = str | list[str] | tuple[str, ...]
"""One text, or several."""


class TokenizerService(Service):
    """Text to token ids and back.

    Args:
        artifact_registry: where :meth:`use_artifact` looks up names.
        tokenizer: a model's tokenizer; by default the bytes of the text.
        max_tokens: texts are truncated to this many tokens, unless a call says otherwise; None: no truncation.
    """

    def __init__(
        self, artifact_registry: ArtifactRegistry, tokenizer: TextTokenizer | None = None, max_tokens: int | None = None
    ) -> None:
        super().__init__(artifact_registry)
        self.tokenizer = tokenizer if tokenizer is not None else ByteTokenizer()
        self.max_tokens = max_tokens

    @overload
    def encode(self, texts: str, *, max_tokens: int | None = None) -> Encoding: ...
    @overload
    def encode(self, texts: list[str] | tuple[str, ...], *, max_tokens: int | None = None) -> list[Encoding]: ...
    def encode(
        self, texts: Texts, *, max_tokens: Annotated[int | None, {"minimum": 1}] = None
    ) -> Encoding | list[Encoding]:
        """The token ids of one text, or of several.

        :attr:`Encoding.truncated` says whether the end of a text is missing.

        Args:
            texts: one text or a list of texts.
            max_tokens: the largest number of ids of a text; by default the limit of the service.

        Raises:
            DatatypeError: ``texts`` is something other than text.
            InvalidInput: a text has no UTF-8 form.
            RangeError: ``max_tokens`` is too small for the special tokens.
        """
        limit = self.max_tokens if max_tokens is None else max_tokens
        if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
            raise RangeError(f"max_tokens: {limit!r} was given, a whole number of at least 1 is allowed", "max_tokens")
        encodings = self._encode(check_texts(texts), limit)
        return encodings[0] if isinstance(texts, str) else encodings

    def _encode(self, texts: list[str], limit: int | None) -> list[Encoding]:
        memory = self._active.get("memory")
        if memory is None:
            return self.tokenizer.encode(texts, limit)
        prefix = f"{self.tokenizer.identity} {limit}".encode()
        keys = [result_cache.cache_key("encoding", prefix, text.encode()) for text in texts]
        found = [result_cache.load(memory, key) for key in keys]
        missing = [index for index, value in enumerate(found) if value is None]
        fresh = iter(self.tokenizer.encode([texts[index] for index in missing], limit) if missing else [])
        encodings = []
        for key, value in zip(keys, found, strict=True):
            if value is None:
                encoding = next(fresh)
                result_cache.store(memory, key, [encoding.tokens, *encoding.input_ids])
            else:
                encoding = _cached(memory, value)
            encodings.append(encoding)
        return encodings

    def decode(self, input_ids: Annotated[Sequence[int] | npt.NDArray[np.integer[Any]], _INPUT_IDS]) -> str:
        """The text of token ids, without special tokens.

        Args:
            input_ids: a list of whole numbers, or an array ``[n]``.

        Raises:
            DatatypeError: ``input_ids`` are something other than whole numbers.
            RangeError: the tokenizer has no such id.
        """
        is_list = isinstance(input_ids, Sequence) and not isinstance(input_ids, str)
        is_vector = isinstance(input_ids, np.ndarray) and input_ids.ndim == 1
        given: list[Any] = list(input_ids) if is_list or is_vector else [None]
        if not all(isinstance(token, int | np.integer) and not isinstance(token, bool) for token in given):
            raise DatatypeError("input_ids: a list of whole numbers is needed", "input_ids")
        return self.tokenizer.decode([int(token) for token in given])

    @overload
    def count(self, texts: str) -> int: ...
    @overload
    def count(self, texts: list[str] | tuple[str, ...]) -> list[int]: ...
    def count(self, texts: Texts) -> int | list[int]:
        """The number of tokens of one text, or of each of several, with special tokens and before truncation."""
        counts = [encoding.tokens for encoding in self._encode(check_texts(texts), None)]
        return counts[0] if isinstance(texts, str) else counts

    post_encode = Endpoint(encode, lambda encoded: _as_json(encoded))
    post_decode = Endpoint(decode)
    post_count = Endpoint(count)


def check_texts(texts: Any) -> list[str]:
    """One text or several as a list.

    Raises:
        DatatypeError: ``texts`` is something other than text.
        InvalidInput: a text has a lone surrogate, half a character that has no UTF-8 form.
    """
    several = [texts] if isinstance(texts, str) else texts
    if not isinstance(several, list | tuple):
        raise DatatypeError(f"texts: {type(texts).__name__} was given, text or a list of texts is needed", "texts")
    for index, text in enumerate(several):
        if not isinstance(text, str):
            raise DatatypeError(f"texts: item {index} is {type(text).__name__}, text is needed", "texts")
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidInput(
                f"texts: item {index} cannot be written as UTF-8: {error.reason} at position {error.start}", "texts"
            ) from error
    return list(several)


def _cached(memory: ActiveArtifact, value: Any) -> Encoding:
    """An encoding from a memory artifact: the number of tokens before truncation, then the ids."""
    fits = isinstance(value, list) and all(type(item) is int and item >= 0 for item in value)
    if not fits or not 0 < len(value) <= value[0] + 1:
        raise InvalidInput(f"artifact {memory.spec.name!r} returned something other than the token ids it was given")
    return Encoding(value[1:], value[0])


def _as_json(encoded: Encoding | list[Encoding]) -> Any:
    if isinstance(encoded, list):
        return [_as_json(item) for item in encoded]
    return {"input_ids": encoded.input_ids, "tokens": encoded.tokens, "truncated": encoded.truncated}
