"""Prompts -> TokenIds: padded and truncated as transformers does it."""

import json
import tempfile
from functools import partial
from pathlib import Path

import tokenizer
from common import clean, save_json
from diffusers.loaders import TextualInversionLoaderMixin
from transformers import CLIPTokenizer, T5Tokenizer

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


def added(content: str, **flags) -> dict:
    off = dict(lstrip=False, rstrip=False, normalized=False, single_word=False, special=False)
    return {"content": content, **off, **flags}


def learnt_files() -> dict:
    """What people and libraries of different ages leave beside `vocab.json` and `merges.txt`, or `tokenizer.json`."""
    n = len(tokenizer.clip_vocabulary()[0])
    begin, end = added("<|startoftext|>", normalized=True, special=True), added("<|endoftext|>", special=True)
    decoder = {str(n - 2): begin, str(n - 1): end}
    old_dict = dict(content="<|startoftext|>", lstrip=False, normalized=True, rstrip=False, single_word=False)
    config = "tokenizer_config.json"
    return {
        "bare": {},
        "added": {"added_tokens.json": {"<sks>": n, "<x>": n + 1, "<BIG>": n + 2, "cat": n + 3}},
        "places": {"added_tokens.json": {"<sks>": n + 5, "<x>": n + 1}, config: {"model_max_length": 77}},
        "decoder": {
            config: {
                "added_tokens_decoder": decoder
                | {
                    str(n + 2): added("my dog", single_word=True),
                    str(n): added("<sks>", normalized=True),
                    str(n + 1): added("<x>", lstrip=True, rstrip=True),
                    str(n + 3): {"content": "<less>"},
                },
                # Both of these are then not looked at.
                "pad_token": "!",
            },
            "added_tokens.json": {"<never>": n},
            "special_tokens_map.json": {"pad_token": "<|endoftext|>", "additional_special_tokens": ["<no>"]},
        },
        "empty decoder": {config: {"added_tokens_decoder": {}}, "added_tokens.json": {"<sks>": n}},
        "map": {
            "special_tokens_map.json": {
                "bos_token": old_dict,
                "pad_token": "!",
                "additional_special_tokens": ["<sks>", "<x>"],
            },
            "added_tokens.json": {"<sks>": n},
            config: {"pad_token": "<|endoftext|>"},
        },
        "map with flags": {"special_tokens_map.json": {"extra_special_tokens": [old_dict | dict(content="<sks>", lstrip=True)]}},
        "typed": {config: {"bos_token": {"__type": "AddedToken", **old_dict}, "additional_special_tokens": ["<sks>"]}},
        "named": {config: {"extra_special_tokens": {"thing": "<sks>"}, "other_token": "<x>", "mask_token": "<mask>"}},
        "new padding": {config: {"pad_token": "[PAD]"}},
        "left": {config: {"padding_side": "left", "truncation_side": "left"}},
        "vectors": {"added_tokens.json": {"<sks>": n, "<sks>_1": n + 1, "<sks>_2": n + 2, "<x>": n + 3, "<x>_2": n + 4}},
        "json": {"tokenizer.json": [], "added_tokens.json": {"<sks>": n}},
        "json with words": {"tokenizer.json": [added("<sks>"), added("<x>", lstrip=True)]},
        "json and added": {"tokenizer.json": [added("<x>")], "added_tokens.json": {"<sks>": n + 1}},
        "json and decoder": {
            "tokenizer.json": [added("<old>")],
            config: {"added_tokens_decoder": decoder | {str(n): added("<sks>")}},
        },
    }


LEARNT_PROMPTS = [
    "a photo of <sks>",
    "<SKS> cat <X>",
    "a<sks>b <x>,<big> <BIG>",
    "a  <x>  b",
    "a   <sks>   b",
    "my dog, my dogs and My Dog",
    "<sks> <sks>_1 <sks> <x>",
    "<|STARTOFTEXT|> a <less> <never> <no> <mask> <old> thing",
    "cat cats concat",
    "a red apple " * 8 + "<sks>",
]


