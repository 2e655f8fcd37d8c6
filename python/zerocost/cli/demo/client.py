"""An independent HTTP client: the standard library, and JSON that is read without the server's code."""

from __future__ import annotations

import http.client
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import numpy.typing as npt
import orjson

from zerocost.core.datatypes import dtype_of

__all__ = ["ChainClient", "connected"]

Array = npt.NDArray[Any]


class ChainClient:
    """Runs chains on a server, over one connection."""

    def __init__(self, connection: http.client.HTTPConnection) -> None:
        self._connection = connection
        self.bytes_sent = 0
        """The size of the last request body."""
        self.bytes_received = 0
        """The size of the last response body."""

    def run_chain(self, pipeline: list[dict[str, Any]], matrix: Array) -> list[Array]:
        """The ``result`` of a chain: an array is sent as JSON, and the arrays of the response are read back.

        Raises:
            ConnectionError: the status of the response is not 200.
        """
        tensor = {"dtype": matrix.dtype.name, "shape": matrix.shape, "data": matrix.ravel()}
        body = orjson.dumps(
            {"pipeline": pipeline, "initial_input": {"attention_matrix": tensor}}, option=orjson.OPT_SERIALIZE_NUMPY
        )
        headers = {"Content-Type": "application/json", "Accept": "application/json;tensors=typed"}
        self._connection.request("POST", "/chains/execute", body, headers)
        response = self._connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise ConnectionError(f"the server answered {response.status}: {answer.decode(errors='replace')}")
        self.bytes_sent, self.bytes_received = len(body), len(answer)
        return [_array(part) for part in orjson.loads(answer)["data"]["result"]]


@contextmanager
def connected(url: str) -> Iterator[ChainClient]:
    """A client of the server at ``url``, which is closed after the block."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=60)
    try:
        yield ChainClient(connection)
    finally:
        connection.close()


def _array(tensor: dict[str, Any]) -> Array:
    return np.array(tensor["data"], dtype_of(tensor["dtype"])).reshape(tensor["shape"])
