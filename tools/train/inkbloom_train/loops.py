"""Measures the loops of a finished model's stickers: ``python -m inkbloom_train.loops --inkbloom FILE --model DIR``.

Each prompt is drawn by the command line, and the picture moved along each affine path; with ``--drawn`` the model's
motion adapter draws the same prompts and seeds moving. Pictures of one prompt from as many seeds show what frames are
that know nothing of each other. One line of JSON for each of these; what is measured: ``motion.measure``. ``--sheets``
names a folder for a contact sheet of each way, a clip a line.
"""

import argparse
import json
import subprocess
import tempfile
from itertools import islice, product
from pathlib import Path

import numpy as np
from PIL import Image

from inkbloom_train.data import raster
from inkbloom_train.motion import SHEET, measure, sheet

MOTIONS = ("bounce", "spin", "wobble", "pulse", "float", "shake", "jelly")
STYLES = ("3d emoji", "flat emoji", "cartoon emoji", "outlined sticker")
THINGS = ("red apple", "happy cat", "rocket", "sunflower", "blue bird", "birthday cake", "turtle", "umbrella", "dragon", "ghost", "guitar", "snowman")


def prompts(count: int) -> list[str]:
    return [f"{style} of a {thing}" for thing, style in islice(product(THINGS, STYLES), count)]


def load(folder: Path) -> np.ndarray:
    """The frames in a folder, premultiplied RGBA bytes [F, H, W, 4]."""
    pictures = [Image.open(path).convert("RGBA") for path in sorted(folder.glob("*.png"))]
    return np.stack([(raster.premultiply(picture) * 255 + 0.5).astype(np.uint8) for picture in pictures])


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inkbloom_train.loops", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--inkbloom", type=Path, required=True, help="the command line")
    parser.add_argument("--model", type=Path, required=True, help="a bundle or a diffusers folder")
    parser.add_argument("--prompts", type=int, default=48, help="at most 48, the default")
    parser.add_argument("--frames", type=int, default=8)
    parser.add_argument("--drawn", action="store_true", help="measure the model's motion adapter, too")
    parser.add_argument("--sheets", type=Path, help="folder to write contact sheets to")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> dict:
    options = parse(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        ways = [Path(scratch) / way for way in ("independent pictures", *MOTIONS, *(["drawn by the model"] if options.drawn else []))]
        count = str(options.frames)
        for number, prompt in enumerate(prompts(options.prompts)):
            still, *paths = (way / f"{number:02d}" for way in ways)
            still.mkdir(parents=True)
            # Each prompt has seeds of its own.
            draw = ["generate", "--model", options.model, "--prompt", prompt, "--seed", str(number * options.frames)]
            lines = [[*draw, "--count", count, "--out", still / "a.png"]]
            for path in paths:
                moved = ["animate", "--picture", still / "a-0.png", "--motion", path.parent.name]
                lines.append([*(moved if path.parent.name in MOTIONS else draw), "--frames", count, "--frames-dir", path, "--out", Path(scratch) / "a.png"])
            for line in lines:
                subprocess.run([options.inkbloom, *line], check=True, capture_output=True)
            print(f"{number + 1}: {prompt}", flush=True)
        measured = {}
        for way in ways:
            drawn = [load(folder) for folder in sorted(way.iterdir())]
            measured[way.name] = measure(drawn)
            if options.sheets:
                options.sheets.mkdir(parents=True, exist_ok=True)
                every = -(-len(drawn) // SHEET)  # not only the first things, which stand in all styles
                sheet(drawn[::every], prompts(options.prompts)[::every]).save(options.sheets / f"{way.name.replace(' ', '-')}.png")
    for way, values in measured.items():
        print(json.dumps({"way": way, **values}))
    return measured


if __name__ == "__main__":
    main()
