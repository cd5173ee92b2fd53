"""Writes tests/fixtures from the real diffusers and transformers classes.

    python tools/reference/make.py                     everything
    python tools/reference/make.py text denoise/unet   only the cases whose name starts so
    python tools/reference/make.py --list              the names
"""

import argparse
import importlib
import os
import time

# One thread and no model hub: the same bytes on every run.
os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TRANSFORMERS_VERBOSITY="error", DIFFUSERS_VERBOSITY="error")

import torch  # noqa: E402
from transformers.utils import logging  # noqa: E402

from common import FIXTURES  # noqa: E402

ROOMS = [
    "prompt", "text", "noise", "denoise", "schedule", "autoencoder", "pipeline", "diffusers_runs", "mmdit", "motion", "motion_adapter", "score",
    "tokens", "tokens_runs", "janus", "glm_image", "lora", "shapes",
    "overflow", "pictures",
]  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--list", action="store_true")
    args = parser.parse_args()

    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.set_grad_enabled(False)
    cases = {}
    for room in ROOMS:
        cases.update(importlib.import_module(room).cases())
    chosen = [n for n in cases if not args.names or any(n.startswith(p) for p in args.names)]
    if not chosen:
        raise SystemExit(f"no case starts with {' or '.join(args.names)}; --list shows the names")
    for name in chosen:
        if args.list:
            print(name)
            continue
        start = time.monotonic()
        cases[name](FIXTURES / name)
        print(f"{name}  {time.monotonic() - start:.1f} s", flush=True)


if __name__ == "__main__":
    main()
