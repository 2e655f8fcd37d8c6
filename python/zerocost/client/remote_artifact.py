"""RemoteArtifact: an artifact on a server, with the interface of one in the process."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from functools import cached_property
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2
import numpy as np
import orjson

from zerocost.client.response import DeadlinePassed, InvalidResponse, ResponseStream, is_number, read_outputs
from zerocost.core.arrays import as_tensor, is_tensor_like
from zerocost.core.artifact_base import Artifact, ExecutionContext
from zerocost.core.datatypes import datatype_of
from zerocost.core.ports.parameters import unboxed
from zerocost.core.safetensors import MEDIA_TYPE, split_values, to_pieces
from zerocost.errors import (
    DatatypeError,
    DeadlineExceeded,
    InvalidInput,
    PlanError,
    RangeError,
    ServiceUnavailable,
    ZerocostError,
    error_class,
    unescaped,
)

__all__ = ["RemoteArtifact"]

_ATTEMPTS = 3
_LARGEST_WAIT = 30.0
_PIECE = 1 << 20
_LARGEST_ERROR = 1 << 20


class RemoteArtifact(Artifact):
    """Calls an artifact of a zerocost server. It can be registered, so a chain may mix local and remote artifacts.

    Results and exception classes are those of a call in the process. Arrays are sent as binary data, connections are
    reused. Thread-safe.
    """

    waits = True

    def __init__(
        self,
        url: str,
        artifact_name: str,
        *,
        token: str | None = None,
        timeout: float = 60.0,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        """Opens no connection yet.

        Args:
            url: the server's, ``http://127.0.0.1:8000``.
            artifact_name: the artifact's name there.
            token: the bearer token, if the server asks for one.
            timeout: seconds that a call may take; an earlier deadline in the context overrides it.
            transport: an httpx2 transport; None: TCP.

        Raises:
            RangeError: not an http or https URL.
        """
        if urlsplit(url).scheme not in ("http", "https"):
            raise RangeError(f"url: {url!r} was given, one that begins with http:// or https:// is needed", "url")
        self.url = url.rstrip("/")
        self.artifact_name = artifact_name
        self._path = f"{self.url}/artifacts/{quote(artifact_name, safe='')}"
        # Errors name the server, and may be sent on: without a password that the URL may hold.
        self._shown = urlsplit(self.url)._replace(netloc=urlsplit(self.url).netloc.rpartition("@")[2]).geturl()
        self._timeout = timeout
        headers = {"accept-encoding": "identity"}
        if token is not None:
            headers["authorization"] = f"Bearer {token}"
        self._client = httpx2.Client(headers=headers, timeout=timeout, trust_env=False, transport=transport)

    def execute(self, input_data: dict[str, Any], context: ExecutionContext) -> dict[str, Any]:
        """Runs the artifact on its server.

        Raises:
            ServiceUnavailable: the server does not answer.
            DeadlineExceeded: the deadline passed.
            ZerocostError: whatever the artifact or its server raised, in the same class.
        """
        pieces = self._written(input_data)
        headers = {
            "content-type": MEDIA_TYPE,
            "accept": MEDIA_TYPE,
            "content-length": str(sum(len(piece) for piece in pieces)),
        }
        for key, header in (("request_id", "x-request-id"), ("traceparent", "traceparent")):
            if isinstance(context.metadata.get(key), str):
                headers[header] = context.metadata[key]
        until = time.monotonic() + self._timeout
        deadline = context.metadata.get("deadline")
        result = self._call("POST", f"{self._path}/execute", headers, pieces, min(until, deadline or until))
        # Callers here know the artifact by another name.
        if result.get("artifact_used") == self.artifact_name:
            result["artifact_used"] = context.artifact_name
        return result

    def _written(self, input_data: dict[str, Any]) -> list[bytes | memoryview]:
        """The body of a request; raises InvalidInput as a call in the process does."""
        # Array-likes become arrays here: a masked array, for one, must not lose its mask on the way.
        given = {name: as_tensor(value, name) if is_tensor_like(value) else value for name, value in input_data.items()}
        tensors, others = split_values(given)
        if not (all(isinstance(name, str) for name in given) and all(map(_travels, others.values()))):
            # JSON would change or cannot hold some value: a list of float32 numbers, an array of objects. So the
            # inputs are bound here, which converts or refuses it as the artifact would.
            tensors, others = split_values(self._ports.bind(given))
        return to_pieces(tensors, _text(others))

    def get_schema(self) -> dict[str, Any]:
        """The artifact's schema, requested once."""
        schema: dict[str, Any] = self._description["schema"]
        return schema

    def get_description(self) -> str:
        """The artifact's description, requested once."""
        return str(self._description["description"])

    def close(self) -> None:
        """Closes the connections."""
        self._client.close()

    @cached_property
    def _description(self) -> dict[str, Any]:
        described = self._call("GET", self._path, {}, [], time.monotonic() + self._timeout)
        if not (isinstance(described.get("schema"), dict) and "description" in described):
            raise ServiceUnavailable(f"{self._shown}: the answer is not a zerocost server's (it describes nothing)")
        return described

    def _call(
        self, method: str, url: str, headers: dict[str, str], pieces: list[bytes | memoryview], until: float
    ) -> dict[str, Any]:
        for attempt in range(_ATTEMPTS):
            left = until - time.monotonic()
            if left <= 0:
                raise DeadlineExceeded(f"{self._shown}: the deadline passed before an answer came")
            sent = _RequestBody(pieces)
            try:
                with self._client.stream(
                    method,
                    url,
                    headers={**headers, "request-timeout": f"{left:.3f}"},
                    content=iter(sent) if pieces else None,
                    timeout=left,
                ) as response:
                    stream = ResponseStream(response, until)
                    if response.status_code == 200:
                        return read_outputs(response, stream)
                    content = stream.read_all(_LARGEST_ERROR)
                    wait = _retry_after(response)
                    if wait is None or attempt == _ATTEMPTS - 1 or wait > min(until - time.monotonic(), _LARGEST_WAIT):
                        raise self._error(response.status_code, content)
            except InvalidResponse as error:
                raise ServiceUnavailable(f"{self._shown}: the answer is not a zerocost server's ({error})") from error
            except (httpx2.TimeoutException, DeadlinePassed) as error:
                raise DeadlineExceeded(f"{self._shown}: the deadline passed before an answer came") from error
            except (httpx2.ConnectError, httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError) as error:
                # Only a call that the server cannot have seen is retried.
                if sent.begun or isinstance(error, httpx2.ReadError) or attempt == _ATTEMPTS - 1:
                    raise ServiceUnavailable(f"{self._shown}: the server does not answer ({_reason(error)})") from error
                wait = 0.05
            time.sleep(wait)
        raise AssertionError("the last attempt returns or raises")

    def _error(self, status: int, content: bytes) -> ZerocostError:
        try:
            document = orjson.loads(content)
            code, detail, request = str(document["code"]), str(document["detail"]), str(document.get("request_id"))
            errors = [(str(entry["pointer"]), str(entry["message"])) for entry in document.get("errors", [])]
        except (orjson.JSONDecodeError, KeyError, TypeError, RecursionError):
            return ServiceUnavailable(f"{self._shown}: the answer {status} is not a zerocost server's")
        kind = error_class(code)
        error: ZerocostError
        if issubclass(kind, InvalidInput):
            where = errors[0][0] if len(errors) == 1 else ""
            argument = unescaped(where.strip("/")) or None
            error = kind(detail, argument, errors or None)
        elif issubclass(kind, PlanError):
            error = kind(
                detail, step=document.get("step"), artifact=document.get("artifact"), port=document.get("port")
            )
        elif kind is ZerocostError and status in (429, 502, 503):
            error = ServiceUnavailable(f"{self._shown}: {detail}")
        else:
            error = kind(detail)
        error.add_note(f"at {self._shown}, artifact {self.artifact_name}, request {request}")
        return error


