"""Stage ``hybrid``: the transformer of stage ``dit``, which also sees a layout: the latent that a thumbnail's codes stand for.

Its input has the latent's channels twice, first the noisy latent's and then the layout's, enlarged twice by repeating each
place; a layout of zeros is none. The new weights begin at 0, so that it begins as the model without.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import PixArtTransformer2DModel
from torch import nn

from inkbloom_train import autoregress, pretrained, training, transformer, vq
from inkbloom_train import latents as latents_stage
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.latents import Latents
from inkbloom_train.presets import Preset
from inkbloom_train.samples import Asked, Samples
from inkbloom_train.text import TextEncoder
from inkbloom_train.transformer import FlowObjective, Velocity
from inkbloom_train.workspace import Workspace

COMPONENT = "hybrid"
TEACHER, STUDENT = "hybrid", "hybrid_student"
"""The stages' folders."""


def make(preset: Preset) -> PixArtTransformer2DModel:
    """A fresh transformer for noisy latents and layouts, [N, 2 C, latent, latent]."""
    return transformer.make(preset, 2 * preset.vae.latent_channels)


def widened(narrow: PixArtTransformer2DModel, like: PixArtTransformer2DModel) -> dict[str, torch.Tensor]:
    """The weights of the same function with input channels more, which it does not look at."""
    state = narrow.state_dict()
    wanted = like.state_dict()["pos_embed.proj.weight"]
    given = state["pos_embed.proj.weight"]
    return {**state, "pos_embed.proj.weight": F.pad(given, (0, 0, 0, 0, 0, wanted.shape[1] - given.shape[1]))}


def enlarged(latent: torch.Tensor) -> torch.Tensor:
    """A thumbnail's latent [N, C, h, w] as the layout [N, C, 2 h, 2 w]."""
    return latent.repeat_interleave(2, 2).repeat_interleave(2, 3)


class LaidOut(nn.Module):
    """The velocity of pictures with layouts [N, C, h, w], each of which may be asked for several times over, as guidance does."""

    def __init__(self, velocity: Velocity, layout: torch.Tensor) -> None:
        super().__init__()
        self.velocity, self.layout = velocity, layout

    def forward(self, x_t: torch.Tensor, t: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.velocity(torch.cat([x_t, self.layout.repeat(len(x_t) // len(self.layout), 1, 1, 1)], 1), t, text, mask)


class LayoutObjective(nn.Module):
    """Mean squared error of the velocity."""

    def __init__(self, velocity: Velocity) -> None:
        super().__init__()
        self.velocity = velocity

    def forward(self, layout: torch.Tensor, **batch: torch.Tensor) -> dict[str, torch.Tensor]:
        return FlowObjective(LaidOut(self.velocity, layout))(**batch)


class Layouts:
    """Layouts of samples as the token transformer may draw them: the thumbnails' own codes, some redrawn by it.

    It gives the layouts [N, C, h, w] of samples whose captions are ``text`` with its ``mask``.
    """

    def __init__(self, preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, latents: Latents) -> None:
        self.codebook = vq.run(preset, data, workspace, worker)
        self.writer = autoregress.load(preset, workspace).to(worker.device)
        self.codes = autoregress.Codes(self.codebook, latents)
        self.redrawn = preset.hybrid.redrawn

    @torch.no_grad()
    def __call__(self, asked: Asked, text: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        share = self.redrawn * torch.rand(len(text), device=text.device)
        return enlarged(self.codebook.layout(autoregress.redrawn(self.writer, self.codes(asked, fine=False), text, mask, share)))


def load(preset: Preset, workspace: Workspace, stage: str = TEACHER) -> Velocity:
    """The averaged weights of a run's hybrid, or of its student, for inference."""
    weights, _ = training.averaged(workspace.stage(stage), transformer.config(preset))
    return training.use_average(Velocity(make(preset)), weights, "velocity").eval().requires_grad_(False)


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, warm_start: Path | None = None) -> training.State:
    """Trains from the run's teacher, or from the hybrid or else the teacher of ``warm_start``."""
    settings = preset.hybrid
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    latents = latents_stage.load(workspace, worker.device)
    layouts = Layouts(preset, data, workspace, worker, latents)
    samples = Samples(data, latents, encoder, preset.dit.text_dropout, preset.together)
    torch.manual_seed(preset.seed)
    model = make(preset)
    if warm_start is not None and pretrained.has(warm_start, COMPONENT):
        model = transformer.load_weights(warm_start, model, COMPONENT)
    else:
        narrow = transformer.make(preset)
        narrow = transformer.load(preset, workspace.stage("dit")).transformer if warm_start is None else transformer.load_weights(warm_start, narrow)
        model.load_state_dict(widened(narrow, model))

    def make_batch(rng: np.random.Generator, count: int, asked: Asked) -> dict:
        text, mask = samples.text(asked)
        x_0 = samples.pictures(asked)
        bare = torch.rand(count, device=worker.device) < settings.bare
        return {
            "layout": layouts(asked, text, mask) * ~bare.view(-1, 1, 1, 1),
            "x_0": x_0,
            "noise": torch.randn_like(x_0),
            "t": torch.randn(count, device=worker.device).sigmoid(),
            "text": text,
            "mask": mask,
        }

    return training.train(
        LayoutObjective(Velocity(model).to(worker.device)),
        make_batch,
        settings.teaching,
        transformer.config(preset),
        workspace.stage(TEACHER),
        worker,
        prepare=samples.ask,
        compile_mode=preset.compile,
        seed=preset.seed,
    )
