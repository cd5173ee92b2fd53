"""A contrastive picture-text scorer, trained here on the data set's own pictures; it is not CLIP.

A small convolutional picture tower is trained against a linear map of the frozen text encoder's pooled
embeddings: each picture must find its concept among all concepts of the data set. A linear head names
the style. It learns from all splits, because it must know the concepts that the generator never saw,
but never from one picture in ten, which measure its own ceiling and whose captions are the prompts. So
its pictures overlap the generator's: its scores compare models on this data set and mean nothing beyond it.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from inkbloom_train import training
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.pictures import open_pixels, to_model
from inkbloom_train.presets import Preset
from inkbloom_train.text import WIDTH as TEXT_WIDTH
from inkbloom_train.text import TextEncoder
from inkbloom_train.workspace import Workspace

SIDE = 64
"""Pictures are shrunk to this many px before they are scored."""
EMBEDDING = 192


class PictureTower(nn.Module):
    """RGBA [N, 4, 64, 64] in model values to features [N, 8 width]."""

    def __init__(self, width: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = [nn.Conv2d(4, width, 3, 2, 1)]
        for channels in (width, 2 * width, 4 * width):
            blocks += [_Residual(channels), nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, 2 * channels, 3, 2, 1)]
        blocks += [_Residual(8 * width), nn.GroupNorm(8, 8 * width), nn.SiLU()]
        self.blocks = nn.Sequential(*blocks)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.blocks(x).mean((2, 3))


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1),
            nn.GroupNorm(8, channels), nn.SiLU(), nn.Conv2d(channels, channels, 3, 1, 1),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.body(x)


class ScorerObjective(nn.Module):
    """Cross entropy of the concept among all concepts, and of the style."""

    def __init__(self, width: int, concept_text: torch.Tensor, styles: int) -> None:
        super().__init__()
        self.tower = PictureTower(width)
        self.picture = nn.Linear(8 * width, EMBEDDING)
        self.text = nn.Linear(TEXT_WIDTH, EMBEDDING)
        self.style = nn.Linear(8 * width, styles)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("concept_text", concept_text, persistent=False)  # [K, 384]

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit picture embeddings [N, E] and style logits [N, S]."""
        features = self.tower(x).float()
        return F.normalize(self.picture(features).float(), dim=-1), self.style(features)

    def concepts(self) -> torch.Tensor:
        """Unit embeddings of all concepts, [K, E]."""
        return F.normalize(self.text(self.concept_text).float(), dim=-1)

    def forward(self, x: torch.Tensor, concept: torch.Tensor, style: torch.Tensor) -> dict[str, torch.Tensor]:
        pictures, style_logits = self.embed(x)
        logits = self.log_scale.exp().clamp(max=100) * pictures @ self.concepts().T
        found = F.cross_entropy(logits, concept, label_smoothing=0.05)
        styled = F.cross_entropy(style_logits.float(), style)
        return {"loss": found + 0.2 * styled, "concept": found.detach(), "style": styled.detach()}


@dataclass
class Scorer:
    """The trained scorer with the concepts and styles it knows."""

    objective: ScorerObjective
    concepts: list[str]
    styles: list[str]
    held: list[int]
    """Rows it never learned from."""
    worker: Worker

    @torch.no_grad()
    def embed(self, pixels: torch.Tensor | np.ndarray, batch: int = 256) -> tuple[torch.Tensor, torch.Tensor]:
        """Premultiplied RGBA bytes [N, H, W, 4] to unit embeddings [N, E] and style logits [N, S], on the CPU."""
        found = []
        for start in range(0, len(pixels), batch):
            x = shrink(torch.as_tensor(pixels[start : start + batch]).to(self.worker.device))
            embedding, style = self.objective.embed(x)
            found.append((embedding.cpu(), style.cpu()))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])

    @torch.no_grad()
    def ranks(self, embeddings: torch.Tensor, concepts: list[str]) -> torch.Tensor:
        """How many other concepts score higher than the asked one, [N]; 0 is a hit."""
        scores = embeddings @ self.objective.concepts().cpu().T
        index = torch.tensor([self.concepts.index(concept) for concept in concepts])
        own = scores.gather(1, index[:, None])
        return (scores > own).sum(1)


