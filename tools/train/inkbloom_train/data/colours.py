"""Names of colours: which ones a picture shows, and how to give it others."""

import numpy as np
from PIL import Image

from inkbloom_train.data.raster import premultiply, straighten

# sRGB anchors; a pixel has the name of the anchor nearest in Oklab.
_ANCHORS = {
    "black": ["#000000", "#222222", "#3a3a3a"],
    "white": ["#ffffff", "#f0f0f0"],
    "gray": ["#808080", "#606468", "#a8a8a8", "#c4c8cc", "#90a0a8"],
    "red": ["#e02020", "#b01010", "#dd2e44", "#f04848"],
    "orange": ["#ff8a10", "#f4900c", "#ff6a20"],
    "yellow": ["#ffcc10", "#ffe040", "#fff080", "#e8c020"],
    "green": ["#20a030", "#78b159", "#106020", "#90d040", "#60e060"],
    "teal": ["#10a0a0", "#40d0c0", "#107878"],
    "blue": ["#2060e0", "#3b88c3", "#103090", "#55acee", "#a0c8ff"],
    "purple": ["#8030c0", "#aa8ed6", "#502080", "#a060f0"],
    "pink": ["#ff70b0", "#f4abba", "#e84090", "#ffc0d8"],
    "brown": ["#804018", "#a0603a", "#5c3010", "#c1694f", "#603f2f"],
}
NAMES = tuple(_ANCHORS)
CHROMATIC = frozenset(NAMES) - {"black", "white", "gray"}
SOME, MOST = 0.18, 0.45
"""Shares of the visible pixels from which a colour is named at all, and named alone."""


def _linear(srgb: np.ndarray) -> np.ndarray:
    return np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)


def oklab(srgb: np.ndarray) -> np.ndarray:
    """sRGB in 0 to 1 to Oklab, [..., 3] (Ottosson 2020)."""
    lms = _linear(srgb) @ np.array(
        [[0.4122214708, 0.2119034982, 0.0883024619], [0.5363325363, 0.6806995451, 0.2817188376], [0.0514459929, 0.1073969566, 0.6299787005]]
    )
    return np.cbrt(lms) @ np.array(
        [[0.2104542553, 1.9779984951, 0.0259040371], [0.7936177850, -2.4285922050, 0.7827717662], [-0.0040720468, 0.4505937099, -0.8086757660]]
    )


def _parse(colour: str) -> list[float]:
    return [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]


_ANCHOR_LAB = oklab(np.array([_parse(anchor) for anchors in _ANCHORS.values() for anchor in anchors]))
_ANCHOR_NAME = np.array([index for index, anchors in enumerate(_ANCHORS.values()) for _ in anchors])


def shares(pixels: np.ndarray) -> np.ndarray:
    """Share of the opaque pixels of premultiplied RGBA bytes that has each name, in the order of NAMES."""
    visible = straighten(pixels)[::2, ::2][pixels[::2, ::2, 3] > 200]
    if not len(visible):
        return np.zeros(len(NAMES))
    distance = ((oklab(visible[:, None, :3] / 255.0) - _ANCHOR_LAB) ** 2).sum(-1)
    return np.bincount(_ANCHOR_NAME[distance.argmin(1)], minlength=len(NAMES)) / len(visible)


def name_colours(pixels: np.ndarray) -> list[str]:
    """The one or two colours that a viewer would name, the larger first; none where nothing dominates."""
    share = shares(pixels)
    first, second = np.argsort(-share)[:2]
    if share[first] < SOME:
        return []
    if share[first] >= MOST and share[second] < SOME:
        return [NAMES[first]]
    return [NAMES[first], NAMES[second]] if share[first] + share[second] >= 0.7 and share[second] >= SOME else (
        [NAMES[first]] if share[first] >= MOST else []
    )


def pick_colour(rng: np.random.Generator) -> tuple[str, str]:
    """A random (name, CSS colour) of that name, for pictures of one colour."""
    name = NAMES[rng.integers(len(NAMES))]
    anchors = _ANCHORS[name]
    return name, anchors[rng.integers(len(anchors))]


def shift_hue(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Premultiplied RGBA bytes with every hue turned by an angle; greys stay grey."""
    straight = Image.fromarray(straighten(pixels))
    hue, saturation, value = straight.convert("RGB").convert("HSV").split()
    hue = hue.point(lambda level: (level + round(degrees * 256 / 360)) % 256)
    turned = Image.merge("HSV", (hue, saturation, value)).convert("RGB")
    turned.putalpha(straight.getchannel("A"))
    return (premultiply(turned) * 255 + 0.5).astype(np.uint8)
