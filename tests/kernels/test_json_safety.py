"""Hostile callers of the JSON reader and writer: at most an error, never a crash, whatever other threads do.

What could end a process runs in one of its own.
"""

import json

import numpy as np
import pytest

from support.processes import run_json_code
from support.threads import meanwhile
from zerocost._kernels import json_spans, read_json, read_tensor, write_json

# The reader: a text does not change while it is parsed.


def test_a_bytearray_is_read_as_it_is_at_one_moment():
    ones, twos = (b"[" + b",".join([number] * 100_000) + b"]" for number in (b"1.5", b"2.5"))
    text = bytearray(ones)
    versions = [ones, twos]

    def change():
        text[:] = versions[0]
        versions.reverse()

    with meanwhile(change):
        for view in (text, memoryview(text)) * 100:
            array = read_tensor(view, "FP64", [100_000])
            assert (array == array[0]).all()


def test_an_array_that_changes_meanwhile_is_read_or_refused():
    run_json_code("""
        import itertools, time
        elements = (b"1.25", b"\\x80\\xff\\x80\\xff", b'"Na ', b" \\xc3\\xa9 ")
        versions = [b"[" + b",".join([element] * 50_000) + b"]" for element in elements]
        versions = [np.frombuffer(version, np.uint8) for version in versions]
        text = versions[0].copy()
        going, outcomes = True, set()
        def change():
            while going:
                for version in versions:
                    np.copyto(text, version)
        thread = threading.Thread(target=change)
        thread.start()
        try:
            end = time.monotonic() + 60  # on a busy machine the other thread may rest during all of the reads
            for reads in itertools.count():
                if reads >= 2000 and (len(outcomes) == 2 or time.monotonic() > end):
                    break
                for read in (lambda: read_tensor(text, "FP64", [50_000]), lambda: json_spans(text)):
                    try:
                        read()
                    except ValueError:  # the text was not JSON, or not numbers
                        outcomes.add("refused")
                    else:
                        outcomes.add("read")
        finally:
            going = False
            thread.join()
        assert outcomes == {"read", "refused"}
    """)


@pytest.mark.parametrize("make", [bytes, bytearray, memoryview, lambda text: np.frombuffer(text, np.uint8)])
def test_every_buffer_is_read(make):
    text = b'{"a":[1,2],"b":{}}'
    assert read_json(make(text)) == {"a": [1, 2], "b": {}}
    assert json_spans(make(text)) == {"a": (5, 10), "b": (15, 17)}
    assert read_tensor(make(b"[1,2]"), "INT8", [2]).tolist() == [1, 2]
    assert read_json(memoryview(make(text))[5:10]) == [1, 2]
    with pytest.raises(TypeError, match="contiguous"):
        read_json(memoryview(make(text))[::2])


def test_bytes_are_not_copied():
    run_json_code("""
        import resource
        def peak():
            return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        text = b" " * (64 << 20) + b"1"
        before = peak()
        assert read_json(text) == read_json(memoryview(text)[1:]) == 1
        assert peak() - before < 32 << 10
        assert read_json(memoryview(bytearray(text))) == 1
    """)


# Depth.

NESTED = """
    depth = 500
    lists, objects = b"[" * depth + b"1" + b"]" * depth, b'{"a":' * depth + b"1" + b"}" * depth
    value, members = 1, 1
    for _ in range(depth):
        value, members = [value], {"a": members}
    def run():
        for deep in (500, 10**9):
            read_json(lists, max_depth=deep)
            read_json(objects, max_depth=deep)
            read_json(b'{"x":' + lists[1:-1] + b"}", {}, max_depth=deep)
            json_spans(lists, max_depth=deep)
            json_spans(objects, max_depth=deep)
            assert "more than 32 axes" in refused(ValueError, read_tensor, lists, "FP64", [1], max_depth=deep)
            tensor = {"x": ("FP64", False, False)}
            assert "32 axes" in refused(ValueError, read_json, b'{"x":%s}' % lists[1:-1], tensor, max_depth=deep)
        assert write_json(value) == lists
        assert write_json(members) == objects
        for text in (b"[" * 10**6, b'{"a":' * 10**6, lists.join([b"[", b"]"])):
            for read in (read_json, json_spans):
                assert "500 levels" in refused(ValueError, read, text, max_depth=10**9)
            assert "500 levels" in refused(ValueError, read_tensor, b"[" * 10**6, "FP64", [1], max_depth=10**9)
        assert "500 levels" in refused(TypeError, write_json, [value])
        done.append(True)
    done = []
    threading.stack_size(128 << 10)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert done
"""


