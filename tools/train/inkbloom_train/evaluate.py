"""Stage ``evaluate``: one table of figures and two sheets of pictures."""

import json
import random
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F

from inkbloom_train import generate, hybrid, scorer
from inkbloom_train import vae as vae_stage
from inkbloom_train.data import augment
from inkbloom_train.data.captions import ABOVE, BESIDE, TWO, canonical, plural, with_article
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet
from inkbloom_train.distributed import Worker
from inkbloom_train.errors import TrainError
from inkbloom_train.pictures import open_pixels, to_model
from inkbloom_train.presets import EvaluateSettings, Preset
from inkbloom_train.scorer import Scorer
from inkbloom_train.workspace import Workspace

SPLITS = {TRAIN: "seen", HELD_PAIR: "held-out pair", HELD_CONCEPT: "held-out concept"}
FAILURES = 24

GRID = (
    # as in training
    "flat emoji of cat", "shaded emoji of dog face", "3d emoji of red apple", "bold flat emoji of automobile", "glossy emoji of rocket",
    "3d emoji of grinning face", "flat emoji of fish", "outlined sticker of pizza", "cartoon emoji of sunflower", "blob emoji of ghost",
    "shaded emoji of house", "flat emoji of bicycle", "3d emoji of bird", "glossy emoji of purple heart", "minimal emoji of tree",
    "bold flat emoji of owl", "neon sticker of star", "round badge icon of camera", "hand drawn sketch of coffee cup", "thick outline icon of umbrella",
    "flat color icon of clock", "plump blue icon of gift", "thin line color icon of guitar", "flat duotone icon of lock",
    # colours
    "a red car", "a blue car, 3d emoji", "green apple", "yellow butterfly, flat emoji", "a pink elephant", "orange balloon, 3d emoji",
    "a red key outline icon", "purple solid icon of a crown",
    # compositions and free phrasings that no caption contains
    "two cats", "a dog next to a tree", "three strawberries", "a happy smiling sun", "a rocket flying to the moon", "cute penguin sticker",
    "birthday cake with candles", "a cup of hot tea", "a house in the snow", "a bunch of flowers", "a big green dinosaur", "my little robot friend",
    "a slice of watermelon", "sleepy fox", "the night sky with stars", "a cold drink for a hot day",
)  # fmt: skip


@dataclass
class Scores:
    """Of one source of pictures for one kind of prompt, in percent."""

    source: str
    split: str
    count: int
    top1: float
    top5: float
    style: float


@dataclass
class Structured:
    """A prompt for two things, one half of the picture each."""

    prompt: str
    relation: str
    rows: tuple[int, int]
    """Pictures of the things, the left or upper one first."""


