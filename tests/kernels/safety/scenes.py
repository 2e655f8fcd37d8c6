"""What is raced: a call of a kernel, and the arrays that another thread writes to meanwhile.

A scene is made from an option (how the kernel is called), a dtype and the side at which its arrays touch a guard page.
"""

from functools import partial

import numpy as np

from kernels.safety import texts
from kernels.safety.maker import FLOATS, Scene
from zerocost import _kernels


def matrix(kernel, maker, shape, out, *, causal=False, normalization="none", **options):
    """Sparse attention or a sliding window on a matrix, plain, transposed or with gaps, to ``out`` of some kind."""
    first = options.get("sparsity_ratio", options.get("window_size"))
    tail = (first, normalization, 0.5 if normalization == "softmax" else 1.0, causal, "bottom_right")
    if out == "strided":
        whole, contents = maker.array((shape[1], 2 * shape[0]))
        given, target = whole[::-1, ::2].T, maker.out((2 * shape[0], shape[1]))
        call = partial(kernel, given, *tail, target[0][::-2])
        return Scene(call, [(whole, contents), target])
    given, contents = maker.array(shape)
    racing = [(given, contents)]
    if out == "fresh":
        return Scene(partial(kernel, given, *tail, None), racing)
    if out == "same":

        def call():
            return kernel(given, *tail, given)

        return Scene(call, racing)
    racing.append(maker.out(shape))
    return Scene(partial(kernel, given, *tail, racing[1][0]), racing)


def sparse(normalization, causal, shape, out, ratio=0.8):
    return lambda maker: matrix(
        _kernels.sparse_attention, maker, shape, out, causal=causal, normalization=normalization, sparsity_ratio=ratio
    )


def window(normalization, causal, shape, out, size=(64, 3)):
    return lambda maker: matrix(
        _kernels.sliding_window_attention,
        maker,
        shape,
        out,
        causal=causal,
        normalization=normalization,
        window_size=size,
    )


def fused(
    queries, keys, *, heads=(4, 2), d=64, d_v=40, mask=None, sinks=False, transposed=False, to="fresh", **options
):
    """Fused attention; ``mask`` is None, a kind (``"bool"``, ``"float"``)."""

    def scene(maker):
        h_q, h_kv = heads
        racing = [maker.array((h_q, queries, d)), maker.array((h_kv, d, keys) if transposed else (h_kv, keys, d))]
        racing.append(maker.array((h_kv, keys, d_v)))
        query, key, value = (array for array, _ in racing)
        attn_mask = None
        if mask == "bool":
            bits = [maker.rng.integers(0, 256, (queries, keys)).astype(np.uint8) * zeroed for zeroed in (1, 1, 0)]
            racing.append(maker.array((queries, keys), bits))
            attn_mask = racing[-1][0].view(bool)
        elif mask == "float":
            racing.append(maker.array((h_q, queries, keys)))
            attn_mask = racing[-1][0]
        if sinks:
            racing.append(maker.array((h_q,)))
        logits = racing[-1][0] if sinks else None
        out = None
        if to == "out":
            racing.append(maker.out((h_q, queries, d_v)))
            out = racing[-1][0]
        call = partial(
            _kernels.scaled_dot_product_attention,
            query,
            key.transpose(0, 2, 1) if transposed else key,
            value,
            attn_mask,
            options.get("is_causal", False),
            None,
            options.get("window_size"),
            options.get("sparsity_ratio"),
            options.get("softcap", 0.0),
            logits,
            "bottom_right",
            out,
        )
        return Scene(call, racing)

    return scene


def linear(rows, d_in, d_out, shards, mode, *, transposed=False):
    def scene(maker):
        racing = [
            maker.array((rows, d_in)),
            maker.array((d_out, d_in) if transposed else (d_in, d_out)),
            maker.array((d_out,)),
        ]
        tensor, weight, bias = (array for array, _ in racing)
        weight = weight.T if transposed else weight
        return Scene(partial(_kernels.sharded_linear, tensor, weight, shards, -1, bias, mode), racing)

    return scene


