"""Prompts to pictures with a trained run, the way the product samples."""

from dataclasses import dataclass

import numpy as np
import torch
from diffusers import AutoencoderTiny
from PIL import Image, ImageDraw

from inkbloom_train import autoregress, checkpoint, flow, hybrid, latents, transformer, vq
from inkbloom_train import vae as vae_stage
from inkbloom_train.data import raster
from inkbloom_train.distributed import Worker
from inkbloom_train.pictures import to_bytes
from inkbloom_train.presets import Preset
from inkbloom_train.text import TextEncoder
from inkbloom_train.tokens_model import InkbloomAutoregressive, InkbloomCodebook
from inkbloom_train.transformer import Velocity
from inkbloom_train.workspace import Workspace

TEACHER, STUDENT = "teacher", "student"
TOKENS, HYBRID = "tokens", "hybrid"


@dataclass
class Generator:
    """A whole text-to-picture model."""

    encoder: TextEncoder
    velocity: Velocity | None
    """None where only ``decode`` is asked for."""
    vae: AutoencoderTiny
    mean: torch.Tensor
    std: torch.Tensor
    latent: int
    """Side of a latent."""
    steps: int
    shift: float
    guidance: float
    worker: Worker

    @torch.no_grad()
    def __call__(self, prompts: list[str], seed: int = 0, batch: int = 32) -> np.ndarray:
        """Premultiplied RGBA bytes [N, size, size, 4]. Picture n depends on prompt n, the seed and n alone."""
        return np.concatenate([self.decode(self.draw(prompts[start : start + batch], seeds(seed, start, batch))) for start in range(0, len(prompts), batch)])

    def draw(self, prompts: list[str], own: list[int], velocity: torch.nn.Module | None = None) -> torch.Tensor:
        """Latents of prompts, a seed each, in normalised units, by another ``velocity`` where one is given."""
        shape = (self.mean.shape[0], self.latent, self.latent)
        noise = torch.stack([torch.randn(shape, generator=torch.Generator().manual_seed(seed)) for seed in own[: len(prompts)]])
        with self.worker.autocast():
            call = flow.guided(velocity or self.velocity, self.encoder(prompts), self.encoder([""]), self.guidance)
            return flow.sample(call, noise.to(self.worker.device), self.steps, self.shift)

    def decode(self, latent: torch.Tensor) -> np.ndarray:
        """Latents in normalised units to premultiplied RGBA bytes."""
        device = self.worker.device
        latent = latent * self.std.view(1, -1, 1, 1).to(device) + self.mean.view(1, -1, 1, 1).to(device)
        with self.worker.autocast():
            return to_bytes(self.vae.decoder(latent))


@dataclass
class Writer:
    """A model that writes codes, and decodes them as they are or lets ``base``'s transformer draw over a thumbnail's."""

    base: Generator
    model: InkbloomAutoregressive
    codebook: InkbloomCodebook
    hybrid: bool
    fine: bool = True
    """Whether it writes the picture's codes after the thumbnail's; a hybrid never does."""
    temperature: float = 1.0

    @property
    def encoder(self) -> TextEncoder:
        return self.base.encoder

    @torch.no_grad()
    def __call__(self, prompts: list[str], seed: int = 0, batch: int = 32) -> np.ndarray:
        """As ``Generator``: [N, size, size, 4]; thumbnails are half as large."""
        pictures = []
        for start in range(0, len(prompts), batch):
            part, own = prompts[start : start + batch], seeds(seed, start, batch)
            text, empty = self.base.encoder(part), self.base.encoder([""])
            fine = self.fine and not self.hybrid
            codes = autoregress.sample(self.model, text, empty, own[: len(part)], fine=fine, temperature=self.temperature)
            if self.hybrid:
                latent = self.base.draw(part, own, hybrid.LaidOut(self.base.velocity, hybrid.enlarged(self.codebook.layout(codes))))
            else:
                latent = self.codebook.decode(codes[:, self.model.coarse :] if fine else codes)
            pictures.append(self.base.decode(latent))
        return np.concatenate(pictures)


def seeds(seed: int, start: int, count: int) -> list[int]:
    """Those of ``count`` pictures from the ``start``-th on."""
    return [seed * 1_000_003 + start + number for number in range(count)]


def load_writer(preset: Preset, workspace: Workspace, worker: Worker, which: str) -> Writer:
    """The run's model that draws by TOKENS or as a HYBRID."""
    mixed = which == HYBRID
    velocity = hybrid.load(preset, workspace, hybrid.STUDENT).to(worker.device) if mixed else None
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    base = assemble(preset, workspace, worker, velocity, encoder, preset.hybrid.distilling.windows, guidance=1.0)
    codebook = vq.load(workspace.stage("vq"), vq.COMPONENT, preset).to(worker.device)
    return Writer(base, autoregress.load(preset, workspace).to(worker.device), codebook, mixed, bool(preset.autoregress.fine_share))


def has(workspace: Workspace, stage: str) -> bool:
    """Whether a learned stage has left weights."""
    return checkpoint.exists(workspace.stage(stage) / "checkpoint")


def has_student(workspace: Workspace) -> bool:
    return has(workspace, "distill")


def load(preset: Preset, workspace: Workspace, worker: Worker, which: str) -> Generator:
    """The run's TEACHER (many guided steps) or STUDENT (few steps, no guidance)."""
    student = which == STUDENT
    return assemble(
        preset,
        workspace,
        worker,
        velocity=transformer.load(preset, workspace.stage("distill" if student else "dit")).to(worker.device),
        encoder=TextEncoder(worker.device, preset.max_text_tokens),
        steps=preset.distill.windows if student else preset.evaluate.teacher_steps,
        guidance=1.0 if student else preset.evaluate.guidance,
    )


def assemble(
    preset: Preset, workspace: Workspace, worker: Worker, velocity: Velocity | None, encoder: TextEncoder, steps: int, guidance: float
) -> Generator:
    """A model from a transformer and the run's autoencoder."""
    vae = vae_stage.load(preset.vae, workspace)
    mean, std = latents.statistics(workspace, vae)
    return Generator(encoder, velocity, vae.to(worker.device), mean, std, preset.latent, steps, preset.shift, guidance, worker)


def grid(pictures: np.ndarray, labels: list[str], columns: int = 8) -> Image.Image:
    """A labelled contact sheet over a faint chequerboard, which shows the alpha channel."""
    size = max(96, pictures.shape[1])
    gap, text = 6, 26
    lines = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * (size + gap), lines * (size + text + gap)), "white")
    tiles = Image.fromarray(np.where((np.indices((size, size)) // 8).sum(0)[..., None] % 2 == 0, 255, 242).astype(np.uint8).repeat(3, -1))
    pen = ImageDraw.Draw(sheet)
    for number, (picture, label) in enumerate(zip(pictures, labels, strict=True)):
        x, y = number % columns * (size + gap), number // columns * (size + text + gap)
        sheet.paste(tiles, (x, y + text))
        image = Image.fromarray(raster.straighten(picture)).resize((size, size), Image.Resampling.NEAREST if picture.shape[0] < size else None)
        sheet.paste(image, (x, y + text), image)
        for line, words in enumerate(_wrap(label, size // 6)[:2]):
            pen.text((x, y + 12 * line), words, fill="black")
    return sheet


def _wrap(text: str, width: int) -> list[str]:
    lines = [""]
    for word in text.split():
        if lines[-1] and len(lines[-1]) + len(word) >= width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