def test_depth_costs_no_stack():
    run_json_code(NESTED)


ENDLESS = {
    "list": "value = []; value.append(value)",
    "dict": "value = {}; value['a'] = value",
    "both": "value = {'a': []}; value['a'].append((value,))",
    "array": "value = np.empty(2, object); value[0] = value",
    "array without axes": "value = np.empty((), object); value[()] = value",
    "array in a list": "array = np.empty(1, object); value = [array]; array[0] = value",
    "arrays in each other": """
value = 1
for _ in range(100_000):
    array = np.empty(1, object)
    array[0] = value
    value = array
""",
    "tolist": """
class Own(np.ndarray):
    def tolist(self):
        return self
value = np.array(["a"]).view(Own)
""",
}


@pytest.mark.parametrize("case", ENDLESS)
def test_recursive_values_have_no_json_form(case):
    run_json_code(f"""
{ENDLESS[case]}
for typed in (False, True):
    message = refused(TypeError, write_json, value, typed=typed)
    assert message == "a result nested deeper than 500 levels has no JSON form; does it contain itself?", message
import os
os._exit(0)  # what Python does with a chain of 100,000 arrays is not our concern
""")


NO_FORM = {
    "np.longdouble(1)": "longdouble",
    "np.array(1, np.longdouble)": "longdouble",
    "np.ones((2, 3), np.longdouble)": "longdouble",
    "[{'a': np.longdouble(1)}]": "longdouble",
    "np.array([np.longdouble(1)], object)": "longdouble",
    "np.clongdouble(1)": "clongdouble",
    "np.complex128(1)": "complex128",
    "np.ones(2, np.complex64)": "complex64",
    "1j": "complex",
    "np.datetime64('2020')": "datetime64[Y]",
    "np.array(['2020'], 'M8[ns]')": "datetime64[ns]",
    "np.timedelta64(1, 's')": "timedelta64[s]",
    "np.array([1], 'm8[ns]')": "timedelta64[ns]",
    "np.zeros(2, 'V3')": "|V3",
    "np.zeros(2, [('a', 'i4')])": "[('a', '<i4')]",
    "np.zeros(2, [('a', 'i4')])[0]": "[('a', '<i4')]",
    "np.void(b'ab')": "|V2",
    "b'a'": "bytes",
    "np.bytes_(b'a')": "bytes",
    "np.array([b'a'])": "bytes",
    "{1, 2}": "set",
    "object()": "object",
    "type('Odd', (), {'dtype': 1, 'ndim': 2})()": "Odd",
}


def named(kind):
    return str(np.dtype(kind)) if "longdouble" in kind else kind


@pytest.mark.parametrize("value", NO_FORM)
def test_values_without_a_json_form_are_named(value):
    run_json_code(f"""
        for typed in (False, True):
            message = refused(TypeError, write_json, {value}, typed=typed)
            assert message.endswith(" has no JSON form") and {named(NO_FORM[value])!r} in message, message
    """)


def test_json_forms_that_are_kept():
    import ml_dtypes

    assert write_json(np.array([1.5, float("nan")], ">f4")) == b'[1.5,"NaN"]'
    assert write_json(np.array([[1, 2]], ">i8"), typed=True) == b"[[1,2]]"
    assert write_json(np.array(["a", "b"])) == b'["a","b"]'
    assert write_json(np.array("a")) == b'"a"'
    assert write_json(np.array([None, "a", [1.5, np.float32(2)]], object)) == b'[null,"a",[1.5,2.0]]'
    assert write_json(np.array([], object)) == b"[]"
    assert write_json(np.array([1.5], ml_dtypes.float8_e4m3fn)) == b"[1.5]"
    inner = np.array([{"a": np.arange(2)}], object)
    assert write_json({"x": inner, "y": np.arange(2)}, typed=True) == (
        b'{"x":[{"a":[0,1]}],"y":{"dtype":"INT64","shape":[2],"data":[0,1]}}'
    )


def test_the_number_is_written_and_not_what_a_subclass_says():
    class Loud(int):
        def __repr__(self):
            return "loud"

        __str__ = __repr__

    assert write_json([Loud(1), Loud(10**30), 10**30]) == b"[1,%d,%d]" % (10**30, 10**30)


# The writer: values that change while they are written.


