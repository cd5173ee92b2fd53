"""Stage ``vq``: the codes of pictures, by k-means on the latents of the frozen autoencoder.

A place of a latent, be it a picture's or a thumbnail's, gets two codes: the first is the nearest of one table,
the second the nearest of another to what is left. First code 0 is kept for places that show nothing. Nothing is
trained by gradients, so the autoencoder, and with it every other way of drawing, stays as it is.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny

from inkbloom_train import latents as latents_stage
from inkbloom_train import pretrained, vae
from inkbloom_train.data import augment
from inkbloom_train.data.dataset import TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.latents import Latents
from inkbloom_train.pictures import over, psnr, to_model
from inkbloom_train.presets import Preset
from inkbloom_train.tokens_model import InkbloomCodebook, nearest
from inkbloom_train.workspace import Workspace

COMPONENT = "component"
SMALL, WHOLE = "thumbnail", "picture"


def run(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> InkbloomCodebook:
    """Finds the codes, measures them on held-out pictures and writes the component; returns one that is there."""
    folder = workspace.stage("vq") / COMPONENT
    if not folder.exists() and worker.leads:
        codebook = fit(latents_stage.load(workspace, torch.device("cpu")), data, preset)
        coder = vae.load(preset.vae, workspace)
        for name, found in measure(codebook, coder, latents_stage.statistics(workspace, coder), data, preset).items():
            worker.log(f"{name}: {found}")
        codebook.save_pretrained(folder)
    worker.barrier()
    return load(folder.parent, COMPONENT, preset).to(worker.device)


def load(folder: Path, component: str, preset: Preset) -> InkbloomCodebook:
    """The codebook of a folder, for inference. Raises TrainError if it is missing or of other sizes than the preset's."""
    found = pretrained.load(InkbloomCodebook, folder, component)
    if list(found.config.codes) != [preset.vq.first, preset.vq.second]:
        raise TrainError(f"{folder} has codes {list(found.config.codes)}: choose --set vq.first and vq.second to fit, or another --name")
    codebook = make(preset)  # whose config does not say where it was read from
    codebook.load_state_dict(found.state_dict())
    return codebook.eval().requires_grad_(False)


def make(preset: Preset) -> InkbloomCodebook:
    """A fresh codebook."""
    return InkbloomCodebook((preset.vq.first, preset.vq.second), preset.vae.latent_channels, (preset.latent // 2, preset.latent))


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
    """Of held-out pictures and their thumbnails: PSNR over white in dB from latents and from codes, at the size that the
    encoder sees, and how many of the codes are in use."""
    mean, std = (value.view(1, -1, 1, 1) for value in statistics)
    rows = vae.check_rows(data)
    pictures = to_model(torch.from_numpy(np.stack([augment.plain(data, row, preset.encoded)[0] for row in rows])))
    found = {}
    for name, x in ((SMALL, F.avg_pool2d(pictures, 2)), (WHOLE, pictures)):
        raw = torch.cat([coder.encoder(part) for part in x.split(16)])
        codes = codebook.encode((raw - mean) / std, latents_stage.transparent(x, x.shape[2] // raw.shape[2]))
        coded = codebook.decode(codes) * std + mean
        ways = {"latents": raw, "codes": coded}
        quality = {way: round(_quality(coder, latent, x), 2) for way, latent in ways.items()}
        used = [round(len(codes[..., depth].unique()) / size, 3) for depth, size in enumerate(codebook.config.codes)]
        found[name] = {**quality, "used": used, "clear": round((codes[..., 0] == 0).float().mean().item(), 3)}
    return found


def _quality(coder: AutoencoderTiny, latent: torch.Tensor, x: torch.Tensor) -> float:
    y = torch.cat([coder.decoder(part) for part in latent.split(16)])
    y = F.avg_pool2d(y, y.shape[2] // x.shape[2])
    return psnr(over(y, 1.0), over(x, 1.0)).mean().item()
