import pytest
from safetensors.numpy import load_file

from support.paths import shared_data


@pytest.fixture(scope="session")
def minilm():
    """Query, key, value, scores and results of the first layer of all-MiniLM-L6-v2 on a real text."""
    return load_file(shared_data("minilm_layer0_attention.safetensors"))
