"""The data set as pixels, and the arithmetic of RGBA pictures in a model's value space.

A model sees premultiplied RGBA as 2 x - 1: [N, 4, H, W] in -1 to 1, channels red, green, blue, alpha.
"""

from collections import Counter
from collections.abc import Callable
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch

from inkbloom_train.data import raster
from inkbloom_train.data.dataset import DataSet


def rasterise(dataset: DataSet, size: int, path: Path, workers: int, log: Callable[[str], None]) -> None:
    """Draws every picture at ``size`` into ``path`` (uint8 [N, size, size, 4]); does nothing if it is there.

    A picture that cannot be drawn stays transparent, is counted, and is named in the log.
    """
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    pixels = np.lib.format.open_memmap(partial, "w+", np.uint8, (len(dataset.rows), size, size, 4))
    failures: Counter = Counter()
    with Pool(workers) as pool:
        jobs = ((picture, size) for picture in dataset.pictures)
        for index, outcome in enumerate(pool.imap(_draw, jobs, chunksize=32)):
            if isinstance(outcome, str):
                failures[outcome] += 1
                log(f"{dataset.rows[index].id} is left empty: {outcome}")
            else:
                pixels[index] = outcome
    pixels.flush()
    partial.replace(path)
    log(f"drew {len(dataset.rows)} pictures at {size} px, {sum(failures.values())} failed")


def _draw(job: tuple[str | bytes, int]) -> np.ndarray | str:
    try:
        return raster.draw(*job)
    except raster.PictureError as error:
        return str(error)


def open_pixels(path: Path, device: torch.device) -> torch.Tensor:
    """The rasterised data set: on a GPU in its memory, on a CPU mapped from the file."""
    mapped = np.load(path, mmap_mode="c")
    tensor = torch.from_numpy(mapped)
    return tensor.to(device) if device.type == "cuda" else tensor


def to_model(pixels: torch.Tensor) -> torch.Tensor:
    """Premultiplied RGBA bytes [N, H, W, 4] to model values [N, 4, H, W]."""
    values = pixels.permute(0, 3, 1, 2).float() / 127.5 - 1
    return values.contiguous(memory_format=torch.channels_last)


def to_bytes(values: torch.Tensor) -> np.ndarray:
    """Model values [N, 4, H, W] to premultiplied RGBA bytes [N, H, W, 4], colour at most alpha."""
    unit = ((values.float() + 1) / 2).clamp(0, 1)
    unit = torch.cat([torch.minimum(unit[:, :3], unit[:, 3:]), unit[:, 3:]], 1)
    return (unit * 255 + 0.5).byte().permute(0, 2, 3, 1).cpu().numpy()


def over(values: torch.Tensor, background: torch.Tensor | float) -> torch.Tensor:
    """Model values over a background in 0 to 1 ([N, 3, 1, 1] or one number): RGB [N, 3, H, W] in 0 to 1."""
    unit = (values + 1) / 2
    return unit[:, :3] + (1 - unit[:, 3:].clamp(0, 1)) * background


def psnr(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Peak signal-to-noise ratio of values in 0 to 1, in dB, for each picture: [N]. Exact copies give 100."""
    error = ((one.clamp(0, 1) - other.clamp(0, 1)) ** 2).mean((1, 2, 3))
    return -10 * torch.log10(error + 1e-10)
