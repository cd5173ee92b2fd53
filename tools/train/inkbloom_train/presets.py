"""The settings of a run: the same recipe at three sizes.

``cpu``    two cores, in the background for as many hours as there are.
``gpu``    one H100-class GPU, the same shape, half an hour in calls of at most 9.
``smoke``  seconds a stage, to try every line of the code on a CPU.
"""

import dataclasses
import typing
from dataclasses import dataclass, field

from inkbloom_train.errors import TrainError
from inkbloom_train.training import Schedule


@dataclass
class VaeSettings:
    width: int
    """Channels of every block of the AutoencoderTiny."""
    schedule: Schedule
    latent_channels: int = 8
    crop: int = 128
    """Side of the training crops in px."""
    train_encoder: bool = True
    """Whether the encoder learns too; if not, latents that were made before stay valid."""
    latent_noise: float = 0.05
    """Standard deviation of the noise that the decoder learns to shrug off."""
    rescale_share: float = 0.25
    """Share of the steps that shrink latent and target together (EQ-VAE), which makes latents easier to generate."""


@dataclass
class LatentSettings:
    views: int
    """How many times the training pictures are encoded, each time augmented anew; the first is plain."""
    batch: int = 32


@dataclass
class DitSettings:
    heads: int
    layers: int
    schedule: Schedule
    head_dim: int = 64
    patch: int = 2
    text_dropout: float = 0.1

    @property
    def width(self) -> int:
        return self.heads * self.head_dim


@dataclass
class DistillSettings:
    schedule: Schedule
    windows: int = 4
    """Steps of the student."""
    teacher_steps: int = 4
    """Guided steps of the teacher in a window."""
    guidance: float = 3.5


@dataclass
class VqSettings:
    schedule: Schedule
    """Of the decoder."""
    first: int = 1024
    """First codes."""
    second: int = 1024
    """Residual codes."""
    vectors: int = 400_000
    """Places that the codes are found from."""
    rounds: int = 15
    decoder_channels: int = 96
    decoder_blocks: int = 4


@dataclass
class AutoregressSettings:
    schedule: Schedule
    width: int = 384
    heads: int = 6
    layers: int = 6
    inner: int = 1024
    """Width of the gated perceptrons."""
    text_dropout: float = 0.1
    disturbed: float = 0.4
    """Of the codes before a place training replaces a share, from none to this one, for in drawing they are not all right."""
    fine_share: float = 0.25
    """Share of the steps that go on to the fine grid, which cost five times as much; 0 trains thumbnails only."""
    guidance: float = 3.0
    fine_guidance: float = 1.5


@dataclass
class HybridSettings:
    teaching: Schedule
    """Flow matching."""
    distilling: DistillSettings
    """Then its student."""
    bare: float = 0.3
    """Share of the samples without a layout."""
    redrawn: float = 0.6
    """Of the others' codes the token transformer draws a share anew, from none to this one."""


@dataclass
class MotionSettings:
    teaching: Schedule
    """Flow matching on the teacher."""
    distilling: Schedule
    """Then on the student, at the times of its steps."""
    teacher: str | None = None
    """Folder of a diffusers model or a bundle whose transformer is the teacher; with it ``--warm-start`` names the student. None takes this run's own two."""
    frames: int = 8
    """Of the clips that are learned; the exported table of positions holds twice as many."""
    shared_noise: float = 0.8
    """Share of the noise's variance that all frames of a clip have in common."""
    emoji: int | None = None
    """Animated emoji to learn from; None takes all there are."""
    icons: int | None = None
    """Animated icons."""
    stills: int | None = 1200
    """Stills of the data set that are moved."""
    prompts: int = 48
    """Clips that are drawn to measure how well they close and hold together."""


@dataclass
class ScorerSettings:
    schedule: Schedule
    width: int
    """Channels of the first block; each of the three that follow has twice as many."""
    tenth: int
    """Which tenth of the pictures it never learns from, 0 to 9."""
    seed: int
    captions: int = 0
    """Captions of each picture that it learns beside the names; none for a judge, which is asked for concepts only."""


@dataclass
class EvaluateSettings:
    prompts: int
    """Prompts of each split."""
    teacher_steps: int = 25
    """Steps that the teacher is served with, where there is no student."""
    many_steps: int = 25
    """The teacher is measured with these too, as what fewer steps are held against."""
    structured: int = 48
    """Prompts for two things, of each kind."""
    candidates: int = 4
    """Drawings of each prompt of which the shipped scorer chooses one."""
    guidance: float = 3.5
    batch: int = 32


