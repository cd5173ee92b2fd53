"""Moving stickers: PixArtTransformer2DModel with the modules of a MotionAdapter between its blocks."""

import json
from pathlib import Path

import torch
from diffusers import MotionAdapter, PixArtTransformer2DModel

from common import clean, generator, padding_mask, randn, randomise, save_tensors

CLIPS, TOKENS = 2, 7
LATENT = (4, 6)
# Six blocks for four modules, so that they are not spread evenly.
PIXART = dict(
    in_channels=4, out_channels=4, num_layers=6, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
    caption_channels=12, sample_size=6, interpolation_scale=1, use_additional_conditions=False,
)  # fmt: skip
ADAPTER = dict(
    block_out_channels=(16,), motion_layers_per_block=1, use_motion_mid_block=True, motion_num_attention_heads=2,
    motion_norm_num_groups=4, motion_max_seq_length=16,
)  # fmt: skip


def modules(adapter: MotionAdapter) -> list:
    blocks = [*adapter.down_blocks, *([adapter.mid_block] if adapter.mid_block else []), *adapter.up_blocks]
    return [module for block in blocks for module in block.motion_modules]


def put_between(transformer: PixArtTransformer2DModel, adapter: MotionAdapter, frames: int, grid: tuple[int, int]):
    """Lets module k of M run after block L (k + 1) // M - 1; its frames take evenly spaced rows of the table of positions."""
    own, layers = modules(adapter), len(transformer.transformer_blocks)

    def hook(module):
        def run(block, inputs, tokens):
            places = tokens.transpose(1, 2).unflatten(2, grid)
            positions = module.transformer_blocks[0].pos_embed
            whole = positions.pe
            positions.pe = whole[:, :: whole.shape[1] // frames]
            moved = module(places, num_frames=frames)
            positions.pe = whole
            return moved.flatten(2).transpose(1, 2)

        return run

    return [
        transformer.transformer_blocks[layers * (k + 1) // len(own) - 1].register_forward_hook(hook(module))
        for k, module in enumerate(own)
    ]


def pixart(folder: Path) -> None:
    gen = generator(folder.name)
    transformer = randomise(PixArtTransformer2DModel(**PIXART), gen)
    adapter = randomise(MotionAdapter(**ADAPTER), gen)
    for module in modules(adapter):  # the table is read from the file: any values
        pe = module.transformer_blocks[0].pos_embed.pe
        pe.copy_(0.5 * randn(gen, *pe.shape))
    tensors = dict(
        encoder_hidden_states=randn(gen, CLIPS, TOKENS, PIXART["caption_channels"]),
        encoder_attention_mask=padding_mask([7, 4], TOKENS),
        timestep=torch.tensor([987.5, 41.25]),
        still=randn(gen, CLIPS, PIXART["in_channels"], *LATENT),
    )

    def call(sample: torch.Tensor, frames: int) -> torch.Tensor:
        repeated = {
            name: tensors[name].repeat_interleave(frames, 0)
            for name in ("encoder_hidden_states", "encoder_attention_mask", "timestep")
        }
        return transformer(sample, **repeated).sample

    tensors["still_output"] = call(tensors["still"], 1)
    for frames in (8, 16):
        sample = randn(gen, CLIPS * frames, PIXART["in_channels"], *LATENT)
        hooks = put_between(transformer, adapter, frames, tuple(side // transformer.config.patch_size for side in LATENT))
        tensors |= {f"sample.{frames}": sample, f"output.{frames}": call(sample, frames)}
        for one in hooks:
            one.remove()
    clean(folder)
    transformer.save_pretrained(folder / "transformer")
    adapter.save_pretrained(folder / "motion_adapter")
    config = folder / "motion_adapter" / "config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "positions": "circle"}, indent=2) + "\n")
    save_tensors(folder / "reference.safetensors", tensors)


def cases() -> dict:
    return {"denoise/motion_pixart": pixart}
