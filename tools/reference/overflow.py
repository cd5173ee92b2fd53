"""Weights that are good f16 numbers, and what PyTorch makes of them in f16 is not: infinity, then NaN, then a black picture."""

import copy
from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from transformers import CLIPTextConfig, CLIPTextModel, T5Config, T5EncoderModel

from common import clean, generator, padding_mask, randint, randn, randomise, save_case

STORED = torch.float16


def scale(model, factor: float, *names: str) -> None:
    """A power of two keeps weights exact in f16."""
    for name, parameter in model.named_parameters():
        if any(part in name for part in names):
            parameter.mul_(factor)
            if not parameter.to(STORED).isfinite().all():
                raise ValueError(f"{name} itself does not fit f16")


def save(folder: Path, model, inputs: dict, forward) -> None:
    """`forward(model, **inputs)` gives named outputs. The reference is f32's; beside each output stand how many of its
    values f16 loses, and of how many."""

    def run(dtype: torch.dtype) -> dict:
        cast = {k: v.to(dtype) if v.is_floating_point() else v for k, v in inputs.items()}
        return forward(copy.deepcopy(model).to(dtype), **cast)

    outputs, exact, half = run(torch.float32), run(torch.float64), run(torch.float16)
    tensors = inputs | outputs
    for name, output in outputs.items():
        if (output - exact[name]).norm() > 2e-5 * exact[name].norm():
            raise ValueError(f"{folder.name}: {name} is too sensitive to rounding to be compared")
        lost = (~half[name].isfinite()).sum()
        if not lost:
            raise ValueError(f"{folder.name}: {name} does not overflow in f16")
        tensors[f"lost_in_f16.{name}"] = torch.tensor([lost, output.numel()])
    save_case(clean(folder), model, tensors, STORED)


def t5(folder: Path) -> None:
    """The gated perceptron's product, where T5-XXL is known to overflow."""
    gen = generator(folder.name)
    config = T5Config(
        vocab_size=40, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=2, feed_forward_proj="gated-gelu"
    )
    model = randomise(T5EncoderModel(config), gen, STORED)
    scale(model, 2.0**9, "DenseReluDense.wi")
    lengths, tokens = [9, 5], 9
    mask = padding_mask(lengths, tokens)
    ids = randint(gen, 40, len(lengths), tokens).where(mask.bool(), 0)
    save(
        folder, model, dict(input_ids=ids, attention_mask=mask),
        lambda model, **inputs: dict(last_hidden_state=model(**inputs).last_hidden_state),
    )  # fmt: skip


def clip(folder: Path) -> None:
    """The scores before their softmax, where Stable Diffusion 2's attention is known to overflow."""
    gen = generator(folder.name)
    config = CLIPTextConfig(
        vocab_size=40, max_position_embeddings=8, hidden_size=16, intermediate_size=24, num_hidden_layers=2,
        num_attention_heads=2, bos_token_id=38, eos_token_id=39, attn_implementation="eager",
    )  # fmt: skip
    model = randomise(CLIPTextModel(config), gen, STORED)
    scale(model, 2.0**8, "q_proj.weight", "k_proj.weight")
    ids = randint(gen, 38, 2, 8)
    ids[:, 0], ids[:, -1] = 38, 39
    save(
        folder, model, dict(input_ids=ids),
        lambda model, **inputs: dict(last_hidden_state=model(**inputs).last_hidden_state),
    )  # fmt: skip


def kl(folder: Path) -> None:
    """What residual blocks add to, before the next norm, where SDXL's autoencoder is known to overflow."""
    gen = generator(folder.name)
    model = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8), layers_per_block=1, norm_num_groups=4, latent_channels=4,
    )  # fmt: skip
    randomise(model, gen, STORED)
    scale(model, 2.0**16, "conv2.weight")
    image = randn(gen, 1, 3, 8, 12).clamp(-1, 1)
    z = randn(gen, 1, 4, 4, 6)

    def forward(model, image, z):
        return dict(latent=model.encode(image).latent_dist.mean, decoded=model.decode(z).sample)

    save(folder, model, dict(image=image, z=z), forward)


def cases() -> dict:
    return {f"overflow/{f.__name__}": partial(f) for f in (t5, clip, kl)}
