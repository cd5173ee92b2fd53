"""Stage ``vq``: the codes of pictures, by k-means on the latents of the frozen autoencoder, and what decodes them.

A place of a latent, be it a picture's or a thumbnail's, gets two codes: the first is the nearest of one table,
the second the nearest of another to what is left. First code 0 is kept for places that show nothing. The tables are
found without gradients, so the autoencoder, and with it every other way of drawing, stays as it is. Then a small
network learns to guess, from all codes of a grid, what they leave out of its latent.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn

from inkbloom_train import latents as latents_stage
from inkbloom_train import pretrained, training, vae
from inkbloom_train.data import augment
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.latents import Latents
from inkbloom_train.pictures import over, psnr, to_model
from inkbloom_train.presets import Preset
from inkbloom_train.tokens_model import InkbloomCodebook, nearest
from inkbloom_train.workspace import Workspace

TABLES, COMPONENT = "tables", "component"
SMALL, WHOLE = "thumbnail", "picture"
_WINDOW = 8
"""Side in places of what is decoded of a grid in training."""
_FLOOR = 1e-3
"""Added to a picture's squared error before its logarithm (30 dB), so that pictures that are right already count little."""


def run(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> InkbloomCodebook:
    """Finds the tables, trains what decodes codes, measures both on held-out pictures and writes the component; returns one
    that is there. Tables that are there are kept, with the decoder that they may have."""
    folder = workspace.stage("vq")
    if not (folder / COMPONENT).exists():
        latents = latents_stage.load(workspace, torch.device("cpu"))
        if not (folder / TABLES).exists() and worker.leads:
            fit(latents, data, preset).save_pretrained(folder / TABLES)
        worker.barrier()
        codebook = learn(load(folder, TABLES, preset), latents, data, preset, workspace, worker)
        if worker.leads:
            coder = vae.load(preset.vae, workspace)
            for name, found in measure(codebook, coder, latents_stage.statistics(workspace, coder), data, preset).items():
                worker.log(f"{name}: {found}")
            codebook.save_pretrained(folder / COMPONENT)
        worker.barrier()
    return load(folder, COMPONENT, preset).to(worker.device)


def load(folder: Path, component: str, preset: Preset) -> InkbloomCodebook:
    """The codebook of a folder, for inference. Raises TrainError if it is missing or of other sizes than the preset's."""
    found = pretrained.load(InkbloomCodebook, folder, component)
    if list(found.config.codes) != [preset.vq.first, preset.vq.second]:
        raise TrainError(f"{folder} has codes {list(found.config.codes)}: choose --set vq.first and vq.second to fit, or another --name")
    codebook = make(preset, found.config.decoder_channels, found.config.decoder_blocks)  # whose config does not say where it was read from
    codebook.load_state_dict(found.state_dict())
    return codebook.eval().requires_grad_(False)


def make(preset: Preset, decoder_channels: int = 64, decoder_blocks: int = 0) -> InkbloomCodebook:
    """A fresh codebook."""
    codes, grids = (preset.vq.first, preset.vq.second), (preset.latent // 2, preset.latent)
    return InkbloomCodebook(codes, preset.vae.latent_channels, grids, decoder_channels, decoder_blocks)


def fit(latents: Latents, data: DataSet, preset: Preset) -> InkbloomCodebook:
    """The codebook of the training split's latents."""
    settings = preset.vq
    trained = torch.tensor([bool(view.rows) and all(data.rows[row].split == TRAIN for row in view.rows) for view in latents.views])
    gen = torch.Generator().manual_seed(preset.seed)
    shown, clear = [], []
    for values, empty in ((latents.thumbnails, latents.thumbnails_clear), (latents.values, latents.clear)):
        x, nothing = values[trained].permute(0, 2, 3, 1).flatten(0, 2), empty[trained].flatten()
        shown.append(_some(x[~nothing].float(), settings.vectors // 2, gen))
        clear.append(_some(x[nothing].float(), settings.vectors // 2, gen))
    codebook = make(preset)
    codebook.requires_grad_(False)
    x = torch.cat(shown)
    first = kmeans(x, settings.first - 1, settings.rounds, gen)
    codebook.embedding.weight[1:] = first
    nothing = torch.cat(clear)
    codebook.embedding.weight[0] = nothing.mean(0) if len(nothing) else 0.0
    codebook.residual.weight[0] = 0.0
    codebook.residual.weight[1:] = kmeans(x - first[nearest(x, first)], settings.second - 1, settings.rounds, gen)
    return codebook


class DecoderObjective(nn.Module):
    """What a codebook's decoder is to learn: pictures over white and black as the latent itself would have them.

    The error of a window of each picture is taken in dB, for one that is simple shall be as right as one that is not.
    """

    def __init__(self, codebook: InkbloomCodebook, coder: AutoencoderTiny, statistics: tuple[torch.Tensor, torch.Tensor]) -> None:
        super().__init__()
        self.codebook = codebook
        self._drawn = lambda latent: F.avg_pool2d(coder.decoder(_raw(latent, statistics)), vae.ENLARGED)

    def forward(self, codes: torch.Tensor, latent: torch.Tensor, window: tuple[slice, slice]) -> dict[str, torch.Tensor]:
        guessed = self.codebook.decode(codes)
        with torch.no_grad():
            wanted = self._drawn(latent[..., *window])
        drawn = self._drawn(guessed[..., *window])
        error = sum(weight * (over(drawn, grey) - over(wanted, grey)).square().mean((1, 2, 3)) for grey, weight in ((1.0, 1.0), (0.0, 0.2)))
        pixels, latents = torch.log(error + _FLOOR).mean(), F.mse_loss(guessed, latent)
        return {"loss": pixels + 0.1 * latents, "pixels": pixels.detach(), "latents": latents.detach()}


def learn(tables: InkbloomCodebook, latents: Latents, data: DataSet, preset: Preset, workspace: Workspace, worker: Worker) -> InkbloomCodebook:
    """Trains the decoder of the preset's size over the codes of ``tables``, whose own it begins from if that is as large."""
    settings, device = preset.vq, worker.device
    torch.manual_seed(preset.seed)
    codebook, averaged = (make(preset, settings.decoder_channels, settings.decoder_blocks).to(device) for _ in range(2))
    found, own = tables.state_dict(), codebook.state_dict()
    whole = all(name in found and found[name].shape == value.shape for name, value in own.items())
    codebook.load_state_dict(found if whole else {name: value for name, value in found.items() if not name.startswith("decoder.")}, strict=whole)
    codebook.embedding.requires_grad_(False)
    codebook.residual.requires_grad_(False)
    coder, statistics = vae.load(preset.vae, workspace).to(device), (latents.mean, latents.std)
    trained = torch.tensor([bool(view.rows) and all(data.rows[row].split == TRAIN for row in view.rows) for view in latents.views]).nonzero()[:, 0]
    grids = ((latents.thumbnails, latents.thumbnails_clear), (latents.values, latents.clear))

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        values, clear = grids[rng.integers(len(grids))]
        rows = trained[rng.integers(len(trained), size=count)]
        latent = values[rows].float()
        places = min(_WINDOW, latent.shape[2])
        corner = rng.integers(latent.shape[2] - places + 1, size=2)
        codes = codebook.encode(latent.to(device), clear[rows].to(device))
        return {"codes": codes, "latent": latent.to(device), "window": tuple(slice(start, start + places) for start in corner.tolist())}

    def evaluate(weights: dict[str, torch.Tensor]) -> dict:
        found = measure(training.use_average(averaged, weights, "codebook"), coder, statistics, data, preset)
        return {f"{name}_db": values["codes"] for name, values in found.items()}

    objective = DecoderObjective(codebook, coder, statistics)
    config = {"codes": [settings.first, settings.second], "decoder": [settings.decoder_channels, settings.decoder_blocks]}
    training.train(objective, make_batch, settings.schedule, config, workspace.stage("vq"), worker, evaluate=evaluate, seed=preset.seed)
    weights, _ = training.averaged(workspace.stage("vq"), config)
    return training.use_average(averaged, weights, "codebook").cpu().eval().requires_grad_(False)


def _raw(latent: torch.Tensor, statistics: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """A latent of normalised units in the autoencoder's."""
    mean, std = (value.to(latent.device).view(1, -1, 1, 1) for value in statistics)
    return (latent * std + mean).contiguous(memory_format=torch.channels_last)


def kmeans(x: torch.Tensor, count: int, rounds: int, gen: torch.Generator) -> torch.Tensor:
    """``count`` means of vectors [N, C]. Codes that nothing is nearest to begin anew at some vector."""
    means = x[torch.randint(len(x), (count,), generator=gen)].clone()
    for _ in range(rounds):
        own = nearest(x, means)
        members = torch.bincount(own, minlength=count)
        means = torch.zeros_like(means).index_add_(0, own, x) / members.clamp(min=1)[:, None]
        unused = members == 0
        means[unused] = x[torch.randint(len(x), (int(unused.sum()),), generator=gen)]
    return means


def _some(x: torch.Tensor, count: int, gen: torch.Generator) -> torch.Tensor:
    return x[torch.randperm(len(x), generator=gen)[:count]]


@torch.no_grad()
def measure(
    codebook: InkbloomCodebook, coder: AutoencoderTiny, statistics: tuple[torch.Tensor, torch.Tensor], data: DataSet, preset: Preset
) -> dict[str, dict]:
    """Of held-out pictures and their thumbnails: PSNR over white in dB from latents, from what the codes stand for each by
    itself and from what they are decoded to, at the size that the encoder sees, and how many of the codes are in use."""
    device = codebook.embedding.weight.device
    mean, std = (value.to(device).view(1, -1, 1, 1) for value in statistics)
    rows = vae.check_rows(data)
    pictures = to_model(torch.from_numpy(np.stack([augment.plain(data, row, preset.encoded)[0] for row in rows])).to(device))
    found = {}
    for name, x in ((SMALL, F.avg_pool2d(pictures, 2)), (WHOLE, pictures)):
        raw = torch.cat([coder.encoder(part) for part in x.split(16)])
        codes = codebook.encode((raw - mean) / std, latents_stage.transparent(x, x.shape[2] // raw.shape[2]))
        ways = {"latents": raw, "layout": _raw(codebook.layout(codes), statistics), "codes": _raw(codebook.decode(codes), statistics)}
        quality = {way: round(_quality(coder, latent, x), 2) for way, latent in ways.items()}
        used = [round(len(codes[..., depth].unique()) / size, 3) for depth, size in enumerate(codebook.config.codes)]
        found[name] = {**quality, "used": used, "clear": round((codes[..., 0] == 0).float().mean().item(), 3)}
    return found


def _quality(coder: AutoencoderTiny, latent: torch.Tensor, x: torch.Tensor) -> float:
    y = torch.cat([coder.decoder(part) for part in latent.split(16)])
    y = F.avg_pool2d(y, y.shape[2] // x.shape[2])
    return psnr(over(y, 1.0), over(x, 1.0)).mean().item()
