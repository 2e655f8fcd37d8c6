"""scaled_dot_product_attention against a float64 reference: masks, windows, groups of heads, every type and layout."""

import ml_dtypes
import numpy as np
import pytest

import zerocost
from support.contract import ArtifactContract
from support.paths import shared_data
from support.processes import run_code
from zerocost import ExecutionContext, ScaledDotProductAttentionArtifact, _kernels

ATTENTION = ScaledDotProductAttentionArtifact()


class TestContract(ArtifactContract):
    def make(self):
        return ScaledDotProductAttentionArtifact()


def attention(query, key, value, **options):
    return ATTENTION.process_attention(query, key, value, **options)


def normals(*shape, seed=0, dtype=np.float32):
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


def twin(query, key, value, mask=None, scale=None, softcap=0.0, allowed=None, keep=None, sinks=None):
    """The definition in float64; ``allowed`` is a boolean matrix, ``mask`` is added."""
    query, key, value = (np.asarray(array, np.float64) for array in (query, key, value))
    group = query.shape[-3] // key.shape[-3] if query.ndim > 2 else 1
    if group > 1:
        key, value = np.repeat(key, group, axis=-3), np.repeat(value, group, axis=-3)
    scores = (query @ key.swapaxes(-1, -2)) * (1 / np.sqrt(query.shape[-1]) if scale is None else scale)
    if softcap:
        scores = softcap * np.tanh(scores / softcap)
    if mask is not None:
        scores = scores + np.asarray(mask, np.float64)
    if allowed is not None:
        scores = np.where(allowed, scores, -np.inf)
    if keep is not None:
        order = np.argsort(-scores, axis=-1, kind="stable")
        dropped = np.ones_like(scores, bool)
        np.put_along_axis(dropped, order[..., :keep], False, axis=-1)
        scores = np.where(dropped, -np.inf, scores)
    top = np.max(scores, axis=-1, keepdims=True, initial=-1e300)
    weights = np.exp(scores - top)
    total = weights.sum(axis=-1, keepdims=True)
    if sinks is not None:
        total = total + np.exp(np.asarray(sinks, np.float64)[:, None, None] - top)
    return np.divide(weights, total, out=np.zeros_like(weights), where=total > 0) @ value


def close(result, expected, tolerance=2e-5):
    np.testing.assert_allclose(np.asarray(result, np.float64), expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("dense", {}),
        ("causal", {"is_causal": True}),
        ("causal_window_left31_right0", {"is_causal": True, "window_size": (31, 0)}),
        ("window_left16_right16", {"window_size": [16, 16]}),
        ("window_left16_right16", {"window_size": 33}),
        ("causal_window_left31_right0", {"is_causal": True, "window_size": 32}),
    ],
)
def test_a_sentence_encoder_on_real_text(minilm, name, options):
    result = ATTENTION.execute(
        {"query": minilm["query"], "key": minilm["key"], "value": minilm["value"], **options},
        ExecutionContext("scaled_dot_product_attention", "attention", "zero_cost", {}),
    )["processed_attention"]
    close(result, minilm[f"expected.{name}"], 3e-6)


CPU_SCRIPT = """
import sys
import numpy as np
from zerocost import ScaledDotProductAttentionArtifact, _kernels
from safetensors.numpy import load_file
assert _kernels.cpu_level() == sys.argv[2]
data = load_file(sys.argv[1])
query, key, value = data["query"], data["key"], data["value"]
result = ScaledDotProductAttentionArtifact().process_attention(query, key, value, is_causal=True)
np.testing.assert_allclose(result, data["expected.causal"], rtol=3e-6, atol=3e-6)
"""


@pytest.mark.parametrize("level", _kernels.cpu_levels())
def test_real_text_at_every_cpu_level(level):
    file = shared_data("minilm_layer0_attention.safetensors")
    run_code(CPU_SCRIPT, file, level, variables={"ZEROCOST_CPU": level})


