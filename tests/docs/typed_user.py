"""What a user of the package writes. It is type-checked by test_typing.py, never run."""

import asyncio
from typing import Any, assert_type

import numpy as np
import numpy.typing as npt

import zerocost
from zerocost.artifacts.memory.redis_cache import RedisCacheArtifact
from zerocost.engine import executor
from zerocost.engine.ray_executor import RayExecutor


class Halve(zerocost.AttentionArtifact):
    """Multiplies every entry."""

    def process_attention(
        self, attention_matrix: npt.NDArray[np.float32], strength: float = 0.5
    ) -> npt.NDArray[np.float32]:
        return attention_matrix * np.float32(strength)


class Double(zerocost.ParallelArtifact):
    def process_parallel(self, tensor: npt.NDArray[Any], times: int = 2, axis: int = 0) -> list[npt.NDArray[Any]]:
        return [tensor] * times


class Shelf(zerocost.MemoryArtifact):
    def __init__(self) -> None:
        self.held: dict[str, object] = {}

    def retrieve(self, key: str) -> object:
        return self.held.get(key)

    def store(self, key: str, value: object, ttl: float | None = None) -> bool:
        self.held[key] = value
        return True

    def clear(self) -> bool:
        self.held.clear()
        return True

    def delete(self, key: str) -> bool:
        return self.held.pop(key, None) is not None

    def keys(self) -> list[str]:
        return list(self.held)


class Count(zerocost.Artifact):
    interface = "custom"
    is_quick = True

    def execute(self, input_data: dict[str, Any], context: zerocost.ExecutionContext) -> dict[str, Any]:
        return {"count": len(input_data["text"]), "by": context.artifact_name}

    def get_schema(self) -> dict[str, Any]:
        return {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"]}


@zerocost.memoize
def square(number: int) -> float:
    return float(number**2)


@zerocost.memoize(max_entries=10)
def joined(*words: str, by: str = " ") -> str:
    return by.join(words)


@zerocost.memoize(max_bytes=1 << 20, ttl=60.0)
async def fetched(url: str) -> bytes:
    return url.encode()


class Model:
    @zerocost.memoize(max_entries=10)
    def size(self, name: str) -> int:
        return len(name)


async def main() -> None:
    assert_type(await fetched("x"), bytes)


assert_type(square(3), float)
assert_type(joined("a", by="-"), str)
assert_type(Model().size("x"), int)
assert_type(square.cache_info().hits, int)
square.cache_clear()
asyncio.run(main())

registry = zerocost.default_registry()
assert_type(registry, zerocost.ArtifactRegistry)
spec = registry.register_artifact("halve", Halve(), "attention", {"by": "me"})
registry.register_artifact("shelf", Shelf(), "memory", replace=True)
assert_type(spec, zerocost.ArtifactSpec)
service = zerocost.ArtifactCommunicationService(registry)
matrix = np.eye(4, dtype=np.float32)
context = zerocost.ExecutionContext("halve", "attention", "zero_cost")
outputs = service.call_artifact("halve", {"attention_matrix": matrix}, context)
assert_type(outputs, dict[str, Any])
assert_type(Halve().process_attention(matrix, strength=0.25), npt.NDArray[np.float32])
pipeline: list[dict[str, Any]] = [
    {"artifact": "halve"},
    {"artifact": "sparse_attention", "params": {"sparsity_ratio": 0.5}},
]
service.chain_artifacts(pipeline, {"attention_matrix": matrix})
run = service.run_chain([{"artifact": "halve"}], {"attention_matrix": matrix}, context)
assert_type(run.trace[0].duration, float)
chain = zerocost.ChainArtifact(pipeline, registry, "two steps")
registry.register_artifact("chain", chain, "chain")
remote = zerocost.RemoteArtifact("http://127.0.0.1:8000", "halve", token="t", timeout=5.0)
registry.register_artifact("remote", remote, remote.interface)
cache = zerocost.LRUCache[str, bytes](max_entries=10)
cache["a"] = b"b"
assert_type(cache.get("a"), bytes | None)
assert_type(cache.get("a", 0), bytes | int)
assert_type(cache.get_or_compute("c", lambda: b"d"), bytes)


def evicted(key: str, value: bytes, cause: str) -> None:
    print(key, len(value), cause)


assert_type(zerocost.LRUCache(max_bytes=100, on_evict=evicted, policy="sieve"), zerocost.LRUCache[str, bytes])
registry.register_artifact("cache", zerocost.LRUCacheArtifact(zerocost.LRUCache(max_entries=3)), "memory")
shards = zerocost.TensorParallelArtifact().process_parallel(matrix, num_splits=2)
assert_type(zerocost.gather(shards), npt.NDArray[Any])
zerocost.SparseAttentionArtifact().process_attention(matrix, 0.5, out=matrix)
zerocost.SlidingWindowAttentionArtifact().process_attention(matrix, window_size=(1, 0))
zerocost.ScaledDotProductAttentionArtifact().process_attention(matrix, matrix, matrix, is_causal=True)
plan = zerocost.pipeline_schedule(num_stages=4, num_microbatches=8, kind="1f1b")
assert_type(plan.bubble_fraction, float)
model = zerocost.SimplifiedModelService(registry)
model.use_artifact("sliding_window_attention", window_size=9)
output = model.forward([1, 2, 3])
assert_type(output, zerocost.ModelOutput)
assert_type(output.timings, dict[str, float])
assert_type(model.embed(["a", "b"]), npt.NDArray[np.float32])
tokens = zerocost.TokenizerService(registry)
tokens.encode("text")
memory = zerocost.MemoryService(registry)
memory.put("key", {"any": "object"}, ttl=3.0)
memory.get("key")
app = zerocost.create_app(registry, zerocost.Settings(max_body=1 << 20))
report = zerocost.ArtifactValidator().validate_artifact(Halve())
api = zerocost.ArtifactRESTAPI(registry)
assert_type(executor("ray"), RayExecutor)
zerocost.default_registry(executor("threads"))
registry.register_artifact("far", zerocost.RayArtifact(Halve, num_replicas=2), "attention")
registry.register_artifact("shared", RedisCacheArtifact("redis://127.0.0.1/0"), "memory")
try:
    registry["nothing"]
except zerocost.UnknownArtifact as error:
    assert_type(error.code, str)
print(square.__wrapped__(3), square.__name__)
