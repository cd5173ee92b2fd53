"""Stage ``vae``: an RGBA autoencoder whose decoder draws twice the size that its encoder sees.

The network is diffusers' AutoencoderTiny (TAESD: convolution and ReLU blocks of constant width) with
four picture channels and one decoder stage more than encoder stages: the encoder is given pictures of half
the size, in which each pixel is the mean of a square of four, and makes latents eight times smaller on each
side than that; the decoder draws the picture at its full size. Losses after TAESD, AlphaVAE (composites over random backgrounds) and EQ-VAE
(latent and target shrunk together).
"""

import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn

from inkbloom_train import pretrained, training
from inkbloom_train.convolution import quicken
from inkbloom_train.data.dataset import HELD_CONCEPT, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.pictures import open_pixels, over, psnr, to_model
from inkbloom_train.presets import Preset, VaeSettings
from inkbloom_train.workspace import Workspace

CHECK_PICTURES = 96
ENCODER_BLOCKS = (1, 2, 2, 2)
DECODER_BLOCKS = (3, 3, 3, 1, 0)  # at full size two convolutions and no more: there a block would cost as much as all others together
ENLARGED = 2 ** (len(DECODER_BLOCKS) - len(ENCODER_BLOCKS))
"""How many times larger than what the encoder sees the decoder draws."""
LATENT_PX = 2 ** (len(DECODER_BLOCKS) - 1)
"""Side in px of what one place of a latent becomes."""


def make(settings: VaeSettings) -> AutoencoderTiny:
    """A fresh autoencoder: [N, 4, H, W] to latents [N, C, H / 8, W / 8], and those to [N, 4, 2 H, 2 W]."""
    return AutoencoderTiny(
        in_channels=4,
        out_channels=4,
        encoder_block_out_channels=(settings.width,) * len(ENCODER_BLOCKS),
        decoder_block_out_channels=(settings.width,) * len(DECODER_BLOCKS),
        num_encoder_blocks=ENCODER_BLOCKS,
        num_decoder_blocks=DECODER_BLOCKS,
        latent_channels=settings.latent_channels,
    )


def load(settings: VaeSettings, workspace: Workspace) -> AutoencoderTiny:
    """The trained autoencoder of a run (averaged weights), for inference."""
    weights, _ = training.averaged(workspace.stage("vae"), _config(settings))
    model = training.use_average(make(settings), weights, "vae")
    return model.eval().requires_grad_(False).to(memory_format=torch.channels_last)


def _config(settings: VaeSettings) -> dict:
    return {"width": settings.width, "latent_channels": settings.latent_channels}


class VaeObjective(nn.Module):
    """The loss of a batch of pictures [N, 4, H, W] in model values."""

    def __init__(self, vae: AutoencoderTiny, latent_noise: float) -> None:
        super().__init__()
        self.vae = vae
        self.latent_noise = latent_noise

    def forward(self, x: torch.Tensor, background: torch.Tensor, noise: torch.Tensor, scale: float) -> dict[str, torch.Tensor]:
        # x: [N, 4, H, W]; background: [N, 3, 1, 1] in 0 to 1; noise: [N, C, H / 16, W / 16]; scale: 1 for no shrinking
        latent = self.vae.encoder(reduced(x)).float()
        noisy = latent + self.latent_noise * noise
        if scale != 1:
            noisy = F.interpolate(noisy, scale_factor=scale, mode="bilinear", antialias=True)
            x = F.interpolate(x, size=tuple(LATENT_PX * side for side in noisy.shape[2:]), mode="bilinear", antialias=True)
        y = self.vae.decoder(noisy).float()
        difference = y - x
        absolute = difference.abs().mean()
        # Root of the mean square of each picture: it weights faint errors of easy, flat pictures more than the mean square does.
        root = (difference.square().mean((1, 2, 3)) + 1e-6).sqrt().mean()
        composite = 2 * (over(y, background) - over(x, background)).abs().mean()
        edges = difference.diff(dim=3).abs().mean() + difference.diff(dim=2).abs().mean()
        size = latent.square().mean()
        loss = absolute + root + 0.5 * composite + 0.5 * edges + 1e-4 * size
        return {"loss": loss, "absolute": absolute.detach(), "edges": edges.detach(), "size": size.detach()}