@dataclass
class Preset:
    name: str
    size: int
    """Side of the finished pictures in px; a multiple of 32."""
    vae: VaeSettings
    latents: LatentSettings
    dit: DitSettings
    distill: DistillSettings
    vq: VqSettings
    autoregress: AutoregressSettings
    hybrid: HybridSettings
    motion: MotionSettings
    scorer: ScorerSettings
    """The one that is shipped, and chooses."""
    judge: ScorerSettings
    evaluate: EvaluateSettings
    shift: float = 1.5
    """Time shift of the sampling steps, as FlowMatchEulerDiscreteScheduler's; measured at 128 px only."""
    together: float = 0.2
    """Share of the generative stages' samples that are put together from several single things."""
    max_text_tokens: int = 32
    call_minutes: float | None = None
    """How long one call may train; the next goes on."""
    compile: str | None = None
    """Mode of torch.compile for the transformer; None runs eagerly. The VAE is all convolutions at several sizes: compiling costs more than it saves."""
    export_shard: str = "10GB"
    """Largest file of the exported transformer."""
    workers: int = 2
    """Processes that draw pictures."""
    seed: int = 0
    overridden: dict = field(default_factory=dict)

    @property
    def encoded(self) -> int:
        """Side in px of what the VAE's encoder sees; its decoder draws twice that."""
        return self.size // 2

    @property
    def latent(self) -> int:
        """Side of a latent."""
        return self.size // 16


def _cpu() -> Preset:
    return Preset(
        name="cpu",
        size=256,
        vae=VaeSettings(width=48, schedule=Schedule(samples=180_000, batch=16, rate=1e-3, weight_decay=1e-3, decay=0.5)),
        latents=LatentSettings(views=4),
        dit=DitSettings(
            heads=4,
            layers=12,
            schedule=Schedule(samples=3_000_000, batch=128, rate=1.2e-3, warmup=100, checkpoint_minutes=10, ema=0.999, betas=(0.9, 0.98), weight_decay=0.01),
        ),
        distill=DistillSettings(
            Schedule(samples=100_000, batch=64, rate=5e-4, warmup=20, decay=0.7, ema=0.99, betas=(0.9, 0.98)),
            teacher_steps=2,  # 8 in all, as many as the teacher is served with
            guidance=5.0,
        ),
        vq=VqSettings(Schedule(samples=24_000, batch=8, rate=1e-3, decay=0.6, checkpoint_minutes=8, ema=0.995)),
        autoregress=AutoregressSettings(Schedule(samples=600_000, batch=64, rate=2e-3, ema=0.995, betas=(0.9, 0.98), weight_decay=0.01)),
        hybrid=HybridSettings(
            teaching=Schedule(samples=100_000, batch=64, rate=5e-4, warmup=50, decay=0.5, ema=0.995, betas=(0.9, 0.98), weight_decay=0.01),
            distilling=DistillSettings(Schedule(samples=60_000, batch=64, rate=5e-4, warmup=20, decay=0.7, ema=0.99, betas=(0.9, 0.98)), teacher_steps=2, guidance=5.0),
        ),
        motion=MotionSettings(
            teaching=Schedule(samples=20_000, batch=4, rate=1.5e-3, warmup=10, checkpoint_minutes=8, ema=0.99),
            distilling=Schedule(samples=8_000, batch=4, rate=1e-3, warmup=5, checkpoint_minutes=8, ema=0.99),
        ),
        scorer=ScorerSettings(Schedule(samples=400_000, batch=128, rate=3e-3, weight_decay=0.05, ema=0.995), width=24, tenth=1, seed=11, captions=1),
        judge=ScorerSettings(Schedule(samples=400_000, batch=128, rate=3e-3, weight_decay=0.05, ema=0.995), width=32, tenth=0, seed=0),
        evaluate=EvaluateSettings(prompts=400, teacher_steps=8, guidance=5.0),
        compile="default",
    )


