"""Outputs of third-party artifacts are checked, so none becomes a wrong vector; errors name artifact and layer."""

import ml_dtypes
import numpy as np
import pytest

from support.service_artifacts import Dict
from zerocost import (
    AttentionArtifact,
    DatatypeError,
    InvalidInput,
    ParallelArtifact,
    ShapeError,
    SimplifiedModelService,
    TokenizerService,
    default_registry,
)

IDS = [[1, 70, 2], [1, 71, 72, 2], [1, 73, 2]]


def refused(call, kind, *words):
    """The error of ``call`` with its notes, as text; it must contain the words."""
    with pytest.raises(kind) as caught:
        call()
    told = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for word in words:
        assert word in told
    return told


def service_with(artifact, interface):
    registry = default_registry()
    registry.register_artifact("bad", artifact, interface)
    service = SimplifiedModelService(registry)
    service.use_artifact("bad")
    return service


class Attends(AttentionArtifact):
    """Returns its parameter's value."""

    def __init__(self, change):
        self.change = change

    def process_attention(self, attention_matrix):
        return self.change(attention_matrix)


class Multiplies(ParallelArtifact):
    """A linear layer whose product is changed."""

    def __init__(self, change):
        self.change = change

    def process_parallel(self, tensor, weight=None):
        return self.change(tensor @ weight)


def raises(kind):
    def change(array):
        raise kind("not today")

    return change


def with_nan(array):
    array = array.copy()
    array[..., -1] = np.nan
    return array


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (lambda weights: weights[..., :-1], ShapeError, "shape"),
        (lambda weights: weights + 1j, DatatypeError, "complex64"),
        (lambda weights: weights.astype(str), DatatypeError, "<U"),
        (lambda weights: [[1, 2], [3]], InvalidInput, "cannot become an array"),
        (lambda weights: None, DatatypeError, "object"),
        (with_nan, InvalidInput, "NaN"),
        (lambda weights: weights * np.inf, InvalidInput, "NaN"),
        (raises(ValueError), ValueError, "not today"),
        (raises(RuntimeError), RuntimeError, "not today"),
    ],
)
def test_attention(change, kind, word):
    service = service_with(Attends(change), "attention")
    refused(lambda: service.forward(IDS), kind, word, "'bad'", "in layer 0, through the attention artifact")


@pytest.mark.parametrize(
    ("change", "kind", "word"),
    [
        (lambda product: product[:-1], ShapeError, "shape"),
        (lambda product: product.T, ShapeError, "shape"),
        (lambda product: [product[:, :10], product[:, :-9]], ShapeError, "shape"),
        (lambda product: [product[:, :10], product[:1, 10:]], ShapeError, "shape"),
        (lambda product: [], ShapeError, "shape"),
        (lambda product: product[0, 0], ShapeError, "shape"),
        (lambda product: product + 1j, DatatypeError, "complex64"),
        (lambda product: product.astype(np.int64), DatatypeError, "int64"),
        (lambda product: product.astype(object), DatatypeError, "object"),
        (lambda product: [[1, 2], [3]], InvalidInput, "int64"),
        (lambda product: "rubbish", DatatypeError, "<U"),
        (lambda product: None, DatatypeError, "object"),
        (with_nan, InvalidInput, "NaN"),
        (lambda product: product * np.inf, InvalidInput, "NaN"),
        (raises(ValueError), ValueError, "not today"),
        (raises(ZeroDivisionError), ZeroDivisionError, "not today"),
    ],
)
def test_sharded_layers(change, kind, word):
    service = service_with(Multiplies(change), "parallel")
    refused(lambda: service.forward(IDS), kind, word, "'bad'", "in layer 0", "through the parallel artifact")


PRECISIONS = [(np.float64, 5e-6), (np.float16, 0.02), (ml_dtypes.bfloat16, 0.2)]


@pytest.mark.parametrize(("dtype", "atol"), PRECISIONS)
def test_shards_of_another_precision_are_taken(dtype, atol):
    service = service_with(Multiplies(lambda product: (product.astype(dtype),)), "parallel")
    plain = SimplifiedModelService(default_registry()).forward(IDS)
    np.testing.assert_allclose(service.forward(IDS).pooled, plain.pooled, atol=atol)