@pytest.mark.parametrize("size", [1e-39, 1.2e-37, 1e-30, 1.0])
def test_bfloat16_of_any_size(size):
    # Where the CPU multiplies bfloat16 as they are it makes denormals 0, those that a product gives too.
    query, key = normals(20, 16), normals(301, 16, seed=1)
    value = size * (1 + np.random.default_rng(2).random((301, 17)))
    value[::3] = 0
    query, key, value = (array.astype(ml_dtypes.bfloat16) for array in (query, key, value))
    for rows in (4, 20):
        expected = twin(query[:rows], key, value)
        result = np.asarray(attention(query[:rows], key, value), np.float64)
        half_a_step = 2.0**-134  # of denormals
        assert np.abs(result - expected).max() <= 1e-2 * float(np.asarray(value, np.float64).max()) + half_a_step


def test_bfloat16_with_a_large_scale():
    query = np.full((8, 16), 1e-20).astype(ml_dtypes.bfloat16)
    key = np.vstack([np.full((1, 16), 1e-19), np.zeros((9, 16))]).astype(ml_dtypes.bfloat16)
    value = normals(10, 16, dtype=ml_dtypes.bfloat16)
    result = np.asarray(attention(query, key, value, scale=1e38), np.float64)
    close(result, twin(query, key, value, scale=1e38), 2e-2)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("d", [1, 32, 77, 80, 256])
def test_dtypes_and_head_sizes(dtype, d):
    query, key, value = normals(2, 70, d), normals(2, 150, d, seed=1), normals(2, 150, d + 3, seed=2)
    query, key, value = (array.astype(dtype) for array in (query, key, value))
    result = attention(query, key, value)
    assert result.dtype == dtype
    tolerance = {2: 1e-2 if dtype is not np.float16 else 2e-3, 4: 2e-5, 8: 1e-13}[np.dtype(dtype).itemsize]
    close(result, twin(query, key, value), tolerance)


def test_heads_of_a_group_share_keys_and_values():
    query, key, value = normals(2, 6, 9, 16), normals(2, 3, 20, 16, seed=1), normals(2, 3, 20, 5, seed=2)
    expected = twin(query, key, value)
    close(attention(query, key, value), expected)
    # Head h uses h // 2: repeating the heads by hand gives the same bits.
    repeated = attention(query, key.repeat(2, axis=1), value.repeat(2, axis=1))
    close(repeated, expected)
    close(attention(query[:, :, :1], key, value), expected[:, :, :1])


def test_leading_axes_and_absent_heads_broadcast():
    query, key, value = normals(4, 1, 3, 7, 8), normals(5, 3, 11, 8, seed=1), normals(1, 3, 11, 6, seed=2)
    result = attention(query, key, value)
    assert result.shape == (4, 5, 3, 7, 6)
    close(result, twin(query, key, value))
    flat = attention(query[0, 0, 0], key[0, 0], value[0, 0])
    assert flat.shape == (7, 6)
    close(flat, twin(query[0, 0, 0], key[0, 0], value[0, 0]))
    close(attention(query[0, 0], key[0, 0], value[0, 0]), twin(query[0, 0], key[0, :1], value[0, :1]))


@pytest.mark.parametrize("shape", [(7, 11), (11,), (1, 1), (3, 7, 11), (2, 1, 7, 1), (2, 3, 1, 11)])
def test_masks_broadcast(shape):
    query, key, value = normals(2, 3, 7, 8), normals(2, 3, 11, 8, seed=1), normals(2, 3, 11, 6, seed=2)
    allowed = np.random.default_rng(3).random(shape) < 0.6
    expected = twin(query, key, value, allowed=allowed)
    close(attention(query, key, value, attn_mask=allowed), expected)
    close(attention(query, key, value, attn_mask=np.where(allowed, 0, -np.inf).astype(np.float32)), expected)
    bias = normals(*shape, seed=4)
    close(attention(query, key, value, attn_mask=bias), twin(query, key, value, mask=bias))
    spread = np.broadcast_to(bias, (2, 3, 7, 11))
    close(attention(query, key, value, attn_mask=spread), twin(query, key, value, mask=bias))