def shrink(pixels: torch.Tensor) -> torch.Tensor:
    """Bytes [N, H, W, 4] to model values [N, 4, 64, 64]."""
    x = to_model(pixels)
    return x if x.shape[2] == SIDE else F.interpolate(x, size=(SIDE, SIDE), mode="bilinear", antialias=True)


def held_rows(data: DataSet) -> list[int]:
    """A tenth of the pictures, by a hash of their names, each of a concept that other pictures show too."""
    shown: dict[str, int] = {}
    for row in data.rows:
        shown[row.concept] = shown.get(row.concept, 0) + 1
    held = []
    for index, row in enumerate(data.rows):
        if hashlib.sha256(row.id.encode()).digest()[0] < 26 and shown[row.concept] > 1:
            shown[row.concept] -= 1
            held.append(index)
    return held


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> Scorer:
    """Trains the scorer, or goes on where it was, and returns it."""
    settings = preset.scorer
    concepts = sorted({row.concept for row in data.rows})
    styles = list(data.styles)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    objective = ScorerObjective(settings.width, encoder.pooled(concepts), len(styles)).to(worker.device)
    held = held_rows(data)
    learned = np.array(sorted(set(range(len(data.rows))) - set(held)))
    place = {concept: index for index, concept in enumerate(concepts)}
    concept_of = torch.tensor([place[row.concept] for row in data.rows])
    style_of = torch.tensor([styles.index(row.style) for row in data.rows])
    pixels = torch.cat([_small_bytes(part) for part in open_pixels(workspace.pictures(preset.size), worker.device).split(512)])
    scorer = Scorer(objective, concepts, styles, held, worker)

    def make_batch(rng: np.random.Generator, count: int) -> dict:
        chosen = torch.as_tensor(rng.choice(learned, count))
        x = _jitter(to_model(pixels[chosen.to(pixels.device)]), rng)
        return {"x": x, "concept": concept_of[chosen].to(worker.device), "style": style_of[chosen].to(worker.device)}

    config = {"width": settings.width, "concepts": len(concepts), "styles": len(styles), "size": preset.size}
    folder = workspace.stage("scorer")
    training.train(objective, make_batch, settings.schedule, config, folder, worker, seed=preset.seed)
    weights, _ = training.averaged(folder, config)
    own = dict(objective.named_parameters())
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    objective.eval()
    return scorer


def _small_bytes(pixels: torch.Tensor) -> torch.Tensor:
    return ((shrink(pixels) + 1) * 127.5).round().clamp(0, 255).byte().permute(0, 2, 3, 1)


def _jitter(x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
    """Moves, scales and blurs a little, as generated pictures are."""
    count = len(x)
    scale = torch.as_tensor(rng.uniform(0.9, 1.3, (count, 1)), dtype=torch.float32, device=x.device)
    flip = torch.as_tensor(rng.choice([-1.0, 1.0], (count, 1), p=[0.3, 0.7]), dtype=torch.float32, device=x.device)
    moved = torch.as_tensor(rng.uniform(-0.12, 0.12, (count, 2)), dtype=torch.float32, device=x.device)
    zero = torch.zeros_like(scale)
    matrix = torch.stack([torch.cat([scale * flip, zero, moved[:, :1]], 1), torch.cat([zero, scale, moved[:, 1:]], 1)], 1)
    # Padding is 0, so the transparent value -1 is moved to 0 and back.
    x = F.grid_sample(x + 1, F.affine_grid(matrix, list(x.shape), align_corners=False), align_corners=False) - 1
    if rng.random() < 0.3:
        x = F.avg_pool2d(x, 3, 1, 1)
    return (x + float(rng.uniform(0, 0.15)) * torch.randn_like(x)).contiguous(memory_format=torch.channels_last)