def reduced(x: torch.Tensor) -> torch.Tensor:
    """Pictures [N, C, H, W] as the encoder sees them: the means of squares of ``ENLARGED`` px."""
    return F.avg_pool2d(x, ENLARGED)


class Crops:
    """Training crops: windows of the pictures at full size, and whole pictures at half size."""

    def __init__(self, pixels: torch.Tensor, rows: list[int], crop: int) -> None:
        self.pixels, self.crop = pixels, crop
        self.rows = np.array(rows)

    def __call__(self, rng: np.random.Generator, count: int) -> torch.Tensor:
        """Premultiplied RGBA in model values, [count, 4, crop, crop]."""
        size, crop, device = self.pixels.shape[1], self.crop, self.pixels.device
        halved = np.flatnonzero(rng.random(count) < (0.15 if size == 2 * crop else 0.0))
        side = torch.arange(crop, device=device)
        out = torch.empty(count, crop, crop, 4, dtype=torch.uint8, device=device)
        todo = np.setdiff1d(np.arange(count), halved)
        for _ in range(4):  # most windows show something; the rest are drawn again
            index = torch.as_tensor(rng.choice(self.rows, len(todo)), device=device)
            top, left = (torch.as_tensor(rng.integers(0, size - crop + 1, len(todo)), device=device) for _ in range(2))
            window = self.pixels[index[:, None, None], (top[:, None] + side)[:, :, None], (left[:, None] + side)[:, None, :]]
            out[torch.as_tensor(todo, device=device)] = window
            if device.type == "cuda":
                break  # asking what they show would stall the queue
            todo = todo[(window[..., 3].amax((1, 2)) == 0).numpy()]
            if not len(todo):
                break
        x = to_model(out)
        if len(halved):
            index = torch.as_tensor(rng.choice(self.rows, len(halved)), device=device)
            x[torch.as_tensor(halved, device=device)] = F.avg_pool2d(to_model(self.pixels[index]), 2)
        if rng.random() < 0.5:
            x = x.flip(3)
        if rng.random() < 0.25:
            x = x[:, [*rng.permutation(3), 3]]
        return x.contiguous(memory_format=torch.channels_last)


@torch.no_grad()
def measure(vae: AutoencoderTiny, pixels: torch.Tensor, worker: Worker, batch: int = 32) -> dict[str, float]:
    """PSNR in dB over white, over black and of alpha, the mean over pictures (bytes [N, H, W, 4])."""
    found = []
    for start in range(0, len(pixels), batch):
        x = to_model(pixels[start : start + batch].to(worker.device))
        with worker.autocast():
            y = vae.decoder(vae.encoder(reduced(x))).float()
        found.append(torch.stack([psnr(over(y, 1.0), over(x, 1.0)), psnr(over(y, 0.0), over(x, 0.0)), psnr((y[:, 3:] + 1) / 2, (x[:, 3:] + 1) / 2)]))
    white, black, alpha = torch.cat(found, 1).mean(1).tolist()
    return {"white_db": round(white, 2), "black_db": round(black, 2), "alpha_db": round(alpha, 2)}


def check_rows(dataset: DataSet, count: int = CHECK_PICTURES) -> list[int]:
    """A fixed sample of pictures of held-out concepts, or of all pictures where none is held out."""
    rows = dataset.of_split(HELD_CONCEPT) or list(range(len(dataset.rows)))
    return sorted(random.Random(3).sample(rows, min(count, len(rows))))


