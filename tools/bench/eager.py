"""Times the default model's networks in PyTorch eager, the way `inkbloom bench` does it, and prints JSON.

    python tools/bench/eager.py --model www/models/sticker --threads 2 --rounds 9
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


def picture(networks: Networks, inputs: dict, steps: int) -> list[float]:
    """Milliseconds of text, steps and decoding."""
    times = [time.perf_counter()]
    (ids, mask), (x, _, _, keep), _ = inputs.values()
    c = networks.encode(ids, mask)
    times.append(time.perf_counter())
    for i in range(steps):
        x = x - networks.velocity(x, torch.tensor([1000.0 * (1 - i / steps)]), c, keep) / steps
    times.append(time.perf_counter())
    networks.decode(x)
    times.append(time.perf_counter())
    return [1000 * (b - a) for a, b in zip(times, times[1:])]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--steps", type=int, default=4)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    networks = Networks(args.model)
    inputs = networks.inputs(32)
    with torch.no_grad():
        picture(networks, inputs, args.steps)
        rounds = [picture(networks, inputs, args.steps) for _ in range(args.rounds)]
    names = ["text", "denoise", "decode"]
    medians = {name: statistics.median(times) for name, times in zip(names, zip(*rounds))}
    medians["total"] = statistics.median(sum(times) for times in rounds)
    print(json.dumps(dict(torch=torch.__version__, threads=args.threads, median_ms=medians, rounds_ms=rounds)))


if __name__ == "__main__":
    main()
