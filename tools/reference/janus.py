"""Janus: a language model that draws pictures as tokens, and its tokenizer of pictures."""

from functools import partial
from pathlib import Path

import torch
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers, processors
from transformers import (
    GenerationConfig,
    JanusConfig,
    JanusForConditionalGeneration,
    JanusVisionConfig,
    JanusVQVAEConfig,
    LlamaConfig,
    PreTrainedTokenizerFast,
)

from common import clean, generator, randint, randn, randomise, save_case, save_json

BOS, EOS, PAD, BOI = 0, 1, 2, 3
SPECIAL = ["<bos>", "<eos>", "<pad>", "<begin_of_image>", "<|User|>", "<|Assistant|>"]
WORDS = "<unk> : a the red blue green fox cat apple house tree of on and with two".split()
CODES, SIDE = 32, 4
PROMPT = "a red fox and two apple tree"
# Group norms of 32 groups ask for wide tokenizers: their weights are stored as f16, and everything is computed in f32.
STORED = torch.float16

JANUS = {
    "janus_pro": dict(
        guidance=5.0, text=dict(hidden_size=32, intermediate_size=48, num_attention_heads=4, num_key_value_heads=4),
        vq=dict(channel_multiplier=[2, 1], num_hidden_layers=2),
    ),
    "janus_one_level": dict(
        guidance=1.5, text=dict(hidden_size=24, intermediate_size=32, num_attention_heads=6, num_key_value_heads=2),
        vq=dict(channel_multiplier=[1], num_hidden_layers=1, hidden_act="gelu_new"),
    ),
}  # fmt: skip


def tokenizer() -> PreTrainedTokenizerFast:
    """Words, with a token before them that begins the text, as the published tokenizer's post-processor puts it."""
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(SPECIAL + WORDS)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    inner.post_processor = processors.TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens={"boi_token": "<begin_of_image>"},
    )  # fmt: skip


def janus(folder: Path, guidance: float, text: dict, vq: dict, draw: int = 0) -> None:
    """`draw` chooses other weights, where the first would always give the same token."""
    gen = generator(f"{folder.name}{draw or ''}")
    width = text["hidden_size"]
    config = JanusConfig(
        text_config=LlamaConfig(
            vocab_size=len(SPECIAL + WORDS), num_hidden_layers=2, max_position_embeddings=64, bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD,
            **text,
        ),
        vision_config=JanusVisionConfig(
            hidden_size=8, num_hidden_layers=1, num_attention_heads=1, image_size=4 * SIDE, patch_size=4, mlp_ratio=1.0,
            projection_dim=width, depth=1, num_image_tokens=SIDE**2,
        ),
        vq_config=JanusVQVAEConfig(
            embed_dim=6, num_embeddings=CODES, latent_channels=10, base_channels=32, num_res_blocks=1, projection_dim=width,
            image_token_embed_dim=width, **vq,
        ),
    )  # fmt: skip
    model = randomise(JanusForConditionalGeneration(config), gen, STORED)
    vqmodel, factor = model.model.vqmodel, 2 ** (len(vq["channel_multiplier"]) - 1)
    model.generation_config = GenerationConfig(
        bos_token_id=BOS, eos_token_id=EOS, pad_token_id=PAD, guidance_scale=guidance, generation_kwargs={"boi_token_id": BOI}
    )

    # The published chat template, filled in, and what the processor appends for pictures.
    words = tokenizer()
    ids = words(f"<|User|>: {PROMPT}\n\n<|Assistant|>:<begin_of_image>", return_tensors="pt").input_ids
    if ids[0, 0] != BOS or ids[0, -1] != BOI:
        raise ValueError(f"{folder}: the prompt reads {ids}")
    seen = []
    hook = model.model.generation_head.register_forward_hook(lambda _module, _inputs, scores: seen.append(scores))
    tokens = model.generate(
        ids, attention_mask=torch.ones_like(ids), generation_mode="image", do_sample=False, guidance_scale=guidance
    )
    hook.remove()
    logits = torch.stack([guided(scores, guidance) for scores in seen])
    best = logits.topk(2).values
    if (best[:, 0] - best[:, 1]).min() < 1e-3 or tokens.unique().numel() < 4:
        return janus(folder, guidance, text, vq, draw + 1)

    # Other tokens, all at once and without a cache.
    given = randint(gen, CODES, 1, SIDE**2)
    empty = ids.where((ids == BOS) | (ids == BOI), PAD)
    prefix = model.get_input_embeddings()(torch.cat([ids, empty]))
    codes = model.prepare_embeddings_for_image_generation(given[:, :-1]).repeat(2, 1, 1)
    hidden = model.model.language_model(inputs_embeds=torch.cat([prefix, codes], 1)).last_hidden_state
    scores = model.model.generation_head(hidden[:, ids.shape[1] - 1 :])

    image = randn(gen, 1, 3, SIDE * factor, SIDE * factor).clamp(-1, 1)
    encoded = vqmodel.encode(image)
    tensors = {
        "input_ids": ids,
        "tokens": tokens,
        "logits": logits,
        "given_tokens": given,
        "given_logits": guided(scores, guidance),
        "decoded": vqmodel.decode(tokens),
        "image": image,
        "latents": vqmodel.quant_conv(encoded.last_hidden_state),
        "codes": encoded.image_tokens.reshape(1, -1),
    }
    save_case(clean(folder), model, tensors, STORED)
    words.save_pretrained(folder)
    save_json(folder / "request.json", {"prompt": PROMPT})


def guided(scores: torch.Tensor, guidance: float) -> torch.Tensor:
    conditional, unguided = scores.chunk(2)
    return (unguided + guidance * (conditional - unguided)).squeeze(0)


def cases() -> dict:
    return {f"autoregress/{name}": partial(janus, **config) for name, config in JANUS.items()}
