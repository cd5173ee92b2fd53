"""Builds the data set: collect, check every picture, name its colours, split, pack."""

import hashlib
import random
from collections import Counter, defaultdict
from multiprocessing import Pool
from pathlib import Path

from inkbloom_train.data import colours, raster
from inkbloom_train.data.collect import collect
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet, Row, StyleInfo
from inkbloom_train.data.folder import collect_folder
from inkbloom_train.data.styles import STYLES
from inkbloom_train.errors import TrainError

CHECK_SIZE = 64
HELD_SHARE = 0.05
MANY_STYLES = 3
"""From how many styles on a concept counts as seen in others when one of its pairs is held out."""


def build(packages: Path, folder: Path | None, workers: int) -> DataSet:
    """Builds the default data set from packages, or one from a user's ``folder`` of pictures."""
    skipped: Counter = Counter()
    if folder is None:
        candidates = collect(packages, skipped)
        styles = {style.key: StyleInfo(list(style.phrases), style.weight, style.listed) for style in STYLES}
    else:
        candidates, styles = collect_folder(folder, skipped)
    rows, pictures, digests = [], [], set()
    with Pool(workers) as pool:
        for (row, picture), outcome in zip(candidates, pool.imap(_check, candidates, chunksize=32), strict=True):
            if isinstance(outcome, str):
                skipped[outcome] += 1
                continue
            digest, row.colours = outcome
            if digest in digests:
                skipped["same pixels as another picture"] += 1
                continue
            digests.add(digest)
            rows.append(row)
            pictures.append(picture)
    if not rows:
        raise TrainError(f"no usable picture was found ({_sentence(skipped)}): check the folder and its metadata.jsonl")
    _number_repeats(rows)
    split(rows)
    summary = {"kept": len(rows), "skipped": dict(skipped.most_common())}
    return DataSet(rows, pictures, styles, summary)


def _check(candidate: tuple[Row, str | bytes]) -> tuple[bytes, list[str]] | str:
    """A digest of the pixels and the names of the colours, or the reason why the picture is unusable."""
    row, picture = candidate
    try:
        pixels = raster.draw(picture, CHECK_SIZE)
        raster.require_visible(pixels)
    except raster.PictureError as error:
        return str(error)
    return hashlib.sha256(pixels.tobytes()).digest(), [] if row.monochrome else colours.name_colours(pixels)


def _number_repeats(rows: list[Row]) -> None:
    seen: Counter = Counter()
    for row in rows:
        seen[row.id] += 1
        if seen[row.id] > 1:
            row.id = f"{row.id}~{seen[row.id]}"


def split(rows: list[Row], seed: int = 0) -> None:
    """Holds out 5 % of the concepts whole, and 5 % of the (concept, style) pairs of concepts seen in other styles.

    Concepts that many styles draw and concepts that few do are held out in equal shares.
    """
    rng = random.Random(seed)
    styles_of = defaultdict(set)
    for row in rows:
        styles_of[row.key].add(row.style)
    keys = sorted(styles_of)
    rng.shuffle(keys)
    held_keys = set()
    for group in (
        [key for key in keys if len(styles_of[key]) >= MANY_STYLES],
        [key for key in keys if len(styles_of[key]) < MANY_STYLES],
    ):
        held_keys.update(group[: round(len(group) * HELD_SHARE)])
    pairs = sorted({(row.key, row.style) for row in rows if row.key not in held_keys and len(styles_of[row.key]) >= MANY_STYLES})
    rng.shuffle(pairs)
    held_pairs: dict[str, str] = {}  # at most one style of a concept, so that the others still show it
    for key, style in pairs:
        if len(held_pairs) >= round(len(pairs) * HELD_SHARE):
            break
        held_pairs.setdefault(key, style)
    for row in rows:
        row.split = HELD_CONCEPT if row.key in held_keys else HELD_PAIR if held_pairs.get(row.key) == row.style else TRAIN


def describe(dataset: DataSet) -> str:
    """A table of what was kept, by style and split, and a line on what was skipped."""
    by_style = Counter(row.style for row in dataset.rows)
    licence = {row.style: row.licence for row in dataset.rows}
    lines = [f"{style:12s} {count:6d}  {licence[style]}" for style, count in by_style.most_common()]
    splits = Counter(row.split for row in dataset.rows)
    lines.append(f"{len(dataset.rows)} pictures, {len({row.concept for row in dataset.rows})} concepts; " + _sentence(splits))
    if dataset.summary["skipped"]:
        lines.append(f"skipped {sum(dataset.summary['skipped'].values())}: {_sentence(dataset.summary['skipped'])}")
    return "\n".join(lines)


def _sentence(counts: dict) -> str:
    return ", ".join(f"{name} {count}" for name, count in counts.items()) or "nothing counted"
