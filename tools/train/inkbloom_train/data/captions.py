"""Captions: many true ways to ask for a picture, made anew each time it is drawn in training."""

import random
from dataclasses import dataclass, field

from inkbloom_train.data.colours import NAMES as COLOUR_NAMES
from inkbloom_train.data.dataset import Row, StyleInfo

TEMPLATE_WORDS = "a an two three four and of , next to beside above below on top the left right small sticker"
"""Every word that the templates below add to names, keywords, colours and style phrases."""
SINGLE, TWO, THREE, FOUR, BESIDE, ABOVE = "single", "two", "three", "four", "beside", "above"
COUNTS = (TWO, THREE, FOUR)
"""Of one thing, each called by its word."""


@dataclass
class View:
    """What one training picture shows: a picture of the data set, or a composite of two."""

    rows: list[int]
    """Indices into the data set; for BESIDE the left one first, for ABOVE the upper one."""
    relation: str = SINGLE
    colours: list[str] = field(default_factory=list)
    recoloured: bool = False
    """Its colours are not the usual ones, so every caption names them."""
    small: bool = False


def canonical(row: Row, styles: dict[str, StyleInfo]) -> str:
    """The plain full caption, used for evaluation: "flat emoji of red apple"."""
    colour = f"{row.colours[0]} " if row.monochrome and row.colours else ""
    return f"{styles[row.style].phrases[0]} of {colour}{row.names[0]}"


def caption(view: View, rows: list[Row], styles: dict[str, StyleInfo], rng: random.Random) -> str:
    """A random caption of a view."""
    shown = [rows[index] for index in view.rows]
    style = rng.choice(styles[shown[0].style].phrases)
    if view.relation == SINGLE:
        subject = _single(view, shown[0], rng)
    elif view.relation in COUNTS:
        subject = _several(view.relation, view, shown[0], rng)
    else:
        subject = _pair(view.relation, [_thing(View([index]), rows[index], rng) for index in view.rows], rng)
    return _with_style(subject, style, rng)


def together(relation: str, parts: list[View], rows: list[Row], styles: dict[str, StyleInfo], rng: random.Random) -> str:
    """A random caption of single things of one style put together: of one part for COUNTS, else of two."""
    shown = [rows[part.rows[0]] for part in parts]
    style = rng.choice(styles[shown[0].style].phrases)
    if relation in COUNTS:
        return _with_style(_several(relation, parts[0], shown[0], rng), style, rng)
    return _with_style(_pair(relation, [_thing(part, row, rng) for part, row in zip(parts, shown, strict=True)], rng), style, rng)


def _single(view: View, row: Row, rng: random.Random) -> str:
    unnamed = [word for word in row.keywords if word not in row.names[0]]
    chance = rng.random()
    if chance < 0.06 and len(unnamed) >= 2 and not view.recoloured:
        return " ".join(rng.sample(unnamed, 2))
    name = _name(row, rng)
    colours = _colours(view, row, rng)
    size = "small " if view.small and rng.random() < 0.6 else ""
    subject = f"{size}{colours}{name}"
    if rng.random() < 0.3:
        subject = with_article(subject)
    if chance > 0.75 and unnamed:
        subject = f"{subject}, {', '.join(rng.sample(unnamed, min(len(unnamed), rng.randint(1, 2))))}"
    return subject


def _name(row: Row, rng: random.Random) -> str:
    return row.names[0] if len(row.names) == 1 or rng.random() < 0.7 else rng.choice(row.names[1:])


def _thing(view: View, row: Row, rng: random.Random) -> str:
    name = f"{_colours(view, row, rng)}{_name(row, rng)}"
    return with_article(name) if rng.random() < 0.6 else name


def _several(count: str, view: View, row: Row, rng: random.Random) -> str:
    return f"{count} {_colours(view, row, rng)}{plural(_name(row, rng))}"


def _pair(relation: str, things: list[str], rng: random.Random) -> str:
    one, other = things
    if relation == ABOVE:
        return rng.choice([f"{one} above {other}", f"{one} on top of {other}", f"{other} below {one}"])
    return rng.choice([f"{one} next to {other}", f"{one} and {other}", f"{one} beside {other}", f"{one} to the left of {other}", f"{other} to the right of {one}"])


def _colours(view: View, row: Row, rng: random.Random) -> str:
    """The colours to name, with a space after them, or nothing."""
    if not view.colours or any(word in COLOUR_NAMES for word in row.names[0].split()):
        return ""
    if not view.recoloured and rng.random() > 0.35:
        return ""
    named = view.colours if rng.random() < 0.5 else view.colours[:1]
    return " and ".join(named) + " "


def _with_style(subject: str, style: str, rng: random.Random) -> str:
    chance = rng.random()
    if chance < 0.38:
        return f"{style} of {subject}"
    if chance < 0.52:
        return f"{subject}, {style}"
    if chance < 0.64:
        return f"{subject} {style}"
    if chance < 0.70:
        return f"{style}, {subject}"
    if chance < 0.76:
        return f"{subject} sticker"
    return subject


def with_article(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def plural(noun: str) -> str:
    """The plural of an English noun by the usual rules: "cats", "foxes", "cherries"."""
    if noun.endswith(("s", "x", "z", "ch", "sh")):
        return noun if noun.endswith("s") and not noun.endswith("ss") else noun + "es"
    if noun.endswith("y") and noun[-2:-1] not in "aeiou":
        return noun[:-1] + "ies"
    return noun + "s"