def encoder_linear(rows, d_in, d_out, activation, raced):
    """An encoder's linear layer: while it is made, or while it is called."""

    def scene(maker):
        weight, bias, tensor = maker.array((d_in, d_out)), maker.array((d_out,)), maker.array((rows, d_in))
        if raced == "weight":

            def call():
                return _kernels.Linear(weight[0], bias[0])(tensor[0], activation)

            return Scene(call, [weight, bias])
        layer, out = _kernels.Linear(weight[0], bias[0]), maker.out((rows, d_out))
        return Scene(partial(layer, tensor[0], activation, out=out[0]), [tensor, out])

    return scene


def activate(rows, columns, activation):
    def scene(maker):
        tensor, bias = maker.array((rows, columns)), maker.array((columns,))

        def call():
            _kernels.activate(tensor[0], bias[0], activation)
            return tensor[0]

        return Scene(call, [tensor, bias])

    return scene


def layer_norm(rows, columns, to):
    def scene(maker):
        racing = [maker.array((rows, columns)), maker.array((rows, columns)), maker.array((columns,))]
        racing.append(maker.array((columns,)))
        given = [array for array, _ in racing]
        if to == "out":
            racing.append(maker.out((rows, columns)))
        out = {"fresh": None, "same": given[0], "out": racing[-1][0]}[to]
        return Scene(partial(_kernels.layer_norm, *given, 1e-5, out=out), racing)

    return scene


def cuts(slices, stages):
    """Stages of balanced cost; the costs are raced."""

    def scene(maker):
        contents = [maker.rng.random(slices) * scale for scale in (1.0, 0.0, 1e300, 1e-300)]
        tensor, costs = np.zeros(slices, np.int8), maker.array((slices,), contents)

        def check(parts):
            assert sum(map(len, parts)) == slices

        return Scene(partial(_kernels.split_stages, tensor, stages, 0, costs[0]), [costs], check=check)

    return scene


FEW, MANY, LONG = (3, 1021), (40, 4093), (2, 40_009)

