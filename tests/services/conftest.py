import pytest

from zerocost import SimplifiedModelService, default_registry


@pytest.fixture
def registry():
    return default_registry()


@pytest.fixture
def service(registry):
    return SimplifiedModelService(registry)