def test_mask_window_and_causal_order_are_intersected():
    query, key, value = normals(2, 40, 8), normals(2, 50, 8, seed=1), normals(2, 50, 8, seed=2)
    mask = np.random.default_rng(3).random((40, 50)) < 0.7
    for align, offset in (("bottom_right", 10), ("top_left", 0)):
        distance = np.arange(50) - np.arange(40)[:, None] - offset
        allowed = mask & (distance <= 0) & (distance >= -5)
        options = {"attn_mask": mask, "is_causal": True, "align": align}
        expected = twin(query, key, value, allowed=allowed)
        close(attention(query, key, value, window_size=(5, 9), **options), expected)
        close(attention(query, key, value, window_size=6, **options), expected)
    even = twin(query, query, query, allowed=np.abs(np.arange(40) - np.arange(40)[:, None]) <= 2)
    close(attention(query, query, query, window_size=4), even)


def test_the_cap_comes_before_the_mask():
    query, key, value = 4 * normals(2, 9, 8), normals(2, 12, 8, seed=1), normals(2, 12, 8, seed=2)
    bias = 5 * normals(9, 12, seed=3)
    expected = twin(query, key, value, mask=bias, softcap=1.5)
    other = 1.5 * np.tanh((query @ key.swapaxes(1, 2) / np.sqrt(8) + bias) / 1.5)
    assert np.abs(twin(query, key, value, mask=other, scale=0.0) - expected).max() > 0.1
    close(attention(query, key, value, attn_mask=bias, softcap=1.5), expected)


def test_sinks_are_neither_scaled_nor_capped():
    query, key, value = normals(4, 9, 8), normals(2, 12, 8, seed=1), normals(2, 12, 8, seed=2)
    sinks = np.array([-100, -1, 2, 30], np.float32)
    expected = twin(query, key, value, softcap=0.5, sinks=sinks, scale=0.1)
    close(attention(query, key, value, softcap=0.5, sinks=sinks, scale=0.1), expected)
    assert np.abs(expected[3]).max() < 1e-10


def test_a_ratio_keeps_the_largest_scores_among_the_allowed():
    query, key, value = normals(2, 30, 8), normals(2, 40, 8, seed=1), normals(2, 40, 8, seed=2)
    close(attention(query, key, value, sparsity_ratio=0.8), twin(query, key, value, keep=8))
    causal = np.arange(40) <= np.arange(30)[:, None] + 10
    close(
        attention(query, key, value, sparsity_ratio=0.8, is_causal=True),
        twin(query, key, value, keep=8, allowed=causal),
    )
    # Equal scores: the lower indices stay.
    same = attention(
        np.ones((1, 4), np.float32), np.ones((10, 4), np.float32), np.eye(10, dtype=np.float32), sparsity_ratio=0.7
    )
    np.testing.assert_allclose(same[0], [1 / 3] * 3 + [0] * 7, rtol=1e-6)


@pytest.mark.parametrize("n_q", [2, 150])
def test_masked_values_never_leak(n_q):
    query, key, value = normals(3, n_q, 16), normals(3, 300, 16, seed=1), normals(3, 300, 20, seed=2)
    allowed = np.random.default_rng(3).random(300) < 0.5
    expected = twin(query, key, value, allowed=allowed)
    key[:, ~allowed], value[:, ~allowed] = np.nan, np.inf
    close(attention(query, key, value, attn_mask=allowed), expected)
    close(attention(query, key, value, attn_mask=np.where(allowed, 0, -np.inf).astype(np.float32)), expected)
    # By position: the tail belongs to nobody, and each query only looks at two keys.
    query, key, value = normals(n_q, 16), normals(300, 16, seed=1), normals(300, 20, seed=2)
    distance = np.arange(300) - np.arange(n_q)[:, None]
    expected = twin(query, key, value, allowed=(distance <= 0) & (distance >= -1))
    key[n_q:], value[n_q:] = np.nan, np.nan
    close(attention(query, key, value, window_size=(1, 0), align="top_left"), expected)


def test_a_value_that_is_not_finite_reaches_only_queries_that_attend_to_it():
    query, key, value = normals(20, 8), normals(20, 8, seed=1), normals(20, 8, seed=2)
    clean = attention(query, key, value, is_causal=True)
    value[10, 3] = np.nan
    result = attention(query, key, value, is_causal=True)
    assert np.array_equal(np.isnan(result), np.outer(np.arange(20) >= 10, np.arange(8) == 3))
    assert np.array_equal(result[~np.isnan(result)], clean[~np.isnan(result)])
    key[15] = np.nan
    result = attention(query, key, value, is_causal=True, sparsity_ratio=0.5)
    assert np.isnan(result[15:]).all()


