"""The exceptions of zerocost: one tree, built-in parents, a stable code word each.

Every class has a ``code`` that never changes: problem documents carry it, and clients find the class by it. Every class
also has the built-in parent that callers expect, so ``except ValueError`` works. An error about an argument says what
was given and what is allowed; ``argument`` is its name.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from typing import Any

__all__ = [
    "DatatypeError",
    "DeadlineExceeded",
    "DuplicateArtifact",
    "FileError",
    "InvalidInput",
    "InvalidModel",
    "InvalidOutput",
    "InvalidSchema",
    "KernelPanic",
    "LimitExceeded",
    "MalformedJSON",
    "MissingInput",
    "NotAcceptable",
    "OutOfMemory",
    "OverlapError",
    "PlanError",
    "PluginError",
    "PreconditionFailed",
    "RangeError",
    "ServiceUnavailable",
    "ShapeError",
    "UndeclaredInput",
    "UnknownArtifact",
    "UnknownKey",
    "UnknownOperation",
    "Unsupported",
    "ZerocostError",
]
"""Every exception, which are names of the package too."""


class Place(str):
    """A note on an exception that says where it happened: in which step, layer, stage or shard.

    A server tells its clients these notes and no others.
    """

    __slots__ = ()


_LONGEST_NAME = 100
_CLASSES: dict[str, type[ZerocostError]] = {}


class ZerocostError(Exception):
    """The root of every error that zerocost raises on purpose."""

    code = "error"

    def __init_subclass__(cls, code: str | None = None, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if code is not None:
            cls.code = code
        _CLASSES.setdefault(cls.code, cls)

    def __init__(self, message: str = "", argument: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.argument = argument

    def __str__(self) -> str:
        # KeyError would print the repr of its argument.
        return self.message


_CLASSES[ZerocostError.code] = ZerocostError


class InvalidInput(ZerocostError, ValueError, code="invalid_input"):
    """An input breaks the artifact's schema or a rule of its kernel.

    ``errors`` lists every violation as (JSON pointer, message).
    """

    def __init__(
        self, message: str = "", argument: str | None = None, errors: list[tuple[str, str]] | None = None
    ) -> None:
        super().__init__(message, argument)
        whole = "" if argument is None else pointer(argument)
        # A user's artifact may give names instead of pointers.
        rooted = [(where if where[:1] in ("", "/") else f"/{where}", text) for where, text in errors or ()]
        self.errors = [(whole, message)] if errors is None else rooted


def pointer(*path: str | int) -> str:
    """The JSON pointer (RFC 6901) of a path."""
    return "".join("/" + str(part).replace("~", "~0").replace("/", "~1") for part in path)


def unescaped(part: str) -> str:
    """A part of a JSON pointer (RFC 6901) as the name that it stands for."""
    return part.replace("~1", "/").replace("~0", "~")


def shortened(name: str) -> str:
    """A caller's name, cut to the length that a message needs."""
    return name if len(name) <= _LONGEST_NAME else f"{name[:_LONGEST_NAME]}…"


def closest(name: str, names: Iterable[str]) -> str:
    """The end of a message about an unknown name: the nearest known ones, or all if there are few."""
    known = sorted(names)
    # The comparison takes time in the product of the lengths.
    near = difflib.get_close_matches(name[:_LONGEST_NAME], known, n=3, cutoff=0.6)
    if near:
        return f"did you mean {' or '.join(repr(candidate) for candidate in near)}?"
    if not known:
        return "there are none"
    if len(known) <= 12:
        return f"there are {', '.join(repr(candidate) for candidate in known)}"
    return f"there are {len(known)} others"


def merged(problems: Sequence[InvalidInput]) -> InvalidInput:
    """One exception for several: of their class if they share one, with every message and pointer."""
    if len(problems) == 1:
        return problems[0]
    kinds = {type(problem) for problem in problems}
    kind = kinds.pop() if len(kinds) == 1 else InvalidInput
    errors = [error for problem in problems for error in problem.errors]
    return kind("; ".join(problem.message for problem in problems), errors=errors)


