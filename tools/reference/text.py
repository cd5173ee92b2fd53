"""Text encoders: TokenIds -> TextEmbedding."""

from functools import partial
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import (
    BertConfig,
    BertModel,
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
    T5Config,
    T5EncoderModel,
)

from common import clean, generator, padding_mask, randint, randomise, save_case

BERT = {
    "bert_minilm": dict(hidden_size=48, num_hidden_layers=3, num_attention_heads=4, intermediate_size=96),
    "bert_three_heads": dict(
        hidden_size=36, num_hidden_layers=2, num_attention_heads=3, intermediate_size=60,
        hidden_act="gelu_new", layer_norm_eps=1e-5,
    ),
    "bert_one_layer": dict(
        hidden_size=24, num_hidden_layers=1, num_attention_heads=1, intermediate_size=40,
        hidden_act="relu", layer_norm_eps=1e-3, type_vocab_size=1, pad_token_id=3,
    ),
}


def bert(folder: Path, config: dict) -> None:
    gen = generator(folder.name)
    model = randomise(BertModel(BertConfig(vocab_size=120, max_position_embeddings=24, **config)), gen)
    tokens, lengths = 11, [11, 6, 2]
    mask = padding_mask(lengths, tokens)
    ids = randint(gen, 120, len(lengths), tokens).where(mask.bool(), model.config.pad_token_id)
    out = model(input_ids=ids, attention_mask=mask).last_hidden_state
    save_case(clean(folder), model, dict(input_ids=ids, attention_mask=mask, last_hidden_state=out))


CLIP_VOCABULARY = 90
BOS, EOS = CLIP_VOCABULARY - 2, CLIP_VOCABULARY - 1

# `lengths` count the tokens from BOS to EOS; `masked` hands the padding mask on, as some callers do.
CLIP = {
    "clip_sd15": dict(
        model=CLIPTextModel, lengths=[12, 7, 2], pad=EOS, masked=False,
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=4, eos_token_id=EOS,
    ),
    # Every published CLIP says eos_token_id 2, which means: the place of the highest id.
    "clip_sd2": dict(
        model=CLIPTextModel, lengths=[12, 5], pad=0, masked=False,
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=3, hidden_act="gelu",
        eos_token_id=2, published_names=True,
    ),
    "clip_projection": dict(
        model=CLIPTextModelWithProjection, lengths=[9, 12], pad=0, masked=False,
        hidden_size=30, intermediate_size=50, num_hidden_layers=4, num_attention_heads=5, hidden_act="gelu",
        projection_dim=20, eos_token_id=2, layer_norm_eps=1e-4,
    ),
    "clip_projection_masked": dict(
        model=CLIPTextModelWithProjection, lengths=[3, 12, 8], pad=EOS, masked=True,
        hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=1, projection_dim=28,
        eos_token_id=EOS,
    ),
    "clip_one_layer": dict(
        model=CLIPTextModel, lengths=[6], pad=EOS, masked=True,
        hidden_size=20, intermediate_size=20, num_hidden_layers=1, num_attention_heads=2, hidden_act="gelu_new",
        eos_token_id=EOS,
    ),
}

T5 = {
    "t5_gated": dict(
        tokens=14, d_model=32, d_kv=8, d_ff=48, num_layers=3, num_heads=3, feed_forward_proj="gated-gelu"
    ),
    "t5_relu": dict(
        tokens=11, d_model=20, d_kv=12, d_ff=40, num_layers=2, num_heads=2, feed_forward_proj="relu",
        layer_norm_epsilon=1e-4,
    ),
    # Longer than max_distance: the last bucket of each side is shared.
    "t5_far": dict(
        tokens=70, d_model=16, d_kv=8, d_ff=24, num_layers=2, num_heads=1, feed_forward_proj="gated-gelu",
        relative_attention_num_buckets=12, relative_attention_max_distance=30,
    ),
    "t5_default_buckets": dict(
        tokens=150, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=4, feed_forward_proj="gated-silu"
    ),
}


def to_published_names(path: Path) -> None:
    """What transformers 4 wrote and the hubs hold: a prefix, and the positions as a buffer."""
    tensors = {f"text_model.{name}": tensor for name, tensor in load_file(path).items()}
    positions = tensors["text_model.embeddings.position_embedding.weight"].shape[0]
    tensors["text_model.embeddings.position_ids"] = torch.arange(positions)[None]
    save_file(tensors, path, metadata=dict(format="pt"))


