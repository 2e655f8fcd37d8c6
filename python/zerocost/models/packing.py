"""A batch without padding: the tokens of all sequences end to end, with sequences of one length side by side."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.errors import DatatypeError, InvalidInput, RangeError, ShapeError
from zerocost.models.architecture import Architecture

__all__ = ["Bucket", "Packed", "is_batch", "positions_of", "read_sequences"]

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Bucket:
    """Packed sequences of one length: ``count`` times ``length`` rows from ``start`` on.

    Attributes:
        first: the index of the first one among the packed sequences.
    """

    first: int
    start: int
    count: int
    length: int

    @property
    def stop(self) -> int:
        """The row after the last one."""
        return self.start + self.count * self.length


@dataclass(frozen=True)
class Packed:
    """The tokens of several sequences, shorter sequences first.

    Attributes:
        ids: the token ids, one row of the packed batch each.
        positions: the row of the position table of each token.
        order: the index of each packed sequence among the given ones.
        offsets: the first row of each packed sequence, and the end.
    """

    ids: Ints
    positions: Ints
    order: Ints
    offsets: Ints

    @classmethod
    def of(cls, sequences: Sequence[tuple[Ints, Ints]]) -> Packed:
        """Packs the ids and positions of sequences that have at least one token each."""
        lengths = np.array([len(ids) for ids, _ in sequences], np.int64)
        order = np.argsort(lengths, kind="stable")
        return cls(
            ids=np.concatenate([sequences[index][0] for index in order]),
            positions=np.concatenate([sequences[index][1] for index in order]),
            order=order,
            offsets=np.concatenate([[0], np.cumsum(lengths[order])]),
        )

    @property
    def tokens(self) -> int:
        """The number of tokens."""
        return len(self.ids)

    def buckets(self, first: int, last: int) -> Iterator[Bucket]:
        """The packed sequences from ``first`` to ``last`` (not included), grouped by length."""
        offsets = self.offsets[first : last + 1]
        lengths = np.diff(offsets)
        cuts = [0, *(np.flatnonzero(np.diff(lengths)) + 1).tolist(), len(lengths)]
        for begin, end in itertools.pairwise(cuts):
            yield Bucket(first + begin, int(offsets[begin]), end - begin, int(lengths[begin]))


def read_sequences(input_ids: Any, attention_mask: Any, architecture: Architecture) -> list[tuple[Ints, Ints]]:
    """The ids and positions of each sequence, from one list, several lists or an array.

    Args:
        input_ids: whole numbers: ``[n]``, lists of different lengths, or ``[batch, n]``.
        attention_mask: 0 or 1 for each token, or None; tokens with 0 are left out.
        architecture: the vocabulary, the number of positions, and how positions are counted.

    Raises:
        DatatypeError: something other than whole numbers was given.
        ShapeError: the mask does not have the shape of the ids.
        RangeError: the model does not have an id, a sequence is empty or too long, or the mask has other numbers.
    """
    sequences = _nested(input_ids, "input_ids")
    masks: list[Any] = [None] * len(sequences)
    if attention_mask is not None:
        masks = _nested(attention_mask, "attention_mask")
        if len(masks) != len(sequences):
            raise ShapeError(
                f"attention_mask: {len(masks)} masks were given for {len(sequences)} sequences", "attention_mask"
            )
    return [
        _sequence(ids, mask, index, architecture)
        for index, (ids, mask) in enumerate(zip(sequences, masks, strict=True))
    ]


def positions_of(ids: Ints, padding: int | None) -> Ints:
    """The row of each token in the position table, counted as Hugging Face does.

    Args:
        ids: ``[n]``, with padding and masked tokens.
        padding: see :class:`zerocost.models.architecture.Architecture`.
    """
    if padding is None:
        return np.arange(len(ids), dtype=np.int64)
    others = ids != padding
    rows: Ints = np.cumsum(others) * others + padding
    return rows


def is_batch(input_ids: Any) -> bool:
    """Whether several sequences were given."""
    if isinstance(input_ids, np.ndarray):
        return input_ids.ndim > 1
    return bool(len(input_ids)) and isinstance(input_ids[0], list | tuple | np.ndarray)


def _nested(values: Any, argument: str) -> list[Any]:
    if not isinstance(values, list | tuple | np.ndarray):
        raise DatatypeError(
            f"{argument}: {type(values).__name__} was given, a list of whole numbers or several such lists are needed",
            argument,
        )
    if isinstance(values, np.ndarray) and values.ndim not in (1, 2):
        raise ShapeError(f"{argument}: shape {list(values.shape)} was given, [n] or [batch, n] is needed", argument)
    if len(values) == 0:
        raise InvalidInput(f"{argument}: nothing was given, at least one token is needed", argument)
    return list(values) if is_batch(values) else [values]


def _sequence(ids: Any, mask: Any, index: int, architecture: Architecture) -> tuple[Ints, Ints]:
    tokens = _whole_numbers(ids, "input_ids", index)
    rows = positions_of(tokens, architecture.padding)
    if mask is not None:
        flags = _whole_numbers(mask, "attention_mask", index, "iub")
        if flags.shape != tokens.shape:
            raise ShapeError(
                f"attention_mask: {len(flags)} numbers were given for the {len(tokens)} tokens of sequence {index}",
                "attention_mask",
            )
        if not np.isin(flags, (0, 1)).all():
            raise RangeError(f"attention_mask: sequence {index} has numbers other than 0 and 1", "attention_mask")
        kept = np.flatnonzero(flags)
        tokens, rows = tokens[kept], rows[kept]
    if not len(tokens):
        raise RangeError(f"input_ids: sequence {index} is empty, at least one token is needed", "input_ids")
    first = 0 if architecture.padding is None else architecture.padding + 1
    last = int(rows.max()) - first
    if last >= architecture.positions:
        raise RangeError(
            f"input_ids: sequence {index} has {last + 1} tokens, the model has {architecture.positions} positions",
            "input_ids",
        )
    low, high = int(tokens.min()), int(tokens.max())
    if low < 0 or high >= architecture.vocabulary:
        wrong = low if low < 0 else high
        raise RangeError(
            f"input_ids: sequence {index} has the id {wrong}, ids from 0 to {architecture.vocabulary - 1} are allowed",
            "input_ids",
        )
    return tokens, rows


def _whole_numbers(values: Any, argument: str, index: int, kinds: str = "iu") -> Ints:
    try:
        array = np.asarray(values)
    except ValueError as error:
        raise DatatypeError(f"{argument}: sequence {index} is nested too deeply", argument) from error
    if array.ndim != 1:
        raise ShapeError(f"{argument}: sequence {index} has shape {list(array.shape)}, [n] is needed", argument)
    if array.dtype.kind not in kinds and array.size:
        raise DatatypeError(f"{argument}: sequence {index} holds {array.dtype}, whole numbers are needed", argument)
    return array.astype(np.int64)
