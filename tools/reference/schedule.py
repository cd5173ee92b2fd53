"""Noise schedules: plain numbers, whole runs with a fake model in the model's place."""

import json
import sys
import warnings
from functools import partial
from inspect import signature
from pathlib import Path
from unittest.mock import patch

import diffusers
import numpy as np
import torch
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from common import generator, randn, save_json

SHAPE = (1, 1, 2, 3)  # some classes look at the channels


def numbers(tensor: torch.Tensor) -> list:
    """Each f32 in the fewest digits that read back as the same f32."""
    return [float(str(v)) for v in tensor.float().flatten().numpy()]


def config_of(scheduler) -> dict:
    return json.loads(scheduler.to_json_string())


def mu_of(scheduler, patches: int) -> float:
    """What the pipelines of flow matching hand a scheduler that shifts by the picture's size."""
    keys = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
    return calculate_shift(patches, *(scheduler.config[key] for key in keys))


# --- flow matching as Inkbloom's own models use it ---

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
    "dynamic": dict(use_dynamic_shifting=True),
    "dynamic_terminal": dict(
        use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.9, max_shift=2.5, max_image_seq_len=1024,
        shift_terminal=0.02,
    ),
}
FLUX_PATCHES = 300


def flux_sigmas(steps: int) -> np.ndarray:
    """What diffusers' FluxPipeline hands the scheduler."""
    return np.linspace(1.0, 1 / steps, steps)


def flow_match_euler(path: Path) -> None:
    x_0 = randn(generator(path.name), *SHAPE)
    runs = []
    for name, config in FLOW_MATCH.items():
        for steps in (1, 2, 4, 20, 25, 50):
            if steps == 1 and config.get("shift_terminal"):
                continue  # the reference divides by zero there
            scheduler = diffusers.FlowMatchEulerDiscreteScheduler(**config)
            scheduler.set_timesteps(sigmas=flux_sigmas(steps), mu=mu_of(scheduler, FLUX_PATCHES))
            x = x_0
            trajectory = [numbers(x)]
            for t in scheduler.timesteps:
                x = scheduler.step(0.3 * x + 0.1, t, x).prev_sample
                trajectory.append(numbers(x))
            runs.append(
                dict(
                    name=name,
                    config=config_of(scheduler),
                    steps=steps,
                    sigmas=numbers(scheduler.sigmas),
                    timesteps=numbers(scheduler.timesteps),
                    trajectory=trajectory,
                )
            )
    value = dict(velocity="0.3 * x + 0.1", patches=FLUX_PATCHES, runs=runs)
    save_json(path.with_suffix(".json"), value, separators=(",", ":"))


# --- every class, as the classic pipelines use it ---

