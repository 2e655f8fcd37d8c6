"""The settings of a server: tokens, limits, time-outs."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import Any

from zerocost.core.limits import Limits
from zerocost.errors import RangeError

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """How a server behaves. Every field can be set by an environment variable, ``ZEROCOST_`` and its name in capitals.

    Attributes:
        token: the bearer token of callers. Without one, only this machine may call.
        admin_token: the bearer token of administrators, who may also change the server.
        auth: False serves everyone without a token.
        allowed_origins: origins whose web pages may call, separated by commas.
        model_control: whether an administrator may unload artifacts and load them again under ``/v2/repository``.
        max_body: bytes of a body, as it is sent and after decompression.
        max_memory: bytes that all bodies and responses together may hold at one time; beyond it 503.
        max_drain: bytes of a refused upload that are read, so that the client sees the response and not a broken pipe.
        max_depth: arrays and objects of JSON inside each other.
        max_values: JSON values outside of arrays of numbers.
        max_elements: elements of one tensor, of all outputs together, and the size of each axis.
        max_operations: multiplications and additions of one artifact, where they are more than its arrays are large.
        max_model_operations: multiplications and additions of one request to the model service; the default is a batch
            of 128 texts of 512 tokens with a model like BERT-base.
        max_parts: separate tensors of a binary body, and arrays that an artifact cuts its output into.
        max_steps: steps of a chain.
        max_fan_out: elements that one ``each`` of a chain runs through.
        slots: requests that compute at the same time; 0 for the number of cores.
        max_waiting: requests that may wait for their turn; beyond it 429.
        request_timeout: seconds that a request may take; 0 for no limit.
        drain_delay: seconds after SIGTERM during which the server still listens, but is not ready.
        drain_timeout: seconds that running requests then have; 0 for no limit.
        access_log: whether every request is logged (logger ``zerocost.access``).
        tracing: whether requests become OpenTelemetry spans (extra ``otel``). None: they do if the environment says
            where spans go (``OTEL_EXPORTER_OTLP_ENDPOINT``, ``OTEL_TRACES_EXPORTER``) or a tracer provider is set.
        processes: how many worker processes there are. With several, no request may change what only one would know.
        worker_folder: where worker processes share their counters.
        model: the folder of the model that is served; without one, the built-in untrained model.
    """

    token: str | None = None
    admin_token: str | None = None
    auth: bool = True
    allowed_origins: tuple[str, ...] = ()
    model_control: bool = False
    max_body: int = 64 << 20
    max_memory: int = 1 << 30
    max_drain: int = 256 << 20
    max_depth: int = 100
    max_values: int = 1_000_000
    max_elements: int = 1 << 24
    max_operations: int = 1 << 40
    max_model_operations: int = 1 << 44
    max_parts: int = 1000
    max_steps: int = 100
    max_fan_out: int = 1024
    slots: int = 0
    max_waiting: int = 256
    request_timeout: float = 60.0
    drain_delay: float = 0.0
    drain_timeout: float = 60.0
    access_log: bool = False
    tracing: bool | None = None
    processes: int = 1
    worker_folder: str | None = None
    model: str | None = None

    def __post_init__(self) -> None:
        for name in _NUMBERS:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value < 0:
                raise RangeError(f"{name}: {value!r} was given, a number from 0 up is allowed", name)
        for name in ("token", "admin_token"):
            value = getattr(self, name)
            if value is not None and (not value or not value.isascii() or value != value.strip()):
                raise RangeError(f"{name}: a word of ASCII characters is needed", name)

    @property
    def has_token(self) -> bool:
        """Whether a token decides who may call."""
        return self.auth and (self.token is not None or self.admin_token is not None)

    @cached_property
    def limits(self) -> Limits:
        """What one call of an artifact may ask for."""
        return Limits(
            elements=self.max_elements, fan_out=self.max_fan_out, parts=self.max_parts, operations=self.max_operations
        )

    @cached_property
    def model_limits(self) -> Limits:
        """What one request to the model service may ask for."""
        return replace(self.limits, operations=self.max_model_operations)

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> Settings:
        """The settings in ``ZEROCOST_TOKEN``, ``ZEROCOST_MAX_BODY``, …; defaults for the others.

        Raises:
            RangeError: a value cannot be read.
        """
        environment = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for field in fields(cls):
            variable = f"ZEROCOST_{field.name.upper()}"
            text = environment.get(variable)
            if not text:
                continue
            try:
                values[field.name] = _PARSERS[field.type](text)
            except (KeyError, ValueError):
                raise RangeError(f"{variable}: {text!r} cannot be read", variable) from None
        return cls(**values)


_SWITCHES = dict.fromkeys(("1", "true", "yes", "on"), True) | dict.fromkeys(("0", "false", "no", "off"), False)
_PARSERS: dict[Any, Callable[[str], Any]] = {
    "int": int,
    "float": float,
    "str | None": str,
    "tuple[str, ...]": lambda text: tuple(origin.strip() for origin in text.split(",") if origin.strip()),
    "bool": lambda text: _SWITCHES[text.lower()],
    "bool | None": lambda text: _SWITCHES[text.lower()],
}
"""How the text of a variable is read, for the type of each field."""

_NUMBERS = [field.name for field in fields(Settings) if field.type in ("int", "float")]
