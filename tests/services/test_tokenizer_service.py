"""The tokenizer service."""

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from support.service_artifacts import Dict
from zerocost import DatatypeError, InvalidInput, RangeError, TokenizerService, default_registry


@pytest.fixture
def service():
    return TokenizerService(default_registry())


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_every_text_comes_back(text):
    service = TokenizerService(default_registry())
    encoding = service.encode(text)
    assert service.decode(encoding.input_ids) == text
    assert encoding.tokens == len(encoding.input_ids) == service.count(text) == len(text.encode()) + 2
    assert not encoding.truncated


def test_one_text_or_several(service):
    one, several = service.encode("ab"), service.encode(["ab", "", "図"])
    assert several[0] == one
    assert service.count(["ab", "", "図"]) == [4, 2, 5]
    assert service.encode([]) == []


def test_truncation_is_reported(service):
    encoding = service.encode("abcdef", max_tokens=5)
    assert (encoding.truncated, encoding.tokens, len(encoding.input_ids)) == (True, 8, 5)
    assert service.decode(encoding.input_ids) == "abc"
    assert service.count("abcdef") == 8


@pytest.mark.parametrize("limit", [0, -1, 1, 1.5, True])
def test_a_limit_without_room_is_refused(service, limit):
    with pytest.raises(RangeError, match="max_tokens"):
        service.encode("a", max_tokens=limit)


def test_values_that_are_not_text_are_refused(service):
    for wrong in (None, 1, b"bytes", ["a", b"b"], [1]):
        with pytest.raises(DatatypeError, match="text"):
            service.encode(wrong)
    with pytest.raises(InvalidInput, match="UTF-8"):
        service.count("\udc80")
    for wrong in ("12", [1.0], [True]):
        with pytest.raises(DatatypeError, match="whole numbers"):
            service.decode(wrong)
    assert service.decode(np.array([1, 100, 2])) == service.decode([np.int32(1), 100, 2]) == "a"
    for wrong in (np.array([1.0]), np.array([[1]]), np.array([True])):
        with pytest.raises(DatatypeError, match="whole numbers"):
            service.decode(wrong)
    with pytest.raises(RangeError, match="259"):
        service.decode([259])


def test_a_memory_artifact_caches_encodings(service):
    registry = default_registry()
    memory = Dict()
    registry.register_artifact("dict", memory, "memory")
    service = TokenizerService(registry)
    service.use_artifact("dict")
    first = service.encode(["a", "bc"], max_tokens=3)
    assert len(memory.entries) == 2
    encoded = []
    inner = service.tokenizer.encode
    service.tokenizer.encode = lambda texts, limit: encoded.extend(texts) or inner(texts, limit)
    assert service.encode(["bc", "new", "a"], max_tokens=3) == [
        first[1],
        *service.encode(["new"], max_tokens=3),
        first[0],
    ]
    assert encoded == ["new"]
    assert service.encode("bc").input_ids != first[1].input_ids  # another limit is another entry
    assert not any(isinstance(key, str) for key in memory.entries)
    service.stop_artifact("memory")
    with pytest.raises(RangeError, match="interface"):
        service.use_artifact("tensor_parallel")


def test_methods_for_requests(service):
    async def ask():
        encoded = await service.post_encode({"texts": ["ab"], "max_tokens": 3})
        assert encoded == {"output": [{"input_ids": [1, 100, 2], "tokens": 4, "truncated": True}]}
        assert await service.post_decode({"input_ids": [1, 100, 2]}) == {"output": "a"}
        assert await service.post_count({"texts": "ab"}) == {"output": 4}
        with pytest.raises(InvalidInput, match="texts required"):
            await service.post_encode({})

    asyncio.run(ask())
