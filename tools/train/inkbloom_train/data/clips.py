"""Moving pictures that close as loops: animated emoji, animated icons, and stills that are moved.

A clip is drawn as some frames, evenly spaced over its loop, the first where the loop begins.
"""

import io
import json
import math
import re
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from inkbloom_train.data import packages, raster, smil
from inkbloom_train.data.concepts import code, excluded, load_emoji
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.data.packages import NpmPackage
from inkbloom_train.errors import TrainError

EMOJI = tuple(NpmPackage(f"@lobehub/fluent-emoji-anim-{number}", "1.0.0") for number in (1, 2, 3, 4))
ICONS = {"meteocons": ("MIT", "weather icon"), "line-md": ("MIT", "outline icon"), "svg-spinners": ("MIT", "outline icon")}
"""Iconify's sets of animated icons, the licence that each must have, and what its style is called."""
_INTERFACE = frozenset(("Arrows", "Editing", "Files and Folders", "Interface", "Social"))
"""Their categories of logos and signs."""
ANIMATED = "animated"
_HELD_OF = 10
_MARGIN = 0.14
"""Empty share of the side left around a still that moves."""


@dataclass
class Clip:
    """A moving picture and what is known about it."""

    id: str
    style: str
    """The phrase that asks for its style."""
    name: str
    motion: str
    """The word that asks for its motion."""
    licence: str
    source: str

    @property
    def held(self) -> bool:
        """Kept from training: a tenth of the things, whatever their style."""
        return zlib.crc32(self.name.encode()) % _HELD_OF == 0

    @property
    def caption(self) -> str:
        return f"{self.style} of {self.name}, {self.motion}"


Draw = Callable[[int, int], np.ndarray]
"""(frames, side) to premultiplied RGBA bytes [frames, side, side, 4]. Raises PictureError."""
Source = tuple[Clip, Draw]


def collect(folder: Path, data: DataSet, counts: dict[str, int | None], skipped: Counter) -> list[Source]:
    """Clips of all sources, mixed; at most ``counts`` ("emoji", "icons", "stills"; None for all there are) of each.

    Downloads what is missing into ``folder``. The same counts always give the same clips in the same order.
    """
    sources = {"emoji": lambda: _emoji(folder, skipped), "icons": lambda: _icons(folder, skipped), "stills": lambda: _stills(data)}
    chosen = [sorted(read(), key=_lot)[: counts[name]] for name, read in sources.items() if counts[name] != 0]
    # All along the list each source has its share of the whole, so that any beginning of it is like the rest.
    placed = [((rank + 0.5) / len(some), source) for some in chosen for rank, source in enumerate(some)]
    return [source for _, source in sorted(placed, key=lambda pair: pair[0])]


def _lot(source: Source) -> int:
    return zlib.crc32(b"clip " + source[0].id.encode())


def _emoji(folder: Path, skipped: Counter) -> Iterator[Source]:
    table = load_emoji({package: packages.fetch(package, folder) for package in (packages.EMOJIBASE, packages.EMOJILIB)})
    for package in EMOJI:
        for path, contents in packages.members(packages.fetch(package, folder), suffix=".webp"):
            hexcode = code(Path(path).stem)
            concept = table.by_code.get(hexcode)
            if contents[12:16] != b"VP8X" or not contents[20] & 2:
                skipped["a still among the clips"] += 1
            elif concept is None or not concept.drawable or hexcode in table.skin_tones:
                skipped["flag, letter, sign or skin tone"] += 1
            else:
                clip = Clip(f"fluent-anim/{hexcode}", "3d emoji", concept.label, ANIMATED, "MIT", f"{package}: Fluent emoji, Microsoft")
                yield clip, lambda frames, side, contents=contents: _from_webp(contents, frames, side)


