"""The model service: a sentence encoder that runs on the active artifacts.

The effect of an active artifact on a forward pass:

- ``attention``: computes the attention of every layer, see :mod:`zerocost.services.attention`.
- ``parallel``: an artifact that takes a ``weight`` computes every linear layer in shards. One that takes ``stages``
  runs the layers as stages, on micro-batches of sequences.
- ``memory``: caches the result of each sequence. The key holds the token ids, a digest of the model, and the other
  active artifacts with their parameters and attributes, so a result of other artifacts is never returned. Nothing is
  cached if an artifact has attributes that have no text form (locks, functions, objects), or if they changed during
  the pass.
"""

from __future__ import annotations

import asyncio
import itertools
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.core.limits import Limits
from zerocost.errors import DatatypeError, InvalidInput
from zerocost.models.architecture import Architecture
from zerocost.models.model import Model, load_model, untrained_model
from zerocost.models.packing import is_batch, positions_of, read_sequences
from zerocost.models.pooling import normalize
from zerocost.models.tokenizer import Encoding
from zerocost.services.active_artifacts import ActiveArtifact, Artifacts, artifacts_schema
from zerocost.services.batcher import Batcher
from zerocost.services.endpoints import Endpoint
from zerocost.services.fingerprint import batching_key
from zerocost.services.limits import check_output_elements, check_work
from zerocost.services.model_runner import PASS_TOKENS, ModelRunner, SequenceResult, Sequences, group_by_tokens
from zerocost.services.progress import progress_bar
from zerocost.services.request_context import current_deadline, request_context, to_thread
from zerocost.services.service import Service
from zerocost.services.tokenizer_service import Texts, TokenizerService, check_texts

__all__ = ["ModelOutput", "SimplifiedModelService"]

Floats = npt.NDArray[np.float32]

BATCH_DELAY = 0.002
"""Seconds that a request waits for others to join its batch, at most, while nothing else is computed."""
BATCH_TOKENS = 8192
"""The largest number of tokens of requests that are computed together."""
_SHORT = 1024
"""Up to this many ids are read faster than they are handed to a thread."""

INTERFACES = ("attention", "parallel", "memory")
RESERVED = frozenset(
    {"attention_matrix", "query", "key", "value", "normalization", "out", "tensor", "weight", "bias", "stages"}
)
"""Inputs that the service itself gives to artifacts."""

_IDS = {"type": "array", "minItems": 1, "items": {"type": "integer", "minimum": 0}}
_MASK = {"type": "array", "items": {"enum": [0, 1]}}

ArtifactsField = Annotated[Artifacts, artifacts_schema(INTERFACES)]
InputIds = Annotated[Any, {"anyOf": [_IDS, {"type": "array", "minItems": 1, "items": _IDS}]}]
AttentionMask = Annotated[Any, {"anyOf": [{"type": "null"}, _MASK, {"type": "array", "items": _MASK}]}]


@dataclass(frozen=True)
class ModelOutput:
    """The result of a forward pass.

    Attributes:
        last_hidden_state: ``[n, width]`` float32 for one sequence, a list of such arrays for several.
        pooled: the mean over the tokens (or the first token, if the model pools so): ``[width]``, or
            ``[sequences, width]`` for several.
        attentions: on request, ``[heads, n, n]`` for each layer; for several sequences a list of these for each.
        timings: in seconds: ``seconds`` for the whole pass, ``attention_seconds`` for attention.
        model: the name of the model.
        trained: False for the built-in model, whose weights are random.
        usage: ``tokens``, the number of tokens in the pass; ``cached``, the number of sequences whose result came from
            the memory artifact.
    """

    last_hidden_state: Any
    pooled: Floats
    attentions: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    model: str = ""
    trained: bool = True
    usage: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """The output by name; ``attentions`` only if they were requested."""
        return {name: value for name, value in vars(self).items() if name != "attentions" or value is not None}


@dataclass(frozen=True)
class _Request:
    """A checked request for a forward pass."""

    sequences: Sequences
    several: bool
    output_attentions: bool
    active: Mapping[str, ActiveArtifact]
    deadline: float | None = field(default_factory=current_deadline)

    @property
    def tokens(self) -> int:
        return sum(len(ids) for ids, _ in self.sequences)

    @property
    def batching_key(self) -> tuple[object, ...]:
        """Requests with equal keys can run as one batch."""
        return (self.output_attentions, *(batching_key(active) for _, active in sorted(self.active.items())))

    def check(self, limits: Limits, model: Architecture) -> None:
        """Raises unless the work, its output, and the number of parts that artifacts make are within the limits."""
        lengths = [len(ids) for ids, _ in self.sequences]
        weights = model.layers * model.heads * sum(n * n for n in lengths) if self.output_attentions else 0
        check_output_elements(model.width * (self.tokens + len(lengths)) + weights, limits)
        check_work(lengths, self.active, limits, model)