def test_a_row_without_a_key_is_zero():
    query, key, value = normals(2, 6, 8), normals(2, 4, 8, seed=1), normals(2, 4, 8, seed=2)
    sinks = np.zeros(2, np.float32)
    for options in ({}, {"sinks": sinks}, {"sparsity_ratio": 0.5}):
        result = attention(query, key, value, is_causal=True, **options)
        assert not result[:, :2].any()
        assert result[:, 2:].any(axis=-1).all()
        assert not attention(query, key, value, attn_mask=np.zeros((6, 4), bool), **options).any()
        assert not attention(query, key, value, attn_mask=np.full((6, 4), -np.inf, np.float32), **options).any()


def test_axes_of_length_zero():
    assert attention(normals(2, 0, 8), normals(2, 5, 8), normals(2, 5, 3)).shape == (2, 0, 3)
    assert not attention(normals(2, 4, 8), normals(2, 0, 8), normals(2, 0, 3)).any()
    assert attention(normals(0, 2, 4, 8), normals(0, 2, 5, 8), normals(0, 2, 5, 3)).shape == (0, 2, 4, 3)
    assert attention(normals(2, 4, 8), normals(2, 5, 8), normals(2, 5, 0)).shape == (2, 4, 0)
    value = normals(2, 5, 3)
    close(attention(normals(2, 4, 0), normals(2, 5, 0), value), np.repeat(value.mean(axis=1, keepdims=True), 4, axis=1))


@pytest.mark.parametrize("shape", [(3, 200, 300), (2, 3, 9000)])
def test_the_number_of_threads_does_not_change_a_bit(shape):
    heads, n_q, n_k = shape
    query, key, value = normals(heads, n_q, 33), normals(heads, n_k, 33, seed=1), normals(heads, n_k, 40, seed=2)
    before = zerocost.num_threads()
    try:
        results = []
        for threads in (1, 2, 3):
            zerocost.set_num_threads(threads)
            results.append(attention(query, key, value, is_causal=True).tobytes())
    finally:
        zerocost.set_num_threads(before)
    assert len(set(results)) == 1


def test_any_strides():
    query, key, value = normals(2, 40, 24), normals(2, 60, 24, seed=1), normals(2, 60, 24, seed=2)
    expected = attention(query, key, value)
    views = [np.asfortranarray(array) for array in (query, key, value)]
    assert np.array_equal(attention(*views), expected)
    padded = np.full((3, 2, 60, 48), np.nan, np.float32)
    padded[1, :, ::-1, ::2] = key
    assert np.array_equal(attention(query, padded[1, :, ::-1, ::2], value), expected)
    shared = np.broadcast_to(key[:1], (2, 60, 24))
    assert np.array_equal(attention(query, shared, value), attention(query, shared.copy(), value))
    out = np.empty((24, 40, 2), np.float32).T
    assert attention(query, key, value, out=out) is out
    assert np.array_equal(out, expected)


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize(("option", "beyond"), [("scale", 1e39), ("scale", -1e39), ("scale", 1e308), ("softcap", 1e39)])
def test_what_float32_cannot_hold_is_refused_where_it_computes(dtype, option, beyond):
    query = normals(2, 5, 4).astype(dtype)
    given = str(beyond).replace("e+", "e")
    with pytest.raises(zerocost.RangeError, match=rf"^{option}: {given} was given, .* float32 .* is allowed$"):
        attention(query, query, query, **{option: beyond})
    wide = query.astype(np.float64) / 1000
    assert np.isfinite(attention(wide, wide, wide, **{option: beyond})).all()
    largest = np.copysign(3e38, beyond)
    assert np.isfinite(attention(query / 1000, query, query, **{option: largest}).astype(np.float64)).all()


def test_lists_become_float64():
    result = attention([[1.0, 0.0]], [[1.0, 0.0], [0.0, 1.0]], [[2.0], [4.0]], attn_mask=[[True, False]])
    assert result.dtype == np.float64
    assert result.tolist() == [[2.0]]


