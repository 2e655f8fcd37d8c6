"""The model service: an encoder that runs on the active artifacts.

What an active artifact does in a forward pass:

- ``attention``: every layer attends through it, see :mod:`zerocost.services.attending`.
- ``parallel``: one that takes a ``weight`` computes every linear layer in shards; one that takes ``stages`` gets the
  layers as its stages and the sequences as what is cut into micro-batches.
- ``memory``: remembers the result of each sequence. The key holds the token ids, a digest of the model, and the other
  active artifacts with their parameters and attributes, so what was computed in another way is never the answer. With
  an artifact whose attributes no key can stand for (locks, functions, objects) nothing is remembered, nor is what was
  computed while they changed.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits
from zerocost.errors import DatatypeError, InvalidInput, RangeError
from zerocost.models.architecture import Architecture
from zerocost.models.model import Model, load_model, untrained_model
from zerocost.models.packing import is_batch, positions_of, read_sequences
from zerocost.models.tokenizer import Encoding
from zerocost.services.active import Active, deadline_now, until
from zerocost.services.batcher import Joiner
from zerocost.services.bounds import check_elements, check_work
from zerocost.services.fingerprint import joining_key
from zerocost.services.model_runner import BATCH_TOKENS, Passes, SequenceResult, Sequences
from zerocost.services.progress import bar
from zerocost.services.service import Service, located
from zerocost.services.tokenizer_service import TokenizerService, read_texts
from zerocost.services.twins import apart, twin_of

__all__ = ["ModelOutput", "SimplifiedModelService"]

Floats = npt.NDArray[np.float32]
Artifacts = Mapping[str, Mapping[str, Any] | None] | None
"""``{interface: {"artifact": name, "params": {…}}}``; None for a value means none."""

INTERFACES = ("attention", "parallel", "memory")
_SHORT = 1024
"""Ids up to which a request takes less to read than to hand to a thread."""

JOIN_SECONDS = 0.002
"""How long a request waits for others to be computed with, at most, where nothing else is computed."""
JOIN_TOKENS = 8192
"""The tokens of requests that are computed together, at most."""
RESERVED = frozenset(
    {"attention_matrix", "query", "key", "value", "normalization", "out", "tensor", "weight", "bias", "stages"}
)
"""Inputs that the service itself gives to artifacts."""


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass gives.

    Attributes:
        last_hidden_state: ``[n, width]`` float32 for one sequence, a list of such arrays for several.
        pooled: the mean over the tokens (or the first token, where the model is made so): ``[width]``, or
            ``[sequences, width]`` for several.
        attentions: if asked for, ``[heads, n, n]`` for each layer; for several sequences a list of these for each.
        timings: ``seconds``, and ``attention_seconds``, the part of them that attention took.
        model: the name of the model.
        trained: False for the built-in model, whose weights are random.
        usage: ``tokens``, and ``remembered``, how many sequences came from the memory artifact.
    """

    last_hidden_state: Any
    pooled: Floats
    attentions: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    model: str = ""
    trained: bool = True
    usage: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The output by name; ``attentions`` only if asked for."""
        names = ("model", "trained", "last_hidden_state", "pooled", "timings", "usage")
        result = {name: getattr(self, name) for name in names}
        return result if self.attentions is None else {**result, "attentions": self.attentions}


@dataclass(frozen=True)
class _Request:
    """A forward pass that was asked for, checked."""

    sequences: Sequences
    several: bool
    output_attentions: bool
    active: Mapping[str, Active]
    deadline: float | None = field(default_factory=deadline_now)

    @property
    def tokens(self) -> int:
        return sum(len(ids) for ids, _ in self.sequences)

    def check(self, limits: Limits, model: Architecture) -> None:
        """Raises unless the work, what comes out of it, and the parts that artifacts are told to make are allowed."""
        lengths = [len(ids) for ids, _ in self.sequences]
        weights = model.layers * model.heads * sum(n * n for n in lengths) if self.output_attentions else 0
        check_elements(model.width * (self.tokens + len(lengths)) + weights, limits)
        check_work(lengths, self.active, limits, model)


class SimplifiedModelService(Service):
    """Runs a sentence encoder on the artifacts of a registry.

    Args:
        artifact_registry: where :meth:`use_artifact` looks.
        model: a Hugging Face folder of the BERT family, or a loaded model; None is the built-in untrained one.

    Raises:
        InvalidModel: the folder cannot be used.
    """

    def __init__(self, artifact_registry: ArtifactRegistry, model: str | Path | Model | None = None) -> None:
        super().__init__(artifact_registry, INTERFACES)
        if model is None:
            self.model = untrained_model()
        else:
            self.model = model if isinstance(model, Model) else load_model(model)
        self.tokenizer = TokenizerService(artifact_registry, self.model.tokenizer, self.model.max_tokens)
        self._passes = Passes(self.model)
        # A joiner belongs to one event loop and goes with it.
        self._joiners: WeakKeyDictionary[asyncio.AbstractEventLoop, Joiner[_Request, ModelOutput]] = WeakKeyDictionary()

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        output_attentions: bool = False,
        artifacts: Artifacts = None,
    ) -> ModelOutput:
        """Runs the model.

        Args:
            input_ids: token ids: one list, lists of different lengths, or an array ``[n]`` or ``[batch, n]``.
            attention_mask: 0 for tokens that take no part (padding), 1 for the others; shaped as the ids. Tokens that
                take no part have no state in the output.
            output_attentions: whether to return the weights of every head; without the memory artifact.
            artifacts: ``{interface: {"artifact": name, "params": {…}}}`` for this call alone, in place of the active
                ones; None for a value means none.

        Raises:
            DatatypeError, ShapeError, RangeError: ids or a mask that the model cannot take.
            InvalidInput: an artifact returned NaN, or something else than what it is asked for. The note says in which
                layer.
        """
        request = self._request(input_ids, attention_mask, output_attentions, artifacts)
        results, timings, usage = self._passes.run(
            request.sequences, request.active, output_attentions=output_attentions
        )
        return self._output(results, timings, usage, several=request.several)

    @twin_of(forward)
    async def post_forward(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The twin of :meth:`forward` for requests: its arguments by name, ``output`` out.

        Requests that come while others are computed, or shortly after each other, run as one batch if they ask for the
        same artifacts. Each gets the numbers that it would have got alone, up to rounding; its timings are the batch's.

        Raises:
            LimitExceeded: more elements or operations than ``limits`` allows; nothing is computed.
        """
        read = partial(self._request, **data, limits=limits)
        # Those that come together are read together, and so are computed together.
        request = read() if _is_short(data["input_ids"]) else await apart(read)
        if limits is not None:
            request.check(limits, self.model.encoder.architecture)
        return {"output": (await self._joined(request)).to_dict()}

    async def _joined(self, request: _Request) -> ModelOutput:
        parts = [joining_key(active) for _, active in sorted(request.active.items())]
        return await self._joiner().submit(request, (request.output_attentions, *parts), request.tokens)

    def _joiner(self) -> Joiner[_Request, ModelOutput]:
        loop = asyncio.get_running_loop()
        if loop not in self._joiners:
            self._joiners[loop] = Joiner(self._answer, wait=JOIN_SECONDS, most=JOIN_TOKENS)
        return self._joiners[loop]

    def _answer(self, requests: Sequence[_Request]) -> list[ModelOutput | Exception]:
        """The output of each of several requests with the same artifacts. The latest of their deadlines holds."""
        first = requests[0]
        deadlines = [request.deadline for request in requests if request.deadline is not None]
        latest = max(deadlines) if len(deadlines) == len(requests) else None
        every = [sequence for request in requests for sequence in request.sequences]
        try:
            with until(latest):
                results, timings, usage = self._passes.run(
                    every, first.active, output_attentions=first.output_attentions
                )
        except Exception as error:
            if len(requests) == 1:
                return [error]
            # What breaks an artifact may be one request's sequence: the others must not pay for it.
            return [answer for request in requests for answer in self._answer([request])]
        rest = iter(results)
        return [
            self._output(list(itertools.islice(rest, len(request.sequences))), timings, usage, several=request.several)
            for request in requests
        ]

    def _request(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        output_attentions: bool = False,
        artifacts: Artifacts = None,
        limits: Limits | None = None,
    ) -> _Request:
        if not isinstance(output_attentions, bool):
            raise DatatypeError("output_attentions: true or false is needed", "output_attentions")
        active = self._chosen(artifacts, limits)
        sequences = self._read(input_ids, attention_mask)
        return _Request(sequences, is_batch(input_ids), output_attentions, active)

    def embed(
        self,
        texts: str | list[str] | tuple[str, ...],
        *,
        artifacts: Artifacts = None,
        progress: Annotated[bool | None, {"x-in-process": True}] = None,
    ) -> Floats:
        """The vector of each text: tokens, forward pass, pooling, L2 norm.

        Texts beyond the model's length are truncated, with a warning that says how many.

        Args:
            texts: one text or several.
            artifacts: as in :meth:`forward`.
            progress: whether to show a bar; None: for long lists on a terminal.

        Returns:
            ``[width]`` for one text, ``[texts, width]`` for several; rows have length 1.
        """
        active = self._chosen(artifacts)
        encodings = self._encode(read_texts(texts, "texts"))
        with bar(len(encodings), progress, "embedding") as advance:
            vectors = self._vectors(encodings, active, advance)
        return vectors[0] if isinstance(texts, str) else vectors

    def _vectors(
        self, encodings: list[Encoding], active: Mapping[str, Active], advance: Callable[[int], object]
    ) -> Floats:
        """One row of length 1 for each encoding."""
        vectors = np.empty((len(encodings), self.model.encoder.architecture.width), np.float32)
        for batch in _batches(encodings, BATCH_TOKENS):
            results, *_ = self._passes.run(self._sequences([encodings[index] for index in batch]), active)
            vectors[batch] = [result.pooled for result in results]
            advance(len(batch))
        return _unit(vectors)

    def embed_and_count(self, texts: list[str], advance: Callable[[int], object]) -> tuple[Floats, int]:
        """:meth:`embed` without bar and warning: the vectors, and how many texts were truncated.

        ``advance`` is told after every batch how many texts it had.
        """
        encodings = self.tokenizer.encode(texts)
        vectors = self._vectors(encodings, self._active.snapshot(), advance)
        return vectors, sum(encoding.truncated for encoding in encodings)

    @twin_of(embed)
    async def post_embed(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """The twin of :meth:`embed` for requests: ``texts`` and ``artifacts`` in, ``output`` out.

        Joined with other requests, as in :meth:`post_forward`. ``truncated`` holds the indexes of the texts whose end
        is missing.

        Raises:
            LimitExceeded: more elements or operations than ``limits`` allows; nothing is computed.
        """
        texts, model = read_texts(data["texts"], "texts"), self.model.encoder.architecture
        active = self._chosen(data.get("artifacts"), limits)
        if limits is not None:
            check_elements(len(texts) * model.width, limits)
        encodings = await apart(lambda: self.tokenizer.encode(texts))
        if limits is not None:
            check_work([len(encoding.input_ids) for encoding in encodings], active, limits, model)
        vectors = np.empty((len(texts), model.width), np.float32)
        # Large ones take turns with other requests, and end when nobody waits for them any more.
        for batch in _batches(encodings, JOIN_TOKENS):
            sequences = self._sequences([encodings[index] for index in batch])
            request = _Request(sequences, several=True, output_attentions=False, active=active)
            vectors[batch] = (await self._joined(request)).pooled
        vectors = _unit(vectors)
        truncated = [index for index, encoding in enumerate(encodings) if encoding.truncated]
        return {"output": vectors[0] if isinstance(data["texts"], str) else vectors, "truncated": truncated}

    def _find(self, name: str, params: dict[str, Any], limits: Limits | None = None) -> Active:
        active = self._active.find(name, params, limits)
        inputs = active.spec.ports.inputs
        taken = sorted(RESERVED & params.keys())
        if taken:
            raise InvalidInput(
                f"artifact {name!r}: {', '.join(taken)} comes from the model and cannot be set", taken[0]
            )
        if active.spec.interface == "parallel" and not {"weight", "stages"} & inputs.keys():
            raise InvalidInput(
                f"artifact {name!r} declares neither 'weight' (linear layers in shards) nor 'stages' (layers in "
                "stages), so it cannot run a model"
            )
        return active

    def _chosen(self, artifacts: Artifacts, limits: Limits | None = None) -> Mapping[str, Active]:
        chosen = dict(self._active.snapshot())
        if artifacts is None:
            return chosen
        if not isinstance(artifacts, Mapping):
            raise InvalidInput("artifacts: {interface: {artifact, params}} is needed", "artifacts")
        for interface, choice in artifacts.items():
            if interface not in INTERFACES:
                raise RangeError(
                    f"artifacts: the interface {interface!r} was given, {', '.join(INTERFACES)} are allowed",
                    "artifacts",
                )
            if choice is None:
                chosen.pop(interface, None)
                continue
            if not isinstance(choice, Mapping) or not isinstance(choice.get("artifact"), str):
                raise InvalidInput(f"artifacts: {interface} needs the name of an artifact", "artifacts")
            undeclared = set(choice) - {"artifact", "params"}
            params = choice.get("params") or {}
            if undeclared or not isinstance(params, Mapping):
                raise InvalidInput(f"artifacts: {interface} takes 'artifact' and the object 'params'", "artifacts")
            with located("artifacts", interface, "params"):
                active = self._find(choice["artifact"], dict(params), limits)
            if active.spec.interface != interface:
                raise RangeError(
                    f"artifacts: {choice['artifact']!r} has the interface {active.spec.interface!r}, not {interface!r}",
                    "artifacts",
                )
            chosen[interface] = active
        return chosen

    def _read(self, input_ids: Any, attention_mask: Any) -> Sequences:
        return read_sequences(input_ids, attention_mask, self.model.encoder.architecture)

    def _sequences(self, encodings: list[Encoding]) -> Sequences:
        padding = self.model.encoder.architecture.padding
        arrays = [np.asarray(encoding.input_ids, np.int64) for encoding in encodings]
        return [(ids, positions_of(ids, padding)) for ids in arrays]

    def _encode(self, texts: list[str]) -> list[Encoding]:
        encodings = self.tokenizer.encode(texts)
        cut = sum(encoding.truncated for encoding in encodings)
        if cut:
            warnings.warn(f"{cut} of {len(texts)} texts were truncated to {self.model.max_tokens} tokens", stacklevel=3)
        return encodings

    def _output(
        self, results: list[SequenceResult], timings: dict[str, float], usage: dict[str, int], *, several: bool
    ) -> ModelOutput:
        if several:
            states: Any = [result.states for result in results]
            pooled = np.stack([result.pooled for result in results])
            weights: Any = [result.weights for result in results]
        else:
            states, pooled, weights = results[0].states, results[0].pooled, results[0].weights
        wanted = results[0].weights is not None
        model = self.model
        return ModelOutput(states, pooled, weights if wanted else None, timings, model.name, model.trained, usage)


def _is_short(input_ids: Any) -> bool:
    """Whether there are few ids, in one list or several."""
    if not isinstance(input_ids, list) or len(input_ids) > _SHORT:
        return False
    return sum(len(item) if isinstance(item, list) else 1 for item in input_ids) <= _SHORT


def _unit(vectors: Floats) -> Floats:
    """Each row divided by its length; zeros stay."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    norms[norms == 0] = 1
    unit: Floats = vectors / norms.astype(np.float32)
    return unit


def _batches(encodings: list[Encoding], most: int) -> list[list[int]]:
    """Texts in groups of at most ``most`` tokens, the longest first: the time that is left then only gets shorter."""
    batches: list[list[int]] = []
    room = 0
    for index in sorted(range(len(encodings)), key=lambda index: -len(encodings[index].input_ids)):
        length = len(encodings[index].input_ids)
        if length > room:
            batches.append([])
            room = most
        batches[-1].append(index)
        room -= length
    return batches
