"""The picture sets of the default model: what each is called, who made it, and its licence.

Only MIT, Apache-2.0 and CC-BY sets are listed; ``collect`` refuses a package whose own licence entry
differs from the one written here.
"""

from dataclasses import dataclass

from inkbloom_train.data.packages import FLUENT_3D, ICONIFY, NpmPackage


@dataclass(frozen=True)
class Style:
    key: str
    collection: str
    """Iconify prefix, or the npm package of a set of image files."""
    licence: str
    author: str
    phrases: tuple[str, ...]
    """How a prompt asks for it; the first is the name shown to users."""
    weight: float = 1.0
    """How often its pictures are drawn in training, against a weight of 1."""
    listed: bool = True
    """Offered to users. The others are drawn badly: they stay in the data set, which the scorers learn from, and weigh little in the generator's training."""
    emoji: bool = False
    """Its pictures are named like emoji; anything else in the set is left out."""
    monochrome: bool = False
    """Drawn in ``currentColor``: it is recoloured in training and the colour is named."""
    known_only: bool = False
    """Keep only concepts that another style also has (for large sets of interface icons)."""
    categories: frozenset[str] | None = None
    """Categories of the set to keep; None keeps all but the interface ones."""

    @property
    def package(self) -> NpmPackage:
        return FLUENT_3D if self.collection == FLUENT_3D.name else ICONIFY


_ICON_PARK = frozenset(
    "Animals Baby Build Clothes Constellation Emoji Energy Foods Game Hands Hardware Health Industry Life "
    "Makeups Money Music Office Peoples Safe Sports Time Travel Weather".split()
)

STYLES = (
    Style("noto", "noto", "Apache-2.0", "Google", ("shaded emoji", "classic shaded emoji"), 2, emoji=True),
    Style("noto-v1", "noto-v1", "Apache-2.0", "Google", ("blob emoji", "soft gradient emoji"), emoji=True),
    Style("twemoji", "twemoji", "CC-BY-4.0", "Twitter and contributors", ("flat emoji", "simple flat emoji"), 2, emoji=True),
    Style("fluent-flat", "fluent-emoji-flat", "MIT", "Microsoft", ("bold flat emoji", "modern flat emoji"), 2, emoji=True),
    Style("fluent", "fluent-emoji", "MIT", "Microsoft", ("glossy emoji", "glossy gradient emoji"), 2, emoji=True),
    Style("fluent-3d", FLUENT_3D.name, "MIT", "Microsoft", ("3d emoji", "3d render emoji"), 2, emoji=True),
    Style("emojione", "emojione", "CC-BY-4.0", "EmojiOne", ("cartoon emoji", "colorful cartoon emoji"), emoji=True),
    Style("fxemoji", "fxemoji", "Apache-2.0", "Mozilla", ("minimal emoji", "plain minimal emoji"), emoji=True),
    Style("outline", "streamline-emojis", "CC-BY-4.0", "Streamline", ("outlined sticker", "black outline cartoon sticker"), 2, emoji=True),
    Style("stickies", "streamline-stickies-color", "CC-BY-4.0", "Streamline", ("neon sticker", "neon doodle sticker")),
    Style("badge", "streamline-kameleon-color", "CC-BY-4.0", "Streamline", ("round badge icon", "circle badge icon"), 0.25, listed=False),
    Style("freehand", "streamline-freehand-color", "CC-BY-4.0", "Streamline", ("hand drawn sketch", "blue ink doodle"), 0.25, listed=False),
    Style("flatcolor", "flat-color-icons", "MIT", "Icons8", ("flat color icon", "office flat color icon"), 0.25, listed=False),
    Style("plump", "streamline-plump-color", "CC-BY-4.0", "Streamline", ("plump blue icon", "chunky blue outline icon"), 0.25, listed=False),
    Style("ultimate", "streamline-ultimate-color", "CC-BY-4.0", "Streamline", ("thin line color icon", "detailed line icon"), 0.25, listed=False),
    Style("park", "icon-park", "Apache-2.0", "ByteDance", ("thick outline icon", "thick line blue icon"), 0.25, listed=False, categories=_ICON_PARK),
    Style("poly", "glyphs-poly", "MIT", "Goran Spasojevic", ("flat duotone icon", "two tone flat icon"), 0.5),
    Style("solid", "fluent-emoji-high-contrast", "MIT", "Microsoft", ("solid icon", "one color icon"), 0.25, listed=False, emoji=True, monochrome=True),
    Style("line", "tabler", "MIT", "Paweł Kuna", ("outline icon", "thin outline icon"), 0.25, listed=False, monochrome=True, known_only=True),
)

BY_KEY = {style.key: style for style in STYLES}
