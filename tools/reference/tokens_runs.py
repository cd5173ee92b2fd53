"""Whole pictures by tokens, and by the hybrid: a tiny model with all optional components, its Gumbel noise, and every
number of a run. Codes are drawn by transformers' own logits warpers."""

from functools import partial
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, FlowMatchEulerDiscreteScheduler, PixArtTransformer2DModel
from transformers import BertConfig, BertModel, TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

import tokenizer
from common import clean, generator, randn, randomise, save_json, save_tensors
from sampler import Sampler
from tokens import InkbloomAutoregressive, InkbloomAutoregressiveConfig, InkbloomCodebook

from inkbloom_train.scorer_model import InkbloomScorer

CODES, GRIDS, CHANNELS, TEXT, TOKENS = (12, 10), (2, 4), 4, 12, 12
RUN = dict(prompt="3d emoji of a red apple", width=32, height=32, temperature=0.9, top_k=9, top_p=0.85, hybrid_steps=3, hybrid_guidance=2.0)
# The likeliest and the next sum of logit and noise must not be confused by rounding.
MARGIN = 1e-2


def denoiser(channels: int) -> PixArtTransformer2DModel:
    return PixArtTransformer2DModel(
        in_channels=channels, out_channels=CHANNELS, num_layers=1, num_attention_heads=2, attention_head_dim=8, cross_attention_dim=16,
        caption_channels=TEXT, sample_size=4, interpolation_scale=1, use_additional_conditions=False,
    )  # fmt: skip


def model(folder: Path, gen: torch.Generator) -> None:
    places = sum(side**2 for side in GRIDS)
    settings = InkbloomAutoregressiveConfig(
        vocab_size=sum(CODES) + places, codes=CODES, grids=GRIDS, text_embed_dim=TEXT, max_text_tokens=TOKENS, hidden_size=16,
        num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, intermediate_size=24, tie_word_embeddings=True,
        max_position_embeddings=TOKENS + places, guidance=(3.0, 1.5),
    )  # fmt: skip
    text = BertConfig(
        vocab_size=tokenizer.word_piece().get_vocab_size(), max_position_embeddings=TOKENS, hidden_size=TEXT, num_hidden_layers=1,
        num_attention_heads=2, intermediate_size=16,
    )  # fmt: skip
    blocks = dict(encoder_block_out_channels=(6,) * 4, decoder_block_out_channels=(6,) * 4)
    vae = AutoencoderTiny(in_channels=4, out_channels=4, latent_channels=CHANNELS, num_encoder_blocks=(1,) * 4, num_decoder_blocks=(1,) * 4, **blocks)
    scorer = InkbloomScorer(sample_size=8, block_out_channels=(8, 12), norm_num_groups=4, text_embed_dim=TEXT, projection_dim=6)
    components = dict(
        text_encoder=BertModel(text), transformer=denoiser(CHANNELS), vae=vae, scorer=scorer, hybrid=denoiser(2 * CHANNELS),
        codebook=InkbloomCodebook(codes=CODES, latent_channels=CHANNELS, grids=GRIDS, decoder_channels=6, decoder_blocks=1),
        autoregressive=InkbloomAutoregressive(settings),
    )  # fmt: skip
    for name, component in components.items():
        randomise(component, gen)
        if name == "codebook":
            component.residual.weight[0] = 0
        component.save_pretrained(folder / name)
    FlowMatchEulerDiscreteScheduler().save_pretrained(folder / "scheduler")
    (folder / "tokenizer").mkdir()
    tokenizer.word_piece().save(str(folder / "tokenizer" / "tokenizer.json"))
    library = {"text_encoder": "transformers", "transformer": "diffusers", "vae": "diffusers", "hybrid": "diffusers"}
    classes = {name: [library.get(name, "inkbloom"), type(component).__name__] for name, component in components.items()}
    classes |= dict(tokenizer=["transformers", "PreTrainedTokenizerFast"], scheduler=["diffusers", "FlowMatchEulerDiscreteScheduler"])
    index = dict(
        max_text_tokens=TOKENS, alpha="premultiplied", default_steps=2, default_guidance=1.0, sizes=[[32, 32]], styles=[],
        hybrid_steps=RUN["hybrid_steps"], hybrid_guidance=RUN["hybrid_guidance"],
    )  # fmt: skip
    save_json(folder / "model_index.json", dict(_class_name="InkbloomPipeline") | classes | index, indent=2)


