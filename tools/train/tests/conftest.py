"""A tiny data set of drawn shapes, and one whole smoke run that many tests look at."""

import json
from pathlib import Path

import pytest
import torch

from inkbloom_train.cli import main
from inkbloom_train.workspace import Workspace

SHAPES = {
    "circle": '<circle cx="12" cy="12" r="9"/>',
    "square": '<rect x="4" y="4" width="16" height="16"/>',
    "heart": '<path d="M12 21C2 13 3 4 8 4q3 0 4 3q1-3 4-3c5 0 6 9-4 17z"/>',
    "star": '<path d="M12 2l3 7h7l-6 4 2 8-6-5-6 5 2-8-6-4h7z"/>',
    "house": '<path d="M3 11l9-8 9 8v10H3z"/>',
    "tree": '<path d="M12 2l8 14h-6v6h-4v-6H4z"/>',
    "fish": '<path d="M2 12q7-9 14 0l6-5v10l-6-5q-7 9-14 0z"/>',
    "moon": '<path d="M14 3a9 9 0 1 0 7 14A8 8 0 0 1 14 3z"/>',
}
STYLES = {
    "flat sticker": 'fill="{colour}"',
    "outline sticker": 'fill="none" stroke="{colour}" stroke-width="2"',
    "solid icon": 'fill="currentColor"',
}
COLOURS = ("#e02020", "#2060e0", "#20a030", "#ffcc10")


def write_pictures(folder: Path) -> Path:
    """Every shape in every style as SVG files with a metadata.jsonl."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (name, body) in enumerate(SHAPES.items()):
        for style, attributes in STYLES.items():
            file_name = f"{name}-{style.replace(' ', '-')}.svg"
            group = f"<g {attributes.format(colour=COLOURS[number % len(COLOURS)])}>{body}</g>"
            (folder / file_name).write_text(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 24 24">{group}</svg>')
            lines.append(json.dumps({"file_name": file_name, "text": name, "style": style, "keywords": ["shape", "drawing"], "licence": "MIT"}))
    (folder / "metadata.jsonl").write_text("\n".join(lines))
    return folder


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pictures(tmp_path_factory.mktemp("pictures"))


@pytest.fixture(scope="session")
def smoke(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Workspace:
    """A finished run of all stages at the smoke preset."""
    torch.set_num_threads(2)
    cache = tmp_path_factory.mktemp("cache")
    assert main(["run", "--preset", "smoke", "--cache", str(cache), "--folder", str(pictures), "--device", "cpu"]) == 0
    return Workspace(cache, "smoke")
