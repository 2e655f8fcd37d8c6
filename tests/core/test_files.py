"""Files that appear whole or not at all."""

import os
import stat

import pytest

from zerocost.core.files import atomic_file


@pytest.fixture
def path(tmp_path):
    return tmp_path / "kept.bin"


def test_nothing_is_seen_before_the_end(path):
    path.write_bytes(b"before")
    with atomic_file(path, sync=True) as file:
        file.write(b"after")
        assert path.read_bytes() == b"before"
    assert path.read_bytes() == b"after"
    assert list(path.parent.iterdir()) == [path]


def test_a_failure_leaves_what_was_there(path):
    path.write_bytes(b"before")
    with pytest.raises(TypeError), atomic_file(path) as file:
        file.write("no bytes")
    assert path.read_bytes() == b"before"
    assert list(path.parent.iterdir()) == [path]
    with pytest.raises(FileNotFoundError), atomic_file(path.parent / "no" / "folder"):
        pass


@pytest.mark.skipif(os.name != "posix", reason="there are no such modes here")
def test_the_mode_is_what_the_umask_gives(path):
    before = os.umask(0o027)
    try:
        with atomic_file(path):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