def test_values_that_change_while_they_are_written():
    run_json_code("""
        class Key:
            def __init__(self, change):
                self.change = change
            def __str__(self):
                self.change()
                return "k"
        class Lists(np.ndarray):
            def tolist(self):
                change()
                return 1
        import json
        changes = [
            lambda: value.clear(),
            lambda: value.update({n: n for n in range(1000)}),
            lambda: (value.pop(2, None), value.update({len(value) + 5: 1})),
        ]
        for change in changes:
            for first in (Key(change), 1):
                value = {0: 1, first: np.array(["a"]).view(Lists), 2: "text", 3: [1.5]}
                try:
                    json.loads(write_json(value))
                except RuntimeError:  # it changed while it was written
                    pass
        for change in (lambda: value.clear(), lambda: len(value) < 50 and value.extend(range(10))):
            value = [np.array(["a"]).view(Lists), {Key(change): 1}, "text", [1.5]]
            json.loads(write_json(value))
    """)


def test_a_dict_that_other_threads_write_to():
    value = {str(key): [key] for key in range(50)}

    def change():
        for key in range(40, 60):
            value.pop(str(key), None)
        for key in range(60):
            value[str(key)] = [key]

    with meanwhile(change):
        for _ in range(3000):
            written = json.loads(write_json(value))
            assert all(item == [int(key)] for key, item in written.items())


VERSIONS = """
import json, ml_dtypes
numbers, size = np.random.default_rng(0), 4000

def versions_of(datatype):
    # All lengths of text and runs of zeros; a boolean is any byte.
    kind = np.dtype(getattr(ml_dtypes, datatype, None) or datatype)
    dense = np.frombuffer(numbers.bytes(size * kind.itemsize), np.uint8).copy()
    sparse = np.where(np.repeat(numbers.random(size) < 0.7, kind.itemsize), 0, dense).astype(np.uint8)
    return [version.view(kind) for version in (np.zeros_like(dense), dense, sparse)]
"""


@pytest.mark.parametrize("datatype", ["float64", "float32", "float16", "bfloat16", "bool", "int8", "int64", "uint64"])
def test_an_array_that_another_thread_writes_to(datatype):
    run_json_code(f"""
{VERSIONS}
versions = versions_of({datatype!r})
allowed = [json.loads(write_json(version)) for version in versions]
array = versions[0].copy()
going = True
def change():
    while going:
        for version in versions:
            np.copyto(array.view(np.uint8), version.view(np.uint8))
thread = threading.Thread(target=change)
thread.start()
try:
    for turn in range(200):
        shape = ((4000,), (1000, 4), (20, 2, 100))[turn % 3]
        shaped = array.reshape(shape)
        written = np.array(json.loads(write_json(shaped)), dtype=object)
        assert written.shape == shape
        assert all(item in choice for item, *choice in zip(written.ravel().tolist(), *allowed, strict=True))
        assert np.array(json.loads(write_json(shaped[..., ::-1])), dtype=object).shape == shape
finally:
    going = False
    thread.join()
""")


def test_every_byte_of_a_boolean_is_true_or_false():
    run_json_code("""
        import json
        array = np.arange(256, dtype=np.uint8).view(np.bool_)
        expected = np.arange(256) != 0
        for shape in ((256,), (4, 64), (128, 2)):
            assert json.loads(write_json(array.reshape(shape))) == expected.reshape(shape).tolist()
            assert json.loads(write_json(array.reshape(shape), typed=True))["data"] == expected.tolist()
        long = np.full(100_000, 255, np.uint8).view(np.bool_)
        assert write_json(long) == b"[" + b",".join([b"true"] * 100_000) + b"]"
        assert write_json(long[0]) == b"true"
    """)


def test_a_subclass_says_nothing_about_memory():
    class Liar(np.ndarray):
        shape = property(lambda self: (10**9,))
        dtype = property(lambda self: np.dtype("f8"))
        flags = property(lambda self: None)

        def copy(self, order="C"):
            return np.zeros(1, np.int8)

    array = np.arange(12, dtype=np.float32).reshape(3, 4)
    assert write_json(array.view(Liar)) == write_json(array)
    assert write_json(array.T.view(Liar)) == write_json(np.ascontiguousarray(array.T))
    odd = np.frombuffer(b"\0" + array.tobytes(), np.float32, offset=1)
    assert write_json(odd.view(Liar)) == write_json(array.ravel())
