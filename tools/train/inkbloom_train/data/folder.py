"""A user's own pictures: a folder with ``metadata.jsonl``, the layout of Hugging Face's ImageFolder.

Each line is ``{"file_name": "cat.svg", "text": "cat"}``; ``style``, ``keywords`` (a list), ``licence``
and ``source`` may be added. Pictures are SVG or anything that Pillow reads.
"""

import json
from collections import Counter
from pathlib import Path

from inkbloom_train.data import raster
from inkbloom_train.data.concepts import split_key
from inkbloom_train.data.dataset import Row, StyleInfo
from inkbloom_train.errors import TrainError


def collect_folder(folder: Path, skipped: Counter) -> tuple[list[tuple[Row, str | bytes]], dict[str, StyleInfo]]:
    """Rows with their pictures, and the styles they name. ``skipped`` counts what was left out, by reason."""
    metadata = folder / "metadata.jsonl"
    if not metadata.is_file():
        raise TrainError(f'{folder} has no metadata.jsonl: write one with a line {{"file_name": "...", "text": "..."}} for each picture')
    candidates, styles = [], {}
    for number, line in enumerate(metadata.read_text(encoding="utf-8").splitlines(), 1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
            name, text = entry["file_name"], str(entry.get("text") or "").strip().lower()
        except (ValueError, KeyError, TypeError) as error:
            raise TrainError(f"{metadata}, line {number}: every line must be a JSON object with file_name and text ({error})") from error
        if not text:
            skipped["empty caption"] += 1
            continue
        if not (folder / name).is_file():
            skipped["file missing"] += 1
            continue
        try:
            data = (folder / name).read_bytes()
            kind = Path(name).suffix.lstrip(".").lower()
            picture = raster.normalise_svg(data.decode("utf-8", "replace")) if kind == "svg" else data
        except raster.PictureError as error:
            skipped[str(error)] += 1
            continue
        style = str(entry.get("style") or "sticker")
        styles.setdefault(style, StyleInfo(phrases=[style]))
        row = Row(
            id=f"{style}/{Path(name).with_suffix('').as_posix()}",
            style=style,
            concept=text,
            names=[text],
            keywords=list(entry.get("keywords") or ()),
            licence=str(entry.get("licence") or "not stated"),
            source=str(entry.get("source") or folder.name),
            key=split_key(text),
            kind=kind,
            monochrome=kind == "svg" and "currentColor" in picture,
        )
        candidates.append((row, picture))
    return candidates, styles