@pytest.mark.parametrize(("dtype", "atol"), PRECISIONS)
def test_weights_of_another_precision_are_taken(dtype, atol):
    service = service_with(Attends(lambda weights: weights.astype(dtype)), "attention")
    plain = SimplifiedModelService(default_registry()).forward(IDS)
    np.testing.assert_allclose(service.forward(IDS).pooled, plain.pooled, atol=atol)


class Runs(ParallelArtifact):
    """Runs stages in the way that its parameter names."""

    def __init__(self, run):
        self.run = run

    def process_parallel(self, tensor, stages=None, num_stages: int = 2):
        return self.run(tensor, stages)


def through(tensor, stages):
    for stage in stages:
        tensor = stage(tensor)
    return tensor


@pytest.mark.parametrize(
    ("run", "kind", "word"),
    [
        (lambda tensor, stages: tensor, InvalidInput, "sequence 0 through 0 of 2 layers"),
        (lambda tensor, stages: stages[0](tensor), InvalidInput, "sequence 0 through 1 of 2 layers"),
        (lambda tensor, stages: (through(tensor[:2], stages), tensor)[1], InvalidInput, "sequence 2 through 0 of 2"),
        (lambda tensor, stages: through(tensor, stages[::-1]), InvalidInput, "sequence 0 through layer 1"),
        (lambda tensor, stages: through(tensor, [stages[0], *stages]), InvalidInput, "sequence 0 through layer 0"),
        (lambda tensor, stages: through(np.array([0, 1, 1, 2]), stages), InvalidInput, "sequence 1 through layer 0"),
        (lambda tensor, stages: through(tensor + 1, stages), InvalidInput, "sequences"),
        (lambda tensor, stages: through(tensor * 1.0, stages), InvalidInput, "sequences"),
        (lambda tensor, stages: through(tensor, stages)[::-1], InvalidInput, "returned"),
        (lambda tensor, stages: (through(tensor, stages), None)[1], InvalidInput, "returned"),
        (lambda tensor, stages: (through(tensor, stages), [[0], [1, 2]])[1], InvalidInput, "returned"),
        (lambda tensor, stages: raises(ValueError)(tensor), ValueError, "not today"),
    ],
)
def test_staged_layers(run, kind, word):
    service = service_with(Runs(run), "parallel")
    refused(lambda: service.forward(IDS), kind, word, "'bad'", "parallel")


def test_stages_may_see_the_sequences_in_any_parts():
    def run(tensor, stages):
        for part in (tensor[::2], tensor[1::2], tensor[:0]):
            through(part, stages)
        return tensor.copy()

    plain = SimplifiedModelService(default_registry()).forward(IDS)
    np.testing.assert_allclose(service_with(Runs(run), "parallel").forward(IDS).pooled, plain.pooled, atol=5e-6)


class Remembers(Dict):
    """Returns something else than it stored."""

    def __init__(self, change):
        super().__init__()
        self.change = change

    def retrieve(self, key):
        value = self.entries.get(key)
        return None if value is None else self.change(value)


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda value: value[:-1], InvalidInput),
        (lambda value: value[:, :-1], InvalidInput),
        (lambda value: value.astype(np.float64), InvalidInput),
        (lambda value: value.tolist(), InvalidInput),
        (lambda value: "rubbish", InvalidInput),
        (lambda value: with_nan(value), InvalidInput),
        (raises(ConnectionError), ConnectionError),
    ],
)
def test_memory(change, kind):
    service = service_with(Remembers(change), "memory")
    service.forward(IDS)
    refused(lambda: service.forward(IDS), kind, "'bad'")


@pytest.mark.parametrize(
    "change",
    [
        lambda value: value[:0],
        lambda value: "rubbish",
        lambda value: [float(item) for item in value],
        lambda value: [*value[:-1], None],
        lambda value: [1, *value[1:]],
        lambda value: [value[0], -1],
    ],
)
def test_memory_of_the_tokenizer(change):
    registry = default_registry()
    registry.register_artifact("bad", Remembers(change), "memory")
    service = TokenizerService(registry)
    service.use_artifact("bad")
    service.encode("text")
    refused(lambda: service.encode("text"), InvalidInput, "'bad'")
