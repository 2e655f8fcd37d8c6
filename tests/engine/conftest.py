"""One Ray cluster for the tests of a module: starting one takes ten seconds."""

import pytest

from engine.cluster import two_nodes


@pytest.fixture(scope="module")
def cluster(request):
    with two_nodes() as made:
        import ray

        ray.cloudpickle.register_pickle_by_value(request.module)  # workers do not find it
        yield made
