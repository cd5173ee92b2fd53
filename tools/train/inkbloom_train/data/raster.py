"""Pictures to pixels.

A picture is the text of an SVG (with a square ``viewBox``) or the bytes of an image file. Pixels are
premultiplied RGBA bytes, [height, width, 4]: averages, resizes and crops of premultiplied pixels are
right at edges, and invisible pixels have one value only, 0.
"""

import io
import re
from dataclasses import dataclass

import numpy as np
import resvg_py
from PIL import Image

_ROOT = re.compile(r"<svg\b[^>]*>", re.DOTALL)
_VIEW_BOX = re.compile(r"\bviewBox\s*=\s*[\"']([^\"']*)[\"']")
_SIDE = {side: re.compile(rf"\b{side}\s*=\s*[\"']\s*([0-9.]+)(?:px)?\s*[\"']") for side in ("width", "height")}


class PictureError(Exception):
    """A picture that cannot be read or shows nothing; the message is the reason."""


@dataclass(frozen=True)
class Box:
    """Where a picture lies on the unit square canvas: left, top and side, all in 0 to 1."""

    left: float = 0.0
    top: float = 0.0
    side: float = 1.0


WHOLE = Box()


def square_svg(body: str, left: float, top: float, width: float, height: float) -> str:
    """Wraps SVG elements into a document whose viewBox is the smallest square around the given one."""
    side = max(width, height)
    left, top = left - (side - width) / 2, top - (side - height) / 2
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{left:g} {top:g} {side:g} {side:g}">{body}</svg>'
    )


def normalise_svg(text: str) -> str:
    """A user's SVG as a document with a square viewBox. Raises PictureError if it has no usable size."""
    root = _ROOT.search(text)
    if root is None or "</svg>" not in text:
        raise PictureError("not an SVG document")
    view_box = _VIEW_BOX.search(root[0])
    try:
        if view_box:
            left, top, width, height = (float(number) for number in re.split(r"[\s,]+", view_box[1].strip()))
        else:
            left = top = 0.0
            width, height = (float(_SIDE[side].search(root[0])[1]) for side in ("width", "height"))
    except (TypeError, ValueError) as error:
        raise PictureError("an SVG without a readable viewBox or size") from error
    if width <= 0 or height <= 0:
        raise PictureError("an SVG of no size")
    attributes = " ".join(re.findall(r"\b(?:fill|stroke|stroke-[a-z]+|color|xmlns:[a-z]+)=\"[^\"]*\"", root[0]))
    attributes = re.sub(r'xmlns:xlink="[^"]*"', "", attributes)
    body = text[root.end() : text.rindex("</svg>")]
    return square_svg(f"<g {attributes}>{body}</g>", left, top, width, height)


def draw(picture: str | bytes, size: int, box: Box = WHOLE, colour: str = "#222222") -> np.ndarray:
    """Rasterises a picture into a box of a transparent canvas.

    Returns premultiplied RGBA bytes [size, size, 4]. ``colour`` replaces ``currentColor`` in an SVG.
    An SVG is drawn at its final resolution, so a small box stays sharp. Raises PictureError.
    """
    return _draw_svg(picture, size, box, colour) if isinstance(picture, str) else _draw_image(picture, size, box)


def _draw_svg(svg: str, size: int, box: Box, colour: str) -> np.ndarray:
    # Moving the viewBox moves the picture: the canvas is 1 / side times the picture's own square.
    left, top, side, _ = (float(number) for number in _VIEW_BOX.search(svg)[1].split())
    canvas = side / box.side
    moved = f'viewBox="{left - box.left * canvas:g} {top - box.top * canvas:g} {canvas:g} {canvas:g}" width="{size}" height="{size}"'
    svg = _VIEW_BOX.sub(moved, svg, count=1).replace("currentColor", colour)
    try:
        png = bytes(resvg_py.svg_to_bytes(svg_string=svg, width=size, height=size))
    except Exception as error:  # resvg_py raises plain ValueError and its own panic class
        raise PictureError(f"resvg cannot draw it: {str(error)[:80]}") from error
    image = Image.open(io.BytesIO(png)).convert("RGBA")
    return (premultiply(image) * 255 + 0.5).astype(np.uint8)


def _draw_image(data: bytes, size: int, box: Box) -> np.ndarray:
    try:
        image = Image.open(io.BytesIO(data)).convert("RGBA")
    except Exception as error:  # Pillow's decoders raise many classes
        raise PictureError(f"Pillow cannot read it: {str(error)[:80]}") from error
    side = max(image.size)
    pixels = np.zeros((side, side, 4), np.float32)
    y, x = (side - image.height) // 2, (side - image.width) // 2
    pixels[y : y + image.height, x : x + image.width] = premultiply(image)
    target = max(1, round(size * box.side))
    if target != side:
        bands = [Image.fromarray(np.ascontiguousarray(pixels[..., band])) for band in range(4)]
        pixels = np.stack([band.resize((target, target), Image.Resampling.LANCZOS) for band in bands], -1).clip(0, 1)
        pixels[..., :3] = np.minimum(pixels[..., :3], pixels[..., 3:])  # the filter overshoots
    canvas = np.zeros((size, size, 4), np.uint8)
    top, left = (min(max(round(size * start), 0), size - target) for start in (box.top, box.left))
    canvas[top : top + target, left : left + target] = (pixels * 255 + 0.5).astype(np.uint8)
    return canvas


def premultiply(image: Image.Image) -> np.ndarray:
    """A straight RGBA image as premultiplied float32 [height, width, 4] in 0 to 1."""
    pixels = np.asarray(image, np.float32) / 255
    return np.concatenate([pixels[..., :3] * pixels[..., 3:], pixels[..., 3:]], -1)


def straighten(pixels: np.ndarray) -> np.ndarray:
    """Premultiplied RGBA bytes to straight RGBA bytes, with invisible pixels black."""
    alpha = pixels[..., 3:].astype(np.float32)
    colour = pixels[..., :3] * (255 / np.maximum(alpha, 1))
    return np.concatenate([colour.clip(0, 255) + 0.5, alpha], -1).astype(np.uint8)


def over(pixels: np.ndarray, background: int = 255) -> np.ndarray:
    """Premultiplied RGBA bytes over a grey background: RGB bytes."""
    rest = (255 - pixels[..., 3:].astype(np.int32)) * background
    return (pixels[..., :3] + (rest + 127) // 255).clip(0, 255).astype(np.uint8)


def require_visible(pixels: np.ndarray) -> None:
    """Raises PictureError where less than 1 % of the pixels can be seen."""
    if (pixels[..., 3] > 8).mean() < 0.01:
        raise PictureError("shows nothing")
