"""Stage ``autoregress``: the transformer that writes a picture's codes, first a thumbnail's, then the picture's."""

import copy
import random
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.models.embeddings import get_2d_sincos_pos_embed
from torch import nn
from transformers import DynamicCache

from inkbloom_train import latents as latents_stage
from inkbloom_train import pretrained, training, vq
from inkbloom_train.data.captions import canonical
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.flow import stack
from inkbloom_train.latents import Latents
from inkbloom_train.presets import Preset
from inkbloom_train.samples import Asked, Samples, laid_out
from inkbloom_train.text import WIDTH as TEXT_WIDTH
from inkbloom_train.text import TextEncoder
from inkbloom_train.tokens_model import InkbloomAutoregressive, InkbloomAutoregressiveConfig, InkbloomCodebook
from inkbloom_train.workspace import Workspace

CHECK_PICTURES = 96
COMPONENT = "autoregressive"

_NEAR = 0.6
"""Standard deviation of the noise that makes a near code of one."""

Text = tuple[torch.Tensor, torch.Tensor]
"""Token states [N, T, D] and their mask [N, T]."""


class CodeObjective(nn.Module):
    """Cross entropy of the codes of the first ``last`` places, after those that the model has ``seen`` before each; the
    residual code of a clear place is not asked."""

    def __init__(self, model: InkbloomAutoregressive) -> None:
        super().__init__()
        self.model = model

    def forward(self, codes: torch.Tensor, seen: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, last: int) -> dict[str, torch.Tensor]:
        first, second = (entropy.mean() for entropy in self.entropies(codes, seen, text, mask, last))
        return {"loss": first + second, "first": first.detach(), "second": second.detach()}

    def entropies(
        self, codes: torch.Tensor, seen: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, last: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each place in nats, [N, last]: its first code's, and its residual code's, 0 for clear places."""
        hidden = self.model.hidden(text, mask, seen, 0, last)
        own, residual = codes[:, :last, 0], codes[:, :last, 1]
        first = F.cross_entropy(self.model.first_logits(hidden).float().transpose(1, 2), own, reduction="none")
        second = F.cross_entropy(self.model.residual_logits(hidden, own).float().transpose(1, 2), residual, reduction="none")
        return first, second * (own > 0)


def make(preset: Preset) -> InkbloomAutoregressive:
    """A fresh transformer for both grids."""
    settings = preset.autoregress
    grids = (preset.latent // 2, preset.latent)
    places = sum(side**2 for side in grids)
    return InkbloomAutoregressive(
        InkbloomAutoregressiveConfig(
            vocab_size=preset.vq.first + preset.vq.second + places,
            hidden_size=settings.width,
            intermediate_size=settings.inner,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=preset.max_text_tokens + places,
            tie_word_embeddings=True,
            use_cache=False,
            codes=(preset.vq.first, preset.vq.second),
            grids=grids,
            text_embed_dim=TEXT_WIDTH,
            max_text_tokens=preset.max_text_tokens,
            guidance=(settings.guidance, settings.fine_guidance),
        )
    )


def begin(model: InkbloomAutoregressive, codebook: InkbloomCodebook) -> None:
    """Starts like codes with like embeddings, and places with those of their row and column."""
    width, table = model.config.hidden_size, model.model.embed_tokens.weight
    places = [get_2d_sincos_pos_embed(width, side, base_size=model.config.grids[-1], output_type="pt").float() for side in model.config.grids]
    with torch.no_grad():
        parts = table.split([*model.config.codes, model.places])
        for rows, values in zip(parts, [codebook.embedding.weight.cpu(), codebook.residual.weight.cpu(), torch.cat(places)], strict=True):
            spread = values if values.shape[1] == width else values @ torch.randn(values.shape[1], width) / values.shape[1] ** 0.5
            rows.add_(0.05 * spread)


def load_weights(folder: Path, model: InkbloomAutoregressive) -> None:
    """Gives a model the weights of a folder's; one that draws thumbnails only leaves what the fine grid needs as it is.

    Raises TrainError if they are of other sizes.
    """
    found = pretrained.load(InkbloomAutoregressive, folder, COMPONENT)
    for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "codes", "max_text_tokens"):
        if found.config.to_dict()[key] != model.config.to_dict()[key]:
            raise TrainError(f"{folder} has {key} {found.config.to_dict()[key]} and this run {model.config.to_dict()[key]}: choose --set values that fit")
    own = model.state_dict()
    with torch.no_grad():
        for name, value in found.state_dict().items():
            own[name][: len(value)].copy_(value)  # rows of places stand last in the table, the coarse grid's first


def _config(preset: Preset) -> dict:
    settings = preset.autoregress
    return {name: getattr(settings, name) for name in ("width", "inner", "layers", "heads")} | {"codes": [preset.vq.first, preset.vq.second]}


def load(preset: Preset, workspace: Workspace) -> InkbloomAutoregressive:
    """The averaged weights of a run, for inference."""
    weights, _ = training.averaged(workspace.stage("autoregress"), _config(preset))
    return training.use_average(make(preset), weights, "model").eval().requires_grad_(False)


def save(model: InkbloomAutoregressive, folder: Path, thumbnails_only: bool) -> None:
    """Writes the component in f16; what draws thumbnails only is without the places of the fine grid."""
    if thumbnails_only:
        model = copy.deepcopy(model)
        model.config.update({"grids": model.config.grids[:1], "guidance": model.config.guidance[:1]})
        rows = sum(model.config.codes) + model.coarse
        model.config.vocab_size = rows
        model.model.embed_tokens.weight = nn.Parameter(model.model.embed_tokens.weight[:rows].clone(), requires_grad=False)
        model.tie_weights()
        del model.coarse_projection
    model.half().save_pretrained(folder)
    (folder / "generation_config.json").unlink(missing_ok=True)  # nothing reads it


class Codes:
    """The codes of all views, and so of samples."""

    def __init__(self, codebook: InkbloomCodebook, latents: Latents, fine: bool = False) -> None:
        """Of pictures only if ``fine``; of their thumbnails and quarters always."""

        def encode(values: torch.Tensor, clear: torch.Tensor) -> torch.Tensor:
            found = torch.cat([codebook.encode(*one).short() for one in zip(values.split(512), clear.split(512), strict=True)])
            return found.unflatten(1, values.shape[2:])

        self.quarters = encode(latents.quarters, latents.quarters_clear)
        self.thumbnails = encode(latents.thumbnails, latents.thumbnails_clear)
        self.pictures = encode(latents.values, latents.clear) if fine else None

    def views(self, chosen: list[int]) -> torch.Tensor:
        """Of views, the thumbnail's and then the picture's, if there are any: i64 [N, places, 2]."""
        return torch.cat([grid[chosen].flatten(1, 2) for grid in (self.thumbnails, self.pictures) if grid is not None], 1).long()

    def __call__(self, asked: Asked, fine: bool) -> torch.Tensor:
        """Of samples, the thumbnail's and, if ``fine``, the picture's after them: i64 [N, places, 2]."""
        pairs = [(self.thumbnails, self.quarters), (self.pictures, self.thumbnails)][: 1 + fine]
        return torch.cat([laid_out(whole, half, asked, 0).flatten(1, 2) for whole, half in pairs], 1).long()


def train(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker, warm_start: Path | None = None) -> training.State:
    """Trains the transformer on the views' codes, from the one that ``warm_start`` may have."""
    settings = preset.autoregress
    codebook = vq.run(preset, data, workspace, worker)
    encoder = TextEncoder(worker.device, preset.max_text_tokens)
    latents = latents_stage.load(workspace, worker.device)
    samples = Samples(data, latents, encoder, settings.text_dropout, preset.together)
    codes = Codes(codebook, latents, bool(settings.fine_share))
    torch.manual_seed(preset.seed)
    model, averaged = make(preset), make(preset).to(worker.device).eval()
    begin(model, codebook)
    if warm_start is not None and pretrained.has(warm_start, COMPONENT):
        load_weights(warm_start, model)
    model = model.to(worker.device)
    coarse, places = model.coarse, model.places
    checks = {name: _check(data, latents, encoder, codes, splits) for name, splits in (("seen", (TRAIN,)), ("held", (HELD_PAIR, HELD_CONCEPT)))}
    if worker.leads and checks["held"] is not None:
        plain = [latents.plain[row] for row in data.of_split(TRAIN) if row in latents.plain]
        floors = _floors(codes.views(plain), checks["held"]["codes"], codebook.config.grids[: 1 + bool(settings.fine_share)])
        worker.log(f"a mixture of neighbours needs {floors} bits a place of the held-out pictures")

    def make_batch(rng: np.random.Generator, count: int, asked: Asked) -> dict:
        fine = rng.random() < settings.fine_share
        last = places if fine else coarse
        text, mask = samples.text(asked)
        own = codes(asked, fine)
        return {"codes": own, "seen": disturbed(own, codebook, settings.disturbed), "text": text, "mask": mask, "last": last}

    @torch.no_grad()
    def evaluate(weights: dict[str, torch.Tensor]) -> dict:
        objective = CodeObjective(training.use_average(averaged, weights, "model"))
        last = places if settings.fine_share else coarse
        bits = {}
        for name, batch in checks.items():
            if batch is not None:
                with worker.autocast():
                    entropy = sum(objective.entropies(**batch, seen=batch["codes"], last=last)) / np.log(2)
                parts = {"coarse": entropy[:, :coarse], "fine": entropy[:, coarse:]}
                bits |= {f"{name}_{grid}_bits": round(part.mean().item(), 3) for grid, part in parts.items() if part.numel()}
        return bits

    return training.train(
        CodeObjective(model),
        make_batch,
        settings.schedule,
        _config(preset),
        workspace.stage("autoregress"),
        worker,
        prepare=samples.ask,
        evaluate=evaluate,
        compile_mode=preset.compile if worker.device.type == "cuda" else None,
        seed=preset.seed,
    )


def disturbed(codes: torch.Tensor, codebook: InkbloomCodebook, share: float) -> torch.Tensor:
    """Codes [N, P, 2] of which a share is replaced, in each picture another one up to ``share``: half by near ones, half by another picture's.

    The transformer is to go on well from its own errors, which its training pictures do not have.
    """
    vectors = codebook.vectors(codes)
    near = codebook.nearest(vectors + _NEAR * torch.randn_like(vectors), codes[..., 0] == 0)
    chance = torch.rand(*codes.shape[:2], 1, device=codes.device)
    share = share * torch.rand(len(codes), 1, 1, device=codes.device)
    return torch.where(chance < share / 2, near, torch.where(chance < share, codes.roll(1, 0), codes))


@torch.no_grad()
def redrawn(model: InkbloomAutoregressive, codes: torch.Tensor, text: torch.Tensor, mask: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    """Coarse codes [N, P, 2], of which a share [N] is what the model may draw there after those before: errors such as its own drawings have."""

    def choose(logits: torch.Tensor) -> torch.Tensor:
        return torch.distributions.Categorical(logits=logits.float(), validate_args=False).sample()

    hidden = model.hidden(text, mask, codes, 0, model.coarse)
    first = choose(model.first_logits(hidden))
    second = choose(model.residual_logits(hidden, first)) * (first > 0)
    chosen = torch.rand(codes.shape[:2], device=codes.device) < share[:, None]
    return torch.where(chosen[..., None], torch.stack([first, second], -1), codes)


def _check(data: DataSet, latents: Latents, encoder: TextEncoder, codes: Codes, splits: tuple[str, ...]) -> dict | None:
    rows = [row for row in data.of_split(*splits) if row in latents.plain]
    if not rows:
        return None
    rows = random.Random(7).sample(rows, min(CHECK_PICTURES, len(rows)))
    text, mask = encoder([canonical(data.rows[row], data.styles) for row in rows])
    return {"codes": codes.views([latents.plain[row] for row in rows]), "text": text, "mask": mask}


def _floors(learned: torch.Tensor, held: torch.Tensor, grids: tuple[int, ...]) -> list[float]:
    """What a model that knows a place's left and upper neighbour and no text needs, in bits a place, for each grid.

    First codes by a mixture of counts after both, after either and after none, residual codes by those after the first code.
    """
    found, start = [], 0
    for side in grids:
        part = slice(start, start + side**2)
        start += side**2
        own, asked = (codes[:, part].long().cpu().numpy() for codes in (learned, held))
        found.append(round(float(_mixture(own, asked, side)), 2))
    return found


def _mixture(learned: np.ndarray, held: np.ndarray, side: int) -> float:
    def context(first: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        grid = np.pad(first.reshape(-1, side, side) + 1, ((0, 0), (1, 0), (1, 0)))
        return grid[:, 1:, :-1].reshape(-1), grid[:, :-1, 1:].reshape(-1)

    def share(keys: np.ndarray, values: np.ndarray, asked: np.ndarray, own: np.ndarray) -> np.ndarray:
        """How often after each asked key its own value followed where learned."""
        base = int(max(values.max(), own.max())) + 1
        pairs, counts = np.unique(keys * base + values, return_counts=True)
        alone, totals = np.unique(keys, return_counts=True)

        def look(known: np.ndarray, number: np.ndarray, wanted: np.ndarray) -> np.ndarray:
            place = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
            return np.where(known[place] == wanted, number[place], 0)

        return look(pairs, counts, asked * base + own) / np.maximum(look(alone, totals, asked), 1)

    (left, up), (asked_left, asked_up) = context(learned[..., 0]), context(held[..., 0])
    many = int(max(learned.max(), held.max())) + 2
    first, second = (learned[..., depth].reshape(-1) for depth in (0, 1))
    own, residual = (held[..., depth].reshape(-1) for depth in (0, 1))
    none, asked_none = np.zeros_like(first), np.zeros_like(own)
    uniform = 1 / many
    before = 0.35 * share(left * many + up, first, asked_left * many + asked_up, own) + 0.2 * share(left, first, asked_left, own)
    before += 0.2 * share(up, first, asked_up, own) + 0.24 * share(none, first, asked_none, own) + 0.01 * uniform
    after = 0.5 * share(first, second, own, residual) + 0.48 * share(none, second, asked_none, residual) + 0.02 * uniform
    return (-np.log2(before) - np.where(own > 0, np.log2(after), 0.0)).mean()


@torch.no_grad()
def sample(
    model: InkbloomAutoregressive, text: Text, empty: Text, seeds: list[int], *, fine: bool, temperature: float = 1.0, codes: torch.Tensor | None = None
) -> torch.Tensor:
    """Codes for N prompts, a seed each: i64 [N, places, 2], of the coarse grid or of both.

    Given coarse ``codes`` are gone on from.
    """
    count, guided = len(text[0]), stack(text, empty)
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    cache = DynamicCache(config=model.config)
    device = text[0].device
    drawn = torch.zeros(count, model.places if fine else model.coarse, 2, dtype=torch.long, device=device)
    begun = 0 if codes is None else codes.shape[1]
    if codes is not None:
        drawn[:, :begun] = codes

    def choose(logits: torch.Tensor, place: int) -> torch.Tensor:
        scale = model.config.guidance[int(place >= model.coarse)]
        positive, negative = logits.float().chunk(2)
        mixed = (negative + scale * (positive - negative)) / max(temperature, 1e-6)
        uniform = torch.stack([torch.rand(mixed.shape[1], generator=generator) for generator in generators]).to(device)
        return (mixed - (-uniform.clamp(min=1e-20).log()).log()).argmax(1)

    twice = drawn.repeat(2, 1, 1)
    for place in range(begun, drawn.shape[1]):
        first_call = place == begun
        hidden = model.hidden(guided[0] if first_call else None, guided[1], twice[:, :place], 0 if first_call else place, place + 1, cache)[:, -1]
        first = choose(model.first_logits(hidden), place)
        second = choose(model.residual_logits(hidden, first.repeat(2)), place).masked_fill(first == 0, 0)
        twice[:, place] = torch.stack([first, second], -1).repeat(2, 1)
    return twice[:count]
