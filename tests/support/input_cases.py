"""Right and wrong inputs made from a schema, and their outcomes, which must be the same on every call path."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from support.equality import same_values
from zerocost.core.datatypes import dtype_of
from zerocost.core.generated_input import generated_input
from zerocost.errors import InvalidInput


@dataclass(frozen=True)
class Case:
    """One input of one artifact."""

    artifact: str
    what: str
    inputs: dict[str, Any]

    def __str__(self):
        return f"{self.artifact}-{self.what}"


@dataclass(frozen=True)
class Refused:
    """An exception as every call path shows it."""

    kind: type
    code: str
    pointers: tuple[str, ...]
    message: str

    @classmethod
    def of(cls, error: InvalidInput):
        return cls(type(error), error.code, tuple(where for where, _ in error.errors), error.message)

    def moved(self, prefix: str):
        """The same where its input stands below ``prefix``."""
        return Refused(self.kind, self.code, tuple(prefix + where for where in self.pointers), self.message)


def outcome(call: Callable[[], Any]):
    try:
        return call()
    except InvalidInput as error:
        return Refused.of(error)


def agree(found, expected):
    """Same bits, or same class, code and pointers."""
    if isinstance(expected, Refused):
        return isinstance(found, Refused) and (found.kind, found.code, found.pointers) == (
            expected.kind,
            expected.code,
            expected.pointers,
        )
    return not isinstance(found, Refused) and same_values(found, expected)


MEMORY = ("lru_cache", "shelf")


def cases(registry) -> Iterator[Case]:
    for name in registry:
        yield from cases_of(name, registry[name].ports)


def cases_of(name, ports) -> Iterator[Case]:
    schema = ports.schema
    base = {"operation": "get", "key": "a"} if name in MEMORY else generated_input(schema, seed=5)
    put = lambda what, **values: Case(name, what, {**base, **values})  # noqa: E731 - a table
    yield put("generated")
    if name in MEMORY:
        yield Case(name, "stored", {"operation": "put", "key": "a", "value": {"x": [1, 2.5, "text", None]}})
        yield put("read")
        yield Case(name, "no operation", {"key": "a"})
        yield Case(name, "unknown operation", {"operation": "burn"})
        yield Case(name, "operation of another type", {"operation": 3})
        yield Case(name, "no key", {"operation": "get"})
        yield Case(name, "no value", {"operation": "put", "key": "a"})
        yield Case(name, "key of another kind", {"operation": "get", "key": ["a"]})
    for required in ports.required:
        yield Case(name, f"no {required}", {key: base[key] for key in base if key != required})
    yield put("undeclared", no_such_input=1)
    for declared, subschema in ports.inputs.items():
        if declared in ports.in_process or name in MEMORY:
            continue
        if len(declared) > 3:
            misspelt = declared[0] + declared[2:]
            yield put(f"misspelt {declared}", **{misspelt: base.get(declared, 1)})
        values = tensors_of(base.get(declared), subschema) if "x-tensor" in subschema else parameters_of(subschema)
        for what, value in values:
            yield put(f"{declared} {what}", **{declared: value})


def parameters_of(subschema) -> Iterator[tuple[str, Any]]:
    """Values inside and outside of what a parameter's subschema allows."""
    if "default" in subschema:
        yield "default", subschema["default"]
    for option in [*subschema.get("anyOf", []), subschema]:
        kinds = option.get("type", [])
        kinds = [kinds] if isinstance(kinds, str) else kinds
        for keyword, outwards in (("minimum", -1), ("maximum", 1), ("exclusiveMinimum", -1), ("exclusiveMaximum", 1)):
            if keyword in option:
                yield f"at {keyword}", option[keyword]
                yield f"beyond {keyword}", option[keyword] + outwards
                yield f"within {keyword}", option[keyword] - outwards * (1 if "integer" in kinds else 0.125)
        if "enum" in option:
            yield from ((f"= {value}", value) for value in option["enum"])
        if "integer" in kinds:
            yield "NumPy's", np.int16(2)
            yield "whole float", 2.0
            yield "fraction", 2.5
        if "number" in kinds:
            yield "NumPy's", np.float32(0.1)
            yield "infinite", float("inf")
            yield "not a number", float("nan")
        if "array" in kinds:
            yield "list", [1, 2]
            yield "short list", [1]
            yield "list of text", ["a", "b"]
        if "object" in kinds:
            yield "object", {"deep": 3}
            yield "deep", {"deep": 6}
            yield "deeper", {"deep": "x", "other": 1}
    if any(key in subschema for key in ("type", "enum", "anyOf", "const")):
        yield "text", "UPPER and lower"
        yield "another object", {"declared": ["no", None]}
        yield "boolean", True
        yield "NumPy's boolean", np.True_
        yield "null", None
        yield "number", 0.5
        yield "huge", 10**30


def tensors_of(given, subschema) -> Iterator[tuple[str, Any]]:
    """Tensors that fit and tensors that do not."""
    tensor = subschema["x-tensor"]
    datatypes, shape = tensor.get("datatypes"), tensor.get("shape")
    if given is not None:
        yield "as lists", given.tolist()
        yield "transposed", given.swapaxes(-1, -2) if given.ndim > 1 else given[::-1]
        for datatype in ("FP64", "FP32", "FP16", "INT32", "UINT8", "BOOL"):
            with np.errstate(invalid="ignore"):
                yield f"as {datatype}", given.astype(dtype_of(datatype))
        yield "with one axis more", given[None]
        yield "with an entry too few", given[..., :-1]
    if shape is not None:
        yield "of one axis", [1.0]
        yield "of no rows", np.zeros((0,) * len(shape), dtype_of(datatypes[0] if datatypes else "FP64"))
    yield "number", 1.5
    yield "text", "a matrix"
    yield "null", None
    yield "another object", {"not": ["a", "tensor"]}
    yield "ragged", [[1.0, 2.0], [3.0]]
    yield "list of text", [["a", "b"]]
    yield "list with null", [[1.0, None]]
    yield "list of booleans", [[True, False], [False, False]]
    yield "numbers and booleans", [[0.5, True]]
    yield "large numbers", [[1e300, 2.0], [2**70, -1e300]]
