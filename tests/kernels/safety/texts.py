"""JSON that is written and read while it changes."""

import json
from functools import partial

import numpy as np

from kernels.safety.maker import Scene
from zerocost import ZerocostError, _kernels


def written(shape, dtype, typed):
    """An array as JSON."""

    def scene(maker):
        if dtype is None:
            racing = [maker.array(shape)]
            given = racing[0][0]
        else:
            bits = np.dtype(f"u{np.dtype(dtype).itemsize}")
            top = np.iinfo(bits).max
            contents = [maker.rng.integers(0, high, shape, endpoint=True, dtype=bits) for high in (top, 1, 9, 127)]
            racing = [maker.array(shape, contents)]
            given = racing[0][0].view(dtype)

        # A byte that is not a valid bool in Rust must not be read as one.
        return Scene(partial(_kernels.write_json, given, typed=typed), racing, check=json.loads)

    return scene


LENGTH = 6000


def texts(rng):
    """Valid and invalid JSON, all of one length."""
    rows = ",".join("[" + ",".join(f"{number:.3f}" for number in row) + "]" for row in rng.standard_normal((60, 12)))
    every = [
        b'{"a":[' + rows.encode() + b'],"b":"',
        b'{"a":{"dtype":"FP32","shape":[3],"data":[1.5,2,3]},"b":"',
        b'{"a":[[true,false],[false,true]],"b":"',
        b'{"a":[1e999,-0.0,123456789012345678901234567890.5e-7],"c":{"a":[[]],"d":null},"b":"',
        b"[" * LENGTH,
        b'"\\ud83d\\ude00\\n\xf0\x9f\x98\x80' * LENGTH,
        b"\xff\xc3\xe2\x82" * LENGTH,
        b"9" * LENGTH,
        b"{" + b",".join(b'"name%d":%d' % (index, index) for index in range(300)) + b',"b":"',
    ]
    made = []
    for text in every:
        text = text[: LENGTH - 2]
        if text.endswith(b'"'):
            text += "é".encode() * ((LENGTH - 2 - len(text)) // 2)
        made.append(np.frombuffer(text.ljust(LENGTH - 2, b"x") + b'"}', np.uint8))
    return made


def read(function, holder):
    """JSON that is written to while it is read, from a bytearray or from an array."""

    def scene(maker):
        contents = texts(maker.rng)
        if holder is bytearray:
            text = bytearray(contents[0].tobytes())
            racing = [(np.frombuffer(text, np.uint8), contents)]
        else:
            racing = [maker.array((LENGTH,), contents)]
            text = racing[0][0]
        arguments = {
            "read_json": (text, {"a": ("FP32", True, False)}),
            "read_json plain": (text,),
            "json_spans": (text,),
        }[function]
        call = partial(getattr(_kernels, function.split()[0]), *arguments)
        return Scene(call, racing, allowed=ZerocostError)

    return scene


def numbers(holder):
    """A tensor of numbers whose digits change while they are read."""

    def scene(maker):
        digits = (b"1234,", b"-0.5,", b"1e33,", b"[7],,", b"00000", b"\xff\xff\xff\xff,", b"true,")
        every = [np.frombuffer(b"[" + each * (LENGTH // 5) + b"0]", np.uint8) for each in digits]
        racing = [maker.array(every[0].shape, every)]
        text = racing[0][0]
        if holder is bytearray:
            text = bytearray(every[0].tobytes())
            racing = [(np.frombuffer(text, np.uint8), every)]
        call = partial(_kernels.read_tensor, text, "FP32", [LENGTH // 5 + 1])
        return Scene(call, racing, allowed=ZerocostError)

    return scene
