"""Times the default model's networks in PyTorch, the way `inkbloom bench` does it, and prints a line of JSON for each way.

    python tools/bench/eager.py --model www/models/sticker --threads 2 --rounds 9
    python tools/bench/eager.py --model www/models/sticker --device cuda --dtype f32 f16 --compile

`f32` multiplies in f32 throughout; `tf32` lets a GPU round what it multiplies to 10 bits. Eager comes first, then, with
--compile, the same by torch.compile.
"""

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "reference"))
from networks import Networks  # noqa: E402

DTYPES = dict(f32=torch.float32, tf32=torch.float32, f16=torch.float16, bf16=torch.bfloat16)
NAMES = ["text", "denoise", "decode"]


class Picture:
    """What makes a picture, on a device."""

    def __init__(self, args: argparse.Namespace, dtype: str, compiled: bool):
        device, to = torch.device(args.device), DTYPES[dtype]
        networks = Networks(args.model)
        for network in (networks.text, networks.transformer, networks.vae):
            network.to(device, to)
        text, (x, _, _, keep), _ = networks.inputs(args.tokens).values()
        self.text = [part.to(device) for part in text]
        self.x, self.keep = x.to(device, to), keep.to(device, to)
        self.times = [torch.tensor([1000.0 * (1 - i / args.steps)], device=device) for i in range(args.steps)]
        self.encode, self.velocity, self.decode = networks.encode, networks.velocity, networks.decode
        if compiled:
            ways = (torch.compile(way, mode=args.compile) for way in (networks.encode, networks.velocity, networks.decode))
            self.encode, self.velocity, self.decode = ways
        self.wait = torch.cuda.synchronize if device.type == "cuda" else lambda: None

    def draw(self, watched: bool) -> list[float]:
        """Milliseconds of text, steps and decoding, or of the whole. The picture ends in the host's memory."""
        times = [time.perf_counter()]

        def lap() -> None:
            if watched:
                self.wait()
                times.append(time.perf_counter())

        x = self.x
        c = self.encode(*self.text).clone()  # a CUDA graph writes its results to the same place each time
        lap()
        for t in self.times:
            x = x - self.velocity(x, t, c, self.keep) / len(self.times)
        lap()
        self.decode(x).float().cpu()
        times.append(time.perf_counter())
        return [1000 * (b - a) for a, b in zip(times, times[1:])]


def measure(args: argparse.Namespace, dtype: str, compiled: bool) -> dict:
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = dtype == "tf32"
    torch.compiler.reset()
    picture = Picture(args, dtype, compiled)
    first = sum(picture.draw(True))
    for _ in range(3 if compiled else 0):  # graphs are recorded in the second and third
        picture.draw(True)
    rounds = [picture.draw(True) for _ in range(args.rounds)]
    whole = [picture.draw(False)[0] for _ in range(args.rounds)]
    medians = {name: statistics.median(times) for name, times in zip(NAMES, zip(*rounds))}
    medians["total"] = statistics.median(sum(times) for times in rounds)
    medians["picture"] = statistics.median(whole)
    device = torch.cuda.get_device_name() if args.device == "cuda" else "CPU"
    about = dict(torch=torch.__version__, device=device, dtype=dtype, compiled=args.compile if compiled else None, threads=args.threads)
    return dict(**about, first_ms=first, median_ms=medians, rounds_ms=rounds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--dtype", choices=DTYPES, nargs="+", default=["f32"])
    parser.add_argument("--compile", nargs="?", const="default", metavar="MODE", help="compiled, too: default, reduce-overhead (CUDA graphs), ...")
    parser.add_argument("--only-compiled", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    with torch.no_grad():
        for compiled in [False] * (not args.only_compiled) + [True] * bool(args.compile):
            for dtype in args.dtype:
                print(json.dumps(measure(args, dtype, compiled)), flush=True)


if __name__ == "__main__":
    main()