class _RequestBody:
    """The pieces of a body, and whether sending has begun."""

    def __init__(self, pieces: list[bytes | memoryview]) -> None:
        self._pieces = pieces
        self.begun = False

    def __iter__(self) -> Iterator[bytes]:
        self.begun = True
        for piece in self._pieces:
            for start in range(0, len(piece), _PIECE):
                yield bytes(piece[start : start + _PIECE])


def _reason(error: BaseException) -> str:
    """Of the operating system where it has one, otherwise the error's own text."""
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            return cause.strerror
        cause = cause.__cause__ or cause.__context__
    return str(error)


def _retry_after(response: httpx2.Response) -> float | None:
    text = response.headers.get("retry-after", "")
    return float(text) if response.status_code in (429, 503) and is_number(text) else None


def _travels(value: Any) -> bool:
    """Whether JSON gives the value back unchanged, whatever its input is declared as."""
    if isinstance(value, list | tuple):
        # The list may become an array, where numbers must keep their exact value and NaN is not text.
        return not any(isinstance(item, float | np.generic) and not _is_plain(item) for item in value) and all(
            map(_travels, value)
        )
    if isinstance(value, dict):
        return True  # never an array; its values are written as JSON allows
    return value is None or isinstance(value, bool | int | float | str) or unboxed(value) is not value


def _is_plain(number: Any) -> bool:
    return type(number) is float and math.isfinite(number)


def _text(values: dict[str, Any]) -> str:
    """The values as JSON.

    Raises:
        DatatypeError: a value has no JSON form; it is named.
    """
    members = []
    for name, value in values.items():
        try:
            member = f"{json.dumps(name, ensure_ascii=False)}:{json.dumps(_as_json(value), ensure_ascii=False)}"
            member.encode()
        except UnicodeEncodeError as error:
            raise DatatypeError(f"{name!r}: half of a surrogate pair was given, which is not text", name) from error
        except TypeError as error:
            raise DatatypeError(f"{name}: {error}, so it cannot be sent", name) from error
        members.append(member)
    return f"{{{','.join(members)}}}"


def _as_json(value: Any) -> Any:
    """The value with NumPy's types, infinity and NaN replaced by JSON."""
    if isinstance(value, np.generic) and unboxed(value) is not value:
        return _as_json(unboxed(value))
    if isinstance(value, np.ndarray):
        if datatype_of(value.dtype) is None:  # as lists it would become an array of another dtype
            raise TypeError(f"an array of {value.dtype} was given, which no message holds")
        return _as_json(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if isinstance(value, list | tuple):
        return [_as_json(item) for item in value]
    if isinstance(value, dict):
        return {name: _as_json(item) for name, item in value.items()}
    return value
