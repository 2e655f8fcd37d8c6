import numpy as np
import pytest

from support.chain_steps import Cut, Free, Scale
from zerocost import ArtifactCommunicationService, ArtifactRegistry


@pytest.fixture
def registry():
    registry = ArtifactRegistry()
    registry.register_artifact("scale", Scale(), "attention")
    registry.register_artifact("cut", Cut(), "parallel")
    registry.register_artifact("free", Free(), "custom")
    return registry


@pytest.fixture
def service(registry):
    return ArtifactCommunicationService(registry)


@pytest.fixture
def matrix():
    return np.random.default_rng(1).standard_normal((3, 4))
