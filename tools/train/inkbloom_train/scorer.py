"""Stage ``scorer``: two contrastive picture-text scorers, trained on the data set's own pictures; they are not CLIP.

Each is an InkbloomScorer. Its picture tower is trained against a small map of the frozen text encoder's
pooled embeddings: each picture must find its concept among all concepts of the data set. A linear head,
which is not exported, names the style.

The *shipped* one chooses among candidates in the product. It is asked whole prompts, so it learns from captions
as well, each to be found among those of its batch's pictures in the same style: candidates of one prompt hardly differ
in style, so what it reads of a prompt shall be the thing. The *judge* measures. It has another seed, another width and
another held-out tenth, so that what the shipped one chose is not judged by itself.

Both learn from all splits, because they must know the concepts that the generator never saw, but never
from one picture in ten of their own, which measure their ceiling; the captions of the judge's are the prompts. So
their pictures overlap the generator's: their scores compare models on this data set and mean nothing beyond it.
"""

import copy
import hashlib
import random
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import nn

from inkbloom_train import pretrained, training
from inkbloom_train.data.captions import View, caption
from inkbloom_train.data.dataset import DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.pictures import open_pixels, to_model
from inkbloom_train.presets import Preset, ScorerSettings
from inkbloom_train.scorer_model import InkbloomScorer
from inkbloom_train.text import WIDTH as TEXT_WIDTH
from inkbloom_train.text import TextEncoder
from inkbloom_train.workspace import Workspace

SIDE = 64
"""Pictures are shrunk to this many px before they are scored."""
ALIKE = 64
"""Pictures of one style in a batch, from whose captions each is to find its own."""
SHIPPED, JUDGE = "scorer", "judge"
COMPONENT, STYLE_HEAD = "component", "style_head.safetensors"


