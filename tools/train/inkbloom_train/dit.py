"""Stage ``dit``: the Diffusion Transformer, diffusers' PixArtTransformer2DModel, trained by flow matching."""

import random
from pathlib import Path

import numpy as np
import torch
from diffusers import PixArtTransformer2DModel
from torch import nn

from inkbloom_train import flow, training
from inkbloom_train import latents as latents_stage
from inkbloom_train.data.captions import canonical, caption
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.latents import Latents
from inkbloom_train.presets import Preset
from inkbloom_train.text import WIDTH as TEXT_WIDTH
from inkbloom_train.text import TextEncoder
from inkbloom_train.workspace import Workspace

CHECK_PICTURES = 96


def make(preset: Preset) -> PixArtTransformer2DModel:
    """A fresh transformer for latents [N, C, size / 8, size / 8]."""
    settings = preset.dit
    model = PixArtTransformer2DModel(
        num_attention_heads=settings.heads,
        attention_head_dim=settings.head_dim,
        in_channels=preset.vae.latent_channels,
        out_channels=preset.vae.latent_channels,
        num_layers=settings.layers,
        cross_attention_dim=settings.width,
        sample_size=preset.size // 8,
        patch_size=settings.patch,
        caption_channels=TEXT_WIDTH,
        norm_type="ada_norm_single",
        norm_elementwise_affine=False,
        attention_bias=True,
        use_additional_conditions=False,
        interpolation_scale=1,
    )
    nn.init.zeros_(model.proj_out.weight)  # the first prediction is 0, as in DiT
    nn.init.zeros_(model.proj_out.bias)
    return model


def config(preset: Preset) -> dict:
    """What must not change between two calls of the stage."""
    settings = preset.dit
    return {
        "size": preset.size,
        "latent_channels": preset.vae.latent_channels,
        "heads": settings.heads,
        "head_dim": settings.head_dim,
        "layers": settings.layers,
        "patch": settings.patch,
    }


class Velocity(nn.Module):
    """The transformer with t in 0 to 1: (x_t [N, C, h, w], t [N], text [N, T, D], mask [N, T]) to velocity [N, C, h, w]."""

    def __init__(self, transformer: PixArtTransformer2DModel) -> None:
        super().__init__()
        self.transformer = transformer

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.transformer(x_t, encoder_hidden_states=text, timestep=t * 1000, encoder_attention_mask=mask, return_dict=False)[0].float()


def load(preset: Preset, folder: Path) -> Velocity:
    """The averaged weights of a stage's checkpoint, for inference."""
    weights, _ = training.averaged(folder, config(preset))
    velocity = training.use_average(Velocity(make(preset)), weights, "velocity")
    return velocity.eval().requires_grad_(False)


class FlowObjective(nn.Module):
    """Mean squared error of the velocity."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, x_0: torch.Tensor, noise: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> dict[str, torch.Tensor]:
        predicted = self.velocity(flow.mix(x_0, noise, t), t, text, mask)
        return {"loss": (predicted - (noise - x_0)).square().mean()}


class Samples:
    """Draws latents with captions, each style as often as its weight says."""

    def __init__(self, data: DataSet, latents: Latents, encoder: TextEncoder, text_dropout: float) -> None:
        self.data, self.latents, self.encoder, self.text_dropout = data, latents, encoder, text_dropout
        trained = [
            (index, data.styles[data.rows[view.rows[0]].style].weight)
            for index, view in enumerate(latents.views)
            if view.rows and all(data.rows[row].split == TRAIN for row in view.rows)
        ]
        self.indices = np.array([index for index, _ in trained])
        self.cumulative = np.cumsum([weight for _, weight in trained])

    def __call__(self, rng: np.random.Generator, count: int) -> tuple[torch.Tensor, list[str]]:
        """x_0 [count, C, h, w] in f32 and captions, some of them empty."""
        drawn = np.searchsorted(self.cumulative, rng.random(count) * self.cumulative[-1], side="right")
        chosen = self.indices[drawn]
        words = random.Random(int(rng.integers(2**62)))
        captions = [
            "" if words.random() < self.text_dropout else caption(self.latents.views[index], self.data.rows, self.data.styles, words) for index in chosen
        ]
        device = self.latents.values.device
        return self.latents.values[torch.as_tensor(chosen, device=device)].float(), captions


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, warm_start: Path | None = None) -> training.State:
    """Trains the transformer on the encoded views; ``warm_start`` is a diffusers folder to begin from."""
    settings = preset.dit
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    latents = latents_stage.load(workspace, worker.device)
    samples = Samples(data, latents, encoder, settings.text_dropout)
    torch.manual_seed(preset.seed)
    transformer = make(preset)
    if warm_start is not None:
        transformer.load_state_dict(load_weights(warm_start / "transformer", transformer).state_dict())
    velocity = Velocity(transformer).to(worker.device)
    averaged = Velocity(make(preset)).to(worker.device).eval()
    check = {name: _check_batch(data, latents, encoder, splits) for name, splits in (("seen", (TRAIN,)), ("held", (HELD_PAIR, HELD_CONCEPT)))}

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        x_0, captions = samples(rng, count)
        text, mask = encoder(captions)
        return {
            "x_0": x_0,
            "noise": torch.randn_like(x_0),
            "t": torch.randn(count, device=worker.device).sigmoid(),  # logit-normal, as in Stable Diffusion 3
            "text": text,
            "mask": mask,
        }

    def evaluate(weights: dict[str, torch.Tensor]) -> dict:
        training.use_average(averaged, weights, "velocity")
        losses = {}
        for name, batch in check.items():
            if batch is not None:
                with worker.autocast():
                    losses[f"{name}_loss"] = round(FlowObjective(averaged)(**batch)["loss"].item(), 4)
        return losses

    return training.train(
        FlowObjective(velocity),
        make_batch,
        settings.schedule,
        config(preset),
        workspace.stage("dit"),
        worker,
        evaluate=evaluate,
        limit_minutes=preset.stage_minutes,
        compile_mode=preset.compile,
        seed=preset.seed,
    )


def _check_batch(data: DataSet, latents: Latents, encoder: TextEncoder, splits: tuple[str, ...]) -> dict | None:
    """A fixed batch of plain pictures with full captions, evenly spread times and fixed noise."""
    rows = [row for row in data.of_split(*splits) if row in latents.plain]
    if not rows:
        return None
    rows = random.Random(7).sample(rows, min(CHECK_PICTURES, len(rows)))
    device = latents.values.device
    x_0 = latents.values[torch.as_tensor([latents.plain[row] for row in rows], device=device)].float()
    text, mask = encoder([canonical(data.rows[row], data.styles) for row in rows])
    noise = torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1)).to(device)
    t = (torch.arange(len(rows), device=device) + 0.5) / len(rows)
    return {"x_0": x_0, "noise": noise, "t": t, "text": text, "mask": mask}


def load_weights(folder: Path, like: PixArtTransformer2DModel) -> PixArtTransformer2DModel:
    """The transformer of a diffusers folder. Raises TrainError if it is missing or of other sizes than ``like``."""
    try:
        found = PixArtTransformer2DModel.from_pretrained(folder, low_cpu_mem_usage=False)
    except OSError as error:
        raise TrainError(f"{folder} holds no PixArtTransformer2DModel to begin from: name a diffusers folder ({error})") from error
    for key in ("num_layers", "num_attention_heads", "attention_head_dim", "in_channels", "sample_size", "patch_size", "caption_channels"):
        if found.config[key] != like.config[key]:
            raise TrainError(f"{folder} has {key} {found.config[key]} and this run {like.config[key]}: choose a preset or --set values that fit")
    return found