STABLE_DIFFUSION = dict(beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")
COSINE = dict(beta_schedule="squaredcos_cap_v2")
V = dict(prediction_type="v_prediction")
SAMPLE = dict(prediction_type="sample")
ZERO_SNR = dict(rescale_betas_zero_snr=True, timestep_spacing="trailing") | V
SPACINGS = {
    "leading": dict(timestep_spacing="leading"),
    "leading_offset": dict(timestep_spacing="leading", steps_offset=1),
    "trailing": dict(timestep_spacing="trailing"),
    "linspace": dict(timestep_spacing="linspace"),
}

FLOW = dict(prediction_type="flow_prediction", use_flow_sigmas=True)
KDPM2 = {
    "one_step": dict(steps=1),
    "many_steps": dict(steps=30),
    "v": V,
    "karras": dict(use_karras_sigmas=True),
    "exponential": dict(use_exponential_sigmas=True),
    "beta": dict(use_beta_sigmas=True),
    "linear": dict(beta_schedule="linear"),
    "begin": dict(begin=6),
    "repaints": dict(begin=4, repaints=True),
}

# Per class: its name, what every run has, then its variations. In a variation `steps` (default 8), `begin` (the first
# step of an image-to-image run), `set` (further arguments of set_timesteps), `step` (of step), `patches` (which give
# set_timesteps its mu) and `repaints` (whether a mask spares half of x_0) are the run's; the rest is config.
CLASSES = {
    "ddpm": (
        "DDPMScheduler",
        STABLE_DIFFUSION | dict(clip_sample=False),
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "many_steps": dict(steps=50),
            "v": V,
            "sample": SAMPLE,
            "linear_clipped": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True),
            "cosine_clip_range": COSINE | dict(clip_sample=True, clip_sample_range=1.5),
            "laplace": dict(beta_schedule="laplace"),
            "sigmoid": dict(beta_schedule="sigmoid"),
            "zero_snr": ZERO_SNR,
            "fixed_small_log": dict(variance_type="fixed_small_log"),
            "fixed_large": dict(variance_type="fixed_large"),
            "begin": dict(begin=5),
        },
    ),
    "ddim": (
        "DDIMScheduler",
        STABLE_DIFFUSION | dict(clip_sample=False, set_alpha_to_one=False, steps_offset=1),
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "many_steps": dict(steps=50),
            "seven_steps": dict(steps=7),
            "v": V,
            "sample": SAMPLE,
            "alpha_to_one": dict(set_alpha_to_one=True),
            "eta": dict(step=dict(eta=0.7)),
            "eta_one_v": V | dict(step=dict(eta=1.0)),
            "eta_sample": SAMPLE | dict(step=dict(eta=0.4), begin=3),
            "eta_clipped": dict(clip_sample=True, clip_sample_range=0.8, step=dict(eta=0.5)),
            "eta_zero_snr": ZERO_SNR | dict(step=dict(eta=0.3)),
            "linear_clipped": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear", clip_sample=True),
            "cosine": COSINE,
            "zero_snr": ZERO_SNR,
            "begin": dict(begin=3),
        },
    ),
    "dpm_solver_multistep": (
        "DPMSolverMultistepScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "two_steps": dict(steps=2),
            "twenty_steps": dict(steps=20),
            "twenty_five_steps": dict(steps=25),
            "first_order": dict(solver_order=1),
            "third_order": dict(solver_order=3),
            "heun": dict(solver_type="heun"),
            "v": V,
            "sample": SAMPLE,
            "karras": dict(use_karras_sigmas=True),
            "karras_twenty": dict(use_karras_sigmas=True, steps=20),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "lu_lambdas": dict(use_lu_lambdas=True),
            "sigma_min": dict(final_sigmas_type="sigma_min"),
            "sigma_min_karras": dict(final_sigmas_type="sigma_min", use_karras_sigmas=True),
            "not_lower_order_final": dict(lower_order_final=False, final_sigmas_type="sigma_min"),
            "not_lower_order_final_long": dict(lower_order_final=False, final_sigmas_type="sigma_min", steps=16),
            "euler_at_final": dict(euler_at_final=True, final_sigmas_type="sigma_min", steps=16),
            "from_unipc": dict(solver_type="bh1"),
            "from_deis": dict(algorithm_type="deis", solver_type="logrho", final_sigmas_type="sigma_min"),
            "dpmsolver": dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
            "dpmsolver_v_heun": V | dict(algorithm_type="dpmsolver", solver_type="heun", final_sigmas_type="sigma_min"),
            "dpmsolver_third_order": SAMPLE | dict(
                algorithm_type="dpmsolver", solver_order=3, final_sigmas_type="sigma_min"
            ),
            "sde_dpmsolver": dict(algorithm_type="sde-dpmsolver", final_sigmas_type="sigma_min"),
            "sde_dpmsolver_heun": dict(
                algorithm_type="sde-dpmsolver", solver_type="heun", final_sigmas_type="sigma_min"
            ),
            "sde": dict(algorithm_type="sde-dpmsolver++"),
            "sde_first_order": dict(algorithm_type="sde-dpmsolver++", solver_order=1),
            "sde_heun": dict(algorithm_type="sde-dpmsolver++", solver_type="heun"),
            "sde_karras": dict(algorithm_type="sde-dpmsolver++", use_karras_sigmas=True, steps=20),
            "cosine_clipped_lambda": COSINE | dict(lambda_min_clipped=-5.1),
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "zero_snr": ZERO_SNR,
            "flow": dict(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
            "begin": dict(begin=4),
            "begin_karras": dict(begin=4, use_karras_sigmas=True),
        },
    ),
    "euler": (
        "EulerDiscreteScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "turbo": dict(steps=1, timestep_spacing="trailing"),
            "many_steps": dict(steps=50),
            "v": V,
            "v_continuous": V | dict(timestep_type="continuous", sigma_min=0.002, sigma_max=80.0),
            "sample_is_x0": SAMPLE | dict(steps=4),
            "karras": dict(use_karras_sigmas=True),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "log_linear": dict(interpolation_type="log_linear"),
            "sigma_min": dict(final_sigmas_type="sigma_min"),
            "cosine": COSINE,
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "zero_snr": ZERO_SNR,
            "churn": dict(step=dict(s_churn=2.0, s_noise=1.1)),
            "churn_v": V | dict(step=dict(s_churn=0.7), begin=2),
            "churn_sample": SAMPLE | dict(step=dict(s_churn=1.0)),
            # More than the most that a step takes, in the middle of the run.
            "churn_between": dict(step=dict(s_churn=40.0, s_tmin=0.5, s_tmax=6.0), use_karras_sigmas=True),
            "begin": dict(begin=3),
        },
    ),
    "euler_ancestral": (
        "EulerAncestralDiscreteScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "turbo": dict(steps=1, timestep_spacing="trailing"),
            "many_steps": dict(steps=30),
            "v": V,
            "cosine": COSINE,
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "zero_snr": ZERO_SNR,
            "begin": dict(begin=3),
        },
    ),
    "pndm": (
        "PNDMScheduler",
        STABLE_DIFFUSION | dict(skip_prk_steps=True, set_alpha_to_one=False, steps_offset=1),
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "three_steps": dict(steps=3),
            "many_steps": dict(steps=50),
            "with_prk": dict(skip_prk_steps=False, steps=10),
            "v": V,
            "alpha_to_one": dict(set_alpha_to_one=True),
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "cosine": COSINE,
            "begin": dict(begin=3),
        },
    ),
    "lcm": (
        "LCMScheduler",
        STABLE_DIFFUSION,
        {
            "plain": dict(steps=4),
            "one_step": dict(steps=1),
            "two_steps": dict(steps=2),
            "eight_steps": dict(steps=8),
            "v": V | dict(steps=4),
            "sample": SAMPLE | dict(steps=4),
            "clipped": dict(steps=4, clip_sample=True),
            "cosine": COSINE | dict(steps=4),
            "other_scaling": dict(steps=4, timestep_scaling=7.0, set_alpha_to_one=False),
            "original_steps": dict(steps=5, original_inference_steps=40),
            "zero_snr": V | dict(steps=4, rescale_betas_zero_snr=True),
            "strength": dict(steps=4, set=dict(strength=0.5)),
            "strength_uneven": dict(steps=5, original_inference_steps=40, set=dict(strength=0.33)),
            "begin": dict(steps=4, begin=2),
        },
    ),
    "tcd": (
        "TCDScheduler",
        STABLE_DIFFUSION,
        {
            "plain": dict(steps=4),
            "one_step": dict(steps=1),
            "eight_steps": dict(steps=8),
            "no_noise": dict(steps=4, step=dict(eta=0.0)),
            "all_noise": dict(steps=4, step=dict(eta=1.0)),
            "eta_v": V | dict(steps=6, step=dict(eta=0.55)),
            "v": V | dict(steps=4),
            "sample": SAMPLE | dict(steps=4),
            "alpha_not_one": dict(steps=4, set_alpha_to_one=False),
            "strength": dict(steps=4, set=dict(strength=0.5)),
        },
    ),
    "unipc": (
        "UniPCMultistepScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "two_steps": dict(steps=2),
            "twenty_steps": dict(steps=20),
            "first_order": dict(solver_order=1),
            "third_order": dict(solver_order=3),
            "third_order_long": dict(solver_order=3, steps=17),
            "fifth_order": dict(solver_order=5, steps=12),
            "bh1": dict(solver_type="bh1", final_sigmas_type="sigma_min"),
            "bh1_third_order": dict(solver_type="bh1", solver_order=3, final_sigmas_type="sigma_min"),
            "midpoint": dict(solver_type="midpoint"),
            "v": V,
            "sample": SAMPLE,
            "noise": dict(predict_x0=False, final_sigmas_type="sigma_min"),
            "noise_v": V | dict(predict_x0=False, final_sigmas_type="sigma_min", solver_order=3),
            "noise_sample": SAMPLE | dict(predict_x0=False, final_sigmas_type="sigma_min"),
            "karras": dict(use_karras_sigmas=True),
            "karras_ends": dict(use_karras_sigmas=True, sigma_min=0.05, sigma_max=11.0),
            "karras_sigma_min": dict(use_karras_sigmas=True, final_sigmas_type="sigma_min"),
            "exponential": dict(use_exponential_sigmas=True),
            "exponential_ends": dict(use_exponential_sigmas=True, sigma_min=0.05, sigma_max=11.0),
            "beta": dict(use_beta_sigmas=True),
            "sigma_min": dict(final_sigmas_type="sigma_min"),
            "not_lower_order_final": dict(lower_order_final=False, final_sigmas_type="sigma_min"),
            "corrector_off_at_first": dict(disable_corrector=[0, 1]),
            "cosine": COSINE,
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "zero_snr": ZERO_SNR,
            "flow": FLOW | dict(flow_shift=3.0),
            "flow_sigma_min": FLOW | dict(final_sigmas_type="sigma_min"),
            "flow_terminal": FLOW | dict(flow_shift=3.0, shift_terminal=0.1),
            "flow_karras": FLOW | dict(use_karras_sigmas=True),
            "begin": dict(begin=4),
            "begin_third_order": dict(begin=3, solver_order=3),
            "repaints": dict(begin=2, repaints=True),
            "repaints_third_order_v": V | dict(begin=1, repaints=True, solver_order=3),
        },
    ),
    "deis": (
        "DEISMultistepScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "two_steps": dict(steps=2),
            "twenty_steps": dict(steps=20),
            "first_order": dict(solver_order=1),
            "third_order": dict(solver_order=3),
            "third_order_long": dict(solver_order=3, steps=17),
            "not_lower_order_final": dict(lower_order_final=False, solver_order=3),
            "from_dpm_solver": dict(algorithm_type="dpmsolver++", solver_type="midpoint"),
            "v": V,
            "sample": SAMPLE,
            "karras": dict(use_karras_sigmas=True),
            "karras_twenty": dict(use_karras_sigmas=True, steps=20),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "cosine": COSINE,
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "flow": FLOW | dict(flow_shift=3.0),
            "begin": dict(begin=4),
            "repaints": dict(begin=2, repaints=True),
        },
    ),
    "heun": (
        "HeunDiscreteScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "many_steps": dict(steps=30),
            "v": V,
            "sample": SAMPLE,
            "clipped": dict(clip_sample=True, clip_sample_range=0.8),
            "karras": dict(use_karras_sigmas=True),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "cosine": COSINE,
            "exp": dict(beta_schedule="exp"),
            "linear": dict(beta_schedule="linear"),
            "begin": dict(begin=6),
            "repaints": dict(begin=4, repaints=True),
        },
    ),
    "lms": (
        "LMSDiscreteScheduler",
        STABLE_DIFFUSION,
        SPACINGS
        | {
            "one_step": dict(steps=1),
            "three_steps": dict(steps=3),
            "many_steps": dict(steps=30),
            "v": V,
            "sample": SAMPLE,
            "karras": dict(use_karras_sigmas=True),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "cosine": COSINE,
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            # The reference weighs the first outputs as if earlier ones were there.
            "begin": dict(begin=4),
            "repaints": dict(begin=2, repaints=True),
        },
    ),
    "kdpm2": ("KDPM2DiscreteScheduler", STABLE_DIFFUSION, SPACINGS | KDPM2 | {"cosine": COSINE}),
    # Its cosine schedule is not finite in the reference.
    "kdpm2_ancestral": ("KDPM2AncestralDiscreteScheduler", STABLE_DIFFUSION, SPACINGS | KDPM2),
    "dpm_solver_singlestep": (
        "DPMSolverSinglestepScheduler",
        STABLE_DIFFUSION,
        {
            "plain": {},
            "one_step": dict(steps=1),
            "two_steps": dict(steps=2),
            "seven_steps": dict(steps=7),
            "twenty_steps": dict(steps=20),
            "first_order": dict(solver_order=1),
            "third_order_six": dict(solver_order=3, steps=6),
            "third_order_seven": dict(solver_order=3, steps=7),
            "third_order_eight": dict(solver_order=3, steps=8),
            "not_lower_order_final": dict(final_sigmas_type="sigma_min"),
            "not_lower_order_final_uneven": dict(final_sigmas_type="sigma_min", steps=7),
            "lower_order_final": dict(lower_order_final=True, final_sigmas_type="sigma_min"),
            "third_order_throughout": dict(solver_order=3, steps=9, final_sigmas_type="sigma_min"),
            "heun": dict(solver_type="heun"),
            "heun_third_order": dict(solver_type="heun", solver_order=3, steps=9, final_sigmas_type="sigma_min"),
            "from_unipc": dict(solver_type="bh2"),
            "from_deis": dict(algorithm_type="deis", solver_type="logrho", final_sigmas_type="sigma_min"),
            "v": V,
            "sample": SAMPLE,
            "dpmsolver": dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
            "dpmsolver_v": V | dict(algorithm_type="dpmsolver", final_sigmas_type="sigma_min"),
            "dpmsolver_heun": dict(algorithm_type="dpmsolver", solver_type="heun", final_sigmas_type="sigma_min"),
            "dpmsolver_third_order": dict(
                algorithm_type="dpmsolver", solver_order=3, steps=9, final_sigmas_type="sigma_min"
            ),
            "dpmsolver_heun_third_order": SAMPLE | dict(
                algorithm_type="dpmsolver", solver_type="heun", solver_order=3, steps=9, final_sigmas_type="sigma_min"
            ),
            "sde": dict(algorithm_type="sde-dpmsolver++"),
            "sde_heun": dict(algorithm_type="sde-dpmsolver++", solver_type="heun"),
            "sde_third_order": dict(algorithm_type="sde-dpmsolver++", solver_order=3, steps=9),
            "sde_heun_third_order": dict(
                algorithm_type="sde-dpmsolver++", solver_type="heun", solver_order=3, steps=9
            ),
            "karras": dict(use_karras_sigmas=True),
            "exponential": dict(use_exponential_sigmas=True),
            "beta": dict(use_beta_sigmas=True),
            "cosine_clipped_lambda": COSINE | dict(lambda_min_clipped=-5.1),
            "linear": dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"),
            "flow": FLOW | dict(flow_shift=3.0),
            "begin": dict(begin=4),
            "begin_within": dict(begin=3),
            "begin_within_third_order": dict(begin=4, solver_order=3, steps=9),
            "begin_at_third_order": dict(begin=5, solver_order=3, steps=9),
            "repaints": dict(begin=2, repaints=True),
        },
    ),
    "flow_match_euler": (
        "FlowMatchEulerDiscreteScheduler",
        {},
        {
            "plain": {},
            "shift_3": dict(shift=3.0),
            "many_steps": dict(steps=28, shift=3.0),
            "dynamic": dict(use_dynamic_shifting=True, patches=1024),
            "dynamic_small": dict(use_dynamic_shifting=True, shift=3.0, patches=64, begin=2),
            "dynamic_linear": dict(
                use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.7, max_shift=2.1,
                base_image_seq_len=64, max_image_seq_len=1024, patches=700,
            ),
            "dynamic_karras": dict(use_dynamic_shifting=True, use_karras_sigmas=True, patches=2048),
            "stochastic": dict(stochastic_sampling=True, shift=1.5),
            "begin": dict(begin=3, shift=3.0),
        },
    ),
    "flow_match_heun": (
        "FlowMatchHeunDiscreteScheduler",
        {},
        {
            "plain": {},
            "one_step": dict(steps=1),
            "shift_3": dict(shift=3.0),
            "many_steps": dict(steps=20, shift=1.5),
            "churn": dict(step=dict(s_churn=3.0, s_noise=0.9), shift=3.0),
            "churn_between": dict(step=dict(s_churn=1.0, s_tmin=0.3, s_tmax=0.8)),
        },
    ),
}