def write_codes(ar: InkbloomAutoregressive, text: dict, empty: dict, gen: torch.Generator) -> dict[str, torch.Tensor]:
    """Codes [places, 2] with the noise and the guided logits of each draw; without a cache."""
    warpers = [TemperatureLogitsWarper(RUN["temperature"]), TopKLogitsWarper(RUN["top_k"]), TopPLogitsWarper(RUN["top_p"])]
    both = [torch.cat([empty[key], text[key]]) for key in ("text_embedding", "attention_mask")]
    codes, dump = torch.zeros(2, 0, 2, dtype=torch.long), {}

    def draw(place: int, second: int, logits: torch.Tensor) -> int:
        scale = ar.config.guidance[0 if place < ar.coarse else 1]
        guided = logits[:1] + scale * (logits[1:] - logits[:1])
        gumbel = -torch.log(-torch.log(torch.rand(guided.shape, generator=gen).clamp(1e-6, 1 - 1e-6)))
        name = f"{2 * place + second}"
        dump.update({f"logits.{name}": guided[0], f"gumbel.{name}": gumbel[0]})
        warped = guided
        for warper in warpers:
            warped = warper(None, warped)
        best = (warped + gumbel)[0].topk(2).values
        if best[0] - best[1] < MARGIN:
            raise ValueError(f"draw {name} is too close to call")
        return int((warped + gumbel)[0].argmax())

    for place in range(ar.places):
        hidden = ar.hidden(both[0], both[1].float(), codes, 0, place + 1)[:, -1]
        first = draw(place, 0, ar.first_logits(hidden))
        second = draw(place, 1, ar.residual_logits(hidden, torch.tensor([first] * 2))) if first else 0
        codes = torch.cat([codes, torch.tensor([[[first, second]]] * 2)], 1)
    return dump | {"tokens.coarse": codes[0, : ar.coarse], "tokens.fine": codes[0, ar.coarse :]}


def run(folder: Path) -> None:
    gen = generator(folder.name)
    model(clean(folder), gen)
    sampler = Sampler(folder)
    ar = InkbloomAutoregressive.from_pretrained(folder / "autoregressive").eval()
    codebook = InkbloomCodebook.from_pretrained(folder / "codebook").eval()
    text = sampler.encode(RUN["prompt"])
    dump = write_codes(ar, text, sampler.encode(""), gen)
    reference = dump | {key: text[key] for key in ("input_ids", "text_embedding")}
    save_tensors(folder / "reference.safetensors", reference | {"image": sampler.decode(codebook.decode(dump["tokens.fine"][None]))})

    layout = codebook.layout(dump["tokens.coarse"][None]).repeat_interleave(2, 2).repeat_interleave(2, 3)
    plain, hybrid = sampler.velocity, PixArtTransformer2DModel.from_pretrained(folder / "hybrid").eval()
    sampler.transformer = hybrid
    sampler.velocity = lambda x, *args: plain(torch.cat([x, layout], 1), *args)[:, :CHANNELS]
    noise = randn(gen, *sampler.latent_shape(32, 32))
    arguments = dict(steps=RUN["hybrid_steps"], guidance=RUN["hybrid_guidance"], height=32, width=32)
    save_tensors(folder / "hybrid.safetensors", sampler(RUN["prompt"], noise, **arguments) | {"tokens.coarse": dump["tokens.coarse"]})
    save_json(folder / "request.json", RUN, indent=2)


def cases() -> dict:
    return {"pipeline/tokens_tiny": partial(run)}