def learnt(folder: Path) -> None:
    """CLIP's with learnt words (textual inversion); a word of several vectors as diffusers' pipelines spell it out."""
    vocabulary, merges = tokenizer.clip_vocabulary()
    clean(folder)
    cases = []
    for name, files in learnt_files().items():
        with tempfile.TemporaryDirectory() as path:
            path = Path(path)
            if "tokenizer.json" in files:
                whole = json.loads(tokenizer.clip().backend_tokenizer.to_str())
                words = files["tokenizer.json"]
                whole["added_tokens"] += [{"id": len(vocabulary) + i, **word} for i, word in enumerate(words)]
                (path / "tokenizer.json").write_text(json.dumps(whole))
            else:
                (path / "vocab.json").write_text(json.dumps(vocabulary))
                (path / "merges.txt").write_text("\n".join(["#version: 0.2", *(" ".join(m) for m in merges)]) + "\n")
            for file, value in files.items():
                if file != "tokenizer.json":
                    (path / file).write_text(json.dumps(value))
            clip = CLIPTokenizer.from_pretrained(path)
            rows = []
            for prompt in LEARNT_PROMPTS:
                said = TextualInversionLoaderMixin().maybe_convert_prompt(prompt, clip)
                ids = clip(said, padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS).input_ids
                rows.append(dict(prompt=prompt, input_ids=ids))
            cases.append(dict(name=name, files=files, prompts=rows))
    save_json(folder / "cases.json", dict(max_text_tokens=MAX_TEXT_TOKENS, cases=cases))


# What the normalizer of the model below replaces: code points, as SentencePiece's rules have them.
RULES = "FF21\t61\nA0\t20\n200B\t20\nFB01\t66 69\n9\t20\nA\t20\nD A\t20\nD\t20\n"


def spiece(folder: Path) -> None:
    """T5's published folders have this model and no tokenizer.json."""
    import io
    import random

    import sentencepiece

    clean(folder)
    draw = random.Random(0)
    lines = (" ".join(draw.choice(tokenizer.WORDS) for _ in range(8)) for _ in range(4000))
    model = io.BytesIO()
    with tempfile.NamedTemporaryFile("w", suffix=".tsv") as rules:
        rules.write(RULES)
        rules.flush()
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=lines,
            model_writer=model,
            vocab_size=200,
            pad_id=0,
            eos_id=1,
            unk_id=2,
            bos_id=-1,
            user_defined_symbols=["<ink>"],
            normalization_rule_tsv=rules.name,
            num_threads=1,
            minloglevel=2,
        )
    (folder / "spiece.model").write_bytes(model.getvalue())
    special = dict(normalized=False, special=True)
    places = {f"<extra_id_{i}>": 203 - i for i in range(4)}
    names = {0: "<pad>", 1: "</s>", 2: "<unk>"} | {place: token for token, place in places.items()}
    published = {
        "additional_special_tokens": list(places),
        "added_tokens_decoder": {str(place): added(token, **special) for place, token in names.items()},
        "eos_token": "</s>",
        "extra_ids": 4,
        "model_max_length": 512,
        "pad_token": "<pad>",
        "tokenizer_class": "T5Tokenizer",
        "unk_token": "<unk>",
    }
    variants = [{}, {"extra_ids": 4}, published, {"extra_ids": 4, "extra_special_tokens": ["<sks>"]}]
    cases = []
    for config in variants:
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        t5 = T5Tokenizer.from_pretrained(folder)
        rows = []
        for prompt in [*PROMPTS, "a <ink> cat <sks> Ａ\u00a0dog", " <extra_id_3> a<extra_id_0>b"]:
            padded = t5(prompt, padding="max_length", truncation=True, max_length=MAX_TEXT_TOKENS)
            rows.append(dict(prompt=prompt, input_ids=padded.input_ids, attention_mask=padded.attention_mask))
        cases.append(dict(config=config, prompts=rows))
    (folder / "tokenizer_config.json").unlink()
    save_json(folder / "cases.json", dict(max_text_tokens=MAX_TEXT_TOKENS, cases=cases))


def cases() -> dict:
    return {
        "prompt/word_piece": partial(prompts, build=tokenizer.bert),
        "prompt/clip": clip_files,
        "prompt/clip_pad_zero": partial(prompts, build=partial(tokenizer.clip, pad_token="!")),
        "prompt/t5": partial(prompts, build=tokenizer.t5),
        "prompt/learnt": learnt,
        "prompt/spiece": spiece,
    }