def run(
    name: str, scheduler, x_0, noise, gen, steps: int = 8, begin: int = 0, set=None, step=None, patches: int | None = None,
    repaints: bool = False,
) -> dict:
    if patches is not None:
        set = dict(mu=mu_of(scheduler, patches))
    scheduler.set_timesteps(steps, **(set or {}))
    add_noise = getattr(scheduler, "add_noise", None) or scheduler.scale_noise
    timesteps = scheduler.timesteps[begin:]
    if begin or repaints:
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(begin)
        x = add_noise(x_0, *((timesteps[:1], noise) if add_noise.__name__ == "scale_noise" else (noise, timesteps[:1])))
    else:
        x = noise * getattr(scheduler, "init_noise_sigma", 1.0)

    drawn = []

    def draw(shape, **_):
        drawn.append(randn(gen, *shape))
        return drawn[-1]

    result = dict(
        name=name,
        config=config_of(scheduler),
        steps=steps,
        begin=begin,
        set_timesteps=set or {},
        step=step or {},
        init_noise_sigma=float(getattr(scheduler, "init_noise_sigma", 1.0)),
        timesteps=numbers(scheduler.timesteps),
        x=[numbers(x)],
        model_input=[],
        noise=[],
    )
    if patches is not None:
        result["patches"] = patches
    mask = (torch.arange(x.numel()) % 2).reshape(x.shape).float()
    if repaints:
        result["mask"] = numbers(mask)
    if hasattr(scheduler, "sigmas"):
        result["sigmas"] = numbers(scheduler.sigmas)
    with patch.object(sys.modules[type(scheduler).__module__], "randn_tensor", draw, create=True):
        for i, t in enumerate(timesteps):
            scaled = scheduler.scale_model_input(x, t) if hasattr(scheduler, "scale_model_input") else x
            output = 0.3 * scaled + 0.0001 * t.float()
            drawn.clear()
            x = scheduler.step(output, t, x, **(step or {})).prev_sample
            if repaints:  # as the inpainting pipelines put back what the mask spares
                later = timesteps[i + 1 : i + 2]
                x = (1 - mask) * (add_noise(x_0, noise, later) if len(later) else x_0) + mask * x
            result["model_input"].append(numbers(scaled))
            result["noise"].append(numbers(drawn[0]) if drawn else None)
            result["x"].append(numbers(x))
    if not all(np.isfinite(v) for v in result["x"][-1]):
        raise ValueError(f"{type(scheduler).__name__} {name} is not finite")
    return result


