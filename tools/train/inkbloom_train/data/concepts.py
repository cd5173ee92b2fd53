"""What the pictures show: the emoji table (names, keywords, groups) and the words that rule a picture out."""

import re
from dataclasses import dataclass, field

from inkbloom_train.data import packages

# Emoji subgroups that are letters, signs, flags or abstract symbols: nothing a sticker would show.
_EXCLUDED_SUBGROUPS = frozenset(
    "family alphanum keycap av-symbol arrow transport-sign math punctuation currency other-symbol gender geometric "
    "zodiac skin-tone hair-style flag country-flag subdivision-flag hotel warning religion".split()
)
_PEOPLE_GROUP, _COMPONENT_GROUP, _FLAG_GROUP = 1, 2, 9

# Interface icons, logos, letters and digits, by a word of the icon's name or of its category.
_EXCLUDED_NAME = re.compile(
    r"(^|-)(skin-tone|flag|keycap|logo|brand|button|letter|digit|number|regional|arrows?|alphabet|ideograph|squared|sign|"
    r"files?|folder|layout|align|cursor|wifi|signal|chevron|caret|format|text|font|sort|list|upload|download|server|"
    r"database|api|app|browser|code|html|css|javascript|react|google|facebook|microsoft|amazon|twitter|tiktok|youtube|"
    r"instagram|linkedin|github|whatsapp|wechat|alipay|paypal|bitcoin|visa|mastercard|android|windows|ios|layers?|window|"
    r"transfer|transform|synchronize|add|remove|delete|subtract|plus|minus|check|cross|sync|edit|view|menu|bars|grid|row|"
    r"column|login|logout|webpage|website|off|filled)(-|$)"
)
_EXCLUDED_CATEGORY = re.compile(
    r"Logos|Brand|Arrow|InterfaceEssential|Programming|ProgramingApps|Wayfinding|Content|EmailMessages|Emails|FilesFolders|"
    r"InternetNetworks|ArtificialIntell|SocialMedias|WorkOfficeCompanies|Business$|MoneyPayments",
    re.IGNORECASE,
)
_PERSON_WORDS = re.compile(r"\b(man|woman|men|women|person|people|boy|girl|male|female|mr|mrs|mx|in|with)\b")
_ASCII = str.maketrans("ñéãôåç", "neaoac", "’'“”:")


@dataclass(frozen=True)
class Concept:
    """A thing that can be drawn."""

    label: str
    names: tuple[str, ...]
    keywords: tuple[str, ...] = ()
    people: bool = False
    drawable: bool = True


@dataclass
class EmojiTable:
    by_code: dict[str, Concept] = field(default_factory=dict)
    code_of_slug: dict[str, str] = field(default_factory=dict)
    skin_tones: set[str] = field(default_factory=set)

    def code_of_fused_slug(self) -> dict[str, str]:
        """Slugs without hyphens, as the Firefox OS set writes its names."""
        return {slug.replace("-", ""): code for slug, code in self.code_of_slug.items()}


def slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower().translate(_ASCII)).strip("-")


def code(hexcode: str) -> str:
    """An emoji's code points, lower case, without variation selectors and leading zeros."""
    return "-".join(part for part in hexcode.lower().split("-") if part != "fe0f").lstrip("0")


def excluded(name: str, categories: list[str]) -> bool:
    """Whether an icon's name or category marks it as interface, logo, letter or digit."""
    return bool(_EXCLUDED_NAME.search(name)) or any(_EXCLUDED_CATEGORY.search(category) for category in categories)


def split_key(label: str) -> str:
    """Concepts with the same key go to the same side of a split: "woman in tuxedo" with "man in tuxedo"."""
    return " ".join(_PERSON_WORDS.sub(" ", label).split()) or label


def load_emoji(archives: dict) -> EmojiTable:
    """Reads names, keywords and groups of all emoji from emojibase-data and emojilib."""
    base = packages.read_json(archives[packages.EMOJIBASE], ["en/data.json", "meta/groups.json"])
    library = packages.read_json(archives[packages.EMOJILIB], ["dist/emoji-en-US.json"])["dist/emoji-en-US.json"]
    subgroups = base["meta/groups.json"]["subgroups"]
    table = EmojiTable()
    for entry in base["en/data.json"]:
        table.skin_tones.update(code(skin["hexcode"]) for skin in entry.get("skins", ()))
        group = entry.get("group")
        label = entry["label"].lower().translate(str.maketrans("", "", ":“”")).replace("’", "'")
        if group in (None, _COMPONENT_GROUP, _FLAG_GROUP) or "facing right" in label:
            continue
        known = library.get(entry["emoji"]) or library.get(entry["emoji"].replace("\ufe0f", "")) or []
        names = [label]
        if known:
            alias = known[0].replace("_", " ").lower()
            if alias != label and re.fullmatch(r"[a-z0-9 \-]+", alias):
                names.append(alias)
        keywords = [word.lower().replace("_", " ") for word in [*entry.get("tags", ()), *known[1:]]]
        table.by_code[code(entry["hexcode"])] = Concept(
            label=label,
            names=tuple(names),
            keywords=tuple(dict.fromkeys(word for word in keywords if re.fullmatch(r"[a-z][a-z \-]{2,}", word))),
            people=group == _PEOPLE_GROUP,
            drawable=subgroups[str(entry["subgroup"])] not in _EXCLUDED_SUBGROUPS,
        )
        table.code_of_slug.setdefault(slug(label), code(entry["hexcode"]))
    return table
