"""One Ray cluster for all of these tests, since starting one takes ten seconds."""

import pytest

import support
import zerocost
from support import ray_samples
from support.ray import two_nodes


@pytest.fixture(scope="package")
def whole_cluster():
    with two_nodes() as made:
        import ray

        ray.cloudpickle.register_pickle_by_value(support)  # workers do not find it
        yield made


@pytest.fixture(scope="module")
def cluster(whole_cluster, request):
    """A cluster of two nodes, and the options of a further node."""
    import ray

    ray.cloudpickle.register_pickle_by_value(request.module)
    return whole_cluster


@pytest.fixture(scope="module")
def executor(cluster):
    from zerocost.engine import executor

    return executor("ray")


@pytest.fixture(scope="module")
def registries(executor):
    """The same artifacts here and on Ray."""
    here, there = zerocost.default_registry(), zerocost.default_registry(executor)
    for registry in (here, there):
        registry.register_artifact("scale", ray_samples.Scale(), "parallel")
    return here, there
