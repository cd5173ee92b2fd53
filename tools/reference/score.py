"""The scorer: pictures and text -> one number each. The class is ours, in tools/train."""

import sys
from functools import partial
from pathlib import Path

from common import clean, generator, padding_mask, randn, randomise, save_case

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "train"))
from inkbloom_train.scorer_model import InkbloomScorer, pool  # noqa: E402

# `size` is the pictures' height and width, in whole multiples of sample_size and of its reduction.
SCORER = {
    "scorer_halved": dict(size=(32, 32), sample_size=16, block_out_channels=(8, 12, 16, 24), norm_num_groups=4, text_embed_dim=20, projection_dim=12),
    "scorer_wide_picture": dict(
        size=(24, 45), in_channels=3, sample_size=8, block_out_channels=(6, 10), norm_num_groups=2, norm_eps=1e-3, act_fn="gelu",
        text_embed_dim=14, projection_dim=9,
    ),
    "scorer_as_it_is": dict(size=(16, 16), sample_size=16, block_out_channels=(9, 6, 3), norm_num_groups=3, act_fn="relu", text_embed_dim=10, projection_dim=7),
}  # fmt: skip


def scorer(folder: Path, size: tuple[int, int], **config) -> None:
    gen = generator(folder.name)
    model = randomise(InkbloomScorer(**config), gen)
    tokens, lengths = 7, [7, 3]
    sample = randn(gen, 3, model.config.in_channels, *size).clamp(-1, 1)
    hidden = randn(gen, len(lengths), tokens, model.config.text_embed_dim)
    mask = padding_mask(lengths, tokens)
    tensors = {
        "sample": sample,
        "encoder_hidden_states": hidden,
        "encoder_attention_mask": mask,
        "features": model.features(sample),
        "image_embeds": model.image_embeds(model.features(sample)),
        "text_embeds": model.text_embeds(pool(hidden, mask)),
        "output": model(sample, hidden, mask),
    }
    save_case(clean(folder), model, tensors)


def cases() -> dict:
    return {f"score/{name}": partial(scorer, **config) for name, config in SCORER.items()}