def run(preset: Preset, data: DataSet, workspace: Workspace, worker: Worker) -> dict:
    """Measures everything that is trained and writes ``evaluate/``: report.json, table.md, grid.png, failures.png."""
    judge = scorer.train(preset, data, workspace, worker, scorer.JUDGE)
    chooser = scorer.train(preset, data, workspace, worker, scorer.SHIPPED)
    if not worker.leads:
        return {}
    folder = workspace.stage("evaluate")
    pixels = open_pixels(workspace.pictures(preset.size), torch.device("cpu"))
    held = pixels[vae_stage.check_rows(data, 256)]
    report: dict = {"vae": vae_stage.measure(vae_stage.load(preset.vae, workspace).to(worker.device), held, worker)}
    asked = _ask(judge, data, preset.evaluate.prompts)
    scores = [_score(judge, data, "real pictures", split, rows, pixels[rows]) for split, rows in asked.items()]
    scores += [_floor(judge, data, asked[TRAIN], pixels)]
    report["alpha"] = {"real pictures": _unclean_alpha(held.numpy())}
    report["nearest"] = {"real held-out pictures": _nearest(held.numpy(), pixels, data)}
    known = random.Random(5).sample(chooser.held, min(preset.evaluate.prompts, len(chooser.held)))
    if known:
        report["chooser"] = asdict(_score(chooser, data, "real pictures", TRAIN, known, pixels[known]))
    prompts = {split: [canonical(data.rows[row], data.styles) for row in rows] for split, rows in asked.items()}

    def measure(source: str, made: dict[str, np.ndarray]) -> None:
        scores.extend(_score(judge, data, source, split, asked[split], pictures) for split, pictures in made.items())
        everything = np.concatenate(list(made.values()))
        report["alpha"][source] = _unclean_alpha(everything)
        report["nearest"][source] = _nearest(everything, pixels, data)

    structured = ask_structured(judge, data, preset.evaluate.structured)
    report["structured"] = {"real pictures": halves_named(judge, data, structured, _side_by_side(structured, pixels))}

    def measure_structured(source: str, model: generate.Generator | generate.Writer, candidates: int) -> None:
        asking = [one.prompt for one in structured]
        drawn = [model(asking, seed=seed, batch=preset.evaluate.batch) for seed in range(candidates)]
        report["structured"][source] = halves_named(judge, data, structured, drawn[0])
        if candidates > 1:
            best = choose(chooser, np.stack(drawn), model.encoder.pooled(asking))
            report["structured"][f"{source}, best of {candidates}"] = halves_named(judge, data, structured, best)

    def draw(model: generate.Generator, seed: int = 0) -> dict[str, np.ndarray]:
        return {split: model(asking, seed=seed, batch=preset.evaluate.batch) for split, asking in prompts.items()}

    served = generate.STUDENT if generate.has_student(workspace) else generate.TEACHER
    for which in dict.fromkeys([generate.TEACHER, served]):
        model = generate.load(preset, workspace, worker, which)
        source, made = f"{which}, {model.steps} steps", draw(model)
        measure(source, made)
        generate.grid(model(list(GRID), batch=preset.evaluate.batch), list(GRID)).save(folder / f"grid-{which}.png")
        _failures(judge, data, asked[TRAIN], made[TRAIN]).save(folder / f"failures-{which}.png")
        measure_structured(source, model, preset.evaluate.candidates if which == served else 1)
        if which == generate.TEACHER and model.steps != preset.evaluate.many_steps:
            many = replace(model, steps=preset.evaluate.many_steps)
            measure(f"{which}, {many.steps} steps", draw(many))
        if which == served:
            candidates = [made, *(draw(model, seed) for seed in range(1, preset.evaluate.candidates))]
            report["styles"] = _by_style(judge, data, asked, candidates)
            chosen = {}
            for split, asking in prompts.items():
                text = model.encoder.pooled(asking)
                chosen[split] = choose(chooser, np.stack([drawn[split] for drawn in candidates]), text)
            measure(f"{source}, best of {len(candidates)}", chosen)
    for which in (generate.TOKENS, generate.HYBRID):
        if generate.has(workspace, "autoregress") and (which == generate.TOKENS or generate.has(workspace, hybrid.STUDENT)):
            writer = generate.load_writer(preset, workspace, worker, which)
            _by_candidates(writer, which, prompts, preset.evaluate, chooser, measure)
            measure_structured(which, writer, preset.evaluate.candidates)
            generate.grid(writer(list(GRID), batch=preset.evaluate.batch), list(GRID)).save(folder / f"grid-{which}.png")
    report["scores"] = [asdict(entry) for entry in scores]
    report["concepts"] = len(judge.concepts)
    (folder / "report.json").write_text(json.dumps(report, indent=1))
    text = table(report)
    (folder / "table.md").write_text(text)
    worker.log(text)
    return report


def _ask(judge: Scorer, data: DataSet, count: int) -> dict[str, list[int]]:
    """Rows whose captions are the prompts, by split: at most ``count``, drawn at random, one of each concept.

    They are pictures that the scorer never learned from, so that their own score is the ceiling of the same
    prompts; where there are none (a tiny data set), any.
    """
    found = {split: [row for row in judge.held if data.rows[row].split == split] for split in SPLITS}
    if not found[TRAIN]:
        found = {split: data.of_split(split) for split in SPLITS}
    for rows in found.values():
        random.Random(5).shuffle(rows)
    return {split: list({data.rows[row].concept: row for row in rows}.values())[:count] for split, rows in found.items() if rows}


