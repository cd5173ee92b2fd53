"""Tiny tokenizers of the kinds that the real models use."""

from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import ByteLevel
from transformers import CLIPTokenizer, PreTrainedTokenizerFast, T5Tokenizer

WORDS = """
a an the of and or with without on in at to from under over by for is it no not very two three four five one many
emoji sticker picture drawing icon logo cartoon cute kawaii bold flat shaded glossy pixel art style line outline
white black red green blue yellow orange purple pink brown grey gold silver rainbow dark bright pastel neon
apple pear banana cherry grape lemon melon peach berry straw tomato carrot corn mushroom bread cheese pizza cake
cookie donut candy coffee tea cup mug glass bottle ice cream egg fish shrimp sushi rice soup taco burger fries
cat dog fox bear panda lion tiger rabbit mouse frog turtle snake dragon unicorn horse cow pig sheep goat chicken
duck owl penguin parrot eagle bee butterfly spider snail octopus whale shark dolphin crab star moon sun cloud rain
snow flower rose tulip tree leaf cactus mountain river sea beach island fire water earth rocket ship boat car truck
bus train plane bike house castle tower tent bridge robot ghost alien pirate wizard witch knight ninja king queen
baby boy girl man woman cat face smile happy sad angry sleepy laughing crying winking cool heart eye hand hat crown
glasses ribbon balloon gift book pencil camera phone computer clock lamp key lock bell drum guitar music note ball
game dice puzzle sword shield magic wand potion treasure map flag cafe naive creme brulee smiling wearing holding
riding eating flying jumping dancing reading 3d 2d 8
""".split()
PIECES = "s es ed ing er est ly y ish less ful able berry fish cake house man".split()
LETTERS = "abcdefghijklmnopqrstuvwxyz0123456789"
SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[]^_`{|}~猫犬星é"


def word_piece() -> Tokenizer:
    """BERT's: lower case, accents stripped, [CLS] ... [SEP]."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokens = special + [*SYMBOLS, *LETTERS] + [f"##{p}" for p in [*LETTERS, *PIECES]] + WORDS
    vocabulary = {token: i for i, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[(t, vocabulary[t]) for t in ("[CLS]", "[SEP]")],
    )
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens(special)
    return tokenizer


def bert() -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=word_piece(), pad_token="[PAD]")


def clip_vocabulary() -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Every byte, every byte that ends a word, then merges that spell the words above from their left end."""
    visible = [chr(c) for c in (*range(33, 127), *range(161, 173), *range(174, 256))]
    letters = visible + sorted(set(ByteLevel.alphabet()) - set(visible))
    merges = {}
    for word in WORDS:
        if word.isascii() and word.isalpha():
            parts = [*word[:-1], word[-1] + "</w>"]
            for i in range(1, len(parts)):
                merges["".join(parts[:i]), parts[i]] = None
    tokens = letters + [f"{c}</w>" for c in letters] + ["".join(m) for m in merges]
    tokens = list(dict.fromkeys(tokens)) + ["<|startoftext|>", "<|endoftext|>"]
    return {token: i for i, token in enumerate(tokens)}, list(merges)


def clip(pad_token: str = "<|endoftext|>", max_text_tokens: int = 16) -> CLIPTokenizer:
    """`pad_token` is "!" (id 0) in SD 2 and in SDXL's second tokenizer."""
    vocabulary, merges = clip_vocabulary()
    return CLIPTokenizer(vocab=vocabulary, merges=merges, pad_token=pad_token, model_max_length=max_text_tokens)


def t5(max_text_tokens: int = 16) -> T5Tokenizer:
    """Unigram: whole words are likelier than pieces, pieces than letters."""
    ranks = [(1, [f"▁{w}" for w in WORDS]), (3, PIECES), (6, [*LETTERS, *LETTERS.upper(), *SYMBOLS])]
    vocabulary = {"<pad>": 0.0, "</s>": 0.0, "<unk>": 0.0, "▁": -2.0}
    for rank, pieces in ranks:
        for piece in pieces:
            vocabulary.setdefault(piece, -rank - 0.01 * len(vocabulary))
    vocabulary |= {f"<extra_id_{i}>": 0.0 for i in reversed(range(4))}
    return T5Tokenizer(vocab=list(vocabulary.items()), extra_ids=4, model_max_length=max_text_tokens)
