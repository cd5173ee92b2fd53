"""Pictures, colours, captions, packages and the pack."""

import io
import json
import random
import tarfile
from collections import Counter

import numpy as np
import pytest

from inkbloom_train.data import augment, build, captions, collect, colours, concepts, dataset, packages, raster
from inkbloom_train.data.attribution import attribution
from inkbloom_train.data.captions import View
from inkbloom_train.data.dataset import HELD_CONCEPT, HELD_PAIR, TRAIN, DataSet, Row, StyleInfo
from inkbloom_train.data.packages import NpmPackage
from inkbloom_train.data.raster import Box
from inkbloom_train.data.styles import STYLES
from inkbloom_train.errors import TrainError

SQUARE = raster.square_svg('<rect x="0" y="0" width="10" height="10" fill="#ff0000"/>', 0, 0, 10, 10)


def row(**changes) -> Row:
    values = {"id": "flat/cat", "style": "flat", "concept": "cat", "names": ["cat"], "keywords": ["pet", "animal"]}
    values |= {"licence": "MIT", "source": "s", "key": "cat"}
    return Row(**{**values, **changes})


# Raster


def test_an_svg_fills_its_box_and_nothing_else():
    pixels = raster.draw(SQUARE, 32, Box(0.25, 0.5, 0.5))
    filled = np.zeros((32, 32), bool)
    filled[16:32, 8:24] = True
    assert (pixels[filled] == [255, 0, 0, 255]).all()
    assert (pixels[~filled] == 0).all()


def test_an_image_file_fills_its_box():
    from PIL import Image

    data = io.BytesIO()
    Image.new("RGBA", (64, 64), (0, 0, 255, 255)).save(data, "PNG")
    pixels = raster.draw(data.getvalue(), 32, Box(0.5, 0.0, 0.5))
    assert (pixels[:16, 16:] == [0, 0, 255, 255]).all()
    assert pixels[:, :16].max() == 0


def test_half_transparent_pixels_are_premultiplied_and_come_back():
    svg = raster.square_svg('<rect width="10" height="10" fill="#ff8000" fill-opacity="0.5"/>', 0, 0, 10, 10)
    pixels = raster.draw(svg, 8)
    assert (pixels[..., :3].max(-1) <= pixels[..., 3]).all()
    assert np.abs(raster.straighten(pixels)[4, 4].astype(int) - [255, 128, 0, 128]).max() <= 2


def test_a_wide_viewbox_is_centred_in_a_square():
    wide = raster.normalise_svg('<svg viewBox="0 0 20 10" fill="#0000ff"><rect width="20" height="10"/></svg>')
    pixels = raster.draw(wide, 16)
    assert (pixels[4:12] == [0, 0, 255, 255]).all()
    assert pixels[:4].max() == 0


@pytest.mark.parametrize("text", ["", "not svg", "<svg viewBox='0 0 1'><g/></svg>", "<svg viewBox='0 0 0 5'></svg>", "<svg><g/></svg>"])
def test_a_corrupt_svg_is_refused(text):
    with pytest.raises(raster.PictureError):
        raster.draw(raster.normalise_svg(text), 8)


def test_corrupt_image_bytes_are_refused():
    with pytest.raises(raster.PictureError, match="Pillow"):
        raster.draw(b"\x89PNG nothing", 8)


# Colours


@pytest.mark.parametrize("css, name", [("#e02020", "red"), ("#2060e0", "blue"), ("#222222", "black"), ("#ffcc10", "yellow"), ("#20a030", "green")])
def test_a_plain_picture_has_its_colour_named(css, name):
    svg = raster.square_svg(f'<circle cx="5" cy="5" r="4" fill="{css}"/>', 0, 0, 10, 10)
    assert colours.name_colours(raster.draw(svg, 32)) == [name]


def test_turning_the_hue_changes_the_name_and_keeps_the_alpha():
    pixels = raster.draw(SQUARE, 16, Box(0.25, 0.25, 0.5))
    turned = colours.shift_hue(pixels, 220)
    assert colours.name_colours(turned) == ["blue"]
    assert (turned[..., 3] == pixels[..., 3]).all()


