"""Entries of a memory that were put as raw bodies: bytes with a media type, packed into one bytes object."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from zerocost.core.arrays import read_json
from zerocost.errors import NotAcceptable, ZerocostError

__all__ = ["Entry"]

_MARK = b"\0zerocost entry\0"


@dataclass(frozen=True)
class Entry:
    """Bytes with the media type that they were put with."""

    media_type: str
    body: bytes

    @cached_property
    def tag(self) -> str:
        """A hash of the bytes and the media type."""
        return hashlib.sha256(self.pack()).hexdigest()[:32]

    def pack(self) -> bytes:
        """The entry as bytes, which every memory artifact can hold, and whose size it knows."""
        return b"".join([_MARK, self.media_type.encode(), b"\0", self.body])

    def open(self) -> Any:
        """The value that the bytes encode: of JSON, or the tensors and values of a safetensors message by name.

        Raises:
            NotAcceptable: another media type, or the bytes are not what theirs says.
        """
        from zerocost.core import safetensors  # `import zerocost` does not load orjson

        try:
            if self.media_type == "application/json":
                return read_json(self.body, max_values=len(self.body))
            if self.media_type == safetensors.MEDIA_TYPE:
                return safetensors.from_bytes(self.body)
        except ZerocostError as error:
            raise NotAcceptable(f"what is stored is not valid {self.media_type} ({error})", "key") from None
        raise NotAcceptable(f"{self.media_type} is stored there; get it from /services/memory/entries/", "key")

    @property
    def has_value(self) -> bool:
        """Whether the media type is one that :meth:`open` decodes."""
        from zerocost.core.safetensors import MEDIA_TYPE

        return self.media_type in ("application/json", MEDIA_TYPE)

    @classmethod
    def unpack(cls, value: Any) -> Any:
        """The entry that :meth:`pack` made bytes of; any other value as it is."""
        if not isinstance(value, bytes) or not value.startswith(_MARK):
            return value
        media_type, _, body = value[len(_MARK) :].partition(b"\0")
        return cls(media_type.decode(), body)
