"""GLM-Image: a language model lays a picture out as tokens, a small grid and then a large one, and a transformer draws it."""

from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, GlmImagePipeline, GlmImageTransformer2DModel
from tokenizers import AddedToken, Tokenizer, models, pre_tokenizers
from transformers import (
    ByT5Tokenizer,
    GlmImageConfig,
    GlmImageForConditionalGeneration,
    GlmImageImageProcessor,
    GlmImageProcessor,
    LogitsProcessor,
    PreTrainedTokenizerFast,
    T5Config,
    T5EncoderModel,
)

from common import clean, generator, randint, randn, randomise, save_case, save_json, save_tensors

CODES, START, END, VISION, VOCABULARY = 20, 20, 21, 24, 80
# What the processor makes of a picture of 64 x 32 pixels: 2 x 1 tokens, and before them the small grid.
SMALL, LARGE = (22, 11), (2, 1)
STORED = torch.float16

LANGUAGE = {
    # Half of each head turns, as in the published model.
    "glm_image_half": dict(
        hidden_size=32, intermediate_size=40, num_attention_heads=4, num_key_value_heads=2, small=(4, 3), large=(3, 5),
        rope_parameters=dict(rope_type="default", rope_theta=10000.0, partial_rotary_factor=0.5, mrope_section=[1, 1, 0]),
    ),
    "glm_image_whole": dict(
        hidden_size=36, intermediate_size=24, num_attention_heads=3, num_key_value_heads=1, attention_bias=False, hidden_act="gelu_new",
        rope_parameters=dict(rope_type="default", rope_theta=500.0, partial_rotary_factor=1.0, mrope_section=[2, 1, 3]), small=SMALL, large=LARGE,
    ),
}  # fmt: skip


def language_model(gen: torch.Generator, **text) -> GlmImageForConditionalGeneration:
    config = GlmImageConfig(
        text_config=dict(
            vocab_size=VOCABULARY, vision_vocab_size=VISION, num_hidden_layers=2, max_position_embeddings=512, pad_token_id=VISION, eos_token_id=END,
        ) | text,
        vision_config=dict(depth=1, hidden_size=8, num_heads=1, intermediate_size=8, patch_size=16),
        vq_config=dict(embed_dim=8, num_embeddings=CODES, latent_channels=8),
        image_token_id=VISION + 1, image_start_token_id=START, image_end_token_id=END,
    )  # fmt: skip
    return randomise(GlmImageForConditionalGeneration(config), gen, STORED)


def seen_by_us(model: GlmImageForConditionalGeneration) -> dict[str, torch.Tensor]:
    """Without what looks at pictures."""
    unseen = ("model.visual.", "model.vqmodel.")
    return {name: value.to(STORED) for name, value in model.state_dict().items() if not name.startswith(unseen)}


