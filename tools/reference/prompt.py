"""Prompts -> TokenIds: padded and truncated as transformers does it."""

from functools import partial
from pathlib import Path

import tokenizer
from common import clean, save_json

PROMPTS = [
    "",
    " ",
    "a",
    "3d emoji of a red apple",
    "3D Emoji Of A RED Apple",
    "flat emoji of a smiling cat, wearing a crown!",
    "a strawberry-cake; (with) [brackets] {braces} <angles> & 100% \"quotes\" 'single'",
    "  leading and   many    inner spaces and trailing   ",
    "line one\nline two\r\nline three\ttab",
    "café crème brûlée naïve façade",
    "cafe\u0301 with a combining accent",
    "ÀÉÎÕÜ ŁØÐ ß straße İstanbul ıŞĞ",
    "猫と犬 a 星 of 龙",
    "🍎 apple 🐈‍⬛ cat 👩🏽‍🚀 astronaut 🇫🇷",
    "привет мир γειά σου κόσμε",
    "שלום עולם مرحبا بالعالم नमस्ते",
    "zero\u200bwidth no\u00a0break soft\u00adhyphen \ufeffbom \u0000nul \u0007bell \ufffdreplacement",
    "fullwidth ＡＢＣ １２３ ﬁ ligature ½ ² ™",
    "don't can't it's we'll I'm you're they've he'd",
    "x_1 + y^2 = z*3 / 4 ~ 5 | 6 \\ 7 @home #tag $9.99 a.b.c",
    "qqq zzz xylophone quetzal",
    "supercalifragilisticexpialidocious" * 4,
    "[CLS] a cat [SEP] [MASK] [PAD] [UNK]",
    "<|startoftext|> a cat <|endoftext|>",
    "a</s>b <pad> <unk> <extra_id_0>",
    "a bold flat emoji of a happy panda riding a bike over a rainbow bridge with a balloon and a book and a key",
    "cat " * 100,
    "a cat" + "!" * 40,
]


def prompts(folder: Path, build, pad_token: str, max_text_tokens: int) -> None:
    fast = tokenizer.with_pad(build(), pad_token)
    clean(folder)
    fast.backend_tokenizer.save(str(folder / "tokenizer.json"))
    expected = []
    for prompt in PROMPTS:
        padded = fast(prompt, padding="max_length", truncation=True, max_length=max_text_tokens)
        expected.append(
            dict(
                prompt=prompt,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                truncated=len(fast(prompt, truncation=False).input_ids) > max_text_tokens,
            )
        )
    save_json(
        folder / "prompts.json",
        dict(max_text_tokens=max_text_tokens, pad_token_id=fast.pad_token_id, prompts=expected),
        indent=1,
    )


CASES = {
    "word_piece": dict(build=tokenizer.word_piece, pad_token="[PAD]", max_text_tokens=24),
}


def cases() -> dict:
    return {f"prompt/{name}": partial(prompts, **case) for name, case in CASES.items()}
