"""The pictures: heat maps of one attention head side by side, and below each the attention of one word.

Drawn with Pillow alone: it brings its own font and needs no display, no settings folder and no further package.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from zerocost.core.files import atomic_file

__all__ = ["Panel", "draw"]

Weights = npt.NDArray[np.float32]
Colour = tuple[int, int, int]

_CELL = 4
_GAP = 56
_MARGIN = 64
_TOP = 178
_LINE = 30
_WORD_SIZE = 20
_INK: Colour = (32, 33, 36)
_FAINT: Colour = (110, 113, 120)
_DROPPED: Colour = (238, 239, 242)
_PAPER: Colour = (255, 255, 255)
_TICKS = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1)
_MAGMA = ((252, 253, 191), (254, 202, 141), (253, 150, 104), (241, 96, 93), (205, 64, 113), (158, 47, 127))
_MAGMA_DARK = ((114, 31, 129), (68, 15, 118), (24, 15, 61), (0, 0, 4))
"""Matplotlib's magma (CC0), from its bright end to its dark one: ten steps, interpolated in between."""


@dataclass(frozen=True)
class Panel:
    """One heat map.

    Attributes:
        title: what was done to the weights.
        subtitle: how much of them is left.
        weights: ``[n, n]``, rows are queries. Exact zeros count as dropped.
    """

    title: str
    subtitle: str
    weights: Weights


def draw(path: Path, heading: str, panels: Sequence[Panel], tokens: Sequence[str], query: int) -> None:
    """Writes the picture as a PNG.

    Args:
        path: the file.
        heading: the title of the picture.
        panels: heat maps of one size, drawn on one scale of colours.
        tokens: the ``n`` words.
        query: the row that is also drawn on the words.
    """
    side = len(tokens) * _CELL
    lines = max(len(_wrapped(tokens, side)), 1)
    words_top = _TOP + side + 112
    size = (2 * _MARGIN + len(panels) * side + (len(panels) - 1) * _GAP, words_top + lines * _LINE + 118)
    image = Image.new("RGB", size, _PAPER)
    canvas = ImageDraw.Draw(image)
    canvas.text((_MARGIN, 38), heading, fill=_INK, font=_font(34))
    top = max(float(panel.weights.max()) for panel in panels)
    for index, panel in enumerate(panels):
        left = _MARGIN + index * (side + _GAP)
        canvas.text((left, _TOP - 78), panel.title, fill=_INK, font=_font(27))
        canvas.text((left, _TOP - 42), panel.subtitle, fill=_FAINT, font=_font(22))
        _heat_map(image, canvas, (left, _TOP), panel.weights / top, query)
        _words(canvas, (left, words_top), side, tokens, panel.weights[query] / top, query)
    _scale(image, canvas, (_MARGIN, size[1] - 76), size[0] - 2 * _MARGIN, top)
    note = PngInfo()
    note.add_text("Software", "zerocost demo")
    with atomic_file(path) as file:
        image.save(file, format="PNG", optimize=True, pnginfo=note)