def _gpu() -> Preset:
    return Preset(
        name="gpu",
        size=256,
        vae=VaeSettings(width=48, schedule=Schedule(samples=0, minutes=2.4, batch=128, rate=1.5e-3, warmup=100, weight_decay=1e-3, decay=0.6)),
        latents=LatentSettings(views=8, batch=128),
        dit=DitSettings(
            heads=4,
            layers=12,  # 13 M parameters, as the cpu preset has
            schedule=Schedule(samples=0, minutes=5.5, batch=1024, rate=1.5e-3, decay=0.7, ema=0.998, betas=(0.9, 0.98), weight_decay=0.01),
        ),
        distill=DistillSettings(
            Schedule(samples=0, minutes=1.75, batch=512, rate=5e-4, warmup=20, decay=0.7, ema=0.99, betas=(0.9, 0.98)),
            guidance=5.0,
        ),
        vq=VqSettings(Schedule(samples=0, minutes=0.7, batch=64, rate=1e-3, decay=0.6, ema=0.995)),
        autoregress=AutoregressSettings(Schedule(samples=0, minutes=3.2, batch=256, rate=1.2e-3, decay=0.5, ema=0.998, betas=(0.9, 0.98), weight_decay=0.02)),
        hybrid=HybridSettings(
            teaching=Schedule(samples=0, minutes=1.9, batch=512, rate=5e-4, warmup=50, decay=0.6, ema=0.995, betas=(0.9, 0.98), weight_decay=0.01),
            distilling=DistillSettings(Schedule(samples=0, minutes=1.5, batch=512, rate=5e-4, warmup=20, decay=0.7, ema=0.99, betas=(0.9, 0.98)), guidance=5.0),
        ),
        motion=MotionSettings(
            teaching=Schedule(samples=0, minutes=1.7, batch=32, rate=1e-3, warmup=50, decay=0.5), distilling=Schedule(samples=0, minutes=0.8, batch=32, rate=5e-4, warmup=20, ema=0.99)
        ),
        scorer=ScorerSettings(Schedule(samples=0, minutes=1.3, batch=256, rate=3e-3, weight_decay=0.05, ema=0.995), width=24, tenth=1, seed=11, captions=1),
        judge=ScorerSettings(Schedule(samples=0, minutes=1.3, batch=256, rate=3e-3, weight_decay=0.05, ema=0.995), width=32, tenth=0, seed=0),
        evaluate=EvaluateSettings(prompts=400, teacher_steps=8, guidance=5.0, batch=512),
        call_minutes=8.5,
        compile="default",
        export_shard="15MB",
        workers=16,
    )


def _smoke() -> Preset:
    return Preset(
        name="smoke",
        size=64,
        vae=VaeSettings(width=32, crop=64, latent_channels=4, schedule=Schedule(samples=240, batch=8, rate=2e-3, warmup=5)),
        latents=LatentSettings(views=2, batch=8),
        dit=DitSettings(heads=2, head_dim=16, layers=2, schedule=Schedule(samples=240, batch=8, rate=1e-3, warmup=5)),
        distill=DistillSettings(Schedule(samples=80, batch=8, rate=1e-3, warmup=2), teacher_steps=2),
        vq=VqSettings(Schedule(samples=32, batch=8, rate=1e-3, warmup=1), first=24, second=16, vectors=2_000, rounds=4, decoder_channels=8, decoder_blocks=1),
        autoregress=AutoregressSettings(Schedule(samples=160, batch=8, rate=2e-3, warmup=5), width=32, heads=2, layers=2, inner=48),
        hybrid=HybridSettings(
            teaching=Schedule(samples=80, batch=8, rate=1e-3, warmup=2),
            distilling=DistillSettings(Schedule(samples=80, batch=8, rate=1e-3, warmup=2), teacher_steps=2),
        ),
        motion=MotionSettings(
            teaching=Schedule(samples=16, batch=4, rate=1e-3, warmup=1), distilling=Schedule(samples=8, batch=4, rate=1e-3, warmup=1),
            emoji=0, icons=0, stills=24, prompts=3,
        ),
        scorer=ScorerSettings(Schedule(samples=160, batch=8, rate=1e-3, warmup=5), width=8, tenth=1, seed=11, captions=1),
        judge=ScorerSettings(Schedule(samples=160, batch=8, rate=1e-3, warmup=5), width=16, tenth=0, seed=0),
        evaluate=EvaluateSettings(prompts=4, structured=3, teacher_steps=4, many_steps=6, candidates=2, batch=8),
    )


_PRESETS = {"cpu": _cpu, "gpu": _gpu, "smoke": _smoke}
NAMES = tuple(_PRESETS)


def load(name: str, overrides: list[str]) -> Preset:
    """The preset of that name with ``section.key=value`` overrides. Raises TrainError for an unknown key or a bad value."""
    preset = _PRESETS[name]()
    for text in overrides:
        path, _, value = text.partition("=")
        owner, parts = preset, path.split(".")
        for part in parts[:-1]:
            owner = getattr(owner, part, None)
        known = {f.name for f in dataclasses.fields(owner)} if dataclasses.is_dataclass(owner) else set()
        if parts[-1] not in known or dataclasses.is_dataclass(getattr(owner, parts[-1])):
            raise TrainError(f"there is no setting {path}: see presets.py for their names, for example dit.schedule.samples")
        kinds = typing.get_type_hints(type(owner))[parts[-1]]
        setattr(owner, parts[-1], _parse(path, value, kinds))
        preset.overridden[path] = value
    return preset


def _parse(path: str, text: str, kind: object) -> object:
    options = typing.get_args(kind) or (kind,)
    if type(None) in options and text == "none":
        return None
    for option in options:
        try:
            if option is float or option is str:
                return option(text)
            if option is bool and text in ("true", "false"):
                return text == "true"
            if option is int:
                return int(text.replace("_", ""))
        except ValueError:
            continue
    raise TrainError(f"{path}={text} is not a value of the right kind: {kind} is expected")