# Captions


def test_a_recoloured_picture_always_has_its_colour_named():
    rng = random.Random(0)
    view = View([0], colours=["purple"], recoloured=True)
    made = {captions.caption(view, [row()], {"flat": StyleInfo(["flat emoji"])}, rng) for _ in range(300)}
    assert all("purple" in text for text in made)
    assert len(made) > 20


def test_captions_are_never_empty_and_name_both_things_of_a_composite():
    rng = random.Random(0)
    rows = [row(), row(names=["dog"], concept="dog")]
    for _ in range(300):
        text = captions.caption(View([0, 1], captions.BESIDE), rows, {"flat": StyleInfo(["flat emoji"])}, rng)
        assert "cat" in text and "dog" in text
    assert "two cats" in captions.caption(View([0], captions.TWO), rows, {"flat": StyleInfo(["flat emoji"])}, random.Random(1))


def test_captions_of_what_is_put_together_say_how_and_name_unusual_colours():
    rows, styles = [row(), row(names=["dog"], concept="dog")], {"flat": StyleInfo(["flat emoji"])}
    for seed in range(100):
        rng = random.Random(seed)
        assert "four purple cats" in captions.together(captions.FOUR, [View([0], colours=["purple"], recoloured=True)], rows, styles, rng)
        text = captions.together(captions.ABOVE, [View([0], colours=["blue"], recoloured=True), View([1])], rows, styles, rng)
        assert text.index("blue cat") > text.index("dog") if "below" in text else text.index("blue cat") < text.index("dog"), text


def test_plurals():
    nouns = ["cat", "fox", "cherry", "key", "scissors", "glass"]
    assert [captions.plural(noun) for noun in nouns] == ["cats", "foxes", "cherries", "keys", "scissors", "glasses"]


# Augmentation


def test_an_augmented_monochrome_picture_shows_the_colour_its_view_names():
    svg = raster.square_svg('<rect width="10" height="10" fill="currentColor"/>', 0, 0, 10, 10)
    data = DataSet([row(monochrome=True)], [svg], {"flat": StyleInfo(["flat"])}, {})
    seen = set()
    for seed in range(40):
        pixels, view = augment.augmented(data, 0, [0], 32, np.random.default_rng(seed))
        if view.relation == captions.SINGLE:
            assert view.recoloured
            assert colours.name_colours(pixels) == view.colours
            seen.update(view.colours)
    assert len(seen) > 5


def test_things_with_a_right_way_round_are_not_mirrored():
    svg = raster.square_svg('<rect width="3" height="10" fill="#222222"/>', 0, 0, 10, 10)
    data = DataSet([row(names=["six o'clock"])], [svg], {"flat": StyleInfo(["flat"])}, {})
    for seed in range(20):
        pixels, view = augment.augmented(data, 0, [0], 32, np.random.default_rng(seed))
        if view.relation == captions.SINGLE:
            columns = np.flatnonzero(pixels[..., 3].any(0))
            assert columns.mean() < 17  # the bar stays in the left third of its box


# Splits and the pack


def test_the_split_never_shows_a_held_concept_and_keeps_other_styles_of_a_held_pair():
    rows = [row(id=f"{style}/{n}", style=style, concept=f"c{n}", key=f"c{n}") for n in range(100) for style in ("a", "b", "c")]
    build.split(rows)
    counts = Counter(one.split for one in rows)
    assert counts[HELD_CONCEPT] == 15 and counts[HELD_PAIR] == 14
    trained = {one.key for one in rows if one.split == TRAIN}
    assert not trained & {one.key for one in rows if one.split == HELD_CONCEPT}
    assert {one.key for one in rows if one.split == HELD_PAIR} <= trained


def test_the_pack_comes_back_as_it_was(tmp_path):
    data = DataSet([row(), row(id="flat/dog", kind="webp")], [SQUARE, b"\x00\xff"], {"flat": StyleInfo(["flat"], 2.0)}, {"kept": 2, "skipped": {}})
    dataset.save(data, tmp_path / "pack.tar.xz")
    assert dataset.load(tmp_path / "pack.tar.xz") == data


