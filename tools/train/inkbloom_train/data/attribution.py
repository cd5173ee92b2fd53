"""ATTRIBUTION, made from the rows of the data set."""

from collections import Counter
from collections.abc import Iterable

from inkbloom_train.data.clips import Clip
from inkbloom_train.data.dataset import DataSet

_LICENCE_URL = {
    "MIT": "https://opensource.org/license/mit",
    "Apache-2.0": "https://www.apache.org/licenses/LICENSE-2.0",
    "CC-BY-4.0": "https://creativecommons.org/licenses/by/4.0/",
}


def attribution(data: DataSet, moving: Iterable[Clip] = ()) -> str:
    """A Markdown table of every source with its licence and the number of pictures, and of moving ones, used."""
    counts = Counter((row.source, row.licence) for row in data.rows)
    counts.update((f"{clip.source} (moving)", clip.licence) for clip in moving)
    lines = [
        "# Attribution",
        "",
        "The model learned from these pictures. They were rasterised, moved, scaled, mirrored, recoloured and combined for training.",
        "",
        "| source | licence | pictures |",
        "| --- | --- | --- |",
    ]
    for (source, licence), count in sorted(counts.items()):
        link = f"[{licence}]({_LICENCE_URL[licence]})" if licence in _LICENCE_URL else licence
        lines.append(f"| {source} | {link} | {count} |")
    return "\n".join([*lines, ""])
