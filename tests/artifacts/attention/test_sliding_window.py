"""sliding_window_attention: both edges pinned, in every type and layout, and work that follows the band."""

import os
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from support.arrays import assert_same_in_every_layout
from support.contract import ArtifactContract, context
from support.equality import same
from zerocost.artifacts.attention.sliding_window import SlidingWindowAttentionArtifact

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def slide(matrix, **parameters):
    return SlidingWindowAttentionArtifact().execute({"attention_matrix": matrix, **parameters}, context())[
        "processed_attention"
    ]


def band(n_q, n_k, left, right, is_causal=False, align="bottom_right"):
    """The definition, entry by entry."""
    position = np.arange(n_q)[:, None] + (n_k - n_q if align == "bottom_right" else 0)
    key = np.arange(n_k)
    mask = np.ones((n_q, n_k), bool)
    if left != -1:
        mask &= position - left <= key
    if right != -1:
        mask &= key <= position + right
    return mask & (key <= position) if is_causal else mask


class TestContract(ArtifactContract):
    def make(self):
        return SlidingWindowAttentionArtifact()


class TestContractWithSum(TestContract):
    def example(self, artifact):
        weights = np.random.default_rng(3).random((2, 4, 9)).astype(np.float32)
        return {"attention_matrix": weights, "normalization": "sum", "window_size": 3, "align": "top_left"}


def kept(**parameters):
    return slide(np.ones((6, 6)), **parameters).astype(int).tolist()


def test_a_pair_includes_both_edges():
    assert kept(window_size=(1, 2)) == [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 1, 1, 1, 1, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 0, 1, 1, 1],
        [0, 0, 0, 0, 1, 1],
    ]
    assert kept(window_size=[1, 2]) == kept(window_size=(1, 2))


def test_a_whole_number_is_half_on_each_side_and_when_causal_that_many_keys():
    assert kept(window_size=3) == kept(window_size=2) == kept(window_size=(1, 1))
    assert kept(window_size=1) == kept(window_size=(0, 0)) == np.eye(6, dtype=int).tolist()
    assert kept(window_size=3, is_causal=True) == kept(window_size=(2, 0))
    assert np.sum(kept(window_size=3, is_causal=True), axis=1).tolist() == [1, 2, 3, 3, 3, 3]
    assert kept(window_size=np.int64(3)) == kept(window_size=3)


def test_unbounded_sides():
    assert kept(window_size=None) == kept(window_size=(-1, -1)) == np.ones((6, 6), int).tolist()
    assert kept(window_size=(-1, 0)) == np.tril(np.ones((6, 6), int)).tolist()
    assert kept(window_size=(0, -1)) == np.triu(np.ones((6, 6), int)).tolist()
    assert kept(window_size=(1, 4), is_causal=True) == kept(window_size=(1, 0))
    assert kept(window_size=None, is_causal=True) == kept(window_size=(-1, 0))
    for beyond in (2**62, 2**63, 10**30):
        assert kept(window_size=(beyond, beyond)) == kept(window_size=beyond) == np.ones((6, 6), int).tolist()
        assert kept(window_size=[beyond, 0]) == kept(window_size=beyond, is_causal=True) == kept(window_size=(-1, 0))


def test_the_default_is_128():
    matrix = np.ones((300, 300), np.float32)
    assert same(slide(matrix), slide(matrix, window_size=(64, 64)))


EDGES = st.integers(-1, 12)


@given(
    st.tuples(st.integers(0, 9), st.integers(0, 9)),
    st.tuples(EDGES, EDGES),
    st.booleans(),
    st.sampled_from(["bottom_right", "top_left"]),
    st.sampled_from(FLOATS),
)
def test_the_band_is_the_definition(shape, window, is_causal, align, dtype):
    matrix = (np.arange(np.prod(shape)).reshape(shape) + 1.0).astype(dtype)
    mask = band(*shape, *window, is_causal, align)
    result = slide(matrix, window_size=window, is_causal=is_causal, align=align)
    assert same(result, np.where(mask, matrix, np.zeros((), dtype)))
    out = np.full_like(matrix, np.nan)
    slide(matrix, window_size=window, is_causal=is_causal, align=align, out=out)
    assert same(out, result)