def full_runs(path: Path, class_name: str, base: dict, variations: dict) -> None:
    gen = generator(class_name)
    x_0, noise = randn(gen, *SHAPE), randn(gen, *SHAPE)
    runs = []
    for name, variation in variations.items():
        arguments = {k: v for k, v in variation.items() if k in ("steps", "begin", "set", "step", "patches", "repaints")}
        config = base | {k: v for k, v in variation.items() if k not in arguments}
        scheduler = getattr(diffusers, class_name)(**config)
        runs.append(run(name, scheduler, x_0, noise, generator(f"{class_name} {name}"), **arguments))
    value = dict(model="0.3 * model_input + 0.0001 * t", x_0=numbers(x_0), noise=numbers(noise), runs=runs)
    save_json(path.with_suffix(".json"), value, separators=(",", ":"))


def alphas_cumprod(path: Path) -> None:
    """The training schedules themselves, every 37th of 1000 steps, the last among them."""
    indices = list(range(0, 1000, 37))
    tables = []
    for config in (STABLE_DIFFUSION, dict(beta_start=1e-4, beta_end=0.02, beta_schedule="linear"), COSINE):
        for rescale in (False, True):
            config = config | dict(rescale_betas_zero_snr=rescale)
            alphas = diffusers.DDPMScheduler(**config).alphas_cumprod
            tables.append(dict(config=config, alphas_cumprod=numbers(alphas[indices])))
    save_json(path.with_suffix(".json"), dict(indices=indices, tables=tables), separators=(",", ":"))


