"""Prompts -> TokenIds: padded and truncated as transformers does it."""

from functools import partial
from pathlib import Path

import tokenizer
from common import clean, save_json

MAX_TEXT_TOKENS = 24

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


def prompts(folder: Path, build) -> None:
    fast = build()
    clean(folder)
    fast.backend_tokenizer.save(str(folder / "tokenizer.json"))
    expected = []
    for prompt in PROMPTS:
        padded = fast(prompt, padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS)
        expected.append(
            dict(
                prompt=prompt,
                input_ids=padded.input_ids,
                attention_mask=padded.attention_mask,
                truncated=len(fast(prompt, truncation=False).input_ids) > MAX_TEXT_TOKENS,
            )
        )
    value = dict(max_text_tokens=MAX_TEXT_TOKENS, pad_token_id=fast.pad_token_id, prompts=expected)
    save_json(folder / "prompts.json", value, indent=1)


def clip_files(folder: Path) -> None:
    """The published folders of Stable Diffusion have these two files and no tokenizer.json."""
    prompts(folder, tokenizer.clip)
    vocabulary, merges = tokenizer.clip_vocabulary()
    save_json(folder / "vocab.json", vocabulary)
    lines = ["#version: 0.2", *(" ".join(pair) for pair in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n")


def cases() -> dict:
    return {
        "prompt/word_piece": partial(prompts, build=tokenizer.bert),
        "prompt/clip": clip_files,
        "prompt/clip_pad_zero": partial(prompts, build=partial(tokenizer.clip, pad_token="!")),
        "prompt/t5": partial(prompts, build=tokenizer.t5),
    }
