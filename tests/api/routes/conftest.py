import pytest

from support.service_registry import services_registry


@pytest.fixture
def registry():
    return services_registry()
