"""Pictures as tokens: codebook and token transformer. The classes are ours, in tools/train."""

import sys
from functools import partial
from pathlib import Path

import torch
from transformers import DynamicCache

from common import clean, generator, padding_mask, randint, randn, randomise, save_case

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from inkbloom_train.tokens_model import InkbloomAutoregressive, InkbloomAutoregressiveConfig, InkbloomCodebook  # noqa: E402

# `lengths` are the prompts' tokens: the second is padded in what is asked of the class.
AUTOREGRESSIVE = {
    "autoregressive": dict(
        lengths=[7, 3], codes=(12, 10), grids=(2, 4), text_embed_dim=20, max_text_tokens=9, hidden_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, intermediate_size=48,
    ),
    "autoregressive_grouped": dict(
        lengths=[5, 6], codes=(9, 14), grids=(3, 6), text_embed_dim=12, max_text_tokens=6, hidden_size=24, num_hidden_layers=3,
        num_attention_heads=4, num_key_value_heads=2, head_dim=8, intermediate_size=40, rms_norm_eps=1e-5,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0}, guidance=(2.5, 1.25),
    ),
    "autoregressive_coarse": dict(
        lengths=[4, 2], codes=(8, 8), grids=(4,), text_embed_dim=12, max_text_tokens=5, hidden_size=16, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, intermediate_size=24, guidance=(3.0,),
    ),
}  # fmt: skip
CODEBOOK = {
    "codebook": dict(codes=(12, 10), latent_channels=4, grids=(2, 4)),
    "codebook_decoder": dict(codes=(12, 10), latent_channels=4, grids=(2, 4), decoder_channels=6, decoder_blocks=2),
}


def autoregressive(folder: Path, lengths: list[int], **config) -> None:
    gen = generator(folder.name)
    codes, grids = config["codes"], config["grids"]
    places = sum(side**2 for side in grids)
    settings = InkbloomAutoregressiveConfig(
        vocab_size=sum(codes) + places, tie_word_embeddings=True, max_position_embeddings=config["max_text_tokens"] + places, **config
    )
    model = randomise(InkbloomAutoregressive(settings), gen)
    text = randn(gen, len(lengths), max(lengths), config["text_embed_dim"])
    mask = padding_mask(lengths, max(lengths))
    drawn = torch.stack([randint(gen, size, len(lengths), places) for size in codes], -1)
    drawn[drawn[..., 0] == 0] = 0
    hidden = model.hidden(text, mask.float(), drawn, 0, places)
    stepped = _stepped(model, text, mask.float(), drawn, places)
    if (difference := (hidden - stepped).abs().max()) > 1e-5:
        raise ValueError(f"{folder}: with a cache hidden states are {difference} off")
    tensors = {
        "encoder_hidden_states": text,
        "encoder_attention_mask": mask,
        "codes": drawn,
        "hidden": hidden,
        "first_logits": model.first_logits(hidden),
        "residual_logits": model.residual_logits(hidden, drawn[..., 0]),
    }
    save_case(clean(folder), model, tensors)
    (folder / "generation_config.json").unlink()  # nothing reads it


def _stepped(model: InkbloomAutoregressive, text: torch.Tensor, mask: torch.Tensor, codes: torch.Tensor, places: int) -> torch.Tensor:
    cache = DynamicCache(config=model.config)
    return torch.cat([model.hidden(None if place else text, mask, codes[:, :place], place, place + 1, cache) for place in range(places)], 1)


def codebook(folder: Path, **config) -> None:
    gen = generator(folder.name)
    model = randomise(InkbloomCodebook(**config), gen)
    model.residual.weight[0] = 0
    latent = randn(gen, 2, config["latent_channels"], 4, 4)
    clear = randint(gen, 3, 2, 4, 4) == 0
    codes = model.encode(latent, clear)
    tensors = {"latent": latent, "clear": clear.long(), "codes": codes, "layout": model.layout(codes), "decoded": model.decode(codes)}
    save_case(clean(folder), model, tensors)


def cases() -> dict:
    found = {f"autoregress/{name}": partial(autoregressive, **config) for name, config in AUTOREGRESSIVE.items()}
    return found | {f"autoencoder/{name}": partial(codebook, **config) for name, config in CODEBOOK.items()}
