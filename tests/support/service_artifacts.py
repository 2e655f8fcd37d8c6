"""Third-party artifacts for the services, and the texts that tests give to a model."""

import numpy as np

from zerocost import AttentionArtifact, MemoryArtifact, ParallelArtifact

SENTENCES = ["The cat sits on the mat.", "Über die Brücke.", "図書館", "x", "The cat sits on the mat!"]


class Probabilities(AttentionArtifact):
    """Knows nothing but one method: gets the weights, and hands them back as they are."""

    def __init__(self):
        self.seen = []

    def process_attention(self, attention_matrix):
        self.seen.append(attention_matrix.copy())
        return attention_matrix


class FirstOnly(AttentionArtifact):
    """Every token attends to the first one alone."""

    def process_attention(self, attention_matrix, strength: float = 1.0, out=None):
        weights = np.zeros_like(attention_matrix)
        weights[..., 0] = strength
        return weights


class Halves(ParallelArtifact):
    """A third party's sharded linear layer: two column shards, left apart."""

    calls = 0

    def process_parallel(self, tensor, weight=None):
        self.calls += 1
        middle = weight.shape[1] // 2
        return [tensor @ weight[:, :middle], tensor @ weight[:, middle:]]


class Dict(MemoryArtifact):
    """A dict."""

    def __init__(self):
        self.entries = {}

    def retrieve(self, key):
        return self.entries.get(key)

    def store(self, key, value):
        self.entries[key] = value
        return True

    def clear(self):
        self.entries.clear()
        return True


class LastingDict(Dict):
    """A dict that notes how long its entries may live."""

    def __init__(self):
        super().__init__()
        self.lives = {}

    def store(self, key, value, ttl=None):
        self.lives[key] = ttl
        return super().store(key, value)

    def delete(self, key):
        return self.entries.pop(key, None) is not None

    def stats(self):
        return {"entries": len(self.entries)}


def ids_of(service, texts=SENTENCES):
    return [encoding.input_ids for encoding in service.tokenizer.encode(texts)]