CASES = {
    "sparse_attention": {
        f"{normalization} {'causal ' if causal else ''}{shape[0]}x{shape[1]} to {out}": sparse(
            normalization, causal, shape, out
        )
        for normalization, causal, shape, out in [
            ("none", False, MANY, "out"),
            ("softmax", False, MANY, "out"),
            ("sum", False, MANY, "fresh"),
            ("none", True, MANY, "fresh"),
            ("softmax", True, MANY, "same"),
            ("sum", True, FEW, "out"),
            ("none", False, FEW, "same"),
            ("softmax", False, FEW, "fresh"),
            ("none", False, LONG, "out"),
            ("none", False, (120, 611), "strided"),
            ("softmax", True, (120, 611), "strided"),
        ]
    }
    | {
        "nothing is dropped": sparse("none", False, MANY, "out", ratio=0.0),
        "nothing is dropped, softmax, causal": sparse("softmax", True, MANY, "fresh", ratio=0.0),
        "few are dropped, causal": sparse("none", True, MANY, "out", ratio=0.01),
    },
    "sliding_window_attention": {
        f"{normalization} {'causal ' if causal else ''}{shape[0]}x{shape[1]} {size} to {out}": window(
            normalization, causal, shape, out, size
        )
        for normalization, causal, shape, out, size in [
            ("none", False, MANY, "out", (64, 3)),
            ("softmax", False, (700, 701), "out", 129),
            ("sum", True, (700, 701), "same", 129),
            ("softmax", True, MANY, "fresh", None),
            ("none", False, (700, 701), "fresh", (1, 0)),
            ("softmax", False, (120, 611), "strided", (64, 3)),
        ]
    },
    "fused, many rows": {
        "dense": fused(133, 301),
        "causal": fused(133, 301, is_causal=True, to="out"),
        "window": fused(300, 300, window_size=(33, 0)),
        "softcap": fused(133, 301, softcap=20.0, heads=(3, 1), d=33, d_v=65),
        "transposed keys": fused(133, 301, transposed=True),
        "causal with sinks": fused(133, 301, is_causal=True, sinks=True),
        "no columns": fused(133, 301, d=0, sinks=True),
    },
    "fused, masks": {
        "bool": fused(133, 301, mask="bool"),
        "float": fused(133, 301, mask="float"),
        "bool and sinks, causal": fused(70, 301, mask="bool", sinks=True, is_causal=True),
        "float and softcap": fused(70, 301, mask="float", softcap=5.0, to="out"),
        "bool, one query": fused(1, 2005, mask="bool"),
        "float, one query": fused(1, 2005, mask="float"),
        "bool, sparse": fused(33, 301, mask="bool", sparsity_ratio=0.5),
    },
    "fused, few rows": {
        "one query": fused(1, 3001),
        "one query, transposed keys": fused(1, 3001, transposed=True),
        "three queries, causal": fused(3, 3001, is_causal=True, sinks=True),
        "window": fused(2, 3001, window_size=(500, 0), to="out"),
        "softcap": fused(1, 3001, softcap=3.0, d=33, d_v=17),
    },
    "fused, sparse": {
        "many rows": fused(70, 501, sparsity_ratio=0.8),
        "many rows, causal": fused(70, 501, sparsity_ratio=0.5, is_causal=True),
        "one query": fused(1, 3001, sparsity_ratio=0.9, sinks=True),
        "window": fused(70, 501, sparsity_ratio=0.8, window_size=65, to="out"),
        "float mask": fused(70, 301, sparsity_ratio=0.8, mask="float"),
    },
    "sharded_linear": {
        f"{rows} rows, {mode}{', transposed' if transposed else ''}": linear(
            rows, 301, 131, 3, mode, transposed=transposed
        )
        for rows in (1, 7, 130)
        for mode in ("column", "row")
        for transposed in (False, True)
        if not (transposed and rows == 7)
    },
    "layers": {
        "linear, gelu": encoder_linear(130, 129, 257, "gelu", "tensor"),
        "linear, one row": encoder_linear(1, 129, 257, "relu", "tensor"),
        "linear, made": encoder_linear(17, 129, 257, "gelu_tanh", "weight"),
        "activate": activate(130, 301, "gelu"),
        "layer norm": layer_norm(130, 301, "fresh"),
        "layer norm, out": layer_norm(130, 301, "out"),
        "layer norm in place": layer_norm(130, 301, "same"),
    },
    "cuts": {"balanced": cuts(2003, 7), "more stages than slices": cuts(501, 700)},
    "write_json": {
        "floats": texts.written((33, 61), None, False),
        "floats, typed": texts.written((33, 61), None, True),
        "bools": texts.written((33, 61), bool, False),
        "bools, typed": texts.written((33, 61), bool, True),
        "integers": texts.written((33, 61), np.int64, False),
        "many floats": texts.written((400, 61), None, False),
        "many bools": texts.written((900, 61), bool, False),
    },
    "read_json": {
        f"{function}, {'bytearray' if holder is bytearray else 'array'}": texts.read(function, holder)
        for function in ("read_json", "read_json plain", "json_spans")
        for holder in (bytearray, np.ndarray)
    }
    | {"numbers, bytearray": texts.numbers(bytearray), "numbers, array": texts.numbers(np.ndarray)},
}

DTYPES = {"layers": FLOATS[:1], "cuts": FLOATS[1:2], "read_json": FLOATS[:1]}
"""What else than all of :data:`FLOATS` a case is run with."""

LEVELLESS = ("cuts", "write_json", "read_json")
"""Cases without vector instructions of ours."""