def test_a_damaged_pack_is_named(tmp_path):
    path = tmp_path / "pack.tar.xz"
    path.write_bytes(b"not a pack")
    with pytest.raises(TrainError, match="damaged"):
        dataset.load(path)
    with pytest.raises(TrainError, match="stage `data`"):
        dataset.load(tmp_path / "absent")


def test_attribution_counts_every_picture():
    data = DataSet([row(), row(), row(source="t", licence="CC-BY-4.0")], [], {}, {})
    text = attribution(data)
    assert "| s | [MIT](https://opensource.org/license/mit) | 2 |" in text
    assert "| t | [CC-BY-4.0](https://creativecommons.org/licenses/by/4.0/) | 1 |" in text


# A folder of pictures


def test_unusable_pictures_of_a_folder_are_counted(pictures, tmp_path):
    import shutil

    folder = shutil.copytree(pictures, tmp_path / "folder")
    (folder / "broken.svg").write_text("<svg viewBox='0 0 4 4'><rect")
    (folder / "blank.svg").write_text("<svg viewBox='0 0 4 4'></svg>")
    extra = [
        {"file_name": "broken.svg", "text": "broken"},
        {"file_name": "blank.svg", "text": "blank"},
        {"file_name": "absent.svg", "text": "absent"},
        {"file_name": "blank.svg", "text": "  "},
        {"file_name": "heart-flat-sticker.svg", "text": "heart again"},
    ]
    with (folder / "metadata.jsonl").open("a") as file:
        file.write("\n" + "\n".join(map(json.dumps, extra)))
    built = build.build(tmp_path, folder, workers=1)
    assert built.summary == {
        "kept": 24,
        "skipped": {"not an SVG document": 1, "file missing": 1, "empty caption": 1, "shows nothing": 1, "same pixels as another picture": 1},
    }
    assert "skipped 5" in build.describe(built)


def test_a_folder_without_metadata_is_named(tmp_path):
    with pytest.raises(TrainError, match=r"metadata\.jsonl"):
        build.build(tmp_path, tmp_path, workers=1)


# Packages


def archive(path, files: dict[str, object]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name, contents in files.items():
            data = contents if isinstance(contents, bytes) else json.dumps(contents).encode()
            info = tarfile.TarInfo(f"package/{name}")
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))


def icons(prefix: str, licence: str, names: list[str], chars: dict | None = None) -> dict:
    body = '<path d="M2 2h{n}v12h-{n}z" fill="currentColor"/>'
    return {
        "prefix": prefix,
        "info": {"license": {"spdx": licence}},
        "icons": {name: {"body": body.format(n=n + 4)} for n, name in enumerate(names)},
        "chars": chars or {},
        "width": 16,
        "height": 16,
    }