@pytest.mark.parametrize("normalization", ["none", "softmax", "sum"])
@pytest.mark.parametrize("align", ["bottom_right", "top_left"])
def test_a_row_without_a_kept_entry_is_zero(normalization, align):
    matrix = np.full((6, 3), np.nan)
    for window in [(0, 0), (-1, 0), 1]:
        mask = band(6, 3, *((0, 0) if window == 1 else window), align=align)
        empty = ~mask.any(-1)
        assert empty.any() == ((align, window) != ("top_left", (-1, 0)))
        result = slide(matrix, window_size=window, normalization=normalization, align=align)
        assert same(result[empty], np.zeros((empty.sum(), 3)))
        assert np.isnan(result[mask]).all()


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalization", ["none", "softmax", "sum"])
def test_every_layout_gives_the_same_bits_without_a_copy(dtype, normalization):
    plain = np.random.default_rng(5).random((2, 3, 70, 45)).astype(dtype)
    assert_same_in_every_layout(slide, plain, normalization=normalization, window_size=(3, 20))


def resident():
    """Bytes of memory that this process has in use."""
    statm = Path("/proc/self/statm")
    if not statm.exists():
        pytest.skip("this system does not say how much memory is in use")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.alone
def test_a_fresh_output_of_a_band_costs_the_band():
    """4 GiB by its shape: only the pages of the band are ever touched, of the input as of the output."""
    n = 1 << 15
    matrix = np.broadcast_to(np.ones(1, np.float32), (n, n))
    before = resident()
    result = slide(matrix, window_size=(4, 4))
    assert resident() - before < result.nbytes / 8
    assert result[0, :6].tolist() == [1, 1, 1, 1, 1, 0]
    assert result[n // 2, n // 2 - 5 : n // 2 + 6].tolist() == [0] + [1] * 9 + [0]


def test_softmax_and_sum_against_float64():
    scores = (np.random.default_rng(8).standard_normal((200, 200)) * 8).astype(np.float32)
    mask = band(200, 200, 30, 3)
    for temperature in (1.0, 0.3):
        wide = np.exp(np.where(mask, scores.astype(np.float64) / temperature, -np.inf))
        result = slide(scores, window_size=(30, 3), normalization="softmax", temperature=temperature)
        # A result below twice the smallest normal number may be 0.
        smallest = 2 * np.finfo(np.float32).smallest_normal
        np.testing.assert_allclose(result, wide / wide.sum(-1, keepdims=True), rtol=1e-6, atol=smallest)
    weights = np.abs(scores)
    wide = np.where(mask, weights.astype(np.float64), 0)
    result = slide(weights, window_size=(30, 3), normalization="sum")
    np.testing.assert_allclose(result, wide / wide.sum(-1, keepdims=True), rtol=1e-6)


@pytest.mark.parametrize(
    ("window", "error"),
    [
        (0, zerocost.RangeError),
        (-1, zerocost.RangeError),
        ((-2, 0), zerocost.RangeError),
        ((0, -2), zerocost.RangeError),
        (-(10**30), zerocost.RangeError),
        ((-(10**30), 0), zerocost.RangeError),
        ([0, -(2**63) - 1], zerocost.RangeError),
        (True, zerocost.DatatypeError),
        (1.5, zerocost.DatatypeError),
        ("3", zerocost.DatatypeError),
        ((1, 2, 3), zerocost.DatatypeError),
        ((1.5, 2), zerocost.DatatypeError),
        ((True, False), zerocost.DatatypeError),
        ((10**30, 1.5), zerocost.DatatypeError),
    ],
)
def test_a_wrong_window_is_named(window, error):
    with pytest.raises(error, match="window_size") as raised:
        slide(np.eye(3), window_size=window)
    assert raised.value.argument == "window_size"


def test_validate_input_checks_the_window():
    artifact = SlidingWindowAttentionArtifact()
    matrix = np.eye(3)
    for window in (None, 1, [0, -1], [3, 3]):
        assert artifact.validate_input({"attention_matrix": matrix, "window_size": window})
    for window in (0, -1, [1], [1, 2, 3], [-2, 0], "3", 1.5):
        assert not artifact.validate_input({"attention_matrix": matrix, "window_size": window})


@pytest.mark.parametrize(
    ("expected", "parameters"),
    [
        ("expected.dense", {"window_size": None}),
        ("expected.causal", {"window_size": None, "is_causal": True}),
        ("expected.window_left16_right16", {"window_size": (16, 16)}),
        ("expected.window_left16_right16", {"window_size": 33}),
        ("expected.causal_window_left31_right0", {"window_size": 32, "is_causal": True}),
        ("expected.causal_window_left31_right0", {"window_size": [31, 0]}),
    ],
)
def test_real_scores(minilm, expected, parameters):
    weights = slide(minilm["scores"], normalization="softmax", **parameters)
    np.testing.assert_allclose(weights @ minilm["value"][0], minilm[expected][0], atol=1e-5)
    artifact = SlidingWindowAttentionArtifact()
    fused = artifact.attend(minilm["query"], minilm["key"], minilm["value"], **parameters)
    np.testing.assert_allclose(fused, minilm[expected], atol=2e-5)
