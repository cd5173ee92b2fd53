"""The one door: ``python -m inkbloom_train STAGE --preset NAME``."""

import argparse
import sys
from pathlib import Path

from inkbloom_train import presets
from inkbloom_train.errors import TrainError
from inkbloom_train.workspace import Workspace, cache_root

STAGES = ("data", "vae", "latents", "dit", "distill", "motion", "vq", "autoregress", "hybrid", "scorer", "evaluate", "export")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="inkbloom_train", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=("run", *STAGES, "pack"), help="one stage, `run` for all of them in order, or `pack` to train elsewhere")
    parser.add_argument("--preset", choices=presets.NAMES, default="cpu", help="size of the run (default: cpu)")
    parser.add_argument("--name", help="name of the run, its folder under the cache (default: the preset's)")
    parser.add_argument("--cache", type=Path, help="folder for packages, data and runs (default: $INKBLOOM_CACHE/train)")
    parser.add_argument("--folder", type=Path, help="train on the pictures of this folder (metadata.jsonl) instead of the packages")
    parser.add_argument("--warm-start", type=Path, help="a diffusers folder or a bundle whose weights the VAE, the DiT, the token transformer, the hybrid or the scorers begin from")
    parser.add_argument("--minutes", type=float, help="end this call after about this many minutes; run it again to go on")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="default: a GPU if there is one")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="override a setting, as in dit.schedule.samples=1000000")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Runs the stages asked for. Returns 0, 1 after a failure explained on stderr, or 130 when interrupted."""
    options = parse(arguments)
    try:
        preset = presets.load(options.preset, options.set)
        if options.minutes is not None:
            preset.call_minutes = options.minutes
        workspace = Workspace(options.cache or cache_root(), options.name or preset.name)
        from inkbloom_train import stages  # torch and diffusers take seconds to import; wrong usage should not

        stages.run(STAGES if options.stage == "run" else (options.stage,), preset, workspace, options)
    except TrainError as error:
        print(f"inkbloom_train: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("inkbloom_train: interrupted; run the same command again to go on", file=sys.stderr)
        return 130
    return 0