def clip(
    folder: Path, model, lengths: list[int], pad: int, masked: bool, published_names: bool = False, **config
) -> None:
    gen = generator(folder.name)
    encoder = model(CLIPTextConfig(vocab_size=CLIP_VOCABULARY, max_position_embeddings=16, bos_token_id=BOS, **config))
    randomise(encoder, gen)
    tokens = 12
    mask = padding_mask(lengths, tokens)
    ids = randint(gen, BOS, len(lengths), tokens, low=3).where(mask.bool(), pad)
    ids[:, 0] = BOS
    ids[torch.arange(len(lengths)), torch.tensor(lengths) - 1] = EOS
    out = encoder(input_ids=ids, attention_mask=mask if masked else None, output_hidden_states=True)
    tensors = {
        "input_ids": ids,
        "last_hidden_state": out.last_hidden_state,
        "hidden_states.-2": out.hidden_states[-2],
    }
    if masked:
        tensors["attention_mask"] = mask
    if model is CLIPTextModelWithProjection:
        tensors["text_embeds"] = out.text_embeds
    else:
        tensors["pooler_output"] = out.pooler_output
    save_case(clean(folder), encoder, tensors)
    if published_names:
        to_published_names(folder / "model.safetensors")


def t5(folder: Path, tokens: int, **config) -> None:
    gen = generator(folder.name)
    model = randomise(T5EncoderModel(T5Config(vocab_size=80, **config)), gen)
    lengths = [tokens, tokens // 2]
    mask = padding_mask(lengths, tokens)
    ids = randint(gen, 80, len(lengths), tokens).where(mask.bool(), 0)
    out = model(input_ids=ids, attention_mask=mask).last_hidden_state
    save_case(clean(folder), model, dict(input_ids=ids, attention_mask=mask, last_hidden_state=out))


DECODERS = {
    "llama_plain": dict(
        model=LlamaForCausalLM, config=LlamaConfig, hidden_size=32, intermediate_size=48, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=4, max_position_embeddings=64,
    ),
    "llama_grouped_biases": dict(
        model=LlamaForCausalLM, config=LlamaConfig, hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=6,
        num_key_value_heads=2, max_position_embeddings=64, attention_bias=True, mlp_bias=True, rms_norm_eps=1e-5, hidden_act="gelu",
        head_dim=8, rope_parameters={"rope_type": "default", "rope_theta": 200.0},
    ),
    # As Llama 3.2, with a first training short enough that turns of all three kinds are among its eight.
    "llama_3_scaled": dict(
        model=LlamaForCausalLM, config=LlamaConfig, hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=64, rope_parameters={
            "rope_type": "llama3", "rope_theta": 500.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    ),
    "llama_linear_scaled": dict(
        model=LlamaForCausalLM, config=LlamaConfig, hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=64, rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0},
    ),
    "qwen3_grouped": dict(
        model=Qwen3ForCausalLM, config=Qwen3Config, hidden_size=20, intermediate_size=36, num_hidden_layers=3, num_attention_heads=4,
        num_key_value_heads=2, head_dim=12, max_position_embeddings=64,
        rope_parameters={"rope_type": "default", "rope_theta": 1000000.0},
    ),
}  # fmt: skip


def decoder(folder: Path, model, config, **sizes) -> None:
    gen = generator(folder.name)
    language = randomise(model(config(vocab_size=70, **sizes)), gen)
    tokens, lengths = 13, [13, 9, 4]
    mask = padding_mask(lengths, tokens)
    ids = randint(gen, 70, len(lengths), tokens).where(mask.bool(), 0)
    out = language(input_ids=ids, attention_mask=mask, output_hidden_states=True)
    tensors = dict(input_ids=ids, attention_mask=mask, last_hidden_state=out.hidden_states[-1])
    tensors["hidden_states.-2"] = out.hidden_states[-2]
    save_case(clean(folder), language, tensors)
    (folder / "generation_config.json").unlink()  # nothing reads it


def cases() -> dict:
    return (
        {f"text/{name}": partial(bert, config=config) for name, config in BERT.items()}
        | {f"text/{name}": partial(clip, **config) for name, config in CLIP.items()}
        | {f"text/{name}": partial(t5, **config) for name, config in T5.items()}
        | {f"text/{name}": partial(decoder, **config) for name, config in DECODERS.items()}
    )
