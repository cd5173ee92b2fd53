"""The animations that `inkbloom animate` writes, opened by Pillow.

    INKBLOOM=target/debug/inkbloom python -m pytest tools/reference -k animations
"""

import os
import subprocess
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageSequence

INKBLOOM = os.environ["INKBLOOM"]
"""The command line; without it these tests fail."""
FRAMES, FPS = 8, 10


@pytest.fixture
def sticker(tmp_path) -> Path:
    """A disc of two colours with a soft rim, off the middle."""
    y, x = np.mgrid[:64, :64] + 0.5
    alpha = np.clip((20 - np.hypot(x - 28, y - 36)) / 4, 0, 1)
    rgb = np.where((x < 28)[..., None], [230, 60, 40], [40, 120, 230]) * (alpha > 0)[..., None]
    path = tmp_path / "sticker.png"
    Image.fromarray(np.dstack([rgb, 255 * alpha]).round().astype(np.uint8)).save(path)
    return path


def animate(sticker: Path, name: str, *options: str) -> tuple[Image.Image, list[np.ndarray], Path]:
    """The file as Pillow opens it, its frames as RGBA, and the folder of the frames as they went in."""
    out, frames = sticker.with_name(name), sticker.with_name("frames")
    line = ["animate", "--picture", sticker, "--motion", "wobble", "--frames", str(FRAMES), "--fps", str(FPS)]
    subprocess.run([INKBLOOM, *line, "--frames-dir", frames, "--out", out, *options], check=True, capture_output=True)
    picture = Image.open(out)
    return picture, [np.asarray(frame.convert("RGBA")) for frame in ImageSequence.Iterator(picture)], frames


@pytest.mark.parametrize("name", ["a.webp", "a.png", "a.gif"])
def test_pillow_sees_every_frame_its_time_and_its_alpha(sticker, name):
    picture, found, folder = animate(sticker, name)
    assert picture.format == {"webp": "WEBP", "png": "PNG", "gif": "GIF"}[name[2:]]
    assert (picture.n_frames, picture.info["loop"]) == (FRAMES, 0)
    for i in range(FRAMES):
        picture.seek(i)
        picture.load()
        assert round(picture.info["duration"]) == 1000 / FPS
    given = [np.asarray(Image.open(file)) for file in sorted(folder.iterdir())]
    assert len(found) == len(given) == FRAMES
    for one, other in zip(found, given):
        alpha = other[..., 3]
        np.testing.assert_array_equal(one[..., 3], np.where(alpha < 128, 0, 255) if name == "a.gif" else alpha)
        error = np.abs(one[..., :3].astype(int) - other[..., :3])[alpha > 200]
        # Lossless, 256 colours, and a quality of 80.
        assert error.mean() <= {"a.png": 0, "a.gif": 6, "a.webp": 8}[name]
    assert any((one != found[0]).any() for one in found)


def test_a_sticker_file_keeps_its_size_and_limit(sticker):
    picture, found, _ = animate(sticker, "a.webp", "--sticker")
    assert picture.size == (512, 512) and picture.n_frames == FRAMES
    assert sticker.with_name("a.webp").stat().st_size <= 500_000
    seen = found[0][..., 3] > 0
    assert 0.1 < seen.mean() < 0.6


def test_a_low_quality_makes_a_small_file(sticker):
    sizes = []
    for quality in ["5", "80", "100"]:
        animate(sticker, "a.webp", "--quality", quality)
        sizes.append(sticker.with_name("a.webp").stat().st_size)
    assert sizes == sorted(set(sizes))