def _heat_map(
    image: Image.Image, canvas: ImageDraw.ImageDraw, corner: tuple[int, int], shares: Weights, query: int
) -> None:
    left, top = corner
    side = len(shares) * _CELL
    image.paste(Image.fromarray(_colours(shares)).resize((side, side), Image.Resampling.NEAREST), corner)
    canvas.rectangle((left - 1, top - 1, left + side, top + side), outline=_FAINT)
    row = top + query * _CELL + _CELL // 2
    canvas.polygon([(left - 16, row - 9), (left - 16, row + 9), (left - 4, row)], fill=_INK)
    for position in range(0, len(shares) + 1, 32):
        x = left + min(position, len(shares) - 1) * _CELL + _CELL // 2
        canvas.line((x, top + side, x, top + side + 6), fill=_FAINT)
        canvas.text((x, top + side + 10), str(min(position, len(shares) - 1)), fill=_FAINT, font=_font(19), anchor="mt")
    canvas.text((left + side // 2, top + side + 36), "key position", fill=_FAINT, font=_font(19), anchor="mt")
    label = Image.new("L", (160, 26), 0)
    ImageDraw.Draw(label).text((80, 13), "query position", fill=255, font=_font(19), anchor="mm")
    upright = label.rotate(90, expand=True)
    image.paste(_FAINT, (left - 42, top + (side - upright.height) // 2), upright)


def _words(
    canvas: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    width: int,
    tokens: Sequence[str],
    shares: npt.NDArray[Any],
    query: int,
) -> None:
    """Draws the text: the background of each word is the colour of its weight, and the query is framed."""
    left, top = corner
    canvas.text((left, top - 34), f'what the framed "{tokens[query]}" attends to', fill=_FAINT, font=_font(22))
    font = _font(_WORD_SIZE)
    colours = _colours(shares[np.newaxis].astype(np.float32))[0]
    for line, words in enumerate(_wrapped(tokens, width)):
        y = top + line * _LINE
        for index, x, word_width in words:
            colour: Colour = tuple(int(channel) for channel in colours[index])  # type: ignore[assignment]  # three
            box = (left + x, y, left + x + word_width, y + _LINE - 4)
            canvas.rectangle(box, fill=colour, outline=_INK if index == query else None, width=3)
            is_dark = sum(colour) < 380
            canvas.text((left + x + 4, y + 2), _shown(tokens[index]), fill=_PAPER if is_dark else _INK, font=font)


def _scale(image: Image.Image, canvas: ImageDraw.ImageDraw, corner: tuple[int, int], width: int, top: float) -> None:
    """Draws the scale of colours; like the heat maps it goes by the square root."""
    left, y = corner
    caption = "attention weight (colours by square root)"
    font = _font(20)
    start = left + int(canvas.textlength(caption, font=font)) + 24
    length = max(100, min(width - (start - left) - 190, 900))
    canvas.text((left, y), caption, fill=_FAINT, font=font)
    ramp = np.square(np.linspace(1e-4, 1, length, dtype=np.float32))[np.newaxis]
    image.paste(Image.fromarray(_colours(ramp)).resize((length, 24)), (start, y))
    canvas.rectangle((start - 1, y - 1, start + length, y + 24), outline=_FAINT)
    for weight in (tick for tick in _TICKS if tick <= top):
        x = start + round(float(np.sqrt(weight / top)) * (length - 1))
        canvas.line((x, y + 24, x, y + 30), fill=_FAINT)
        canvas.text((x, y + 33), f"{weight:g}", fill=_FAINT, font=_font(18), anchor="mt")
    box = start + length + 40
    canvas.rectangle((box, y, box + 24, y + 24), fill=_DROPPED, outline=_FAINT)
    canvas.text((box + 34, y), "dropped", fill=_FAINT, font=font)


def _wrapped(tokens: Sequence[str], width: int) -> list[list[tuple[int, int, int]]]:
    """The words in lines: (index, x, width) of each word."""
    font = _font(_WORD_SIZE)
    lines: list[list[tuple[int, int, int]]] = [[]]
    x = 0
    for index, token in enumerate(tokens):
        length = int(font.getlength(_shown(token))) + 8
        if x + length > width:
            lines.append([])
            x = 0
        lines[-1].append((index, x, length))
        x += length + 2
    return lines


def _shown(token: str) -> str:
    return token.removeprefix("##")


def _colours(shares: Weights) -> npt.NDArray[np.uint8]:
    """``[..., 3]`` colours of shares from 0 to 1. Exactly 0 is a dropped entry."""
    anchors = np.array(_MAGMA + _MAGMA_DARK, np.float32)
    place = np.sqrt(np.clip(shares, 0, 1)) * (len(anchors) - 1)
    below = np.minimum(place.astype(np.intp), len(anchors) - 2)
    part = (place - below)[..., np.newaxis]
    mixed = anchors[below] * (1 - part) + anchors[below + 1] * part
    return np.where((shares == 0)[..., np.newaxis], np.array(_DROPPED), mixed).round().astype(np.uint8)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)