class Given(LogitsProcessor):
    """Has `generate` draw these tokens."""

    def __init__(self, tokens: torch.Tensor) -> None:
        self.tokens, self.place = tokens.tolist(), 0

    def __call__(self, _ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        token, self.place = self.tokens[self.place], self.place + 1
        forced = torch.full_like(scores, -torch.inf)
        forced[:, token] = 0
        return forced


def language(folder: Path, small: tuple[int, int], large: tuple[int, int], **text) -> None:
    gen = generator(folder.name)
    model = language_model(gen, **text)
    places = small[0] * small[1] + large[0] * large[1]
    ids = torch.cat([randint(gen, VOCABULARY, 1, 7, low=VISION + 2), torch.tensor([[START]])], 1)
    tokens = randint(gen, CODES, places)
    # The reference draws the last grid first.
    grids = torch.tensor([[1, *large], [1, *small]])
    written = model.generate(
        ids, attention_mask=torch.ones_like(ids), image_grid_thw=grids, images_per_sample=torch.tensor([2]), max_new_tokens=places + 1,
        logits_processor=[Given(torch.cat([tokens, torch.tensor([END])]))], do_sample=False, return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    if written.sequences[0, ids.shape[1] : -1].tolist() != tokens.tolist():
        raise ValueError(f"{folder}: generate drew other tokens")
    logits = torch.cat(written.logits[:places])
    # All at once and without a cache, at the places that it used.
    prompt = torch.arange(ids.shape[1]).expand(3, 1, -1)
    placed = torch.cat([prompt, model.model._cached_decode_position_ids.permute(1, 0, 2)], 2)
    whole = torch.cat([ids, tokens[None]], 1)
    at_once = model(whole, position_ids=placed[:, :, : whole.shape[1]], attention_mask=torch.ones_like(whole)).logits[0, ids.shape[1] - 1 : -1]
    if not torch.allclose(at_once, logits, atol=1e-4):
        raise ValueError(f"{folder}: the cache changes the logits by {(at_once - logits).abs().max()}")
    reference = dict(input_ids=ids, tokens=tokens, logits=logits[:, :CODES], small=torch.tensor(small), large=torch.tensor(large))
    save_case(clean(folder), model, reference, STORED, state_dict=seen_by_us(model))


SPECIAL = ["<|endoftext|>", "<|image|>", "<sop>", "<eop>", "<|user|>", "<|unknown|>"]
# Not the published template, which is read as it lies there.
TEMPLATE = "[gMASK]{% for message in messages %}<|{{ message.role }}|>\n{% for item in message.content %}{% if item.type == 'text' %}{{ item.text }}{% endif %}{% endfor %}{% endfor %}"
WORDS = "[gMASK] a the red sign that says open and no ' \" . < > |".split() + [str(number) for number in range(1, 24)]
RUN = dict(prompt="a red sign that says \"OPEN\" and 'no'", height=64, width=32, steps=3, guidance=1.5)


def processor() -> GlmImageProcessor:
    """Ids of codes come first, as in the published vocabulary; then words."""
    codes = [f"<|dit_token_{code}|>" for code in range(VISION)]
    inner = Tokenizer(models.WordLevel({token: i for i, token in enumerate(codes + SPECIAL + WORDS)}, unk_token="<|unknown|>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    inner.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in [*SPECIAL, codes[START], "[gMASK]"]])
    words = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<|endoftext|>", bos_token=codes[START], unk_token="<|unknown|>", padding_side="left",
        extra_special_tokens=dict(image_token="<|image|>", grid_bos_token="<sop>", grid_eos_token="<eop>"),
    )  # fmt: skip
    return GlmImageProcessor(GlmImageImageProcessor(), words, chat_template=TEMPLATE)


def pipeline(folder: Path) -> None:
    gen = generator(folder.name)
    channels, glyphs = 4, 12
    transformer = GlmImageTransformer2DModel(
        in_channels=channels, out_channels=channels, num_layers=2, attention_head_dim=8, num_attention_heads=2, text_embed_dim=glyphs,
        time_embed_dim=12, condition_dim=6, prior_vq_quantizer_codebook_size=CODES,
    )  # fmt: skip
    vae = AutoencoderKL(
        block_out_channels=(4, 4, 4, 8), down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4, layers_per_block=1,
        latent_channels=channels, norm_num_groups=2, sample_size=64, latents_mean=[0.1, -0.2, 0.3, 0.0], latents_std=[0.8, 1.1, 1.3, 0.9],
        scaling_factor=1.0, use_quant_conv=False, use_post_quant_conv=False, mid_block_add_attention=False,
    )  # fmt: skip
    encoder = T5Config(
        vocab_size=384, d_model=glyphs, d_kv=6, d_ff=16, num_layers=1, num_heads=2, feed_forward_proj="gated-gelu", relative_attention_num_buckets=8,
        relative_attention_max_distance=20,
    )  # fmt: skip
    words = processor()
    language = language_model(gen, **{key: value for key, value in LANGUAGE["glm_image_half"].items() if key not in ("small", "large")})
    pipe = GlmImagePipeline(
        tokenizer=ByT5Tokenizer(), processor=words, text_encoder=randomise(T5EncoderModel(encoder), gen), vision_language_encoder=language,
        vae=randomise(vae, gen), transformer=randomise(transformer, gen),
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, time_shift_type="linear", base_shift=0.25, max_shift=0.75),
    )  # fmt: skip
    pipe.set_progress_bar_config(disable=True)
    seen: dict[str, torch.Tensor] = {}
    generate = language.generate

    def watched(**inputs):
        seen["input_ids"] = inputs["input_ids"]
        places = inputs["max_new_tokens"] - 1
        tokens = randint(gen, CODES, places)
        written = generate(
            **inputs, logits_processor=[Given(torch.cat([tokens, torch.tensor([END])]))], return_dict_in_generate=True, output_logits=True
        )
        seen["tokens"], seen["logits"] = tokens, torch.cat(written.logits[:places])[:, :CODES]
        return written.sequences

    language.generate = watched
    height, width = RUN["height"], RUN["width"]
    noise = randn(gen, 1, channels, height // 8, width // 8)
    latents = {"latent.0": noise}

    def after(_pipe, step, _sigma, values):
        latents[f"latent.{step + 1}"] = values["latents"].clone()
        return {}

    result = pipe(
        RUN["prompt"], height=height, width=width, num_inference_steps=RUN["steps"], guidance_scale=RUN["guidance"], latents=noise, output_type="pt",
        callback_on_step_end=after,
    )  # fmt: skip
    timesteps = pipe.scheduler.timesteps
    mean, std = (torch.tensor(values).view(1, -1, 1, 1) for values in (vae.config.latents_mean, vae.config.latents_std))
    image = vae.decode(latents[f"latent.{RUN['steps']}"] * std + mean, return_dict=False)[0]
    if not torch.allclose((image / 2 + 0.5).clamp(0, 1), result.images, atol=1e-5):
        raise ValueError(f"{folder}: the picture is not that of the last latent")
    glyph_embeds, _ = pipe.encode_prompt(RUN["prompt"], True)
    del language.generate
    pipe.save_pretrained(clean(folder))
    language.to(STORED).save_pretrained(folder / "vision_language_encoder", state_dict=seen_by_us(language))
    reference = seen | latents | dict(noise=noise, timesteps=timesteps, glyphs=glyph_embeds, image=image)
    save_tensors(folder / "reference.safetensors", reference)
    save_json(folder / "request.json", RUN, indent=2)


def cases() -> dict:
    return {f"autoregress/{name}": partial(language, **case) for name, case in LANGUAGE.items()} | {"pipeline/glm_image": partial(pipeline)}
