"""Stage ``latents``: the training pictures, augmented and encoded once for all epochs.

View 0 holds every picture as it is; each further view holds the training split, augmented anew.
A view is ``view-NNN.safetensors`` with ``view-NNN.json`` (what each shows): f16 ``latents`` [N, C, h, w], the
``thumbnails`` [N, C, h / 2, w / 2] of the same pictures at half the size, the ``quarters`` of them at a quarter, and
where each is fully transparent, ``latents_clear`` [N, h, w] and so on.
"""

import hashlib
import json
import shutil
from collections import Counter
from dataclasses import asdict, dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from inkbloom_train import training
from inkbloom_train import vae as vae_stage
from inkbloom_train.data import augment, raster
from inkbloom_train.data.captions import View
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.pictures import to_model
from inkbloom_train.presets import Preset
from inkbloom_train.workspace import Workspace

_STATISTICS = "statistics.json"
_SIDES = {"latents": 1, "thumbnails": 2, "quarters": 4}
"""How many times smaller pictures are encoded."""
_PARTS = (*_SIDES, *(f"{part}_clear" for part in _SIDES))


@dataclass
class Latents:
    """Latents ready for training, normalised channel by channel over the training split."""

    values: torch.Tensor
    """f16 [N, C, h, w], mean 0 and standard deviation 1."""
    thumbnails: torch.Tensor
    """f16 [N, C, h / 2, w / 2], in the same units: the pictures at half the size."""
    quarters: torch.Tensor
    """f16 [N, C, h / 4, w / 4]."""
    clear: torch.Tensor
    """Bool [N, h, w]: the places of ``values`` that show nothing."""
    thumbnails_clear: torch.Tensor
    """Bool [N, h / 2, w / 2]."""
    quarters_clear: torch.Tensor
    """Bool [N, h / 4, w / 4]."""
    views: list[View]
    mean: torch.Tensor
    """[C]: what to add back, after the deviation, before decoding."""
    std: torch.Tensor
    plain: dict[int, int]
    """From a row of the data set to its latent as it is."""


def encode(preset: Preset, dataset: DataSet, workspace: Workspace, worker: Worker) -> None:
    """Encodes the views that are not there yet; the processes share them out."""
    folder = workspace.stage("latents")
    vae = vae_stage.load(preset.vae, workspace)
    encoder = fingerprint(vae)
    if worker.leads and (folder / _STATISTICS).exists() and json.loads((folder / _STATISTICS).read_text())["encoder"] != encoder:
        worker.log("the VAE has changed since the pictures were encoded: encoding them again")
        shutil.rmtree(folder)
        folder.mkdir()
    worker.barrier()
    vae = vae.to(worker.device)
    global _dataset, _partners  # for the drawing processes, which inherit them
    _dataset, _partners = dataset, _rows_by_style(dataset)
    for number in range(worker.rank, preset.latents.views, worker.count):
        path = folder / f"view-{number:03d}.safetensors"
        if not _whole(path):
            rows = list(range(len(dataset.rows))) if number == 0 else dataset.of_split(TRAIN)
            _encode_view(path, rows, number, vae, preset, worker)
    worker.barrier()
    if worker.leads and not (folder / _STATISTICS).exists():
        values = load_file(folder / "view-000.safetensors")["latents"][dataset.of_split(TRAIN)].float()
        found = {"mean": values.mean((0, 2, 3)).tolist(), "std": values.std((0, 2, 3)).tolist(), "encoder": encoder}
        (folder / _STATISTICS).write_text(json.dumps(found))


def _whole(path: Path) -> bool:
    """Whether a view is there with all that is read of one; earlier ones had no thumbnails, or no quarters."""
    if not path.exists():
        return False
    with safe_open(path, "pt") as file:
        return set(file.keys()) == set(_PARTS)


