"""A registry of the built-in artifacts and of third-party ones, for the tests of the services' routes."""

import numpy as np

from support.service_artifacts import FirstOnly, LastingDict
from zerocost import AttentionArtifact, MemoryArtifact, default_registry


class Breaks(AttentionArtifact):
    """Raises."""

    def process_attention(self, attention_matrix):
        raise ValueError("not today")


class BoundedDict(LastingDict):
    """A dict that refuses long bytes."""

    def store(self, key, value, ttl=None):
        return not (isinstance(value, bytes) and len(value) > 1000) and super().store(key, value, ttl)


class Changes(AttentionArtifact):
    """Returns the wrong result that its parameter names."""

    def process_attention(self, attention_matrix, how: str = "nothing"):
        if how == "raise":
            raise ValueError("not today")
        return attention_matrix[..., :-1] if how == "crop" else np.full_like(attention_matrix, np.nan)


class Forgets(MemoryArtifact):
    """Breaks on every call."""

    def retrieve(self, key):
        raise ValueError("forgotten")

    def store(self, key, value):
        return True

    def clear(self):
        return True


def services_registry():
    registry = default_registry()
    registry.register_artifact("first", FirstOnly(), "attention")
    registry.register_artifact("breaks", Breaks(), "attention")
    registry.register_artifact("changes", Changes(), "attention")
    registry.register_artifact("forgets", Forgets(), "memory")
    registry.register_artifact("dict", BoundedDict(), "memory")
    registry.register_artifact("lru_cache", BoundedDict(), "memory", replace=True)
    return registry


def ask(client, path, body, **headers):
    return client.post(f"/services/{path}", json=body, headers=headers)