@pytest.fixture
def tiny_packages(tmp_path, monkeypatch):
    """Stand-ins for the four packages, with three styles."""
    from inkbloom_train.data import styles

    keep = tuple(styles.BY_KEY[key] for key in ("noto", "line", "fluent-3d"))
    monkeypatch.setattr(collect, "STYLES", keep)
    emoji = [
        {"label": "cat face", "hexcode": "1F431", "emoji": "🐱", "group": 3, "subgroup": 34, "tags": ["cat", "pet"], "skins": []},
        {"label": "key", "hexcode": "1F511", "emoji": "🔑", "group": 7, "subgroup": 1, "tags": []},
        {"label": "flag: France", "hexcode": "1F1EB-1F1F7", "emoji": "F", "group": 9, "subgroup": 2},
        {"label": "letter A", "hexcode": "1F170", "emoji": "A", "group": 8, "subgroup": 3},
        {"label": "waving hand", "hexcode": "1F44B", "emoji": "W", "group": 1, "subgroup": 1, "skins": [{"hexcode": "1F44B-1F3FB"}]},
    ]
    subgroups = {"34": "animal-mammal", "1": "lock", "2": "country-flag", "3": "alphanum"}
    archive(tmp_path / packages.EMOJIBASE.file_name, {"en/data.json": emoji, "meta/groups.json": {"subgroups": subgroups}})
    archive(tmp_path / packages.EMOJILIB.file_name, {"dist/emoji-en-US.json": {"🐱": ["cat_face", "meow", "nature"]}})
    noto = icons(
        "noto", "Apache-2.0", ["cat-face", "key", "waving-hand-light-skin-tone", "a-button"],
        {"1f431": "cat-face", "1f511": "key", "1f44b-1f3fb": "waving-hand-light-skin-tone", "1f170": "a-button"},
    )  # fmt: skip
    line = icons("tabler", "MIT", ["key", "arrow-left", "brand-thing", "spaceship"])
    archive(tmp_path / packages.ICONIFY.file_name, {"json/noto.json": noto, "json/tabler.json": line})
    archive(tmp_path / packages.FLUENT_3D.file_name, {"assets/1f431.webp": b"webp", "assets/1f44b-1f3fb.webp": b"webp"})
    return tmp_path


def test_icons_are_chosen_and_named_by_the_emoji_table(tiny_packages):
    skipped = Counter()
    found = collect.collect(tiny_packages, skipped)
    assert [one.id for one, _ in found] == ["noto/cat-face", "noto/key", "line/key", "fluent-3d/cat-face"]
    cat = found[0][0]
    assert cat.keywords == ["cat", "pet", "meow", "nature"] and cat.licence == "Apache-2.0" and "Google" in cat.source
    assert skipped["concept in no other style"] == 1
    assert skipped["interface icon, logo or letter"] == 2
    assert skipped["flag, letter, sign or skin tone"] == 3


def test_a_changed_licence_is_refused(tiny_packages):
    archive(tiny_packages / packages.ICONIFY.file_name, {"json/noto.json": icons("noto", "GPL-3.0", ["key"]), "json/tabler.json": {}})
    with pytest.raises(TrainError, match="licensed GPL"):
        collect.collect(tiny_packages, Counter())


def test_a_missing_npm_is_explained(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(TrainError, match="install Node"):
        packages.fetch(NpmPackage("nothing", "1.0.0"), tmp_path)


def test_a_failed_download_is_explained(tmp_path, monkeypatch):
    (tmp_path / "npm").write_text("#!/bin/sh\necho 'npm error 404 not found' >&2\nexit 1\n")
    (tmp_path / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with pytest.raises(TrainError, match="404 not found"):
        packages.fetch(NpmPackage("@scope/nothing", "1.0.0"), tmp_path)


def test_a_cut_archive_and_a_missing_file_are_explained(tmp_path):
    archive(tmp_path / "whole.tgz", {"a.json": {}})
    with pytest.raises(TrainError, match=r"lacks b\.json"):
        packages.read_json(tmp_path / "whole.tgz", ["b.json"])
    (tmp_path / "cut.tgz").write_bytes((tmp_path / "whole.tgz").read_bytes()[:40])
    with pytest.raises(TrainError, match="damaged"):
        packages.read_json(tmp_path / "cut.tgz", ["a.json"])


def test_words_that_rule_an_icon_out():
    assert concepts.excluded("arrow-left", []) and concepts.excluded("thing", ["Brand"])
    assert not concepts.excluded("bow-and-quiver", ["Sports"])


def test_styles_that_are_not_offered_weigh_less_than_those_that_are():
    listed, others = ([style.weight for style in STYLES if style.listed is offered] for offered in (True, False))
    assert 8 <= len(listed) <= 12 and max(others) < min(listed)


def test_what_is_listed_travels_with_the_data_set(tmp_path):
    styles = {"a": StyleInfo(["a"], 2.0), "b": StyleInfo(["b"], 0.25, listed=False)}
    dataset.save(DataSet([], [], styles, {}), tmp_path / "dataset.tar.xz")
    assert dataset.load(tmp_path / "dataset.tar.xz").styles == styles
