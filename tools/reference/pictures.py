"""Pictures as files hold them, and as Pillow sees them: RGBA, turned as their EXIF says."""

from pathlib import Path

import numpy as np
from common import clean, generator, picture
from PIL import Image, ImageOps

WIDTH, HEIGHT = 48, 32


def write(folder: Path) -> None:
    clean(folder)
    rgb = picture(generator("pictures"), "RGB", HEIGHT, WIDTH)
    rgba = picture(generator("pictures alpha"), "RGBA", HEIGHT, WIDTH)
    grey = rgb.convert("L")
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter to the right
    palette = rgb.quantize(16)
    rgb.save(folder / "plain.png")
    rgba.save(folder / "alpha.webp", lossless=True)
    rgb.save(folder / "photo.jpg", quality=95, subsampling=0)
    rgb.save(folder / "turned.jpg", quality=95, subsampling=0, exif=turned)
    rgb.save(folder / "turned.png", exif=turned)
    rgb.save(folder / "jpeg_named.png", "JPEG", quality=95, subsampling=0)
    rgb.save(folder / "without_ending", "PNG")
    grey.save(folder / "grey.png")
    grey.convert("1").save(folder / "one_bit.png")
    Image.merge("LA", [grey, rgba.getchannel("A")]).save(folder / "grey_alpha.png")
    Image.fromarray(np.asarray(grey).astype(np.uint16) * 257).save(folder / "grey16.png")
    palette.save(folder / "palette_transparent.png", transparency=0)
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            image = ImageOps.exif_transpose(image)
            if image.mode.startswith("I;16"):
                image = Image.fromarray((np.asarray(image) // 257).astype(np.uint8))
            image = image.convert("RGBA")
        (folder / "seen").mkdir(exist_ok=True)
        image.save(folder / "seen" / f"{path.name}.png")


def cases() -> dict:
    return {"pictures": write}
