"""A user's file and README's examples pass mypy and pyright against the package as it is installed."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys

import pytest

from docs.test_readme import BLOCK
from support.paths import ROOT, TESTS

PACKAGE = ROOT / "python"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """``user.py``, README's examples as ``readme.py``, and the modules that README says to write."""
    folder = tmp_path_factory.mktemp("typing")
    shutil.copy(TESTS / "docs" / "typed_user.py", folder / "user.py")
    examples = []
    for kind, block in BLOCK.findall((ROOT / "README.md").read_text()):
        if kind == "python" and (title := re.match(r"# (\w+\.py)\n", block)):
            (folder / title[1]).write_text(block)
        elif kind == "python":
            examples.append(block)
    (folder / "readme.py").write_text("\n".join(examples))
    return folder


def checked(folder, *command):
    done = subprocess.run([sys.executable, "-m", *command], cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


MYPY = f"""
[mypy]
strict = True
mypy_path = {PACKAGE}
[mypy-tritonclient.*]
ignore_missing_imports = True
[mypy-ray.*]
follow_imports = skip
ignore_missing_imports = True
[mypy-ml_dtypes.*]
ignore_missing_imports = True
[mypy-readme,stranger,on_ray]
allow_untyped_defs = True
allow_incomplete_defs = True
allow_untyped_calls = True
"""


@pytest.mark.timeout(300)
def test_mypy_accepts_a_users_file_and_readme(folder):
    (folder / "mypy.ini").write_text(MYPY)
    checked(folder, "mypy", "user.py", "readme.py", "stranger.py", "on_ray.py")


@pytest.mark.timeout(300)
@pytest.mark.skipif(importlib.util.find_spec("basedpyright") is None, reason="basedpyright is not installed")
def test_pyright_accepts_a_users_file_and_readme(folder):
    settings = {"typeCheckingMode": "standard", "extraPaths": [str(PACKAGE)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    checked(folder, "basedpyright", "--pythonpath", sys.executable)


@pytest.mark.timeout(300)
def test_mypy_sees_what_is_wrong(folder):
    """The two checks above could not pass on a package without types."""
    (folder / "mypy.ini").write_text(MYPY)
    (folder / "wrong.py").write_text(
        "import zerocost\n\n\n@zerocost.memoize(max_entries=1)\ndef size(text: str) -> int:\n    return len(text)\n\n\n"
        "size(3)\nzerocost.default_registry().register_artifact('a', 1, 'b')\n"
    )
    command = [sys.executable, "-m", "mypy", "wrong.py"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert re.findall(r"^wrong.py:(\d+): error: .*\[(.*)\]", done.stdout, re.MULTILINE) == [
        ("9", "arg-type"),
        ("10", "arg-type"),
    ]