class MissingInput(InvalidInput, code="missing_input"):
    """A required input was not given."""


class UndeclaredInput(InvalidInput, TypeError, code="undeclared_input"):
    """A key that the artifact's schema does not declare; the message suggests the nearest one."""


class ShapeError(InvalidInput, code="shape"):
    """A rank or a shape that does not fit."""


class DatatypeError(InvalidInput, TypeError, code="datatype"):
    """A value of a type or dtype that is not allowed."""


class RangeError(InvalidInput, code="range"):
    """A number or a word outside the allowed range."""


class OverlapError(InvalidInput, code="overlap"):
    """An ``out`` that shares memory with an input, or with itself, in a way that is not supported."""


class UnknownOperation(InvalidInput, code="unknown_operation"):
    """An operation that a memory artifact does not have."""


class NotAcceptable(InvalidInput, code="not_acceptable"):
    """A stored value cannot be sent in the requested form."""


class UnknownArtifact(ZerocostError, KeyError, ValueError, code="unknown_artifact"):
    """No artifact is registered under that name."""


class UnknownKey(ZerocostError, KeyError, code="unknown_key"):
    """Nothing is stored under that key."""


class PreconditionFailed(ZerocostError, ValueError, code="precondition_failed"):
    """The stored value is not the one that a conditional change expects; nothing was changed."""


class Unsupported(ZerocostError, NotImplementedError, code="unsupported"):
    """Something that the active artifact cannot do."""


class DuplicateArtifact(ZerocostError, ValueError, code="duplicate_artifact"):
    """The name is taken and ``replace=True`` was not given."""


class InvalidSchema(ZerocostError, ValueError, code="invalid_schema"):
    """An artifact's ``get_schema()`` is not a valid JSON Schema 2020-12, or has invalid ``x-`` keywords."""


class InvalidOutput(ZerocostError, TypeError, code="invalid_output"):
    """An artifact returned something other than a dict of its outputs, a coroutine for example."""


class InvalidModel(ZerocostError, ValueError, code="invalid_model"):
    """A model folder that cannot be used: a missing or truncated file, an unknown architecture, a wrong tensor."""


class PluginError(ZerocostError, ImportError, code="plugin"):
    """A third-party artifact could not be loaded."""


class PlanError(ZerocostError, ValueError, code="plan"):
    """A chain that cannot be wired. ``step`` is an index; ``artifact`` and ``port`` say where in it the problem is."""

    def __init__(
        self,
        message: str = "",
        argument: str | None = None,
        *,
        step: int | None = None,
        artifact: str | None = None,
        port: str | None = None,
    ) -> None:
        super().__init__(message, argument)
        self.step = step
        self.artifact = artifact
        self.port = port


class FileError(ZerocostError, ValueError, code="file"):
    """A file that is missing, cannot be read or written, or is not what its suffix says."""


class MalformedJSON(ZerocostError, ValueError, code="malformed_json"):
    """Text that is not JSON."""


class LimitExceeded(ZerocostError, ValueError, code="limit"):
    """More than a configured limit allows: bytes, elements, steps, depth."""


class DeadlineExceeded(ZerocostError, TimeoutError, code="deadline"):
    """The deadline in the execution context has passed."""


class ServiceUnavailable(ZerocostError, ConnectionError, code="unavailable"):
    """Something on a network does not answer."""


class OutOfMemory(ZerocostError, MemoryError, code="out_of_memory"):
    """The system does not give the memory that a call needs besides its inputs and its result.

    Nothing has been computed, and an ``out`` that is also the input is unchanged.
    """


class KernelPanic(ZerocostError, RuntimeError, code="kernel_panic"):
    """A bug in a kernel. The process goes on; please report it."""


def error_class(code: str) -> type[ZerocostError]:
    """The class with this ``code``; :class:`ZerocostError` if there is none."""
    return _CLASSES.get(code, ZerocostError)
