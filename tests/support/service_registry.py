"""A registry of the built-in artifacts and of third-party ones, for the tests of the services' routes."""

import numpy as np

from zerocost import AttentionArtifact, MemoryArtifact, default_registry


class FirstOnly(AttentionArtifact):
    """Every token attends to the first one alone."""

    def process_attention(self, attention_matrix, strength: float = 1.0, out=None):
        weights = np.zeros_like(attention_matrix)
        weights[..., 0] = strength
        return weights


class Breaks(AttentionArtifact):
    """Raises."""

    def process_attention(self, attention_matrix):
        raise ValueError("not today")


class Dict(MemoryArtifact):
    """A dict that takes times to live."""

    def __init__(self):
        self.entries, self.lives = {}, {}

    def retrieve(self, key):
        return self.entries.get(key)

    def store(self, key, value, ttl=None):
        if isinstance(value, bytes) and len(value) > 1000:
            return False
        self.entries[key], self.lives[key] = value, ttl
        return True

    def delete(self, key):
        return self.entries.pop(key, None) is not None

    def clear(self):
        self.entries.clear()
        return True

    def stats(self):
        return {"entries": len(self.entries)}


class Changes(AttentionArtifact):
    """Returns what its parameter says."""

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
    registry.register_artifact("dict", Dict(), "memory")
    registry.register_artifact("lru_cache", Dict(), "memory", replace=True)
    return registry


def ask(client, path, body, **headers):
    return client.post(f"/services/{path}", json=body, headers=headers)
