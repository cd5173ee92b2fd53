"""The default model's three networks as ONNX, from the very weights that the page serves.

    python tools/reference/networks.py --model www/models/sticker --out DIR

writes DIR/text.onnx (`ids`, `mask` -> `y`), transformer.onnx (`x`, `t`, `c`, `mask` -> `y`) and decoder.onnx (`z` -> `y`),
of the model's own size and for one picture, for tools/bench. Needs the package `onnx` beside requirements.txt.
"""

import argparse
import sys
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, PixArtTransformer2DModel
from transformers import BertConfig, BertModel

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from inkbloom_train import pretrained  # noqa: E402

OPSET = 18


class Text(BertModel):
    def __init__(self, config: BertConfig):
        super().__init__(config, add_pooling_layer=False)


class Networks:
    """What is run for a picture, in evaluation mode and f32; ``attention`` is the text encoder's way of it, by transformers' name."""

    def __init__(self, model: Path, attention: str = "sdpa"):
        self.text = pretrained.load(Text, model, "text_encoder", coarse=True).eval()
        self.text.set_attn_implementation(attention)
        self.transformer = pretrained.load(PixArtTransformer2DModel, model, "transformer", coarse=True).eval()
        self.vae = pretrained.load(AutoencoderTiny, model, "vae", coarse=True).eval()

    def encode(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.text(ids, attention_mask=mask).last_hidden_state

    def velocity(self, x: torch.Tensor, t: torch.Tensor, c: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        added = dict(resolution=None, aspect_ratio=None)
        return self.transformer(x, c, timestep=t, encoder_attention_mask=mask, added_cond_kwargs=added, return_dict=False)[0]

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.vae.decoder(z)

    def inputs(self, tokens: int) -> dict[str, tuple[torch.Tensor, ...]]:
        """By network, in the order of its parameters."""
        side, channels = self.transformer.config.sample_size, self.transformer.config.in_channels
        x, c = torch.zeros(1, channels, side, side), torch.zeros(1, tokens, self.text.config.hidden_size)
        ids, mask = torch.zeros(1, tokens, dtype=torch.long), torch.ones(1, tokens, dtype=torch.long)
        return dict(text=(ids, mask), transformer=(x, torch.ones(1), c, mask.float()), decoder=(x,))


class Method(torch.nn.Module):
    """A method as the module that the exporter wants; `parts` keeps its parameters in sight."""

    def __init__(self, parts: torch.nn.Module, method):
        super().__init__()
        self.parts = parts
        self.method = method

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.method(*inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="a bundle")
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    networks = Networks(args.model, attention="eager")
    inputs = networks.inputs(args.tokens)
    modules = dict(
        text=(Method(networks.text, networks.encode), ["ids", "mask"]),
        transformer=(Method(networks.transformer, networks.velocity), ["x", "t", "c", "mask"]),
        decoder=(Method(networks.vae, networks.decode), ["z"]),
    )
    for name, (module, names) in modules.items():
        with torch.no_grad():
            torch.onnx.export(
                module, inputs[name], str(args.out / f"{name}.onnx"),
                input_names=names, output_names=["y"], opset_version=OPSET, dynamo=False,
            )


if __name__ == "__main__":
    main()