def train(preset: Preset, dataset: DataSet, workspace: Workspace, worker: Worker, warm_start: Path | None = None) -> training.State:
    """Trains the autoencoder on crops of the training split; ``warm_start`` is a diffusers folder or a bundle to begin from."""
    settings = preset.vae
    torch.manual_seed(preset.seed)
    vae = make(settings)
    if warm_start is not None:
        grown(load_weights(warm_start, _config(settings)), vae)
    vae.encoder.requires_grad_(settings.train_encoder)
    vae = quicken(vae.to(worker.device, memory_format=torch.channels_last))
    pixels = open_pixels(workspace.pictures(preset.size), worker.device)
    held = pixels[check_rows(dataset)]
    crops = Crops(pixels, dataset.of_split("train"), settings.crop)
    averaged = make(settings).to(worker.device, memory_format=torch.channels_last).eval()

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        x = crops(rng, count)
        shrink = settings.train_encoder and rng.random() < settings.rescale_share
        return {
            "x": x,
            "background": torch.rand(count, 3, 1, 1, device=worker.device),
            "noise": torch.randn(count, settings.latent_channels, x.shape[2] // LATENT_PX, x.shape[3] // LATENT_PX, device=worker.device),
            "scale": float(rng.choice([0.5, 0.75])) if shrink else 1.0,
        }

    def evaluate(weights: dict[str, torch.Tensor]) -> dict:
        return measure(training.use_average(averaged, weights, "vae"), held, worker)

    return training.train(
        VaeObjective(vae, settings.latent_noise),
        make_batch,
        settings.schedule,
        _config(settings),
        workspace.stage("vae"),
        worker,
        evaluate=evaluate,
        seed=preset.seed,
    )


def load_weights(folder: Path, config: dict) -> AutoencoderTiny:
    """The AutoencoderTiny of a diffusers folder or a bundle. Raises TrainError if it is missing or of other sizes."""
    vae = pretrained.load(AutoencoderTiny, folder, "vae")
    sizes = {"width": vae.config.decoder_block_out_channels[0], "latent_channels": vae.config.latent_channels}
    if sizes != config:
        raise TrainError(f"{folder} has {sizes} and this run {config}: choose settings that fit, for example --set vae.width={sizes['width']}")
    return vae


def grown(found: AutoencoderTiny, like: AutoencoderTiny) -> None:
    """Gives ``like`` the weights of an autoencoder whose decoder may have fewer blocks in a stage, or one stage less.

    Further blocks begin by changing nothing. With a further stage the last convolution draws the picture at twice the
    size, from features that are repeated and else left alone.
    """
    like.encoder.load_state_dict(found.encoder.state_dict())
    given, wanted = _stages(found), _stages(like)
    like.decoder.layers[0].load_state_dict(found.decoder.layers[0].state_dict())
    for (blocks, convolution), (own_blocks, own_convolution) in zip(given, wanted, strict=False):
        for block, own in zip(blocks, own_blocks, strict=False):
            own.load_state_dict(block.state_dict())
        for own in own_blocks[len(blocks) :]:  # behind another's ReLU
            nn.init.zeros_(own.conv[-1].weight)
            nn.init.zeros_(own.conv[-1].bias)
        if own_convolution.weight.shape == convolution.weight.shape:
            own_convolution.load_state_dict(convolution.state_dict())
        else:
            nn.init.dirac_(own_convolution.weight)
    wanted[-1][1].load_state_dict(given[-1][1].state_dict())


def _stages(vae: AutoencoderTiny) -> list[tuple[list[nn.Module], nn.Conv2d]]:
    """The blocks of each stage of a decoder, and the convolution that ends it."""
    layers = list(vae.decoder.layers)[2:]
    stages = []
    for count in vae.config.num_decoder_blocks:
        after = count + (len(stages) < len(vae.config.num_decoder_blocks) - 1)  # the enlargement stands between, but in the last
        stages.append((layers[:count], layers[after]))
        layers = layers[after + 1 :]
    return stages
