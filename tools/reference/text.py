"""Text encoders: TokenIds -> TextEmbedding."""

from functools import partial
from pathlib import Path

from transformers import BertConfig, BertModel

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


def cases() -> dict:
    return {f"text/{name}": partial(bert, config=config) for name, config in BERT.items()}