def class_keys(path: Path) -> None:
    """What each class takes, with its defaults."""
    value = {}
    for name, *_ in CLASSES.values():
        parameters = signature(getattr(diffusers, name).__init__).parameters
        value[name] = {key: parameter.default for key, parameter in parameters.items() if key != "self"}
        if "lambda_min_clipped" in value[name]:
            value[name]["lambda_min_clipped"] = None  # minus infinity, which JSON lacks
    save_json(path.with_suffix(".json"), value, indent=0)


# --- files as they were saved by others, in the hands of a pipeline ---

# The pipeline, the class that its model_index.json names, the scheduler's file, and the class that is taken instead.
FILES = {
    "no_offset": ("StableDiffusionPipeline", "DDIMScheduler", STABLE_DIFFUSION | dict(steps_offset=0), None),
    "silent_ddim": ("StableDiffusionPipeline", "DDIMScheduler", STABLE_DIFFUSION, None),
    "silent_ddim_img2img": ("StableDiffusionImg2ImgPipeline", "DDIMScheduler", STABLE_DIFFUSION, None),
    "silent_ddim_inpaint": ("StableDiffusionInpaintPipeline", "DDIMScheduler", STABLE_DIFFUSION, None),
    "silent_ddim_xl": ("StableDiffusionXLPipeline", "DDIMScheduler", STABLE_DIFFUSION, None),
    "silent_pndm_inpaint": ("StableDiffusionInpaintPipeline", "PNDMScheduler", STABLE_DIFFUSION, None),
    "silent_ddim_to_ddpm": ("StableDiffusionPipeline", "DDIMScheduler", STABLE_DIFFUSION, "DDPMScheduler"),
    "clipped_pndm_to_ddim": (
        "StableDiffusionPipeline",
        "PNDMScheduler",
        STABLE_DIFFUSION | dict(clip_sample=True, skip_prk_steps=True, steps_offset=0),
        "DDIMScheduler",
    ),
    "turbo": (
        "StableDiffusionXLPipeline",
        "EulerAncestralDiscreteScheduler",
        STABLE_DIFFUSION | dict(interpolation_type="linear", clip_sample=False, timestep_spacing="trailing"),
        None,
    ),
    "zero_snr_that_pndm_lacks": (
        "StableDiffusionPipeline",
        "PNDMScheduler",
        STABLE_DIFFUSION | dict(rescale_betas_zero_snr=True, skip_prk_steps=True, thresholding=True, tensor_format="pt"),
        None,
    ),
    "spacing_that_singlestep_lacks": (
        "StableDiffusionPipeline",
        "DPMSolverSinglestepScheduler",
        STABLE_DIFFUSION | dict(timestep_spacing="trailing", steps_offset=7),
        None,
    ),
    "deis_to_dpm": (
        "StableDiffusionPipeline",
        "DEISMultistepScheduler",
        STABLE_DIFFUSION | dict(solver_type="logrho", solver_order=3, final_sigmas_type="zero"),
        "DPMSolverMultistepScheduler",
    ),
    "unipc_to_dpm": (
        "StableDiffusionXLPipeline",
        "UniPCMultistepScheduler",
        STABLE_DIFFUSION | dict(solver_type="bh2", timestep_spacing="leading", steps_offset=1),
        "DPMSolverMultistepScheduler",
    ),
    "dpm_to_unipc": (
        "StableDiffusionPipeline",
        "DPMSolverMultistepScheduler",
        STABLE_DIFFUSION | dict(solver_type="heun", algorithm_type="dpmsolver++", use_lu_lambdas=True),
        "UniPCMultistepScheduler",
    ),
    "unknown_class_to_euler": (
        "StableDiffusionPipeline",
        "SASolverScheduler",
        STABLE_DIFFUSION | dict(predictor_order=3, timestep_spacing="leading", steps_offset=0),
        "EulerDiscreteScheduler",
    ),
    "only_defaults": (
        "StableDiffusionPipeline",
        "DPMSolverMultistepScheduler",
        STABLE_DIFFUSION | dict(solver_order=3, _use_default_values=["solver_order"]),
        None,
    ),
    "null_is_false": (
        "StableDiffusionXLPipeline",
        "DDIMScheduler",
        STABLE_DIFFUSION | dict(clip_sample=None, set_alpha_to_one=None, steps_offset=1),
        None,
    ),
    "lms_of_2022": (
        "StableDiffusionPipeline",
        "LMSDiscreteScheduler",
        STABLE_DIFFUSION
        | dict(clip_sample=False, set_alpha_to_one=False, timestep_values=None, timesteps=1000, tensor_format="pt"),
        None,
    ),
}
ALONE = dict(vae=None, text_encoder=None, tokenizer=None, unet=None)
SD = ALONE | dict(safety_checker=None, feature_extractor=None, requires_safety_checker=False)
PIPELINES = {
    "StableDiffusionPipeline": SD,
    "StableDiffusionImg2ImgPipeline": SD,
    "StableDiffusionInpaintPipeline": SD,
    "StableDiffusionXLPipeline": ALONE | dict(text_encoder_2=None, tokenizer_2=None),
}


