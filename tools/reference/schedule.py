"""Noise schedules: plain numbers, whole runs with a fake model in the model's place."""

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch
from diffusers import FlowMatchEulerDiscreteScheduler

from common import generator, randn, save_json

FLOW_MATCH = {
    "plain": {},
    "shift_3": dict(shift=3.0),
    "shift_1_5": dict(shift=1.5),
    "shift_terminal": dict(shift=3.0, shift_terminal=0.1),
    "inverted": dict(invert_sigmas=True),
    "karras": dict(use_karras_sigmas=True),
    "exponential": dict(shift=1.5, use_exponential_sigmas=True),
    "beta": dict(use_beta_sigmas=True),
    "exponential_terminal": dict(shift_terminal=0.05, use_exponential_sigmas=True),
}


def numbers(tensor: torch.Tensor) -> list:
    """Each f32 in the fewest digits that read back as the same f32."""
    return [float(str(v)) for v in tensor.float().numpy()]


def flux_sigmas(steps: int) -> np.ndarray:
    """What diffusers' FluxPipeline hands the scheduler."""
    return np.linspace(1.0, 1 / steps, steps)


def fake_velocity(x: torch.Tensor) -> torch.Tensor:
    return 0.3 * x + 0.1


def flow_match_euler(path: Path) -> None:
    x_0 = randn(generator(path.name), 6)
    runs = []
    for name, config in FLOW_MATCH.items():
        for steps in (1, 2, 4, 20, 25, 50):
            if steps == 1 and config.get("shift_terminal"):
                continue  # the reference divides by zero there
            scheduler = FlowMatchEulerDiscreteScheduler(**config)
            scheduler.set_timesteps(sigmas=flux_sigmas(steps))
            x = x_0
            trajectory = [numbers(x)]
            for t in scheduler.timesteps:
                x = scheduler.step(fake_velocity(x), t, x).prev_sample
                trajectory.append(numbers(x))
            runs.append(
                dict(
                    name=name,
                    config=json.loads(scheduler.to_json_string()),
                    steps=steps,
                    sigmas=numbers(scheduler.sigmas),
                    timesteps=numbers(scheduler.timesteps),
                    trajectory=trajectory,
                )
            )
    save_json(path.with_suffix(".json"), dict(velocity="0.3 * x + 0.1", runs=runs), separators=(",", ":"))


def cases() -> dict:
    return {"denoise/flow_match_euler": flow_match_euler}
