"""Endpoints of service methods: the fields of a request follow from the signature."""

import asyncio
import threading
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from zerocost import DatatypeError, MissingInput, RangeError, UndeclaredInput, default_registry
from zerocost.core.limits import Limits
from zerocost.services.endpoints import Endpoint
from zerocost.services.memory_service import MemoryService
from zerocost.services.model_service import SimplifiedModelService
from zerocost.services.request_context import request_context
from zerocost.services.service import Service
from zerocost.services.tokenizer_service import TokenizerService

REMOTE = Limits(elements=1 << 20, fan_out=10, parts=10, operations=1 << 20)


class Greeter(Service):
    """Says hello."""

    def greet(
        self,
        name: str,
        *,
        times: Annotated[int, {"minimum": 1}] = 1,
        seconds: float | None = None,
        shout: Annotated[bool, {"x-in-process": True}] = False,
    ) -> str:
        """Greets.

        Args:
            name: who is greeted.
        """
        return f"{threading.current_thread().name.split('_')[0]}: {'hello ' * times}{name}, {seconds}"

    def remember(self, what: str, anything: Annotated[Any, {"type": "string"}] = "", **params: Any) -> None:
        """Remembers."""

    post_greet = Endpoint(greet, lambda text: text.upper())

    @Endpoint.of(remember, unchecked=("anything",))
    async def post_remember(self, data, limits=None):
        """Records its arguments."""
        return {"output": (data["what"], data.get("params", {}), data.get("anything"), limits)}


def test_fields_are_those_of_the_signature():
    fields = Greeter.post_greet
    assert (fields.name, fields.summary(Greeter)) == ("greet", "Greets.")
    assert fields.schema["properties"] == {
        "name": {"type": "string", "description": "who is greeted."},
        "times": {"type": "integer", "minimum": 1, "default": 1},
        "seconds": {"type": ["number", "null"], "default": None},
    }
    assert fields.schema["required"] == ["name"]
    assert fields.schema["additionalProperties"] is False
    remember = Greeter.post_remember.schema
    assert remember["properties"] == {
        "what": {"type": "string"},
        "anything": {"type": "string", "default": ""},
        "params": {"type": "object"},
    }
    assert remember["required"] == ["what"]
    assert {"greet", "remember", "use_artifact", "stop_artifact", "active_artifacts"} == Greeter.endpoints().keys()
    assert Greeter.post_greet.__name__ == "post_greet"
    assert Greeter.post_remember.__doc__ == "Records its arguments."


def ask(post, data, limits=None):
    return asyncio.run(post(data, limits))


@pytest.mark.parametrize(
    ("data", "kind", "where"),
    [
        ({}, MissingInput, "/name"),
        ({"name": "a", "tims": 1}, UndeclaredInput, "/tims"),
        ({"name": 1}, DatatypeError, "/name"),
        ({"name": "a", "times": 0}, RangeError, "/times"),
        ({"name": "a", "shout": True}, UndeclaredInput, "/shout"),
        ({"name": "a", "seconds": "soon"}, DatatypeError, "/seconds"),
        ({"name": "a", "seconds": "Infinity"}, DatatypeError, "/seconds"),
        ([], DatatypeError, ""),
    ],
)
def test_errors_name_the_invalid_field(data, kind, where):
    with pytest.raises(kind) as refused:
        ask(Greeter(default_registry()).post_greet, data)
    assert [pointer for pointer, _ in refused.value.errors] == [where]


def test_the_method_is_called_with_the_request_s_fields():
    service = Greeter(default_registry())
    assert ask(service.post_greet, {"name": "a", "times": 2}) == {"output": "ASYNCIO: HELLO HELLO A, NONE"}
    # Over a network infinity is a text, where a number is declared.
    assert ask(service.post_greet, {"name": "b", "seconds": "Infinity"}, REMOTE)["output"].endswith("HELLO B, INF")
    assert ask(service.post_remember, {"what": "a", "params": {"b": 1}}) == {"output": ("a", {"b": 1}, None, None)}
    # The method checks this field itself.
    assert ask(service.post_remember, {"what": "a", "anything": 3})["output"][2] == 3
    with pytest.raises(MissingInput):
        ask(service.post_remember, {})


@dataclass(frozen=True)
class Sum:
    numbers: list[int]
    note: str | None = None

    @property
    def total(self) -> int:
        return sum(self.numbers)


class Sums(Service):
    def one(self) -> Sum | list[Sum]: ...

    def unknown(self) -> "OnlyForTypeCheckers": ...  # noqa: F821

    def silent(self): ...

    post_one, post_unknown, post_silent = Endpoint(one), Endpoint(unknown), Endpoint(silent)


def test_the_output_is_described_by_the_type_of_the_result():
    fields = {
        "numbers": {"type": "array", "items": {"type": "integer"}},
        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "total": {"type": "integer"},
    }
    one = {"type": "object", "properties": fields, "required": ["numbers", "total"]}
    assert Sums.post_one.output_schema == {"anyOf": [one, {"type": "array", "items": one}]}
    assert Sums.post_unknown.output_schema == Sums.post_silent.output_schema == {}
    assert Sums.post_silent.summary(Sums) == ""


def test_it_is_done_where_the_server_says():
    jobs = []

    async def run(job):
        jobs.append(job)
        return job()

    async def both():
        with request_context(None, run):
            return await Greeter(default_registry()).post_greet({"name": "a"})

    assert asyncio.run(both())["output"].startswith("MAINTHREAD")
    assert len(jobs) == 1


def test_every_method_of_the_services_has_an_endpoint():
    endpoints = {kind: kind.endpoints().keys() for kind in (SimplifiedModelService, TokenizerService, MemoryService)}
    shared = {"use_artifact", "stop_artifact", "active_artifacts"}
    assert endpoints[SimplifiedModelService] == shared | {"forward", "embed"}
    assert endpoints[TokenizerService] == shared | {"encode", "decode", "count"}
    assert endpoints[MemoryService] == shared | {"get", "put", "delete", "clear", "stats"}
    for kind, names in endpoints.items():
        public = {
            name
            for name in vars(kind)
            if not name.startswith(("_", "post_")) and name not in ("embed_and_count", "interfaces")
        }
        assert public - shared <= names, kind
