"""``zerocost embed``: one vector for each line of a text file."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import orjson
import typer

from zerocost.core import safetensors
from zerocost.core.files import atomic_file
from zerocost.errors import DatatypeError, InvalidInput, RangeError

if TYPE_CHECKING:
    from zerocost.services.model_service import SimplifiedModelService

app = typer.Typer()

_STEP = 256
"""Lines that are computed and saved at a time. An interrupt loses at most as many."""


@app.command(epilog="Example:\n\n[bold]zerocost embed sentences.txt --model all-MiniLM-L6-v2 --out vectors.npy[/]")
def embed(
    file: Annotated[Path, typer.Argument(help="UTF-8 text. Every line is embedded, empty lines too.")],
    model: Annotated[
        Path | None, typer.Option("--model", "-m", metavar="DIR", help="A Hugging Face folder of the BERT family.")
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option("--out", "-o", metavar="FILE", help="A .npy or .safetensors file; by default FILE with .npy."),
    ] = None,
) -> None:
    """Write one vector of length 1 for each line of a file. After an interrupt the same command resumes."""
    from zerocost.artifacts.builtin import default_registry
    from zerocost.cli.options import warn
    from zerocost.services.model_service import SimplifiedModelService

    target = file.with_suffix(".npy") if out is None else out
    if target.suffix not in (".npy", ".safetensors"):
        raise RangeError(f"--out: {target.name} was given, .npy or .safetensors is allowed", "out")
    content = file.read_bytes()
    texts = _lines(file, content)
    service = SimplifiedModelService(default_registry(), model)
    if not service.model.trained:
        warn("no --model was given: the built-in model is untrained, and its vectors mean nothing")
    run = _Run(target, service, texts, hashlib.sha256(content).hexdigest())
    kept = run.kept()
    if kept:
        typer.echo(f"resuming after line {kept} of {len(texts)}", err=True)
    elif run.state.is_file():
        typer.echo(
            "starting over: an earlier run has left vectors of another text, model, tokenizer or length", err=True
        )
    truncated = run.run(kept)
    if truncated:
        warn(f"{truncated} lines were truncated to {service.model.max_tokens} tokens")
    width = service.model.encoder.architecture.width
    typer.echo(f"{target}: {len(texts)} vectors of {width} numbers, by {service.model.name}")


def _lines(file: Path, content: bytes) -> list[str]:
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    if not lines:
        raise InvalidInput(f"{file}: the file has no lines")
    texts = []
    for number, line in enumerate(lines, 1):
        try:
            texts.append(line.removesuffix(b"\r").decode())
        except UnicodeDecodeError as error:
            raise DatatypeError(f"{file}: line {number} is not UTF-8 ({error.reason} at byte {error.start})") from error
    return texts


@dataclass
class _Run:
    """A run that can resume. A file beside the target holds the vectors so far; another one describes and counts them.

    The count is written after the vectors, and each version replaces the last one atomically. So whenever the process
    ends, all counted vectors are there.
    """

    target: Path
    service: SimplifiedModelService
    texts: list[str]
    digest: str

    @property
    def vectors(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial.npy")

    @property
    def state(self) -> Path:
        return self.target.with_name(f"{self.target.name}.partial.json")

    def _description(self, kept: int, truncated: int) -> dict[str, Any]:
        return {
            "text": self.digest,
            "model": self.service.model.identity,
            "tokenizer": self.service.model.tokenizer.identity,
            "max_tokens": self.service.model.max_tokens,
            "lines": len(self.texts),
            "kept": kept,
            "truncated": truncated,
        }

    def kept(self) -> int:
        """The number of vectors of this text and model that an earlier run has left."""
        try:
            state = orjson.loads(self.state.read_bytes())
            kept, truncated = int(state["kept"]), int(state["truncated"])
        except (OSError, ValueError, KeyError, TypeError):
            return 0
        is_ours = state == self._description(kept, truncated) and 0 < kept <= len(self.texts)
        return kept if is_ours and self.vectors.is_file() else 0

    def run(self, kept: int) -> int:
        """Computes the vectors from line ``kept`` on, writes the target, and returns the number of truncated lines."""
        import numpy as np

        from zerocost.services.progress import progress_bar

        width = self.service.model.encoder.architecture.width
        truncated = orjson.loads(self.state.read_bytes())["truncated"] if kept else 0
        shape = (len(self.texts), width)
        open_memmap: Any = np.lib.format.open_memmap
        if kept:
            try:
                # Opened for reading first: opened for writing, a file that is too short would be filled with zeros.
                rows = np.load(self.vectors, mmap_mode="r")
                fits = rows.shape == shape and rows.dtype == np.float32
            except ValueError:
                fits = False
            if not fits:
                raise InvalidInput(f"{self.vectors}: does not match {self.state}; remove both to start over")
            rows = open_memmap(self.vectors, mode="r+")
        else:
            with suppress(FileNotFoundError):
                self.state.unlink()
            rows = open_memmap(self.vectors, mode="w+", dtype=np.float32, shape=shape)
        with progress_bar(len(self.texts), None, "embedding", long=1) as advance:
            advance(kept)
            for start in range(kept, len(self.texts), _STEP):
                part = self.texts[start : start + _STEP]
                vectors, shortened = self.service.embed_and_count(part, advance)
                rows[start : start + len(part)] = vectors
                rows.flush()
                truncated += shortened
                self._save_state(start + len(part), truncated)
        if self.target.suffix == ".npy":
            self.vectors.replace(self.target)
        else:
            safetensors.write(self.target, {"embeddings": rows}, {"model": self.service.model.name})
            self.vectors.unlink()
        self.state.unlink()
        return int(truncated)

    def _save_state(self, kept: int, truncated: int) -> None:
        with atomic_file(self.state, sync=True) as file:
            file.write(orjson.dumps(self._description(kept, truncated)))