def test_out_that_cannot_be_written_to_is_refused():
    query, key, value = normals(2, 4, 8), normals(2, 4, 8, seed=1), normals(2, 4, 8, seed=2)
    read_only = np.zeros((2, 4, 8), np.float32)
    read_only.flags.writeable = False
    for out, error in (
        (query, zerocost.OverlapError),
        (value[::-1], zerocost.OverlapError),
        (read_only, zerocost.OverlapError),
        (np.broadcast_to(np.zeros(8, np.float32), (2, 4, 8)), zerocost.OverlapError),
        (np.zeros((2, 4, 7), np.float32), zerocost.ShapeError),
        (np.zeros((2, 4, 8)), zerocost.DatatypeError),
        ([[0.0]], zerocost.DatatypeError),
    ):
        with pytest.raises(error) as raised:
            attention(query, key, value, out=out)
        assert raised.value.argument == "out"
    out = normals(2, 4, 4, seed=5)
    for options in ({"attn_mask": out}, {"attn_mask": out.view(bool)[0, :, :4]}, {"sinks": out[:, 3, 1]}):
        with pytest.raises(zerocost.OverlapError) as raised:
            attention(query, key, value[..., :4], out=out, **options)
        assert raised.value.argument == "out"


@pytest.mark.parametrize(
    ("change", "error", "argument", "text"),
    [
        ({"query": np.zeros(8, np.float32)}, zerocost.ShapeError, "query", "rank 1"),
        ({"key": np.zeros((2, 5, 7), np.float32)}, zerocost.ShapeError, "key", r"\[2, 5, 7\]"),
        ({"value": np.zeros((2, 6, 8), np.float32)}, zerocost.ShapeError, "value", "5 rows"),
        ({"key": np.zeros((3, 5, 8), np.float32)}, zerocost.ShapeError, "value", "3 heads"),
        ({"key": np.zeros((2, 5, 8))}, zerocost.DatatypeError, "key", "float64"),
        ({"value": np.zeros((2, 5, 8), int)}, zerocost.DatatypeError, "value", "int64"),
        ({"query": "text"}, zerocost.DatatypeError, "query", "str"),
        ({"attn_mask": np.zeros((4, 6), bool)}, zerocost.ShapeError, "attn_mask", r"\[2, 4, 5\]"),
        ({"attn_mask": np.zeros((4, 5))}, zerocost.DatatypeError, "attn_mask", "float64"),
        ({"attn_mask": np.zeros((4, 5), np.int32)}, zerocost.DatatypeError, "attn_mask", "int32"),
        ({"sinks": np.zeros(3, np.float32)}, zerocost.ShapeError, "sinks", r"\[2\]"),
        ({"scale": np.inf}, zerocost.RangeError, "scale", "inf"),
        ({"scale": "half"}, zerocost.DatatypeError, "scale", "half"),
        ({"softcap": -1.0}, zerocost.RangeError, "softcap", "-1"),
        ({"sparsity_ratio": 1.0}, zerocost.RangeError, "sparsity_ratio", "1"),
        ({"sparsity_ratio": float("nan")}, zerocost.RangeError, "sparsity_ratio", "NaN"),
        ({"window_size": 0}, zerocost.RangeError, "window_size", "0"),
        ({"window_size": (-2, 0)}, zerocost.RangeError, "window_size", r"\(-2, 0\)"),
        ({"window_size": (1, 2, 3)}, zerocost.DatatypeError, "window_size", "pair"),
        ({"window_size": 1.5}, zerocost.DatatypeError, "window_size", "1.5"),
        ({"is_causal": "yes"}, zerocost.DatatypeError, "is_causal", "yes"),
        ({"align": "middle"}, zerocost.RangeError, "align", "middle"),
    ],
)
def test_wrong_input_is_refused_by_name(change, error, argument, text):
    inputs = {"query": normals(2, 4, 8), "key": normals(2, 5, 8), "value": normals(2, 5, 8), **change}
    with pytest.raises(error, match=text) as raised:
        attention(**inputs)
    assert raised.value.argument == argument


def test_attend_is_the_same():
    query, key, value = normals(2, 4, 8), normals(2, 5, 8, seed=1), normals(2, 5, 8, seed=2)
    expected = attention(query, key, value, is_causal=True, softcap=2.0)
    assert np.array_equal(ATTENTION.attend(query, key, value, is_causal=True, softcap=2.0), expected)
