"""sparse_attention: exactly the k largest of every row, in every type and layout, normalised or bit for bit."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import zerocost
from support.arrays import assert_same_in_every_layout
from support.contract import ArtifactContract, context
from support.equality import same
from zerocost.artifacts.attention.sparse_attention import SparseAttentionArtifact
from zerocost.core.copies import counting_copies

FLOATS = [np.float64, np.float32, np.float16, ml_dtypes.bfloat16]


def sparse(matrix, **parameters):
    return SparseAttentionArtifact().execute({"attention_matrix": matrix, **parameters}, context())[
        "processed_attention"
    ]


def kept_mask(matrix, k, allowed=None):
    """The k largest of each row by a stable sort; ties to the lower index, NaN largest, zeros equal."""
    wide = np.asarray(matrix, np.float64) + 0.0
    allowed = np.ones(wide.shape, bool) if allowed is None else np.broadcast_to(allowed, wide.shape)
    # Descending; masked scores come last.
    order = np.lexsort((np.broadcast_to(np.arange(wide.shape[-1]), wide.shape), -wide, ~np.isnan(wide), ~allowed))
    mask = np.zeros(wide.shape, bool)
    np.put_along_axis(mask, order[..., :k], True, axis=-1)
    return mask & allowed


def count_of(n, ratio):
    return min(n, max(1, n - int(np.floor(ratio * n + 1e-9))))


class TestContract(ArtifactContract):
    def make(self):
        return SparseAttentionArtifact()


class TestContractWithSoftmax(TestContract):
    def example(self, artifact):
        scores = np.random.default_rng(3).standard_normal((2, 4, 9)).astype(np.float32)
        return {"attention_matrix": scores, "normalization": "softmax", "temperature": 0.5, "is_causal": True}


def test_the_schema_says_everything():
    schema = SparseAttentionArtifact().get_schema()
    properties = schema["properties"]
    assert schema["required"] == ["attention_matrix"]
    assert properties["attention_matrix"]["x-tensor"]["shape"] == ["...", "n_q", "n_k"]
    assert (properties["sparsity_ratio"]["default"], properties["sparsity_ratio"]["exclusiveMaximum"]) == (0.8, 1)
    assert properties["normalization"]["enum"] == ["none", "softmax", "sum"]
    assert properties["align"]["enum"] == ["bottom_right", "top_left"]
    assert properties["out"]["x-in-process"] is True
    assert schema["x-main"] == {"input": "attention_matrix", "output": "processed_attention"}


@pytest.mark.parametrize(("n", "k"), [(10, 2), (5, 1), (128, 26), (1, 1), (3, 1)])
def test_the_default_ratio_keeps_exactly_k(n, k):
    matrix = np.random.default_rng(n).standard_normal((4, n))
    assert (np.count_nonzero(sparse(matrix), axis=-1) == k).all()


def test_the_example_of_the_specification():
    matrix = [[1.0, 0.5, 0.3], [0.5, 1.0, 0.2], [0.3, 0.2, 1.0]]
    assert same(sparse(matrix, sparsity_ratio=0.8), np.diag([1.0, 1.0, 1.0]))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("ratio", [0.0, 0.3, 0.5, 0.8, 0.99])
def test_kept_entries_come_back_bit_for_bit(dtype, ratio):
    rng = np.random.default_rng(0)
    matrix = rng.standard_normal((2, 3, 5, 300)).astype(dtype)
    matrix[0, 0, 0, ::7] = np.nan
    matrix[0, 0, 1, ::3] = -0.0
    matrix[0, 0, 2] = np.inf
    matrix[0, 0, 3] = 0.25
    result = sparse(matrix, sparsity_ratio=ratio)
    mask = kept_mask(matrix, count_of(300, ratio))
    integers = {2: np.uint16, 4: np.uint32, 8: np.uint64}[matrix.itemsize]
    expected = np.where(mask, matrix.view(integers), 0)
    assert result.dtype == matrix.dtype
    np.testing.assert_array_equal(result.view(integers), expected)


def test_signalling_nans_keep_their_bits():
    matrix = np.array([[0x7C01, 0x3C00, 0x0000, 0xFD55]], np.uint16).view(np.float16)
    assert sparse(matrix, sparsity_ratio=0.5).view(np.uint16).tolist() == [[0x7C01, 0, 0, 0xFD55]]


@given(st.data())
def test_any_row_is_cut_where_a_stable_sort_cuts_it(data):
    values = st.sampled_from([0.0, -0.0, 1.0, 2.0, np.nan, np.inf, -np.inf]) | st.floats(width=32)
    row = data.draw(st.lists(values, min_size=1, max_size=80))
    ratio = data.draw(st.floats(0, 1, exclude_max=True))
    matrix = np.array([row], np.float32)
    mask = kept_mask(matrix, count_of(len(row), ratio))
    expected = np.where(mask, matrix.view(np.uint32), 0)
    np.testing.assert_array_equal(sparse(matrix, sparsity_ratio=ratio).view(np.uint32), expected)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("normalization", ["none", "softmax", "sum"])
def test_every_layout_gives_the_same_bits_without_a_copy(dtype, normalization):
    plain = np.random.default_rng(5).standard_normal((2, 3, 37, 45)).astype(dtype)
    assert_same_in_every_layout(sparse, plain, normalization=normalization, is_causal=True, sparsity_ratio=0.6)


def test_broadcast_and_misaligned_inputs():
    row = np.random.default_rng(6).standard_normal(50).astype(np.float32)
    broadcast = np.broadcast_to(row, (3, 4, 50))
    assert same(sparse(broadcast), np.ascontiguousarray(np.broadcast_to(sparse(row[None]), (3, 4, 50))))
    column = np.broadcast_to(row[:, None], (50, 20))
    assert same(sparse(column, sparsity_ratio=0.5), np.where(np.arange(20) < 10, column, np.float32(0)))
    misaligned = np.frombuffer(b"x" + row.tobytes(), np.uint8)[1:].view(np.float32).reshape(5, 10)
    with counting_copies() as copies:
        result = sparse(misaligned)
    assert same(result, sparse(row.reshape(5, 10)))
    assert copies.bytes == row.nbytes


@pytest.mark.parametrize(("n_q", "n_k"), [(6, 6), (4, 9), (9, 4), (1, 5)])
@pytest.mark.parametrize("align", ["bottom_right", "top_left"])
def test_causal_order_caps_k_by_what_is_allowed(n_q, n_k, align):
    matrix = np.random.default_rng(7).standard_normal((n_q, n_k)) + 10
    shift = n_k - n_q if align == "bottom_right" else 0
    allowed = np.arange(n_k) <= np.arange(n_q)[:, None] + shift
    k = count_of(n_k, 0.5)
    expected = np.where(kept_mask(matrix, k, allowed), matrix, 0)
    result = sparse(matrix, sparsity_ratio=0.5, is_causal=True, align=align)
    np.testing.assert_array_equal(result, expected)
    assert np.count_nonzero(result, axis=-1).tolist() == np.minimum(k, allowed.sum(-1)).tolist()


def softmax(scores):
    exponentials = np.exp(scores - scores.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-13), (np.float32, 1e-6), (np.float16, 1e-3)])
@pytest.mark.parametrize("temperature", [1.0, 0.3, 7.0])
def test_softmax_over_what_is_kept(dtype, tolerance, temperature):
    scores = (np.random.default_rng(8).standard_normal((64, 700)) * 8).astype(dtype)
    mask = kept_mask(scores, count_of(700, 0.7))
    wide = np.where(mask, scores.astype(np.float64) / temperature, -np.inf)
    result = sparse(scores, sparsity_ratio=0.7, normalization="softmax", temperature=temperature)
    assert (result[~mask] == 0).all()
    # A result below twice the smallest normal number may be 0.
    smallest = 2 * float(np.finfo(dtype).smallest_normal)
    np.testing.assert_allclose(result[mask].astype(np.float64), softmax(wide)[mask], rtol=tolerance, atol=smallest)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [1e-30, 3e-30, 1e-25, 1e-10])
def test_softmax_at_the_lowest_temperatures(dtype, temperature):
    info = ml_dtypes.finfo(dtype)
    smallest, largest = float(info.smallest_subnormal), float(info.max)
    steps = np.array([0, -1, -3, -60, -400, -(2.0**20)])
    ordinary, extreme = [3, 3, 2.5, -1, -np.inf, 0], [largest, -largest, 0, largest, 1, -np.inf]
    rows = np.array([steps * smallest, steps * temperature, ordinary, extreme]).astype(dtype)
    wide = rows.astype(np.float64)
    with np.errstate(over="ignore", under="ignore"):
        expected = softmax((wide - wide.max(-1, keepdims=True)) / temperature)
    result = sparse(rows, sparsity_ratio=0.0, normalization="softmax", temperature=temperature).astype(np.float64)
    np.testing.assert_allclose(
        result, expected, rtol=max(1e-13, 4 * float(info.eps)), atol=2 * float(info.smallest_normal)
    )
    assert result[2].tolist() == [0.5, 0.5, 0, 0, 0, 0]
    assert result[3].tolist() == [0.5, 0, 0, 0.5, 0, 0]


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [0.0, 9e-31, 1e-40, 5e-324, np.nan, np.inf, -1.0])
def test_a_temperature_is_at_least_1e_30(dtype, temperature):
    query, artifact = np.eye(3, dtype=dtype), SparseAttentionArtifact()
    for call in (
        lambda: artifact.process_attention(query, normalization="softmax", temperature=temperature),
        lambda: artifact.attend(query, query, query, temperature=temperature),
    ):
        with pytest.raises(zerocost.RangeError, match=r"^temperature: .* was given, .*at least 1e-30 is allowed"):
            call()


def test_the_schema_says_how_low_a_temperature_may_be():
    for name in ("sparse_attention", "sliding_window_attention"):
        ports = zerocost.default_registry()[name].ports
        assert ports.inputs["temperature"]["minimum"] == 1e-30
        given = {"attention_matrix": np.eye(3), "normalization": "softmax"}
        assert ports.errors({**given, "temperature": 1e-30}) == []
        [(where, message)] = ports.errors({**given, "temperature": 9e-31})
        assert where == "/temperature"
        assert "1e-30" in message


@pytest.mark.parametrize("temperature", [1e-30, 0.5, 1.0, 3.0])
def test_attending_equals_weights_times_values(temperature):
    rng = np.random.default_rng(11)
    query, key, value = (rng.standard_normal((2, 7, 16)).astype(np.float32) for _ in range(3))
    scores = (query.astype(np.float64) @ key.astype(np.float64).swapaxes(-1, -2)) / 4
    artifact = SparseAttentionArtifact()
    weights = artifact.process_attention(scores, 0.5, normalization="softmax", temperature=temperature)
    attended = artifact.attend(query, key, value, sparsity_ratio=0.5, temperature=temperature)
    np.testing.assert_allclose(attended, weights @ value, atol=2e-6)


def test_infinities_and_nans():
    inf, nan = np.inf, np.nan
    rows = np.array([[-inf, -inf, -inf], [0, -inf, -inf], [inf, 1, 0], [nan, 1, 0]])
    result = sparse(rows, sparsity_ratio=0.3, normalization="softmax")
    np.testing.assert_array_equal(result, [[0, 0, 0], [1, 0, 0], [nan, nan, nan], [nan, nan, nan]])
    result = sparse(rows, sparsity_ratio=0.5, normalization="softmax")
    np.testing.assert_array_equal(result, [[0, 0, 0], [1, 0, 0], [nan, nan, 0], [nan, nan, 0]])


def test_sum():
    weights = np.array([[4.0, 1.0, 2.0, 2.0], [1.0, -1.0, -2.0, -2.0], [0.0, 0.0, -1.0, -1.0], [1e-310, 0, 0, 0]])
    result = sparse(weights, sparsity_ratio=0.5, normalization="sum")
    np.testing.assert_array_equal(result, [[4 / 6, 0, 2 / 6, 0], [0, 0, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0]])
    assert not np.signbit(result).any()
    largest = np.full((1, 4), np.finfo(np.float32).max, np.float32)
    np.testing.assert_array_equal(sparse(largest, sparsity_ratio=0.0, normalization="sum"), np.full((1, 4), 0.25))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0), (3, 0, 5), (2, 0, 0, 7)])
@pytest.mark.parametrize("normalization", ["none", "softmax", "sum"])
def test_empty_axes_are_valid(shape, normalization):
    assert same(sparse(np.zeros(shape, np.float32), normalization=normalization), np.zeros(shape, np.float32))


@pytest.mark.parametrize(
    ("parameters", "error", "argument"),
    [
        ({"sparsity_ratio": 1.0}, zerocost.RangeError, "sparsity_ratio"),
        ({"sparsity_ratio": -0.1}, zerocost.RangeError, "sparsity_ratio"),
        ({"sparsity_ratio": np.nan}, zerocost.RangeError, "sparsity_ratio"),
        ({"sparsity_ratio": "0.5"}, zerocost.DatatypeError, "sparsity_ratio"),
        ({"sparsity_ratio": True}, zerocost.DatatypeError, "sparsity_ratio"),
        ({"normalization": "l2"}, zerocost.RangeError, "normalization"),
        ({"normalization": None}, zerocost.DatatypeError, "normalization"),
        ({"temperature": 2.0}, zerocost.RangeError, "temperature"),
        ({"temperature": 2.0, "normalization": "sum"}, zerocost.RangeError, "temperature"),
        ({"temperature": 0.0, "normalization": "softmax"}, zerocost.RangeError, "temperature"),
        ({"temperature": np.inf, "normalization": "softmax"}, zerocost.RangeError, "temperature"),
        ({"align": "left"}, zerocost.RangeError, "align"),
        ({"is_causal": "yes"}, zerocost.DatatypeError, "is_causal"),
        ({"attention_matrix": np.zeros(3)}, zerocost.ShapeError, "attention_matrix"),
        ({"attention_matrix": np.zeros((3, 3), int)}, zerocost.DatatypeError, "attention_matrix"),
        ({"attention_matrix": np.zeros((3, 3), complex)}, zerocost.DatatypeError, "attention_matrix"),
        ({"attention_matrix": np.zeros((3, 3), ">f4")}, zerocost.DatatypeError, "attention_matrix"),
        ({"attention_matrix": [[1.0], [1.0, 2.0]]}, zerocost.ShapeError, "attention_matrix"),
        ({"out": np.zeros((2, 3))}, zerocost.ShapeError, "out"),
        ({"out": np.zeros((3, 3), np.float32)}, zerocost.DatatypeError, "out"),
        ({"out": [[0.0] * 3] * 3}, zerocost.DatatypeError, "out"),
        ({"out": np.broadcast_to(np.zeros(3), (3, 3))}, zerocost.OverlapError, "out"),
    ],
)
def test_a_wrong_argument_is_named(parameters, error, argument):
    with pytest.raises(error, match=argument) as raised:
        sparse(**{"matrix": np.eye(3), **parameters} if "attention_matrix" not in parameters else _renamed(parameters))
    assert raised.value.argument == argument


def _renamed(parameters):
    return {"matrix": parameters["attention_matrix"]}


def test_an_output_that_overlaps_is_refused():
    memory = np.random.default_rng(9).standard_normal(30)
    before = memory.copy()
    matrix = memory[:20].reshape(4, 5)
    for out in (memory[10:].reshape(4, 5), matrix[::-1], memory[:20].reshape(5, 4).T):
        with pytest.raises(zerocost.OverlapError, match="out"):
            sparse(matrix, out=out)
    # Every other element: none is shared, but the ranges are, and no more is claimed.
    with pytest.raises(zerocost.OverlapError, match="out: it may overlap an input without being that input"):
        sparse(memory[::2].reshape(3, 5), out=memory[1::2].reshape(3, 5))
    assert same(memory, before)
    matrix.flags.writeable = False
    with pytest.raises(zerocost.OverlapError, match="read-only"):
        sparse(np.eye(4, 5), out=matrix)


def test_arrays_of_other_libraries_are_borrowed():
    matrix = np.random.default_rng(10).standard_normal((6, 8)).astype(np.float32)
    with counting_copies() as copies:
        assert same(sparse(memoryview(matrix)), sparse(matrix))
    assert copies.bytes == 0


def onnx_cases(module, prefix):
    """The node tests of one operator: importing their module alone makes them."""
    pytest.importorskip("onnx")
    import importlib

    import onnx.backend.test.case.node as node

    importlib.import_module(f"onnx.backend.test.case.node.{module}")
    cases = [case for case in node._NodeTestCases if case.name.startswith(prefix) and "expanded" not in case.name]
    return [(case, [[np.asarray(array) for array in side] for side in case.data_sets[0]]) for case in cases]


def test_onnx_top_k():
    checked = 0
    for case, ((matrix, count), (values, indices)) in onnx_cases("topk", "test_top_k"):
        attributes = {attribute.name: attribute for attribute in case.model.graph.node[0].attribute}
        last = attributes["axis"].i in (-1, matrix.ndim - 1)
        if not last or ("largest" in attributes and not attributes["largest"].i):
            continue
        # Whole numbers are as good in floating point.
        matrix, values, indices = (np.atleast_2d(array) for array in (matrix, values, indices))
        matrix, values = matrix.astype(np.float32), values.astype(np.float32)
        expected = np.zeros_like(matrix)
        np.put_along_axis(expected, indices, values, axis=-1)
        assert same(sparse(matrix, sparsity_ratio=1 - int(count[0]) / matrix.shape[-1]), expected), case.name
        checked += 1
    assert checked >= 4


def test_onnx_softmax():
    checked = 0
    for case, ((scores,), (weights,)) in onnx_cases("softmax", "test_softmax"):
        axis = next((attribute.i for attribute in case.model.graph.node[0].attribute), -1)
        if axis in (-1, scores.ndim - 1):
            scores, weights = np.atleast_2d(scores), np.atleast_2d(weights)
            result = sparse(scores, sparsity_ratio=0.0, normalization="softmax")
            np.testing.assert_allclose(result, weights, rtol=2e-6)
            checked += 1
    assert checked >= 3


def test_attend_is_the_matrix_way_fused():
    rng = np.random.default_rng(11)
    query, key, value = (rng.standard_normal((2, 20, 16)).astype(np.float32) for _ in range(3))
    artifact = SparseAttentionArtifact()
    scores = query @ key.swapaxes(-1, -2) / np.float32(4)
    for parameters in ({}, {"sparsity_ratio": 0.5, "temperature": 0.5}, {"is_causal": True}):
        weights = artifact.process_attention(scores, normalization="softmax", **parameters)
        np.testing.assert_allclose(artifact.attend(query, key, value, **parameters), weights @ value, atol=1e-5)


def test_real_scores_become_real_weights(minilm):
    scores, probabilities = minilm["scores"], minilm["probs"]
    weights = sparse(scores, sparsity_ratio=0.0, normalization="softmax")
    # The file's weights come from scores before they were rounded to float32; the largest are above 40.
    np.testing.assert_allclose(weights, probabilities, rtol=1e-5)
    np.testing.assert_allclose(weights, softmax(scores.astype(np.float64)), rtol=1e-6)
    causal = sparse(scores, sparsity_ratio=0.0, normalization="softmax", is_causal=True)
    np.testing.assert_allclose(causal @ minilm["value"][0], minilm["expected.causal"][0], atol=1e-5)


def test_real_weights_lose_no_more_than_what_is_dropped(minilm):
    probabilities, value = minilm["probs"], minilm["value"][0]
    kept = sparse(probabilities, sparsity_ratio=0.8)
    assert (np.count_nonzero(kept, axis=-1) == 26).all()
    np.testing.assert_array_equal(kept, np.where(kept_mask(probabilities, 26), probabilities, 0))
    assert kept.sum() > 0.5 * probabilities.sum()
    renormalised = sparse(probabilities, sparsity_ratio=0.8, normalization="sum")
    np.testing.assert_allclose(renormalised.sum(-1), 1.0, rtol=1e-6)
    from_scores = sparse(minilm["scores"], sparsity_ratio=0.8, normalization="softmax")
    np.testing.assert_allclose(renormalised, from_scores, rtol=2e-5)
    # The dropped weights sum to 1 - mass; they are missing, and the rest weighs that much more.
    dropped = 1 - kept.sum(-1, keepdims=True)
    error = np.abs(renormalised @ value - minilm["expected.dense"][0])
    assert (error <= 2 * dropped * np.abs(value).max((-1, -2), keepdims=True) + 1e-5).all()