def files(path: Path) -> None:
    gen = generator("files")
    x_0, noise = randn(gen, *SHAPE), randn(gen, *SHAPE)
    warnings.simplefilter("ignore")  # what is outdated in these files is meant to be
    runs = []
    for name, (pipeline, own, file, instead) in FILES.items():
        scheduler = getattr(diffusers, own).from_config({"_class_name": own} | file)
        scheduler = getattr(diffusers, pipeline)(scheduler=scheduler, **PIPELINES[pipeline]).scheduler
        if instead:
            scheduler = getattr(diffusers, instead).from_config(scheduler.config)
        result = run(name, scheduler, x_0, noise, generator(f"files {name}"))
        result["config"] = {"_class_name": own} | file
        runs.append(result | dict(pipeline=pipeline, instead=instead))
    value = dict(model="0.3 * model_input + 0.0001 * t", x_0=numbers(x_0), noise=numbers(noise), runs=runs)
    save_json(path.with_suffix(".json"), value, separators=(",", ":"))


def cases() -> dict:
    alone = {
        "denoise/flow_match_euler": flow_match_euler,
        "schedule/alphas_cumprod": alphas_cumprod,
        "schedule/keys": class_keys,
        "schedule/files": files,
    }
    return alone | {
        f"schedule/{file}": partial(full_runs, class_name=name, base=base, variations=variations)
        for file, (name, base, variations) in CLASSES.items()
    }
