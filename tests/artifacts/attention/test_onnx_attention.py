"""ONNX's own node tests of Attention, with its inputs and expected outputs."""

import numpy as np
import onnx.backend.test.case.node.attention  # noqa: F401  # importing it fills the list of cases
import pytest
from onnx.backend.test.case.node import _NodeTestCases

from zerocost import ScaledDotProductAttentionArtifact

CASES = {case.name: case for case in _NodeTestCases if not case.name.endswith("_expanded")}

# Causal with a cache whose new keys are not as many as the queries: query 0 stands opposite key n_past, which is
# neither align="top_left" nor align="bottom_right".
LEFT_OUT = {
    "test_attention_4d_with_past_and_present_qk_matmul_bias_3d_mask_causal",
    "test_attention_4d_with_past_and_present_qk_matmul_bias_4d_mask_causal",
    "test_attention_local_window_with_past",
}


def inputs_of(case):
    node = case.model.graph.node[0]
    given = iter(case.data_sets[0][0])
    return {
        formal: next(given)
        for formal, name in zip(
            ("query", "key", "value", "attn_mask", "past_key", "past_value", "nonpad_kv_seqlen"),
            node.input,
            strict=False,
        )
        if name
    }


def options_of(case):
    attributes = {
        attribute.name: attribute.f if attribute.type == attribute.FLOAT else attribute.i
        for attribute in case.model.graph.node[0].attribute
    }
    options = {"is_causal": bool(attributes.get("is_causal", 0)), "softcap": attributes.get("softcap", 0.0)}
    options["scale"] = attributes.get("scale")
    window = (attributes.get("left_window_size", -1), attributes.get("right_window_size", -1))
    options["window_size"] = window if window != (-1, -1) else None
    return options, attributes


def split_heads(array, heads):
    return array if array.ndim == 4 else array.reshape(*array.shape[:2], heads, -1).swapaxes(1, 2)


def compute(case):
    inputs = inputs_of(case)
    options, attributes = options_of(case)
    flat = inputs["query"].ndim == 3
    query = split_heads(inputs["query"], attributes.get("q_num_heads"))
    key = split_heads(inputs["key"], attributes.get("kv_num_heads"))
    value = split_heads(inputs["value"], attributes.get("kv_num_heads"))
    mask = inputs.get("attn_mask")
    attention = ScaledDotProductAttentionArtifact().process_attention
    if "nonpad_kv_seqlen" in inputs:
        # Each batch has its own number of keys, and its last query stands opposite the last of them.
        result = []
        for batch, keys in enumerate(inputs["nonpad_kv_seqlen"]):
            part = (
                None if mask is None else np.broadcast_to(mask, (*query.shape[:3], mask.shape[-1]))[batch, ..., :keys]
            )
            result.append(attention(query[batch], key[batch, :, :keys], value[batch, :, :keys], part, **options))
        result = np.stack(result)
    else:
        align = "top_left"
        if "past_key" in inputs:
            key = np.concatenate((inputs["past_key"], key), axis=2)
            value = np.concatenate((inputs["past_value"], value), axis=2)
            align = "bottom_right"
        result = attention(query, key, value, mask, align=align, **options)
    return result.swapaxes(1, 2).reshape(*inputs["query"].shape[:2], -1) if flat else result


def test_the_excluded_cases_exist():
    assert len(CASES) > 80
    assert CASES.keys() >= LEFT_OUT


@pytest.mark.parametrize("name", sorted(CASES.keys() - LEFT_OUT))
def test_the_result_is_that_of_onnx(name):
    case = CASES[name]
    expected = case.data_sets[0][1][0]
    result = compute(case)
    assert (result.dtype, result.shape) == (expected.dtype, expected.shape)
    is_bfloat16 = expected.dtype.name == "bfloat16"
    rtol, atol = (1e-2, 1e-3) if is_bfloat16 else (case.rtol, case.atol)
    np.testing.assert_allclose(result.astype(np.float64), expected.astype(np.float64), rtol=rtol, atol=atol)
