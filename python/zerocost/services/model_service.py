"""The model service: an encoder that runs on the active artifacts.

What an active artifact does in a forward pass:

- ``attention``: every layer attends through it, see :mod:`zerocost.services.attending`.
- ``parallel``: one that takes a ``weight`` computes every linear layer in shards; one that takes ``stages`` gets the
  layers as its stages and the sequences as what is cut into micro-batches.
- ``memory``: remembers the result of each sequence. The key holds the token ids, a digest of the model, and the other
  active artifacts with their parameters, so what was computed in another way is never the answer.
"""

from __future__ import annotations

import hashlib
import itertools
import time
import warnings
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from zerocost.artifacts.layers import activate
from zerocost.core.artifact_registry import ArtifactRegistry
from zerocost.errors import InvalidInput, MissingInput, RangeError, ShapeError
from zerocost.services.active import Active, ActiveArtifacts, recall, remember
from zerocost.services.attending import attention_of
from zerocost.services.encoder import Hidden, Linear, Projection, mean_of_sequences
from zerocost.services.fingerprint import Fingerprints
from zerocost.services.model import Model, load_model, untrained_model
from zerocost.services.packing import Packed, is_batch, read_sequences
from zerocost.services.progress import bar
from zerocost.services.tokenizer import Encoding
from zerocost.services.tokenizer_service import TokenizerService, read_texts

__all__ = ["ModelOutput", "SimplifiedModelService"]

Floats = npt.NDArray[np.float32]
Sequences = list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]

INTERFACES = ("attention", "parallel", "memory")
BATCH_TOKENS = 2048
"""Tokens that go through the layers at once: their states stay in the second and third level of cache."""


@dataclass(frozen=True)
class ModelOutput:
    """What a forward pass gives.

    Attributes:
        last_hidden_state: ``[n, width]`` float32 for one sequence, a list of such arrays for several.
        pooled: the mean over the tokens (or the first token, where the model is made so): ``[width]``, or
            ``[sequences, width]`` for several.
        attentions: if asked for, ``[heads, n, n]`` for each layer; for several sequences a list of these for each.
        timings: ``seconds``, of these ``attention_seconds``; ``tokens``; ``remembered``, the sequences that came from
            the memory artifact.
        model: the name of the model.
        trained: False for the built-in model, whose weights are random.
    """

    last_hidden_state: Any
    pooled: Floats
    attentions: Any = None
    timings: dict[str, float] = field(default_factory=dict)
    model: str = ""
    trained: bool = True

    def to_dict(self) -> dict[str, Any]:
        """The output by name; ``attentions`` only if asked for."""
        result = {name: getattr(self, name) for name in ("model", "trained", "last_hidden_state", "pooled", "timings")}
        return result if self.attentions is None else {**result, "attentions": self.attentions}


@dataclass
class _Result:
    """One sequence: its states ``[n, width]``, its pooled vector, and its weights ``[heads, n, n]`` by layer."""

    states: Floats
    pooled: Floats
    weights: list[Floats] | None = None