def _from_webp(contents: bytes, frames: int, side: int) -> np.ndarray:
    drawn = []
    with Image.open(io.BytesIO(contents)) as image:
        for number in range(frames):
            image.seek(number * image.n_frames // frames)
            frame = image.convert("RGBA")
            frame = frame if frame.size == (side, side) else frame.resize((side, side), Image.Resampling.BOX)
            drawn.append((raster.premultiply(frame) * 255 + 0.5).astype(np.uint8))
    return np.stack(drawn)


def _icons(folder: Path, skipped: Counter) -> Iterator[Source]:
    wanted = {f"json/{prefix}.json": prefix for prefix in ICONS}
    for path, contents in packages.members(packages.fetch(packages.ICONIFY, folder), wanted):
        collection, prefix = json.loads(contents), wanted[path]
        licence, style = ICONS[prefix]
        given, author = collection["info"]["license"].get("spdx"), collection["info"]["author"]["name"]
        if given != licence:
            raise TrainError(f"the set {prefix} is now licensed {given}, not {licence}: check it and correct clips.py")
        signs = {name for category in _INTERFACE for name in collection.get("categories", {}).get(category, ())}
        for name, icon in sorted(collection["icons"].items()):
            if "indefinite" not in icon["body"]:
                skipped["an icon that does not loop"] += 1
            elif re.search(r"\d", name) or name in signs or excluded(name, []):
                skipped["interface icon, logo or letter"] += 1
            else:
                width, height = (icon.get(key, collection.get(key, 16)) for key in ("width", "height"))
                svg = raster.square_svg(icon["body"], icon.get("left", 0), icon.get("top", 0), width, height)
                words = re.sub(r"-(fill|line|loop|twotone)\b", "", name).replace("-", " ")
                clip = Clip(f"{prefix}/{name}", style, words, ANIMATED, licence, f"{packages.ICONIFY}: {prefix}, {author}")
                yield clip, lambda frames, side, svg=svg: _from_smil(svg, frames, side)


def _from_smil(svg: str, frames: int, side: int) -> np.ndarray:
    # Later than any delay before a first round.
    length = smil.cycle(svg)
    drawn = np.stack([raster.draw(smil.at(svg, (4 + number / frames) * length), side) for number in range(frames)])
    if np.abs(drawn.astype(int) - drawn[0]).max() < 8:
        raise raster.PictureError("an icon that does not move")
    return drawn


def _stills(data: DataSet) -> Iterator[Source]:
    """Listed pictures, each with one of the motions."""
    words = list(MOTIONS)
    for row, picture in zip(data.rows, data.pictures, strict=True):
        if data.styles[row.style].listed:
            word = words[zlib.crc32(f"motion {row.id}".encode()) % len(words)]
            clip = Clip(f"moved/{row.id}", data.styles[row.style].phrases[0], row.names[0], word, row.licence, row.source)
            yield clip, lambda frames, side, picture=picture, word=word: moved(raster.draw(picture, side), word, frames)


@dataclass(frozen=True)
class Pose:
    """Where a still is at one moment: shifts in sides of the picture, degrees, and scale."""

    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    width: float = 1.0
    height: float = 1.0


def _wave(share: float) -> float:
    return math.sin(2 * math.pi * share)


MOTIONS: dict[str, Callable[[float], Pose]] = {
    "bouncing": lambda t: Pose(down=-0.14 * abs(math.sin(math.pi * t))),
    "spinning": lambda t: Pose(turn=360 * t),
    "wobbling": lambda t: Pose(turn=14 * _wave(t)),
    "pulsing": lambda t: Pose(width=1 + 0.12 * _wave(t), height=1 + 0.12 * _wave(t)),
    "floating": lambda t: Pose(down=0.06 * _wave(t)),
    "shaking": lambda t: Pose(right=0.06 * _wave(2 * t)),
}
"""By motion word: the pose at a share of the loop, 0 to 1, which are the same."""


def moved(pixels: np.ndarray, word: str, frames: int) -> np.ndarray:
    """A still (premultiplied RGBA bytes [side, side, 4]), made smaller and moved: bytes [frames, side, side, 4]."""
    image, side = Image.fromarray(raster.straighten(pixels)), len(pixels)
    drawn = []
    for number in range(frames):
        pose = MOTIONS[word](number / frames)
        cos, sin = math.cos(math.radians(pose.turn)), math.sin(math.radians(pose.turn))
        width, height, centre = pose.width * (1 - _MARGIN), pose.height * (1 - _MARGIN), side / 2
        x, y = centre + pose.right * side, centre + pose.down * side
        # From a pixel of the frame to one of the still.
        a, b, c, d = cos / width, sin / width, -sin / height, cos / height
        places = (a, b, centre - a * x - b * y, c, d, centre - c * x - d * y)
        frame = image.transform((side, side), Image.Transform.AFFINE, places, Image.Resampling.BICUBIC)
        drawn.append((raster.premultiply(frame) * 255 + 0.5).astype(np.uint8))
    return np.stack(drawn)