def _score(judge: Scorer, data: DataSet, source: str, split: str, rows: list[int], pictures: torch.Tensor | np.ndarray) -> Scores:
    embeddings, styles = judge.embed(pictures)
    ranks = judge.ranks(embeddings, [data.rows[row].concept for row in rows])
    wanted = torch.tensor([judge.styles.index(data.rows[row].style) for row in rows])
    share = lambda hits: round(100 * hits.float().mean().item(), 1)  # noqa: E731
    return Scores(source, SPLITS[split], len(rows), share(ranks < 1), share(ranks < 5), share(styles.argmax(1) == wanted))


def choose(chooser: Scorer, candidates: np.ndarray, text: torch.Tensor) -> np.ndarray:
    """Of candidates [K, N, H, W, 4] for N pooled prompts the best by the scorer, [N, H, W, 4]."""
    best = torch.stack([chooser.scores(drawn, text) for drawn in candidates]).argmax(0)
    return candidates[best.numpy(), np.arange(candidates.shape[1])]


def _by_candidates(
    model: generate.Writer, source: str, prompts: dict[str, list[str]], settings: EvaluateSettings, chooser: Scorer, measure: Callable[[str, dict], None]
) -> None:
    """Measures a way of drawing with one candidate, and with half and all of the settings' candidates."""
    candidates = []
    for seed in range(settings.candidates):
        candidates.append({split: model(asking, seed=seed, batch=settings.batch) for split, asking in prompts.items()})
        count = len(candidates)
        if count in (1, settings.candidates // 2, settings.candidates):
            texts = {split: model.encoder.pooled(asking) for split, asking in prompts.items()}
            chosen = {split: choose(chooser, np.stack([drawn[split] for drawn in candidates]), texts[split]) for split in prompts}
            measure(source if count == 1 else f"{source}, best of {count}", chosen)


def ask_structured(judge: Scorer, data: DataSet, count: int) -> list[Structured]:
    """Prompts for two of a thing, one beside and one above another, at most ``count`` of each, in the styles that are offered
    most often: of training pictures whose concept the judge names, for only of those it can tell whether they were drawn."""
    heaviest = max((info.weight for info in data.styles.values() if info.listed), default=0)
    rows = [row for row in data.of_split(TRAIN) if data.styles[data.rows[row].style].weight == heaviest]
    rng = random.Random(11)
    rng.shuffle(rows)
    pixels = np.stack([augment.plain(data, row, 2 * judge.objective.model.config.sample_size)[0] for row in rows[: 12 * count]])
    ranks = judge.ranks(judge.embed(np.stack([_alone(picture) for picture in pixels]))[0], [data.rows[row].concept for row in rows[: len(pixels)]])
    named: dict[str, list[int]] = {}
    for row, rank in zip(rows, ranks.tolist(), strict=False):
        if rank < 1:
            named.setdefault(data.rows[row].style, []).append(row)
    asked = []
    for style in sorted(named):
        phrase, things = data.styles[style].phrases[0], list({data.rows[row].concept: row for row in named[style]}.values())
        for first, second in zip(things[::2], things[1::2], strict=False):
            one, other = (data.rows[row].names[0] for row in (first, second))
            asked.append(Structured(f"{phrase} of two {plural(one)}", TWO, (first, first)))
            asked.append(Structured(f"{phrase} of {with_article(one)} next to {with_article(other)}", BESIDE, (first, second)))
            asked.append(Structured(f"{phrase} of {with_article(one)} above {with_article(other)}", ABOVE, (first, second)))
    rng.shuffle(asked)
    return [one for relation in (TWO, BESIDE, ABOVE) for one in [one for one in asked if one.relation == relation][:count]]


def halves_named(judge: Scorer, data: DataSet, asked: list[Structured], pictures: np.ndarray) -> dict[str, float]:
    """By relation: of how many percent of the pictures [N, H, W, 4] the judge names what each half should show."""
    parts = np.stack([_alone(part) for one, picture in zip(asked, pictures, strict=True) for part in _halves(picture, one.relation)])
    ranks = judge.ranks(judge.embed(parts)[0], [data.rows[row].concept for one in asked for row in one.rows])
    both = (ranks < 1).view(-1, 2).all(1).tolist()
    hits: dict[str, list[bool]] = {}
    for one, hit in zip(asked, both, strict=True):
        hits.setdefault(one.relation, []).append(hit)
    return {relation: round(100 * sum(found) / len(found), 1) for relation, found in hits.items()}


def _halves(picture: np.ndarray, relation: str) -> list[np.ndarray]:
    """The left and the right half, or the upper and the lower one."""
    return np.array_split(picture, 2, axis=0 if relation == ABOVE else 1)


def _alone(picture: np.ndarray, margin: float = 0.05) -> np.ndarray:
    """What a picture [H, W, 4] shows, in the middle of a square that it just fills, at the side of the scorers."""
    shown = np.argwhere(picture[..., 3] > 12)
    if not len(shown):
        shown = np.array([[0, 0], [picture.shape[0] - 1, picture.shape[1] - 1]])
    (top, left), (bottom, right) = shown.min(0), shown.max(0) + 1
    box = int(np.ceil(max(bottom - top, right - left) * (1 + 2 * margin)))
    square = np.zeros((box, box, 4), np.uint8)
    y, x = (box - (bottom - top)) // 2, (box - (right - left)) // 2
    square[y : y + bottom - top, x : x + right - left] = picture[top:bottom, left:right]
    small = F.interpolate(torch.from_numpy(square).permute(2, 0, 1)[None].float(), size=(scorer.SIDE, scorer.SIDE), mode="bilinear", antialias=True)
    return small[0].permute(1, 2, 0).round().byte().numpy()


def _side_by_side(asked: list[Structured], pixels: torch.Tensor) -> np.ndarray:
    """The real pictures, two of a thing or two things, each at half the size."""
    small = {row: F.avg_pool2d(pixels[row].permute(2, 0, 1)[None].float(), 2)[0].permute(1, 2, 0).byte().numpy() for one in asked for row in one.rows}
    drawn = np.zeros((len(asked), *pixels.shape[1:]), np.uint8)
    for picture, one in zip(drawn, asked, strict=True):
        for half, row in zip(_halves(picture, one.relation), one.rows, strict=True):
            half[tuple(slice((side - small[row].shape[0]) // 2, (side + small[row].shape[0]) // 2) for side in half.shape[:2])] = small[row]
    return drawn


def _by_style(judge: Scorer, data: DataSet, asked: dict[str, list[int]], candidates: list[dict[str, np.ndarray]]) -> dict[str, list[float]]:
    """By style: how many drawings of prompts without a held-out concept there are, and of how many percent the judge finds the concept."""
    hits: dict[str, list[bool]] = {style: [] for style in data.styles}
    for drawn in candidates:
        for split, rows in asked.items():
            if split != HELD_CONCEPT:
                found = judge.ranks(judge.embed(drawn[split])[0], [data.rows[row].concept for row in rows]) < 1
                for row, hit in zip(rows, found.tolist(), strict=True):
                    hits[data.rows[row].style].append(hit)
    return {style: [len(found), round(100 * sum(found) / len(found), 1)] for style, found in hits.items() if found}


def _floor(judge: Scorer, data: DataSet, rows: list[int], pixels: torch.Tensor) -> Scores:
    """Real pictures asked for with the captions of others."""
    return _score(judge, data, "shuffled captions", TRAIN, [*rows[1:], rows[0]], pixels[rows])


def _unclean_alpha(pictures: np.ndarray, reach: int = 2) -> float:
    """Percent of the pixels that are half transparent (alpha 5 % to 95 %) more than ``reach`` px from an edge of the shape."""
    alpha = torch.from_numpy(pictures[..., 3]).float()[:, None] / 255
    solid = (alpha > 0.5).float()
    near = F.max_pool2d(solid, 2 * reach + 1, 1, reach) + F.max_pool2d(1 - solid, 2 * reach + 1, 1, reach) == 2
    half = (alpha > 0.05) & (alpha < 0.95)
    return round(100 * (half & ~near).float().mean().item(), 2)


def _nearest(pictures: np.ndarray, pixels: torch.Tensor, data: DataSet, side: int = 32) -> float:
    """Median over pictures of the root mean square distance (values 0 to 1) to the nearest training picture, at 32 px."""

    def small(batch: torch.Tensor) -> torch.Tensor:
        x = F.interpolate(to_model(batch), size=(side, side), mode="bilinear", antialias=True)
        return ((x + 1) / 2).flatten(1)

    trained = torch.cat([small(part) for part in pixels[data.of_split(TRAIN)].split(512)])
    asked = small(torch.from_numpy(pictures))
    distance = torch.cat([torch.cdist(part, trained).amin(1) for part in asked.split(64)]) / asked.shape[1] ** 0.5
    return round(distance.median().item(), 4)


def _failures(judge: Scorer, data: DataSet, rows: list[int], pictures: np.ndarray) -> "generate.Image.Image":
    """The pictures furthest from what was asked, by the scorer."""
    ranks = judge.ranks(judge.embed(pictures)[0], [data.rows[row].concept for row in rows])
    worst = ranks.argsort(descending=True)[:FAILURES].tolist()
    return generate.grid(pictures[worst], [canonical(data.rows[rows[index]], data.styles) for index in worst])


def load_report(workspace: Workspace) -> dict:
    """The report of the last evaluation. Raises TrainError if there is none."""
    path = workspace.stage("evaluate") / "report.json"
    if not path.exists():
        raise TrainError("the run is not evaluated yet: run the stage `evaluate` first")
    return json.loads(path.read_text())


def table(report: dict) -> str:
    """The report as Markdown."""
    lines = [
        f"Concept retrieval among {report['concepts']} concepts and style accuracy, by the judge of this data set (not CLIP), in percent; "
        "the best of several is chosen by the shipped scorer, which is another one:",
        "",
        "| pictures | prompts | count | R@1 | R@5 | style |",
        "| --- | --- | --- | --- | --- | --- |",
        *(f"| {s['source']} | {s['split']} | {s['count']} | {s['top1']} | {s['top5']} | {s['style']} |" for s in report["scores"]),
        "",
        "| pictures | half-transparent pixels away from edges, % | median distance to the nearest training picture |",
        "| --- | --- | --- |",
        *(
            f"| {source} | {report['alpha'].get(source, report['alpha']['real pictures'])} | {distance} |"
            for source, distance in report["nearest"].items()
        ),
        "",
        *([f"The shipped scorer finds the concept of {report['chooser']['top1']} % of {report['chooser']['count']} pictures that it never learned from.", ""]
          if "chooser" in report else []),
        "Prompts for two things, of which the judge names both, each in its half of the picture, in percent:",
        "",
        "| pictures | two of a thing | one beside another | one above another |",
        "| --- | --- | --- | --- |",
        *(f"| {source} | {' | '.join(str(found.get(relation, '')) for relation in (TWO, BESIDE, ABOVE))} |" for source, found in report["structured"].items()),
        "",
        "| style | drawings | R@1 |",
        "| --- | --- | --- |",
        *(f"| {style} | {count} | {top1} |" for style, (count, top1) in report["styles"].items()),
        "",
        "VAE on held-out concepts, PSNR in dB: {white_db} over white, {black_db} over black, {alpha_db} alpha.".format(**report["vae"]),
        "",
    ]
    return "\n".join(lines)
