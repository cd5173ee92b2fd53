"""Our own pipeline in a page of Python: a diffusers folder of class InkbloomPipeline, a prompt, a picture.

    python tools/reference/sampler.py --model DIR --prompt TEXT --out dump.safetensors --png out.png

It is what the Rust core is compared with, so it is written to be read, from the libraries' own classes only.
"""

import argparse
import json
import math
from pathlib import Path

import diffusers
import numpy as np
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file

from common import save_json, save_tensors
from noise import normal


class Sampler:
    def __init__(self, model: Path, text_encoder: Path | None = None):
        """`text_encoder` is a folder with config.json, weights and tokenizer.json, where the model's own has none."""
        index = json.loads((model / "model_index.json").read_text())
        if index["_class_name"] != "InkbloomPipeline":
            raise ValueError(f"{model}: _class_name is {index['_class_name']}, not InkbloomPipeline")
        self.index = index
        self.transformer = diffusers.PixArtTransformer2DModel.from_pretrained(model / "transformer").float().eval()
        self.vae = getattr(diffusers, index["vae"][1]).from_pretrained(model / "vae").float().eval()
        self.scheduler = diffusers.FlowMatchEulerDiscreteScheduler.from_pretrained(model / "scheduler")
        text = text_encoder or model / "text_encoder"
        self.text_encoder = transformers.BertModel.from_pretrained(text).float().eval()
        tokenizer = (text_encoder or model / "tokenizer") / "tokenizer.json"
        self.tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_file=str(tokenizer), pad_token="[PAD]")

    def encode(self, prompt: str) -> dict[str, torch.Tensor]:
        tokens = self.tokenizer(
            prompt,
            padding="max_length",
            truncation=True,
            max_length=self.index["max_text_tokens"],
            return_tensors="pt",
        )
        ids, mask = tokens.input_ids, tokens.attention_mask
        embedding = self.text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        return dict(input_ids=ids, attention_mask=mask, text_embedding=embedding)

    def latent_shape(self, height: int, width: int) -> tuple[int, int, int, int]:
        config = self.vae.config
        factor = 2 ** (len(config.get("decoder_block_out_channels") or config.block_out_channels) - 1)
        return 1, config.latent_channels, height // factor, width // factor

    def latent_scale(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(factor, offset) with decoder's z = x * factor + offset."""
        config = self.vae.config
        if config.get("latents_mean") is not None and config.get("latents_std") is not None:
            mean, std = (torch.tensor(config[k]).view(1, -1, 1, 1) for k in ("latents_mean", "latents_std"))
            return std / config.scaling_factor, mean
        return torch.tensor(1 / config.scaling_factor), torch.tensor(config.get("shift_factor") or 0.0)

    def velocity(self, x: torch.Tensor, t: torch.Tensor, text: dict, height: int, width: int) -> torch.Tensor:
        added = None
        if self.transformer.use_additional_conditions:
            added = dict(
                resolution=torch.tensor([[height, width]], dtype=x.dtype),
                aspect_ratio=torch.tensor([[height / width]], dtype=x.dtype),
            )
        v = self.transformer(
            x,
            encoder_hidden_states=text["text_embedding"],
            encoder_attention_mask=text["attention_mask"],
            timestep=t.expand(x.shape[0]),
            added_cond_kwargs=added,
        ).sample
        return v[:, : x.shape[1]]  # a learned variance, if any, is not used

    def decode(self, x: torch.Tensor) -> torch.Tensor:
        factor, offset = self.latent_scale()
        return self.vae.decode(x * factor + offset).sample

    def encode_picture(self, pixels: torch.Tensor) -> torch.Tensor:
        """The inverse of `decode`; of a distribution the mean, so that nothing is drawn. Where the decoder has more stages
        than the encoder, pictures are that much larger than the encoder takes, and averaged down for it."""
        config = self.vae.config
        if config.get("encoder_block_out_channels"):
            stages = len(config.decoder_block_out_channels) - len(config.encoder_block_out_channels)
            pixels = torch.nn.functional.avg_pool2d(pixels, 2**stages)
        encoded = self.vae.encode(pixels)
        z = encoded.latent_dist.mean if hasattr(encoded, "latent_dist") else encoded.latents
        factor, offset = self.latent_scale()
        return (z - offset) / factor

    @torch.no_grad()
    def __call__(
        self,
        prompt: str,
        noise: torch.Tensor,
        steps: int,
        guidance: float,
        height: int,
        width: int,
        negative_prompt: str = "",
        init: Image.Image | None = None,
        mask: Image.Image | None = None,
        strength: float = 1.0,
    ) -> dict[str, torch.Tensor]:
        """Every tensor that `inkbloom generate --dump` names, and the attention mask. `init` starts part of the way, as
        FluxImg2ImgPipeline does; where `mask` is white the picture is drawn anew, as in FluxInpaintPipeline."""
        positive = self.encode(prompt)
        negative = self.encode(negative_prompt) if guidance != 1 else None
        self.scheduler.set_timesteps(sigmas=np.linspace(1.0, 1 / steps, steps))
        first = int(steps - min(steps * strength, steps)) if init else 0
        self.scheduler.set_begin_index(first)
        timesteps = self.scheduler.timesteps[first:]
        x = noise
        if init:
            kept = self.encode_picture(from_png(init, self.index["alpha"]))
            x = self.scheduler.scale_noise(kept, timesteps[:1], noise)
        if mask:
            redraw = torch.from_numpy(np.array(mask.convert("L"), np.float32) / 255)[None, None] >= 0.5
            redraw = torch.nn.functional.interpolate(redraw.float(), size=x.shape[2:])  # nearest

        dump = positive | dict(noise=noise) | {"latent.0": x}
        for i, t in enumerate(timesteps):
            v = self.velocity(x, t, positive, height, width)
            if negative is not None:
                v_negative = self.velocity(x, t, negative, height, width)
                v = v_negative + guidance * (v - v_negative)
            x = self.scheduler.step(v, t, x).prev_sample
            if mask:
                later = timesteps[i + 1 : i + 2]
                known = self.scheduler.scale_noise(kept, later, noise) if len(later) else kept
                x = (1 - redraw) * known + redraw * x
            dump[f"latent.{i + 1}"] = x
        return dump | dict(image=self.decode(x))


def from_png(picture: Image.Image, alpha: str) -> torch.Tensor:
    """[1, C, H, W] of 2x - 1, the inverse of `to_png`."""
    pixels = np.array(picture.convert("RGB" if alpha == "none" else "RGBA"), np.float32) / 255
    if alpha == "premultiplied":
        pixels[..., :3] *= pixels[..., 3:]
    return torch.from_numpy(2 * pixels - 1).permute(2, 0, 1)[None]


def to_png(image: torch.Tensor, alpha: str) -> Image.Image:
    """[1, C, H, W] of 2x - 1 to 8 bits; PNG holds straight alpha."""
    pixels = (image[0].permute(1, 2, 0) / 2 + 0.5).clamp(0, 1).numpy()
    if alpha == "none":
        pixels = pixels[..., :3]
    elif alpha == "premultiplied":
        opacity = pixels[..., 3:]
        pixels[..., :3] = np.divide(pixels[..., :3], opacity, out=np.zeros_like(pixels[..., :3]), where=opacity > 0)
    return Image.fromarray((pixels.clip(0, 1) * 255).round().astype(np.uint8))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--text-encoder", type=Path, help="where the model's folder holds none")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--negative-prompt", default="")
    start = parser.add_mutually_exclusive_group()
    start.add_argument("--seed", type=int, default=0, help="as `inkbloom generate --seed`")
    start.add_argument("--noise", type=Path, help="a safetensors file with the tensor `noise`, a dump for instance")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--guidance", type=float)
    parser.add_argument("--size", default=None, help="WxH")
    parser.add_argument("--init", type=Path, help="a PNG of that size to start from")
    parser.add_argument("--mask", type=Path, help="a PNG of that size, white where --init is drawn anew")
    parser.add_argument("--strength", type=float, default=1.0)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--png", type=Path)
    parser.add_argument("--case", type=Path, help="a folder of tests/fixtures that gets request.json, and noise and image as reference.safetensors")
    args = parser.parse_args()

    diffusers.utils.logging.set_verbosity_error()
    torch.set_num_threads(1)
    sampler = Sampler(args.model, args.text_encoder)
    width, height = map(int, args.size.split("x")) if args.size else sampler.index["sizes"][0]
    if args.noise:
        noise = load_file(args.noise)["noise"]
    else:
        shape = sampler.latent_shape(height, width)
        bits = np.array(normal(args.seed, 0, math.prod(shape)), np.uint32)
        noise = torch.from_numpy(bits.view(np.float32)).reshape(shape)
    request = dict(
        prompt=args.prompt,
        negative_prompt=args.negative_prompt,
        steps=args.steps or sampler.index["default_steps"],
        guidance=sampler.index["default_guidance"] if args.guidance is None else args.guidance,
        width=width,
        height=height,
    )
    dump = sampler(
        **request,
        noise=noise,
        init=Image.open(args.init) if args.init else None,
        mask=Image.open(args.mask) if args.mask else None,
        strength=args.strength,
    )
    if args.out:
        save_tensors(args.out, dump)
    if args.case:
        save_tensors(args.case / "reference.safetensors", {k: dump[k] for k in ("image", "noise")})
        save_json(args.case / "request.json", request, indent=2)
    if args.png:
        to_png(dump["image"], sampler.index["alpha"]).save(args.png)


if __name__ == "__main__":
    main()