class ScorerObjective(nn.Module):
    """Cross entropy of the concept among all concepts, of the caption among the batch's of the same style, and of the style."""

    def __init__(self, model: InkbloomScorer, concept_text: torch.Tensor, styles: int) -> None:
        super().__init__()
        self.model = model
        self.style = nn.Linear(model.config.block_out_channels[-1], styles)
        self.log_scale = nn.Parameter(torch.tensor(2.5))
        self.register_buffer("concept_text", concept_text, persistent=False)  # [K, 384]

    def embed(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Unit picture embeddings [N, E] and style logits [N, S]."""
        features = self.model.features(x).float()
        return self.model.image_embeds(features), self.style(features)

    def concepts(self) -> torch.Tensor:
        """Unit embeddings of all concepts, [K, E]."""
        return self.model.text_embeds(self.concept_text)

    def forward(self, x: torch.Tensor, concept: torch.Tensor, style: torch.Tensor, caption: torch.Tensor | None = None) -> dict[str, torch.Tensor]:
        pictures, style_logits = self.embed(x)
        scale = self.log_scale.exp().clamp(max=100)
        found = F.cross_entropy(scale * pictures @ self.concepts().T, concept, label_smoothing=0.05)
        styled = F.cross_entropy(style_logits.float(), style)
        terms = {"concept": found.detach(), "style": styled.detach()}
        loss = found + 0.2 * styled
        if caption is not None:
            pairs = scale * pictures @ self.model.text_embeds(caption).T
            pairs = pairs.masked_fill(style[:, None] != style, -torch.inf)
            own = torch.arange(len(x), device=x.device)
            asked = (F.cross_entropy(pairs, own) + F.cross_entropy(pairs.T, own)) / 2
            terms["caption"] = asked.detach()
            loss = loss + asked
        return {"loss": loss, **terms}


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
            x = to_model(torch.as_tensor(pixels[start : start + batch]).to(self.worker.device))
            embedding, style = self.objective.embed(x)
            found.append((embedding.cpu(), style.cpu()))
        return torch.cat([one for one, _ in found]), torch.cat([one for _, one in found])

    @torch.no_grad()
    def scores(self, pixels: torch.Tensor | np.ndarray, text: torch.Tensor) -> torch.Tensor:
        """How well each picture [N, H, W, 4] shows what its pooled prompt [N, 384] asks for, [N], -1 to 1."""
        return (self.embed(pixels)[0] * self.objective.model.text_embeds(text).cpu()).sum(1)

    @torch.no_grad()
    def ranks(self, embeddings: torch.Tensor, concepts: list[str]) -> torch.Tensor:
        """How many other concepts score higher than the asked one, [N]; 0 is a hit."""
        scores = embeddings @ self.objective.concepts().cpu().T
        index = torch.tensor([self.concepts.index(concept) for concept in concepts])
        own = scores.gather(1, index[:, None])
        return (scores > own).sum(1)


def held_rows(data: DataSet, tenth: int) -> list[int]:
    """The ``tenth`` tenth of the pictures, 0 to 9, by a hash of their names, each of a concept that other pictures show too."""
    shown: dict[str, int] = {}
    for row in data.rows:
        shown[row.concept] = shown.get(row.concept, 0) + 1
    held = []
    for index, row in enumerate(data.rows):
        if hashlib.sha256(row.id.encode()).digest()[0] * 10 // 256 == tenth and shown[row.concept] > 1:
            shown[row.concept] -= 1
            held.append(index)
    return held


def side(preset: Preset) -> int:
    """The side in px that pictures are scored at."""
    return min(preset.size, SIDE)


def make(settings: ScorerSettings, sample_size: int) -> InkbloomScorer:
    """A fresh scorer that sees pictures at ``sample_size`` px."""
    widths = tuple(settings.width * factor for factor in (1, 2, 4, 8))
    return InkbloomScorer(sample_size=sample_size, block_out_channels=widths, text_embed_dim=TEXT_WIDTH)


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, which: str, warm_start: Path | None = None) -> Scorer:
    """Trains a scorer, SHIPPED or JUDGE, or goes on where it was, and returns it.

    ``warm_start`` is a folder that may hold what an earlier run left as ``which/component``, as its folder ``which``.
    """
    settings = getattr(preset, which)
    concepts = sorted({row.concept for row in data.rows})
    styles = list(data.styles)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    torch.manual_seed(settings.seed)
    objective = ScorerObjective(make(settings, side(preset)), encoder.pooled(concepts), len(styles)).to(worker.device)
    if warm_start is not None and (warm_start / which / STYLE_HEAD).exists():
        load_weights(warm_start / which, objective)
    held = held_rows(data, settings.tenth)
    learned = np.array(sorted(set(range(len(data.rows))) - set(held)))
    place = {concept: index for index, concept in enumerate(concepts)}
    concept_of = torch.tensor([place[row.concept] for row in data.rows])
    style_of = torch.tensor([styles.index(row.style) for row in data.rows])
    scorer = Scorer(objective, concepts, styles, held, worker)
    config = {"width": settings.width, "seed": settings.seed, "tenth": settings.tenth, "concepts": len(concepts), "styles": len(styles), "size": side(preset)}
    folder = workspace.stage(which)
    if not training.finished(folder, settings.schedule):
        pixels = open_pixels(workspace.pictures(side(preset)), worker.device)
        captions = _captions(data, settings, encoder, folder, worker)

        def make_batch(rng: np.random.Generator, count: int) -> dict:
            chosen = torch.as_tensor(rng.choice(learned, count) if captions is None else _of_few_styles(learned, style_of.numpy(), rng, count))
            x = _jitter(to_model(pixels[chosen.to(pixels.device)]), rng)
            batch = {"x": x, "concept": concept_of[chosen].to(worker.device), "style": style_of[chosen].to(worker.device)}
            if captions is not None:
                batch["caption"] = captions[chosen, torch.as_tensor(rng.integers(captions.shape[1], size=count))].to(worker.device)
            return batch

        training.train(objective, make_batch, settings.schedule, config, folder, worker, compile_mode=preset.compile, seed=settings.seed)
    weights, _ = training.averaged(folder, config)
    training.use_average(objective.model, weights, "model")
    training.use_average(objective.style, weights, "style")
    objective.eval()
    if worker.leads:
        save(objective, folder / COMPONENT)
    return scorer


def save(objective: ScorerObjective, folder: Path) -> None:
    """Writes the scorer in f16, as a model holds it, and beside it the head that names styles."""
    copy.deepcopy(objective.model).half().save_pretrained(folder)
    save_file({name: value.detach().half() for name, value in objective.style.state_dict().items()}, folder / STYLE_HEAD)


def load_weights(folder: Path, objective: ScorerObjective) -> None:
    """Begins from what ``save`` wrote. Raises TrainError if it is of other sizes."""
    found = pretrained.load(InkbloomScorer, folder.parent, folder.name)
    for key, wanted in objective.model.state_dict().items():
        stored = found.state_dict().get(key)
        if stored is None or stored.shape != wanted.shape:
            fitting = f"--set {folder.name}.width={found.config.block_out_channels[0]}"
            raise TrainError(f"{folder} is of other sizes than this run, as in {key}: choose settings that fit, for example {fitting}")
    objective.model.load_state_dict(found.state_dict())
    objective.style.load_state_dict(load_file(folder / STYLE_HEAD))


def _captions(data: DataSet, settings: ScorerSettings, encoder: TextEncoder, folder: Path, worker: Worker) -> torch.Tensor | None:
    """Pooled embeddings of ``settings.captions`` random captions of each picture, [N, C, 384] None for none."""
    if not settings.captions:
        return None
    path = folder / f"captions-{settings.captions}.safetensors"
    if worker.leads and not path.exists():
        words = random.Random(settings.seed)
        views = [View([index], colours=["black"] if row.monochrome else row.colours) for index, row in enumerate(data.rows)]
        written = [caption(view, data.rows, data.styles, words) for view in views for _ in range(settings.captions)]
        save_file({"captions": encoder.pooled(written).unflatten(0, (len(views), settings.captions)).cpu()}, path)
    worker.barrier()
    return load_file(path)["captions"]


def _of_few_styles(rows: np.ndarray, style_of: np.ndarray, rng: np.random.Generator, count: int) -> np.ndarray:
    """``count`` of ``rows`` at random, about ``ALIKE`` of them of one style, another as many of the next."""
    firsts = rng.choice(rows, max(1, count // ALIKE))
    parts = np.array_split(np.arange(count), len(firsts))
    return np.concatenate([rng.choice(rows[style_of[rows] == style_of[first]], len(part)) for first, part in zip(firsts, parts, strict=True)])


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