class SimplifiedModelService(Service):
    """Runs a sentence encoder on the artifacts of a registry.

    Args:
        artifact_registry: where :meth:`use_artifact` looks up names.
        model: a Hugging Face folder of the BERT family, or a loaded model; None is the built-in untrained one.

    Raises:
        InvalidModel: the folder cannot be used.
    """

    interfaces = INTERFACES

    def __init__(self, artifact_registry: ArtifactRegistry, model: str | Path | Model | None = None) -> None:
        super().__init__(artifact_registry)
        if model is None:
            self.model = untrained_model()
        else:
            self.model = model if isinstance(model, Model) else load_model(model)
        self.tokenizer = TokenizerService(artifact_registry, self.model.tokenizer, self.model.max_tokens)
        self._runner = ModelRunner(self.model)
        # A batcher belongs to one event loop and is dropped with it.
        self._batchers: WeakKeyDictionary[asyncio.AbstractEventLoop, Batcher[_Request, ModelOutput]] = (
            WeakKeyDictionary()
        )

    def forward(
        self,
        input_ids: InputIds,
        attention_mask: AttentionMask = None,
        *,
        output_attentions: bool = False,
        artifacts: ArtifactsField = None,
    ) -> ModelOutput:
        """Hidden states and the pooled vector of token ids, for one sequence or several.

        Args:
            input_ids: token ids: one list, lists of different lengths, or an array ``[n]`` or ``[batch, n]``.
            attention_mask: 0 for tokens to leave out (padding), 1 for the others, in the shape of the ids. Tokens that
                are left out have no state in the output.
            output_attentions: whether to return the weights of every head. The memory artifact is not used then.
            artifacts: ``{interface: {"artifact": name, "params": {…}}}`` for this call alone, in place of those in use;
                None (in JSON null) for a value means no artifact.

        Raises:
            DatatypeError, ShapeError, RangeError: the model cannot take the ids or the mask.
            InvalidInput: an artifact returned NaN, or something that it must not return. The note names the layer.
        """
        return self._run_batch([self._request(input_ids, attention_mask, output_attentions, artifacts)])[0]

    @Endpoint.of(forward, unchecked=("input_ids", "attention_mask", "artifacts"))
    async def post_forward(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`forward` for a request: its arguments by name in, ``output`` out.

        Requests for the same artifacts run as one batch if they arrive while others are computed, or shortly after each
        other. Each gets the numbers that it would get alone, up to rounding; timings and tokens are those of the batch.

        Raises:
            LimitExceeded: the request has more elements or operations than ``limits`` allows; nothing is computed.
        """
        read = partial(self._request, **data, limits=limits)
        # Short requests that arrive together are read without a thread, so that they join one batch.
        request = read() if _is_short(data["input_ids"]) else await to_thread(read)
        if limits is not None:
            request.check(limits, self.model.encoder.architecture)
        return {"output": (await self._batched(request)).to_dict()}

    def embed(
        self,
        texts: Texts,
        *,
        artifacts: ArtifactsField = None,
        progress: Annotated[bool | None, {"x-in-process": True}] = None,
    ) -> Floats:
        """One vector of length 1 for each text: tokens, forward pass, pooling, L2 norm.

        Texts beyond the model's length are truncated, with a warning that says how many.

        Args:
            texts: one text or a list of texts.
            artifacts: ``{interface: {"artifact": name, "params": {…}}}``, as for ``forward``.
            progress: whether to show a progress bar; None: for long lists on a terminal.

        Returns:
            ``[width]`` for one text, ``[texts, width]`` for several; rows have length 1.
        """
        several = check_texts(texts)
        with progress_bar(len(several), progress, "embedding") as advance:
            vectors, truncated = self.embed_and_count(several, advance, artifacts)
        if truncated:
            message = f"{truncated} of {len(several)} texts were truncated to {self.model.max_tokens} tokens"
            warnings.warn(message, stacklevel=2)
        return vectors[0] if isinstance(texts, str) else vectors

    def embed_and_count(
        self, texts: list[str], advance: Callable[[int], object], artifacts: Artifacts = None
    ) -> tuple[Floats, int]:
        """:meth:`embed` without progress bar and warning: the vectors, and how many texts were truncated.

        ``advance`` is called after every batch with the number of its texts.
        """
        active = self._active.select(artifacts)
        encodings = self.tokenizer.encode(texts)
        vectors = np.empty((len(encodings), self.model.encoder.architecture.width), np.float32)
        for group, sequences in self._groups(encodings, PASS_TOKENS):
            results, *_ = self._runner.run(sequences, active)
            vectors[group] = [result.pooled for result in results]
            advance(len(group))
        return normalize(vectors), sum(encoding.truncated for encoding in encodings)

    @Endpoint.of(embed, unchecked=("artifacts",))
    async def post_embed(self, data: dict[str, Any], limits: Limits | None = None) -> dict[str, Any]:
        """Calls :meth:`embed` for a request: ``texts`` and ``artifacts`` in, ``output`` out.

        Texts join a batch with other requests, as in :meth:`post_forward`. ``truncated`` holds the indexes of the texts
        that were truncated.

        Raises:
            LimitExceeded: the request has more elements or operations than ``limits`` allows; nothing is computed.
        """
        texts, model = check_texts(data["texts"]), self.model.encoder.architecture
        active = self._active.select(data.get("artifacts"), limits)
        if limits is not None:
            check_output_elements(len(texts) * model.width, limits)
        encodings = await to_thread(lambda: self.tokenizer.encode(texts))
        if limits is not None:
            check_work([len(encoding.input_ids) for encoding in encodings], active, limits, model)
        vectors = np.empty((len(texts), model.width), np.float32)
        # A large request takes turns with others, and ends when its client has left.
        for group, sequences in self._groups(encodings, BATCH_TOKENS):
            request = _Request(sequences, several=True, output_attentions=False, active=active)
            vectors[group] = (await self._batched(request)).pooled
        vectors = normalize(vectors)
        truncated = [index for index, encoding in enumerate(encodings) if encoding.truncated]
        return {"output": vectors[0] if isinstance(data["texts"], str) else vectors, "truncated": truncated}

    async def _batched(self, request: _Request) -> ModelOutput:
        loop = asyncio.get_running_loop()
        if loop not in self._batchers:
            self._batchers[loop] = Batcher(self._run_batch, max_delay=BATCH_DELAY, max_size=BATCH_TOKENS)
        return await self._batchers[loop].submit(request, request.batching_key, request.tokens)

    def _run_batch(self, requests: Sequence[_Request]) -> list[ModelOutput]:
        """The output of each of several requests for the same artifacts, under the latest of their deadlines."""
        first = requests[0]
        deadlines = [request.deadline for request in requests if request.deadline is not None]
        latest = max(deadlines) if len(deadlines) == len(requests) else None
        sequences = [sequence for request in requests for sequence in request.sequences]
        with request_context(latest):
            passed = self._runner.run(sequences, first.active, output_attentions=first.output_attentions)
        results, timings, usage = passed
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
        active = self._active.select(artifacts, limits)
        sequences = read_sequences(input_ids, attention_mask, self.model.encoder.architecture)
        return _Request(sequences, is_batch(input_ids), output_attentions, active)

    def _check_artifact(self, active: ActiveArtifact) -> None:
        name, inputs = active.spec.name, active.spec.ports.inputs
        taken = sorted(RESERVED & active.params.keys())
        if taken:
            raise InvalidInput(
                f"artifact {name!r}: {', '.join(taken)} comes from the model and cannot be set", taken[0]
            )
        if active.spec.interface == "parallel" and not {"weight", "stages"} & inputs.keys():
            raise InvalidInput(
                f"artifact {name!r} declares neither 'weight' (linear layers in shards) nor 'stages' (layers in "
                "stages), so it cannot run a model"
            )

    def _groups(self, encodings: list[Encoding], max_tokens: int) -> Iterator[tuple[list[int], Sequences]]:
        """Texts by index and as sequences, the longest first: the estimate of the time that is left only shrinks."""
        padding = self.model.encoder.architecture.padding
        lengths = [len(encoding.input_ids) for encoding in encodings]
        for group in group_by_tokens(range(len(lengths)), lengths, max_tokens, longest_first=True):
            arrays = [np.asarray(encodings[index].input_ids, np.int64) for index in group]
            yield group, [(ids, positions_of(ids, padding)) for ids in arrays]

    def _output(
        self, results: list[SequenceResult], timings: dict[str, float], usage: dict[str, int], *, several: bool
    ) -> ModelOutput:
        states: Any = [result.states for result in results]
        pooled = np.stack([result.pooled for result in results])
        weights: Any = None if results[0].weights is None else [result.weights for result in results]
        if not several:
            states, pooled, weights = states[0], pooled[0], None if weights is None else weights[0]
        return ModelOutput(states, pooled, weights, timings, self.model.name, self.model.trained, usage)


def _is_short(input_ids: Any) -> bool:
    """Whether there are few ids, in one list or several."""
    if not isinstance(input_ids, list) or len(input_ids) > _SHORT:
        return False
    return sum(len(item) if isinstance(item, list) else 1 for item in input_ids) <= _SHORT
