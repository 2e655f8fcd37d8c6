"""The model service against a float64 reference, with every kind of artifact in its layers."""

import asyncio
import json

import numpy as np
import pytest

from support import minilm
from support.paths import shared_data
from support.service_artifacts import SENTENCES, FirstOnly, Probabilities, ids_of
from zerocost import (
    AttentionArtifact,
    DatatypeError,
    InvalidInput,
    RangeError,
    ShapeError,
    UnknownArtifact,
)
from zerocost.services.model_service import SimplifiedModelService


class Scores(AttentionArtifact):
    """Declares a normalization, so it gets scores."""

    def process_attention(self, attention_matrix, normalization: str = "none"):
        assert normalization == "softmax"
        weights = np.exp(attention_matrix - attention_matrix.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)


class Cropped(AttentionArtifact):
    """Returns the wrong shape."""

    def process_attention(self, attention_matrix):
        return attention_matrix[..., :-1]


class NaNs(AttentionArtifact):
    """Returns NaN."""

    def process_attention(self, attention_matrix):
        return np.full_like(attention_matrix, np.nan)


def reference(service, ids):
    """The forward pass of one sequence in float64, straight from the definition."""
    encoder, shape = service.model.encoder, service.model.encoder.architecture

    def norm(x, weights):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + shape.epsilon) * weights.weight + weights.bias

    def gelu(x):
        from math import erf

        return x * 0.5 * (1 + np.vectorize(erf)(x / np.sqrt(2)))

    ids = np.asarray(ids)
    x = encoder._words[ids].astype(np.float64) + encoder._positions[: len(ids)]
    x = norm(x, encoder._embedding_norm)
    size = shape.width // shape.heads
    for layer in encoder._layers:
        mixed = x @ layer.projections.weight.astype(np.float64) + layer.projections.bias
        q, k, v = (
            mixed[:, part * shape.width : (part + 1) * shape.width].reshape(-1, shape.heads, size).transpose(1, 0, 2)
            for part in range(3)
        )
        scores = q @ k.transpose(0, 2, 1) / np.sqrt(size)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        attended = (weights @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(x + attended @ layer.attended.weight.astype(np.float64) + layer.attended.bias, layer.attended_norm)
        inner = gelu(x @ layer.inner.weight.astype(np.float64) + layer.inner.bias)
        x = norm(x + inner @ layer.outer.weight.astype(np.float64) + layer.outer.bias, layer.outer_norm)
    return x


def test_the_forward_pass_is_its_definition_in_float64(service):
    sequences = ids_of(service)
    assert sequences
    for ids in sequences:
        output = service.forward(ids)
        wanted = reference(service, ids)
        np.testing.assert_allclose(output.last_hidden_state, wanted, atol=2e-5)
        np.testing.assert_allclose(output.pooled, wanted.mean(axis=0), atol=2e-5)


def test_the_built_in_model_says_that_it_is_untrained_and_is_the_same_everywhere(service, registry):
    output = service.forward([1, 70, 2])
    assert "untrained" in output.model
    assert output.trained is False
    assert output.to_dict()["trained"] is False
    np.testing.assert_array_equal(SimplifiedModelService(registry).forward([1, 70, 2]).pooled, output.pooled)


def test_batch_and_order_change_nothing(service):
    ids = ids_of(service)
    together = service.forward(ids)
    assert together.pooled.shape == (len(ids), 64)
    for index, alone in enumerate(service.forward(one) for one in ids):
        np.testing.assert_allclose(together.last_hidden_state[index], alone.last_hidden_state, atol=2e-6)
        np.testing.assert_allclose(together.pooled[index], alone.pooled, atol=2e-6)


def test_padding_with_a_mask_gives_the_same_numbers(service):
    ids = ids_of(service)
    longest = max(map(len, ids))
    padded = np.zeros((len(ids), longest), np.int64)
    mask = np.zeros((len(ids), longest), np.int64)
    for row, one in enumerate(ids):
        padded[row, : len(one)], mask[row, : len(one)] = one, 1
    plain, masked = service.forward(ids), service.forward(padded, mask)
    np.testing.assert_array_equal(plain.pooled, masked.pooled)
    assert [len(states) for states in masked.last_hidden_state] == [len(one) for one in ids]


def test_more_tokens_than_go_through_the_layers_at_once(service):
    ids = [[1, *range(3, 3 + 97), 2]] * 60
    output = service.forward(ids)
    assert output.usage["tokens"] == 60 * 99
    np.testing.assert_allclose(output.pooled, np.tile(service.forward(ids[0]).pooled, (60, 1)), atol=2e-6)


def test_a_third_party_attention_artifact_is_used_in_every_layer(service, registry):
    ids = ids_of(service)
    plain = service.forward(ids)
    artifact = Probabilities()
    registry.register_artifact("mine", artifact, "attention")
    service.use_artifact("mine")
    output = service.forward(ids)
    np.testing.assert_allclose(output.pooled, plain.pooled, atol=2e-6)
    assert len(artifact.seen) == len(ids) * service.model.encoder.architecture.layers
    for weights in artifact.seen:
        assert weights.shape[0] == service.model.encoder.architecture.heads
        assert weights.shape[1] == weights.shape[2]
        np.testing.assert_allclose(weights.sum(axis=-1), 1, atol=1e-6)


def test_the_returned_weights_multiply_the_values(service, registry):
    registry.register_artifact("first", FirstOnly(), "attention")
    plain = service.forward([1, 70, 71, 2])
    service.use_artifact("first", strength=0.0)
    nothing = service.forward([1, 70, 71, 2], output_attentions=True)
    assert not np.allclose(nothing.pooled, plain.pooled, atol=1e-3)
    assert len(nothing.attentions) == service.model.encoder.architecture.layers
    assert all((weights == 0).all() for weights in nothing.attentions)
    service.use_artifact("first")
    assert not np.allclose(service.forward([1, 70, 71, 2]).pooled, nothing.pooled, atol=1e-3)
    service.stop_artifact("attention")
    np.testing.assert_array_equal(service.forward([1, 70, 71, 2]).pooled, plain.pooled)


def test_an_artifact_that_declares_a_normalization_gets_scores(service, registry):
    registry.register_artifact("scores", Scores(), "attention")
    plain = service.forward(ids_of(service))
    service.use_artifact("scores")
    np.testing.assert_allclose(service.forward(ids_of(service)).pooled, plain.pooled, atol=2e-6)


def test_attend_of_a_built_in_equals_its_matrix(service, registry):
    """A window through ``attend`` and the same window on the matrix of weights."""

    class Window(AttentionArtifact):
        """Scores outside of two keys either side take no part."""

        def process_attention(self, attention_matrix, normalization: str = "none"):
            n = attention_matrix.shape[-1]
            apart = np.abs(np.subtract.outer(np.arange(n), np.arange(n))) > 2
            scores = np.where(apart, -np.inf, attention_matrix)
            weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
            return weights / weights.sum(axis=-1, keepdims=True)

    registry.register_artifact("window", Window(), "attention")
    ids = ids_of(service)
    service.use_artifact("scaled_dot_product_attention", window_size=[2, 2])
    fused = service.forward(ids, output_attentions=True)
    fused_alone = service.forward(ids)
    service.use_artifact("window")
    matrix = service.forward(ids, output_attentions=True)
    np.testing.assert_allclose(fused.pooled, matrix.pooled, atol=5e-6)
    np.testing.assert_allclose(fused.pooled, fused_alone.pooled, atol=5e-6)
    for one, other in zip(fused.attentions, matrix.attentions, strict=True):
        for a, b in zip(one, other, strict=True):
            np.testing.assert_allclose(a, b, atol=2e-6)


@pytest.mark.parametrize(
    ("artifact", "kind", "text"), [(Cropped(), ShapeError, "shape"), (NaNs(), InvalidInput, "NaN")]
)
def test_a_bad_attention_artifact_is_named_with_the_layer(service, registry, artifact, kind, text):
    registry.register_artifact("bad", artifact, "attention")
    service.use_artifact("bad")
    with pytest.raises(kind) as caught:
        service.forward([1, 70, 2])
    told = " ".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    assert "'bad'" in told
    assert "layer 0" in told
    assert text in told


@pytest.mark.parametrize(
    ("name", "params"),
    [("sparse_attention", {"sparsity_ratio": 0.5}), ("sliding_window_attention", {"window_size": 4})],
)
def test_the_built_in_matrix_artifacts_attend_as_on_the_matrix(service, registry, name, params):
    """Through ``attend``, and through the matrix of scores, which a third-party artifact gets."""
    implementation = registry[name].implementation

    class Matrix(AttentionArtifact):
        """Hands the scores to the built-in."""

        def process_attention(self, attention_matrix, normalization: str = "none"):
            return implementation.process_attention(attention_matrix, normalization=normalization, **params)

    registry.register_artifact("matrix", Matrix(), "attention")
    ids = ids_of(service)
    plain = service.forward(ids)
    service.use_artifact(name, **params)
    fused = service.forward(ids)
    service.use_artifact("matrix")
    matrix = service.forward(ids)
    np.testing.assert_allclose(fused.pooled, matrix.pooled, atol=1e-5)
    assert not np.allclose(fused.pooled, plain.pooled, atol=1e-3)


def test_artifacts_of_one_call_leave_the_others_alone(service, registry):
    registry.register_artifact("first", FirstOnly(), "attention")
    plain = service.forward([1, 70, 2])
    chosen = {"attention": {"artifact": "first", "params": {"strength": 0.5}}}
    assert not np.allclose(service.forward([1, 70, 2], artifacts=chosen).pooled, plain.pooled)
    np.testing.assert_array_equal(service.forward([1, 70, 2]).pooled, plain.pooled)
    service.use_artifact("first")
    np.testing.assert_array_equal(service.forward([1, 70, 2], artifacts={"attention": None}).pooled, plain.pooled)
    for wrong in (
        {"attention": "first"},
        {"attention": {"artifact": "lru_cache"}},
        {"attention": {"artifact": "first", "param": {}}},
        {"attention": {"artifact": "first", "params": {"strenght": 1}}},
        {"other": {"artifact": "first"}},
        [],
    ):
        with pytest.raises((InvalidInput, UnknownArtifact)):
            service.forward([1, 70, 2], artifacts=wrong)


def test_active_artifacts_are_the_specification_s(service, registry):
    assert service.active_artifacts == {}
    service.use_artifact("tensor_parallel", num_splits=3)
    active = service.active_artifacts
    assert active["parallel"]["artifact"] is registry["tensor_parallel"].implementation
    assert active["parallel"]["params"] == {"num_splits": 3}
    service.stop_artifact("parallel")
    assert service.active_artifacts == {}
    with pytest.raises(ValueError, match="Artifact nothing not found"):
        service.use_artifact("nothing")
    with pytest.raises(InvalidInput, match="num_split"):
        service.use_artifact("tensor_parallel", num_split=3)
    with pytest.raises(RangeError, match="interface"):
        service.stop_artifact("parallels")


def test_inputs_from_the_model_cannot_be_parameters(service, registry):
    class Out(AttentionArtifact):
        """Writes into ``out``."""

        def process_attention(self, attention_matrix, out=None):
            return attention_matrix

    registry.register_artifact("out", Out(), "attention")
    for name, taken in [("out", "out"), ("scaled_dot_product_attention", "out"), ("tensor_parallel", "weight")]:
        with pytest.raises(InvalidInput, match=f"{taken} comes from the model"):
            service.use_artifact(name, **{taken: np.zeros((3, 3), np.float32)})


@pytest.mark.parametrize(
    ("ids", "mask", "kind", "text"),
    [
        ([], None, InvalidInput, "at least one token"),
        ([[]], None, RangeError, "sequence 0 is empty"),
        ([[1, 2], []], None, RangeError, "sequence 1 is empty"),
        ([1, 259], None, RangeError, "259.*0 to 258"),
        ([1, -1], None, RangeError, "-1"),
        ([1] * 513, None, RangeError, "513 tokens.*512 positions"),
        ([1.5, 2.0], None, DatatypeError, "whole numbers"),
        ("text", None, DatatypeError, "str"),
        (["a"], None, DatatypeError, "whole numbers"),
        ([[[1]]], None, ShapeError, "shape"),
        (np.zeros((1, 1, 1), int), None, ShapeError, "shape"),
        ([1, 2], [1], ShapeError, "attention_mask"),
        ([1, 2], [1, 2], RangeError, "attention_mask"),
        ([1, 2], [0, 0], RangeError, "empty"),
        ([[1, 2], [1]], [[1, 1]], ShapeError, "1 masks.*2 sequences"),
        (None, None, DatatypeError, "NoneType"),
    ],
)
def test_wrong_ids_are_refused(service, ids, mask, kind, text):
    with pytest.raises(kind, match=text):
        service.forward(ids, mask)


def test_methods_for_requests(service):
    ids = ids_of(service)
    answer = asyncio.run(service.post_forward({"input_ids": ids, "attention_mask": None}))
    np.testing.assert_array_equal(answer["output"]["pooled"], service.forward(ids).pooled)
    assert "attentions" not in answer["output"]
    answer = asyncio.run(service.post_embed({"texts": SENTENCES}))
    np.testing.assert_array_equal(answer["output"], service.embed(SENTENCES))
    with pytest.raises(InvalidInput, match="texts required"):
        asyncio.run(service.post_embed({}))


def test_embeddings_have_length_1_and_truncation_is_said(service):
    vectors = service.embed(SENTENCES)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(service.embed(SENTENCES[1]), vectors[1], atol=1e-6)
    assert service.embed([]).shape == (0, 64)
    with pytest.warns(UserWarning, match="1 of 2 texts were truncated to 512 tokens"):
        service.embed(["x" * 600, "x"])
    with pytest.raises(InvalidInput, match="item 1 cannot be written as UTF-8"):
        service.embed(["fine", "half \ud83d"])


def test_minilm_gives_the_embeddings_of_the_reference_implementation(registry):
    expected = json.loads(shared_data("minilm_embeddings.json").read_text())
    service = SimplifiedModelService(registry, minilm.folder())
    encodings = service.tokenizer.encode(expected["sentences"])
    assert [encoding.input_ids for encoding in encodings] == expected["input_ids"]
    wanted = np.array(expected["embeddings"])
    assert np.abs(service.embed(expected["sentences"]) - wanted).max() <= 1e-5
    for name, params in [("tensor_parallel", {"num_splits": 3}), ("pipeline_parallel", {"num_stages": 2})]:
        service.use_artifact(name, **params)
        assert np.abs(service.embed(expected["sentences"]) - wanted).max() <= 1e-5
    # The nearest sentence to a cat on a mat is a feline on a rug.
    similarities = wanted @ service.embed(expected["sentences"][0])
    assert int(np.argsort(-similarities)[1]) == 1