class SimplifiedModelService:
    """Runs a sentence encoder on the artifacts of a registry.

    Args:
        artifact_registry: where :meth:`use_artifact` looks.
        model: a Hugging Face folder of the BERT family, or a loaded model; None is the built-in untrained one.

    Raises:
        InvalidModel: the folder cannot be used.
    """

    def __init__(self, artifact_registry: ArtifactRegistry, model: str | Path | Model | None = None) -> None:
        self.registry = artifact_registry
        if model is None:
            self.model = untrained_model()
        else:
            self.model = model if isinstance(model, Model) else load_model(model)
        self.tokenizer = TokenizerService(artifact_registry, self.model.tokenizer, self.model.max_tokens)
        self._active = ActiveArtifacts(artifact_registry, INTERFACES)
        self._fingerprints = Fingerprints()

    def use_artifact(self, artifact_name: str, **params: Any) -> None:
        """Uses an artifact for its interface from now on, in place of the one that was used before.

        Raises:
            UnknownArtifact: there is none of that name.
            RangeError: it is neither an attention nor a parallel nor a memory artifact.
            InvalidInput: parameters that it does not take, or a parallel artifact that cannot run a model.
        """
        self._active.put(self._find(artifact_name, params))

    def stop_artifact(self, interface: str) -> None:
        """Uses no artifact for ``interface`` from now on."""
        self._active.stop(interface)

    @property
    def active_artifacts(self) -> dict[str, dict[str, Any]]:
        """The artifacts in use by interface: ``artifact``, ``name`` and ``params``."""
        return self._active.to_dict()

    def forward(
        self,
        input_ids: Any,
        attention_mask: Any = None,
        *,
        output_attentions: bool = False,
        artifacts: Mapping[str, Mapping[str, Any]] | None = None,
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
        active = self._chosen(artifacts)
        sequences = self._read(input_ids, attention_mask)
        results, timings = self._run(sequences, active, output_attentions=output_attentions)
        return self._output(results, timings, several=is_batch(input_ids))

    async def post_forward(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`forward` for requests: its arguments by name, ``output`` out."""
        result = self.forward(
            data.get("input_ids", []),
            data.get("attention_mask"),
            output_attentions=bool(data.get("output_attentions", False)),
            artifacts=data.get("artifacts"),
        )
        return {"output": result.to_dict()}

    def embed(
        self,
        texts: str | list[str] | tuple[str, ...],
        *,
        artifacts: Mapping[str, Mapping[str, Any]] | None = None,
        progress: bool | None = None,
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
        vectors = np.empty((len(encodings), self.model.encoder.architecture.width), np.float32)
        # The longest first: an estimate of the time left then only gets better.
        order = sorted(range(len(encodings)), key=lambda index: -len(encodings[index].input_ids))
        with bar(len(order), progress, "embedding") as advance:
            for batch in _batches(order, encodings):
                arrays = [np.asarray(encodings[index].input_ids, np.int64) for index in batch]
                results, _ = self._run([(ids, np.arange(len(ids))) for ids in arrays], active)
                vectors[batch] = [result.pooled for result in results]
                advance(len(batch))
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors /= np.where(norms > 0, norms, 1)
        return vectors[0] if isinstance(texts, str) else vectors

    async def post_embed(self, data: dict[str, Any]) -> dict[str, Any]:
        """The twin of :meth:`embed` for requests: ``texts`` and ``artifacts`` in, ``output`` out."""
        if "texts" not in data:
            raise MissingInput("texts required", "texts")
        return {"output": self.embed(data["texts"], artifacts=data.get("artifacts"), progress=False)}

    def _find(self, name: str, params: dict[str, Any]) -> Active:
        active = self._active.find(name, params)
        inputs = active.spec.ports.inputs
        if active.spec.interface == "parallel" and not {"weight", "stages"} & inputs.keys():
            raise InvalidInput(
                f"artifact {name!r} declares neither 'weight' (linear layers in shards) nor 'stages' (layers in "
                "stages), so it cannot run a model"
            )
        return active

    def _chosen(self, artifacts: Mapping[str, Mapping[str, Any]] | None) -> Mapping[str, Active]:
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
            active = self._find(choice["artifact"], dict(params))
            if active.spec.interface != interface:
                raise RangeError(
                    f"artifacts: {choice['artifact']!r} has the interface {active.spec.interface!r}, not {interface!r}",
                    "artifacts",
                )
            chosen[interface] = active
        return chosen

    def _read(self, input_ids: Any, attention_mask: Any) -> Sequences:
        architecture = self.model.encoder.architecture
        return read_sequences(input_ids, attention_mask, architecture.vocabulary, architecture.positions)

    def _encode(self, texts: list[str]) -> list[Encoding]:
        encodings = self.tokenizer.encode(texts)
        cut = sum(encoding.truncated for encoding in encodings)
        if cut:
            warnings.warn(f"{cut} of {len(texts)} texts were truncated to {self.model.max_tokens} tokens", stacklevel=3)
        return encodings

    def _run(
        self, sequences: Sequences, active: Mapping[str, Active], *, output_attentions: bool = False
    ) -> tuple[list[_Result], dict[str, float]]:
        """The result of each sequence, and the timings."""
        start = time.perf_counter()
        timings = {"seconds": 0.0, "attention_seconds": 0.0, "tokens": 0, "remembered": 0}
        timings["tokens"] = sum(len(ids) for ids, _ in sequences)
        memory = None if output_attentions else active.get("memory")
        keys: list[Hashable | None] = [None] * len(sequences)
        results: list[_Result | None] = [None] * len(sequences)
        if memory is not None:
            keys = self._keys(sequences, active)
            for index, key in enumerate(keys):
                stored = None if key is None else recall(memory, key)
                if stored is not None:
                    results[index] = _Result(stored[:-1], stored[-1])
                    timings["remembered"] += 1
        missing = [index for index, result in enumerate(results) if result is None]
        for chunk in _chunks(missing, sequences):
            packed = Packed.of([sequences[index] for index in chunk])
            for place, result in self._forward(packed, active, timings, output_attentions=output_attentions):
                index = chunk[place]
                results[index] = result
                if memory is not None and keys[index] is not None:
                    row = np.concatenate([result.states, result.pooled[None]])
                    row.flags.writeable = False
                    remember(memory, keys[index], row)
        timings["seconds"] = time.perf_counter() - start
        return [result for result in results if result is not None], timings

    def _forward(
        self, packed: Packed, active: Mapping[str, Active], timings: dict[str, float], *, output_attentions: bool
    ) -> list[tuple[int, _Result]]:
        encoder = self.model.encoder
        weights: list[list[Floats]] | None = [] if output_attentions else None
        attention = attention_of(active.get("attention"), weights)
        hidden = encoder.embed(packed)
        parallel = active.get("parallel")
        if parallel is None:
            encoder.run(packed, hidden, attention)
        elif "weight" in parallel.spec.ports.inputs:
            encoder.run(packed, hidden, attention, _sharded(parallel))
        elif output_attentions:
            raise InvalidInput("output_attentions: weights are not collected from a pipeline", "output_attentions")
        else:
            self._staged(parallel, packed, hidden, attention)
        timings["attention_seconds"] += hidden.attention_seconds
        states, offsets = hidden.states, packed.offsets
        pooled = mean_of_sequences(packed, states) if self.model.pooling == "mean" else states[offsets[:-1]].copy()
        return [
            (
                int(place),
                _Result(
                    states[offsets[row] : offsets[row + 1]],
                    pooled[row],
                    None if weights is None else [layer[row] for layer in weights],
                ),
            )
            for row, place in enumerate(packed.order)
        ]

    def _staged(self, parallel: Active, packed: Packed, hidden: Hidden, attention: Any) -> None:
        """The layers as stages, the sequences as what is cut into micro-batches. States are changed where they are."""
        encoder = self.model.encoder
        declared = parallel.spec.ports.inputs.get("num_stages", {})
        count = int(parallel.params.get("num_stages") or declared.get("default") or 1)
        cuts = [index * encoder.architecture.layers // count for index in range(count + 1)]

        def stage(layers: range) -> Any:
            def run(sequences: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
                if len(sequences):
                    among = range(int(sequences[0]), int(sequences[-1]) + 1)
                    encoder.run(packed, hidden, attention, layers=layers, sequences=among)
                return sequences

            return run

        stages = [stage(range(first, last)) for first, last in itertools.pairwise(cuts)]
        parallel.call(np.arange(len(packed.order)), stages=stages)

    def _keys(self, sequences: Sequences, active: Mapping[str, Active]) -> list[Hashable | None]:
        """The key of each sequence in a memory artifact: a tuple, which no request over the network can name."""
        parts = [self._fingerprints.of(active[name]) for name in ("attention", "parallel") if name in active]
        if any(part is None for part in parts):
            return [None] * len(sequences)
        prefix = f"{self.model.identity} {parts}".encode()
        return [
            (
                "zerocost.forward",
                hashlib.sha256(b"\0".join([prefix, ids.tobytes(), positions.tobytes()])).hexdigest(),
            )
            for ids, positions in sequences
        ]

    def _output(self, results: list[_Result], timings: dict[str, float], *, several: bool) -> ModelOutput:
        if several:
            states: Any = [result.states for result in results]
            pooled = np.stack([result.pooled for result in results])
            weights: Any = [result.weights for result in results]
        else:
            states, pooled, weights = results[0].states, results[0].pooled, results[0].weights
        wanted = results[0].weights is not None
        return ModelOutput(states, pooled, weights if wanted else None, timings, self.model.name, self.model.trained)


def _sharded(parallel: Active) -> Projection:
    """The linear layers through a parallel artifact that takes a weight; bias and activation come after."""

    def project(tensor: Floats, linear: Linear, activation: str, out: Floats) -> None:
        product = parallel.call(tensor, weight=linear.weight)
        if isinstance(product, list | tuple):  # shards that were left apart
            product = np.concatenate(product, axis=-1)
        if np.shape(product) != out.shape:
            raise ShapeError(
                f"artifact {parallel.spec.name!r} returned shape {list(np.shape(product))}, {list(out.shape)} is needed"
            )
        out[...] = product
        activate(out, linear.bias, activation)

    return project


def _chunks(indexes: list[int], sequences: Sequences) -> list[list[int]]:
    """The sequences in groups of at most :data:`BATCH_TOKENS` tokens (or one sequence), similar lengths together."""
    chunks: list[list[int]] = []
    room = 0
    for index in sorted(indexes, key=lambda index: len(sequences[index][0])):
        length = len(sequences[index][0])
        if length > room:
            chunks.append([])
            room = BATCH_TOKENS
        chunks[-1].append(index)
        room -= length
    return chunks


def _batches(order: list[int], encodings: list[Encoding]) -> list[list[int]]:
    """Texts in the given order in groups of at most sixteen times :data:`BATCH_TOKENS` tokens: what a bar counts."""
    batches: list[list[int]] = []
    room = 0
    for index in order:
        length = len(encodings[index].input_ids)
        if length > room:
            batches.append([])
            room = 16 * BATCH_TOKENS
        batches[-1].append(index)
        room -= length
    return batches
