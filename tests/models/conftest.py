import pytest

from support.model_folder import make_folder


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path)