def fingerprint(vae: AutoencoderTiny) -> str:
    """A hash of the encoder's weights: latents are of use only with the decoder of the encoder that made them."""
    digest = hashlib.sha256()
    for value in vae.encoder.parameters():
        digest.update(value.detach().float().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


def _rows_by_style(dataset: DataSet) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for index in dataset.of_split(TRAIN):
        found.setdefault(dataset.rows[index].style, []).append(index)
    return found


_dataset: DataSet
_partners: dict[str, list[int]]


def _draw(job: tuple[int, int, int, int]) -> tuple[np.ndarray, View] | str:
    index, number, size, seed = job
    try:
        if number == 0:
            return augment.plain(_dataset, index, size)
        rng = np.random.default_rng([seed, number, index])
        return augment.augmented(_dataset, index, _partners[_dataset.rows[index].style], size, rng)
    except raster.PictureError as error:
        return str(error)


@torch.no_grad()
def _encode_view(path: Path, rows: list[int], number: int, vae: AutoencoderTiny, preset: Preset, worker: Worker) -> None:
    found, views, waiting, failures = {part: [] for part in _PARTS}, [], [], Counter()

    def flush() -> None:
        x = to_model(torch.from_numpy(np.stack(waiting)).to(worker.device))
        for part, times in _SIDES.items():
            pictures = F.avg_pool2d(x, times)
            with worker.autocast():
                latent = vae.encoder(pictures)
            found[part].append(latent.half().cpu())
            found[f"{part}_clear"].append(transparent(pictures, pictures.shape[2] // latent.shape[2]).cpu())
        waiting.clear()

    with Pool(max(1, preset.workers // worker.count)) as pool:
        jobs = ((index, number, preset.encoded, preset.seed) for index in rows)
        for outcome in pool.imap(_draw, jobs, chunksize=32):
            if isinstance(outcome, str) and number > 0:
                failures[outcome] += 1
                continue
            # View 0 keeps a place for every row; a picture that cannot be drawn stays empty there and is not trained on.
            pixels, view = (np.zeros((preset.encoded, preset.encoded, 4), np.uint8), View([])) if isinstance(outcome, str) else outcome
            failures.update([outcome] if isinstance(outcome, str) else [])
            waiting.append(pixels)
            views.append(view)
            if len(waiting) == preset.latents.batch:
                flush()
        if waiting:
            flush()
    path.with_suffix(".json").write_text(json.dumps([asdict(view) for view in views]))
    partial = path.with_suffix(".partial")
    save_file({part: torch.cat(values).contiguous() for part, values in found.items()}, partial)
    partial.replace(path)
    print(f"view {number}: {len(views)} pictures encoded, {sum(failures.values())} failed {dict(failures) or ''}".rstrip(), flush=True)


def transparent(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """Which squares of ``side`` px of pictures [N, 4, H, W] show nothing (a mean alpha below 1 of 255): bool [N, H / side, W / side]."""
    return F.avg_pool2d(pictures[:, 3:].float(), side)[:, 0] < 2 / 255 - 1


def statistics(workspace: Workspace, vae: AutoencoderTiny | None = None) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and standard deviation of each latent channel, [C] each. Raises TrainError if ``vae`` did not make the latents."""
    path = workspace.stage("latents") / _STATISTICS
    if not path.exists():
        raise TrainError("the pictures are not encoded yet: run the stage `latents` first")
    found = json.loads(path.read_text())
    if vae is not None and found["encoder"] != fingerprint(vae):
        raise TrainError("the VAE has been trained on since the pictures were encoded: run the stages `latents` and `dit` again")
    return torch.tensor(found["mean"]), torch.tensor(found["std"])


def load(workspace: Workspace, device: torch.device) -> Latents:
    """All views that are there, on a device. Raises TrainError if there are none."""
    mean, std = statistics(workspace)
    paths = sorted(workspace.stage("latents").glob("view-*.safetensors"))
    training.require_memory("loading the latents", 3 * sum(path.stat().st_size for path in paths), "close other programs, or move some view files away")
    found, views = {part: [] for part in _PARTS}, []
    for path in paths:
        if not _whole(path):
            raise TrainError(f"{path} is of an earlier version, without quarters: run the stage `latents` again")
        stored = load_file(path)
        for part in _SIDES:
            found[part].append(((stored[part].float() - mean.view(1, -1, 1, 1)) / std.view(1, -1, 1, 1)).half())
            found[f"{part}_clear"].append(stored[f"{part}_clear"])
        views += [View(**entry) for entry in json.loads(path.with_suffix(".json").read_text())]
    plain = {row: row for row in range(len(found["latents"][0])) if views[row].rows}
    return Latents(*(torch.cat(found[part]).to(device) for part in _PARTS), views, mean, std, plain)
