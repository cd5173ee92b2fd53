"""The packed data set: one ``tar.xz`` that holds ``rows.jsonl`` and every picture as a file.

SVG sources are kept as text and drawn where training runs: about a fifth of the bytes of the pixels,
at any size.
"""

import io
import json
import lzma
import tarfile
from dataclasses import asdict, dataclass, field
from pathlib import Path

from inkbloom_train.errors import TrainError

TRAIN, HELD_PAIR, HELD_CONCEPT = "train", "held-pair", "held-concept"


@dataclass
class Row:
    """One picture and what is known about it."""

    id: str
    style: str
    """Key of its style."""
    concept: str
    names: list[str]
    """What the thing is called, the usual name first."""
    keywords: list[str]
    licence: str
    source: str
    """Where it is from: package, set and author."""
    key: str
    """Concepts with the same key are never on two sides of the split."""
    kind: str = "svg"
    """``svg``, or the type of an image file."""
    people: bool = False
    monochrome: bool = False
    colours: list[str] = field(default_factory=list)
    """Names of its dominant colours, the larger first."""
    split: str = TRAIN


@dataclass
class StyleInfo:
    """What training and export need to know about a style."""

    phrases: list[str]
    weight: float = 1.0
    listed: bool = True
    """Named to users by the exported model."""


@dataclass
class DataSet:
    rows: list[Row]
    pictures: list[str | bytes]
    """By row: the text of an SVG or the bytes of an image file."""
    styles: dict[str, StyleInfo]
    summary: dict
    """What was counted while building: kept, skipped and why."""

    def of_split(self, *splits: str) -> list[int]:
        return [index for index, row in enumerate(self.rows) if row.split in splits]


def save(dataset: DataSet, path: Path) -> None:
    """Writes the pack; the same data set always gives the same bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    header = {"styles": {key: asdict(info) for key, info in dataset.styles.items()}, "summary": dataset.summary}
    lines = [json.dumps(header), *(json.dumps(asdict(row), ensure_ascii=False) for row in dataset.rows)]
    with lzma.open(partial, "wb", preset=6) as compressed, tarfile.open(fileobj=compressed, mode="w") as tar:
        _add(tar, "rows.jsonl", "\n".join(lines).encode())
        for row, picture in zip(dataset.rows, dataset.pictures, strict=True):
            _add(tar, f"{row.id}.{row.kind}", picture.encode() if isinstance(picture, str) else picture)
    partial.replace(path)


def _add(tar: tarfile.TarFile, name: str, contents: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(contents)
    tar.addfile(info, io.BytesIO(contents))


def load(path: Path) -> DataSet:
    """Reads a pack. Raises TrainError when it is missing or damaged."""
    if not path.exists():
        raise TrainError(f"there is no data set at {path}: run the stage `data` first")
    try:
        with lzma.open(path) as compressed, tarfile.open(fileobj=compressed, mode="r|") as tar:
            contents = {member.name: tar.extractfile(member).read() for member in tar}
        header, *lines = contents["rows.jsonl"].decode().splitlines()
        header, rows = json.loads(header), [Row(**json.loads(line)) for line in lines]
        pictures = [contents[f"{row.id}.{row.kind}"] for row in rows]
    except (lzma.LZMAError, tarfile.TarError, EOFError, KeyError, ValueError, TypeError) as error:
        raise TrainError(f"{path} is damaged ({error}): delete it and run the stage `data` again") from error
    return DataSet(
        rows=rows,
        pictures=[picture.decode() if row.kind == "svg" else picture for row, picture in zip(rows, pictures, strict=True)],
        styles={key: StyleInfo(**info) for key, info in header["styles"].items()},
        summary=header["summary"],
    )
