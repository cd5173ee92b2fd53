"""Chooses pictures from the packages: which icons show a thing worth drawing, and what it is called."""

import json
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from inkbloom_train.data import packages, raster
from inkbloom_train.data.concepts import Concept, EmojiTable, code, excluded, load_emoji, slug, split_key
from inkbloom_train.data.dataset import Row
from inkbloom_train.data.styles import STYLES, Style
from inkbloom_train.errors import TrainError

Candidate = tuple[Row, str | bytes]
_SKIN_TONE_NAME = re.compile(r"skin-tone|-(medium|light|dark)(-(light|dark))?$")
_NUMBERED = re.compile(r"-(\d+|one|two|three|four|five)$")


def collect(folder: Path, skipped: Counter) -> list[Candidate]:
    """All rows of the default data set with their pictures, in a fixed order.

    Downloads what is missing into ``folder``. ``skipped`` counts what was left out, by reason.
    """
    archives = {package: packages.fetch(package, folder) for package in packages.ALL}
    emoji = load_emoji(archives)
    iconify = {style.collection: style for style in STYLES if style.package is packages.ICONIFY}
    wanted = [f"json/{prefix}.json" for prefix in iconify]
    collections = {
        Path(path).stem: json.loads(contents) for path, contents in packages.members(archives[packages.ICONIFY], wanted)
    }
    # Emoji sets that publish their code points teach us their names for the same emoji.
    for prefix in ("noto", "twemoji", "fluent-emoji-flat"):
        for hexcode, name in collections.get(prefix, {}).get("chars", {}).items():
            if code(hexcode) in emoji.by_code and code(hexcode) not in emoji.skin_tones:
                emoji.code_of_slug.setdefault(name, code(hexcode))
    candidates = []
    for style in STYLES:
        if style.package is packages.ICONIFY:
            candidates += _from_iconify(style, collections[style.collection], emoji, skipped)
        else:
            candidates += _from_files(style, archives[style.package], emoji, skipped)
    return _drop_lonely(candidates, skipped)


def _drop_lonely(candidates: list[Candidate], skipped: Counter) -> list[Candidate]:
    """Leaves out pictures of ``known_only`` styles whose concept no other style has."""
    known_only = {style.key for style in STYLES if style.known_only}
    known = {row.concept for row, _ in candidates if row.style not in known_only}
    kept = [(row, picture) for row, picture in candidates if row.style not in known_only or row.concept in known]
    skipped["concept in no other style"] += len(candidates) - len(kept)
    return kept


def _row(style: Style, name: str, concept: Concept, kind: str) -> Row:
    return Row(
        id=f"{style.key}/{name}",
        style=style.key,
        concept=concept.label,
        names=list(concept.names),
        keywords=list(concept.keywords),
        licence=style.licence,
        source=f"{style.package}: {style.collection}, {style.author}",
        key=split_key(concept.label),
        kind=kind,
        people=concept.people,
        monochrome=style.monochrome,
    )


def _from_files(style: Style, archive: Path, emoji: EmojiTable, skipped: Counter) -> Iterator[Candidate]:
    """A set of image files named by code point."""
    for path, contents in packages.members(archive, suffix=".webp"):
        concept = emoji.by_code.get(code(Path(path).stem))
        if concept is None or not concept.drawable or code(Path(path).stem) in emoji.skin_tones:
            skipped["flag, letter, sign or skin tone"] += 1
            continue
        yield _row(style, slug(concept.label), concept, "webp"), contents


def _from_iconify(style: Style, collection: dict, emoji: EmojiTable, skipped: Counter) -> Iterator[Candidate]:
    """A set of icons in Iconify's JSON format."""
    licence = collection["info"]["license"].get("spdx")
    if licence != style.licence:
        raise TrainError(f"the set {style.collection} is now licensed {licence}, not {style.licence}: check it and correct styles.py")
    categories: dict[str, list[str]] = {}
    for category, names in collection.get("categories", {}).items():
        for name in names:
            categories.setdefault(name, []).append(category)
    code_of_name: dict[str, str] = {}
    for hexcode, name in collection.get("chars", {}).items():
        code_of_name.setdefault(name, code(hexcode))
    fused = emoji.code_of_fused_slug() if style.key == "fxemoji" else {}
    seen: set[str] = set()
    for name, icon in sorted(collection["icons"].items()):
        base = name if style.emoji and style.key != "outline" else _NUMBERED.sub("", name)
        found = code_of_name.get(name) or emoji.code_of_slug.get(base) or fused.get(base.replace("-", ""))
        reason = _reason_to_skip(style, name, found, categories.get(name, []), emoji)
        concept = emoji.by_code.get(found) if found else None
        if reason is None and concept is None:
            concept = Concept(label=base.replace("-", " "), names=(base.replace("-", " "),))
        # A numbered variant ("cat 2") is another picture of the concept; elsewhere a repeat is a near copy.
        if reason is None and concept.label in seen and style.emoji and style.key != "outline":
            reason = "repeat of a concept in its style"
        if reason:
            skipped[reason] += 1
            continue
        seen.add(concept.label)
        width, height = icon.get("width", collection.get("width", 16)), icon.get("height", collection.get("height", 16))
        yield _row(style, name, concept, "svg"), raster.square_svg(icon["body"], icon.get("left", 0), icon.get("top", 0), width, height)


def _reason_to_skip(style: Style, name: str, found: str | None, categories: list[str], emoji: EmojiTable) -> str | None:
    known = found is not None and found in emoji.by_code
    if found in emoji.skin_tones or (_SKIN_TONE_NAME.search(name) and name not in emoji.code_of_slug):
        return "flag, letter, sign or skin tone"
    if known and not emoji.by_code[found].drawable:
        return "flag, letter, sign or skin tone"
    if style.emoji:
        if not known:
            return "no emoji of that name"
        return "interface icon, logo or letter" if excluded(name, []) and name not in emoji.code_of_slug else None
    if style.categories is not None and not style.categories.intersection(categories):
        return "interface icon, logo or letter"
    if known:
        return None
    if name.endswith(("-flat", "-duo")):
        return "repeat of a concept in its style"
    base = _NUMBERED.sub("", name)
    if len(base) < 3 or re.search(r"\d", base) or excluded(name, categories):
        return "interface icon, logo or letter"
    return None
