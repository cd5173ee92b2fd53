"""Frames of SVG animations (SMIL), which resvg does not play.

Understood are ``animate``, ``animateTransform`` and ``set`` that begin at a time; whatever waits for an
event or follows a path is refused.
"""

import re
import xml.etree.ElementTree as ET

from inkbloom_train.data.raster import PictureError

_SVG = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"-?(?:\d+\.?\d*|\.\d+)(?:e-?\d+)?")
_ANIMATIONS = frozenset(_SVG + name for name in ("animate", "animateTransform", "animateMotion", "set"))
ET.register_namespace("", _SVG[1:-1])
ET.register_namespace("xlink", "http://www.w3.org/1999/xlink")


def cycle(svg: str) -> float | None:
    """Seconds of the longest animation that repeats for ever, None where there is none."""
    looping = [node for node in ET.fromstring(svg).iter() if node.tag in _ANIMATIONS and node.get("repeatCount") == "indefinite"]
    return max((_seconds(node.get("dur", "")) for node in looping), default=None)


def at(svg: str, time: float) -> str:
    """The document as it stands ``time`` seconds after its start, without animations. Raises PictureError for what is not understood."""
    root = ET.fromstring(svg)
    for parent in list(root.iter()):
        for node in [child for child in parent if child.tag in _ANIMATIONS]:
            parent.remove(node)
            value = _value(node, time)
            if value is None:
                continue
            if node.tag == _SVG + "animateTransform":
                change = f"{node.get('type')}({value})"
                before = parent.get("transform", "") if node.get("additive") == "sum" else ""
                parent.set("transform", f"{before} {change}".strip())
            else:
                parent.set(node.get("attributeName"), value)
    return ET.tostring(root, encoding="unicode")


def _seconds(text: str) -> float:
    match = re.fullmatch(r"\s*(-?[\d.]+)(ms|s)?\s*", text)
    if match is None:
        raise PictureError("an animation that waits for an event")
    return float(match[1]) / (1000 if match[2] == "ms" else 1)


def _list(node: ET.Element, key: str) -> list[str]:
    return [part.strip() for part in node.get(key, "").split(";") if part.strip()]


def _value(node: ET.Element, time: float) -> str | None:
    """What the animation gives at that time; None before it begins and after it ends."""
    if node.tag == _SVG + "animateMotion":
        raise PictureError("an animation along a path")
    time -= _seconds((_list(node, "begin") or ["0s"])[0])
    if time < 0:
        return None
    if node.tag == _SVG + "set":
        return node.get("to")
    duration = _seconds(node.get("dur", ""))
    if node.get("repeatCount") == "indefinite":
        time %= duration
    elif time > duration and node.get("fill") != "freeze":
        return None
    values = _list(node, "values") or [node.get("from", "0"), node.get("to")]
    if None in values:
        raise PictureError("an animation without an end")
    return _between(node, values, min(time / duration, 1.0))


def _between(node: ET.Element, values: list[str], share: float) -> str:
    discrete = node.get("calcMode") == "discrete"
    ends = len(values) - (0 if discrete else 1)
    times = [float(key) for key in _list(node, "keyTimes")] or [place / max(ends, 1) for place in range(len(values))]
    place = max((number for number, key in enumerate(times[: len(values)]) if key <= share + 1e-9), default=0)
    if discrete or place == len(values) - 1:
        return values[place]
    part = (share - times[place]) / max(times[place + 1] - times[place], 1e-9)
    splines = _list(node, "keySplines")
    if node.get("calcMode") == "spline" and place < len(splines):
        part = _eased([float(number) for number in _NUMBER.findall(splines[place])], part)
    return _mixed(values[place], values[place + 1], min(max(part, 0.0), 1.0))


def _eased(spline: list[float], x: float) -> float:
    """The height at ``x`` of the Bezier curve from (0, 0) to (1, 1) with two control points."""
    x1, y1, x2, y2 = spline
    low, high = 0.0, 1.0
    for _ in range(24):
        middle = (low + high) / 2
        low, high = (middle, high) if _bezier(x1, x2, middle) < x else (low, middle)
    return _bezier(y1, y2, low)


def _bezier(one: float, two: float, t: float) -> float:
    return 3 * (1 - t) ** 2 * t * one + 3 * (1 - t) * t**2 * two + t**3


def _mixed(one: str, two: str, part: float) -> str:
    """Every number of ``one`` moved towards its fellow in ``two``; values of other kinds change at the end."""
    first, second = _NUMBER.findall(one), _NUMBER.findall(two)
    if len(first) != len(second):
        return one if part < 1 else two
    numbers = iter(f"{float(a) + (float(b) - float(a)) * part:.4f}" for a, b in zip(first, second, strict=True))
    return _NUMBER.sub(lambda _: next(numbers), one)
