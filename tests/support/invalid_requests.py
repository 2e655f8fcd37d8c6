"""Inference requests for the sample artifact ``echo`` that break one rule of the protocol each."""


def one(name="x_FP32", datatype="FP32", shape=(1,), data=(1.0,), **more):
    described = {"name": name, "datatype": datatype, "shape": list(shape), **more}
    return described if data is None else {**described, "data": data}


def sized(size, **more):
    return one(data=None, parameters={"binary_data_size": size}, **more)


INVALID_REQUESTS = {
    "no json": b"{",
    "no object": b"[]",
    "bare NaN": b'{"inputs":[{"name":"x_FP32","datatype":"FP32","shape":[1],"data":[NaN]}]}',
    "duplicate key": b'{"inputs":[],"inputs":[]}',
    "deep": b"[" * 101 + b"]" * 101,
    "no inputs": {},
    "empty inputs": {"inputs": []},
    "inputs no list": {"inputs": {}},
    "no name": {"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]},
    "twice": {"inputs": [one(), one()]},
    "unknown input": {"inputs": [one(name="y")]},
    "unknown datatype": {"inputs": [one(datatype="FP8")]},
    "other datatype": {"inputs": [one(datatype="FP64")]},
    "no shape": {"inputs": [{"name": "x_FP32", "datatype": "FP32", "data": [1]}]},
    "negative axis": {"inputs": [one(shape=(-1,))]},
    "boolean axis": {"inputs": [one(shape=(True,))]},
    "fraction axis": {"inputs": [one(shape=(1.0,))]},
    "text axis": {"inputs": [one(shape=("1",))]},
    "no data": {"inputs": [one(data=None)]},
    "data and size": {"inputs": [one(parameters={"binary_data_size": 4})]},
    "too few": {"inputs": [one(shape=(2,))]},
    "too many": {"inputs": [one(data=[1, 2])]},
    "wrong nesting": {"inputs": [one(shape=(2, 2), data=[[1, 2, 3], [4]])]},
    "text in numbers": {"inputs": [one(data=["1"])]},
    "boolean in numbers": {"inputs": [one(data=[True])]},
    "out of range": {"inputs": [one("x_UINT8", "UINT8", data=[300])]},
    "negative unsigned": {"inputs": [one("x_UINT8", "UINT8", data=[-1])]},
    "fraction": {"inputs": [one("x_INT8", "INT8", data=[1.5])]},
    "numbers in bytes": {"inputs": [one("x_BYTES", "BYTES", data=[1])]},
    "numbers in booleans": {"inputs": [one("x_BOOL", "BOOL", data=[1])]},
    "shared memory": {"inputs": [one(data=None, parameters={"shared_memory_region": "a"})]},
    "unknown output": {"inputs": [one()], "outputs": [{"name": "nothing"}]},
    "output twice": {"inputs": [one()], "outputs": [{"name": "x_FP32"}, {"name": "x_FP32"}]},
    "classification": {"inputs": [one()], "outputs": [{"name": "x_FP32", "parameters": {"classification": 2}}]},
    "reserved": {"inputs": [one()], "parameters": {"triton_x": 1}},
    "nested parameter": {"inputs": [one()], "parameters": {"number": [1]}},
    "negative timeout": {"inputs": [one()], "parameters": {"timeout": -1}},
    "text priority": {"inputs": [one()], "parameters": {"priority": "high"}},
    "unknown parameter": {"inputs": [one()], "parameters": {"nothing": 1}},
    "id": {"id": 1, "inputs": [one()]},
    "input and parameter": {"inputs": [one("number", "FP64")], "parameters": {"number": 1}},
    "binary without header": {"inputs": [sized(4)]},
}
