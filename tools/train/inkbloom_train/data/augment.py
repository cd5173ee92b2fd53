"""Augmentation that keeps the caption true: every change that a caption must mention is in the View."""

import re

import numpy as np

from inkbloom_train.data import colours, raster
from inkbloom_train.data.captions import BESIDE, TWO, View
from inkbloom_train.data.dataset import DataSet, Row
from inkbloom_train.data.raster import Box

# Things that have a right way round, or that a viewer would read.
_NO_FLIP = re.compile(
    r"clock|o'clock|thirty|watch|left|right|calendar|newspaper|keyboard|sign|map|globe|book|page|card|dice|die|music|note|"
    r"abacus|scroll|receipt|ticket|medal|hundred|label|question|moon|quarter|crescent|hand|finger|text|letter"
)
_COMPOSITES = 0.1
_HUE_SHIFTS = 0.18
_SMALL = 0.62
"""Side from which down a picture is called small."""


def plain(dataset: DataSet, index: int, size: int) -> tuple[np.ndarray, View]:
    """A picture as it is: premultiplied RGBA bytes [size, size, 4] and what it shows."""
    row = dataset.rows[index]
    return raster.draw(dataset.pictures[index], size), View([index], colours=["black"] if row.monochrome else row.colours)


def augmented(dataset: DataSet, index: int, partners: list[int], size: int, rng: np.random.Generator) -> tuple[np.ndarray, View]:
    """A picture moved, scaled, flipped, recoloured, or composed with one of ``partners`` (rows of its style)."""
    if rng.random() < _COMPOSITES:
        return _composite(dataset, index, int(partners[rng.integers(len(partners))]), size, rng)
    row = dataset.rows[index]
    side = 1.0 if rng.random() < 0.3 else float(rng.uniform(0.7, 1.0)) if rng.random() < 0.85 else float(rng.uniform(0.45, 0.7))
    box = Box(*(float(place) for place in rng.uniform(0, 1 - side, 2)), side)
    pixels, view = _recoloured(dataset, index, size, box, rng)
    view.small = side < _SMALL
    if rng.random() < 0.5 and not _NO_FLIP.search(row.names[0]):
        pixels = pixels[:, ::-1]
    return pixels, view


def _recoloured(dataset: DataSet, index: int, size: int, box: Box, rng: np.random.Generator) -> tuple[np.ndarray, View]:
    row, picture = dataset.rows[index], dataset.pictures[index]
    if row.monochrome:
        name, colour = colours.pick_colour(rng)
        return raster.draw(picture, size, box, colour), View([index], colours=[name], recoloured=True)
    pixels = raster.draw(picture, size, box)
    if rng.random() < _HUE_SHIFTS and _may_change_hue(row):
        shifted = colours.shift_hue(pixels, float(rng.uniform(40, 320)))
        named = colours.name_colours(shifted)
        if named and named[0] in colours.CHROMATIC and named != row.colours:
            return shifted, View([index], colours=named, recoloured=True)
    return pixels, View([index], colours=row.colours)


def _may_change_hue(row: Row) -> bool:
    """Not people, not things whose name or nature is a colour, and only where one hue dominates."""
    named = any(word in colours.NAMES for name in row.names for word in name.split())
    return not row.people and not named and bool(row.colours) and row.colours[0] in colours.CHROMATIC


def _composite(dataset: DataSet, index: int, partner: int, size: int, rng: np.random.Generator) -> tuple[np.ndarray, View]:
    """Two pictures of one style side by side, or the same one twice."""
    twice = rng.random() < 0.4
    rows = [index, index] if twice else [index, partner]
    side = float(rng.uniform(0.42, 0.5))
    tops = rng.uniform(0.5 - side / 2 - 0.06, 0.5 - side / 2 + 0.06, 2)
    first, second = (
        raster.draw(dataset.pictures[row], size, Box(left, float(top), side)) for row, left, top in zip(rows, (0.0, 1.0 - side), tops, strict=True)
    )
    pixels = first + second  # the boxes do not overlap
    if not twice:
        return pixels, View(rows, BESIDE)
    row = dataset.rows[index]
    return pixels, View([index], TWO, ["black"] if row.monochrome else row.colours)
