//! Pictures in files: PNG, JPEG and WebP, told apart by what they hold.

use std::{fs, io::Cursor, path::Path};

use image::{
    DynamicImage, ImageBuffer, ImageDecoder, ImageFormat, ImageReader, Rgba, RgbaImage,
    codecs::jpeg::JpegEncoder,
    imageops::{self, FilterType},
};
use inkbloom::{Error, Result, values::Image};

const FORMATS: [ImageFormat; 3] = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
const SAVE_AS: &str = "save it as PNG, JPEG or WebP";
/// Of 100: what cannot be told from the original.
const JPEG_QUALITY: u8 = 95;

/// The format that a file's ending asks for; a name without one is a PNG's.
///
/// # Errors
/// `BadInput` for an ending that is none of the three.
pub fn format(path: &Path) -> Result<ImageFormat> {
    let Some(ending) = path.extension().filter(|ending| !ending.is_empty()) else { return Ok(ImageFormat::Png) };
    ImageFormat::from_extension(ending).filter(|format| FORMATS.contains(format)).ok_or_else(|| {
        Error::bad_input(format!(
            "{} cannot be written: pictures are .png, .jpg or .webp, not .{}",
            path.display(),
            ending.to_string_lossy()
        ))
    })
}

/// Whether a file can lie where `path` says.
///
/// # Errors
/// `BadInput` where its folder does not exist.
pub fn check_folder(path: &Path) -> Result<()> {
    if path.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
        return Ok(());
    }
    Err(Error::bad_input(format!("the folder of {} does not exist; make it first", path.display())))
}

/// Writes what [`format`] says; a JPEG, which has no transparency, over white.
///
/// # Errors
/// `BadInput` where the file cannot be written.
pub fn write(path: &Path, image: &Image) -> Result<()> {
    let cannot = |why: String| Error::bad_input(format!("{} cannot be written: {why}", path.display()));
    let mut bytes = Cursor::new(Vec::new());
    let encoded = match format(path)? {
        ImageFormat::Jpeg => {
            let over_white = |pixel: &[u8]| {
                let a = u32::from(pixel[3]);
                [0, 1, 2].map(|channel| ((u32::from(pixel[channel]) * a + 255 * (255 - a) + 127) / 255) as u8)
            };
            let rgb: Vec<u8> = image.rgba.chunks_exact(4).flat_map(over_white).collect();
            let (width, height) = (image.width as u32, image.height as u32);
            JpegEncoder::new_with_quality(&mut bytes, JPEG_QUALITY).encode(
                &rgb,
                width,
                height,
                image::ExtendedColorType::Rgb8,
            )
        }
        format => buffer(image).and_then(|buffer| buffer.write_to(&mut bytes, format)),
    };
    encoded.map_err(|error| cannot(error.to_string()))?;
    fs::write(path, bytes.into_inner()).map_err(|error| cannot(error.to_string()))
}

/// Reads a picture as it is meant to be seen: turned as its EXIF says, palettes and 16 bits as RGBA8.
///
/// # Errors
/// `BadInput` where the file is no PNG, JPEG or WebP.
pub fn read(path: &Path) -> Result<Image> {
    let wrong = |why: &str| Error::bad_input(format!("{} {why}", path.display()));
    let bytes = fs::read(path).map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let reader = reader.map_err(|error| wrong(&format!("cannot be read: {error}")))?;
    match reader.format() {
        Some(format) if FORMATS.contains(&format) => {}
        Some(format) => return Err(wrong(&format!("is a {} file; {SAVE_AS}", format.to_mime_type()))),
        None if bytes.get(4..8) == Some(b"ftyp") => return Err(wrong(&format!("is a HEIC or AVIF file; {SAVE_AS}"))),
        None => return Err(wrong(&format!("is no picture that is known here; {SAVE_AS}"))),
    }
    let decoded = reader.into_decoder().and_then(|mut decoder| {
        let orientation = decoder.orientation()?;
        let mut picture = DynamicImage::from_decoder(decoder)?;
        picture.apply_orientation(orientation);
        Ok(picture)
    });
    let picture = decoded.map_err(|error| wrong(&format!("cannot be read as a picture: {error}")))?.into_rgba8();
    Ok(Image { width: picture.width() as usize, height: picture.height() as usize, rgba: picture.into_raw() })
}

/// `picture` scaled so that it just covers `[width, height]`, and what stands out at two sides cut off. Colours count as
/// much as they are seen.
///
/// # Errors
/// `BadInput` where it has no pixels.
pub fn cover(picture: &Image, [width, height]: [usize; 2], smooth: bool) -> Result<Image> {
    let seen = |pixel: &[u8]| {
        let a = u32::from(pixel[3]);
        let [r, g, b] = [0, 1, 2].map(|channel| (u32::from(pixel[channel]) * a * 257 / 255) as u16);
        [r, g, b, a as u16 * 257]
    };
    let values: Vec<u16> = picture.rgba.chunks_exact(4).flat_map(seen).collect();
    let whole = ImageBuffer::<Rgba<u16>, _>::from_raw(picture.width as u32, picture.height as u32, values)
        .filter(|whole| whole.width() > 0 && whole.height() > 0)
        .ok_or_else(|| Error::bad_input("the picture has no pixels"))?;
    let filter = if smooth { FilterType::Lanczos3 } else { FilterType::Nearest };
    let fitted = DynamicImage::ImageRgba16(whole).resize_to_fill(width as u32, height as u32, filter).into_rgba16();
    let straight = |pixel: &Rgba<u16>| {
        let [r, g, b, a] = pixel.0.map(u32::from);
        let byte = |value: u32| (value.min(a) * 255 + a / 2).checked_div(a).unwrap_or(0);
        [byte(r), byte(g), byte(b), (a + 128) / 257].map(|value| value as u8)
    };
    Ok(Image { width, height, rgba: fitted.pixels().flat_map(straight).collect() })
}

/// `picture` in another size and perhaps shape, by its nearest pixels.
///
/// # Errors
/// `BadInput` where it has no pixels.
pub fn stretch(picture: &Image, [width, height]: [usize; 2]) -> Result<Image> {
    let whole = buffer(picture).map_err(|_| Error::bad_input("the picture has no pixels"))?;
    let rgba = imageops::resize(&whole, width as u32, height as u32, FilterType::Nearest).into_raw();
    Ok(Image { width, height, rgba })
}

fn buffer(image: &Image) -> image::ImageResult<RgbaImage> {
    RgbaImage::from_raw(image.width as u32, image.height as u32, image.rgba.clone()).ok_or_else(|| {
        image::ImageError::Parameter(image::error::ParameterError::from_kind(
            image::error::ParameterErrorKind::DimensionMismatch,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fixtures() -> std::path::PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pictures")
    }

    /// As Pillow sees them; JPEG's decoders differ by a level or two.
    #[test]
    fn pictures_are_read_by_what_they_hold() {
        let mut count = 0;
        for entry in fs::read_dir(fixtures()).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let name = path.file_name().unwrap().to_str().unwrap();
            let seen = read(&fixtures().join("seen").join(format!("{name}.png"))).unwrap();
            let found = read(&path).unwrap();
            assert_eq!((found.width, found.height), (seen.width, seen.height), "{name}");
            let off = found.rgba.iter().zip(&seen.rgba).map(|(a, b)| a.abs_diff(*b)).max();
            let most = if fs::read(&path).unwrap().starts_with(b"\xff\xd8") { 3 } else { 0 };
            assert!(off <= Some(most), "{name} is off by {off:?}");
            count += 1;
        }
        assert!(count >= 12);
    }

    #[test]
    fn other_files_are_named_for_what_they_are() {
        let folder = std::env::temp_dir().join(format!("inkbloom-pictures-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        for (bytes, words) in [
            (&b"GIF89a\x01\x00\x01\x00"[..], "image/gif"),
            (b"\x00\x00\x00\x18ftypheic\x00\x00", "HEIC"),
            (b"<svg xmlns=", "no picture"),
            (b"", "no picture"),
            (b"\x89PNG\r\n\x1a\n cut off", "cannot be read as a picture"),
        ] {
            let path = folder.join("x.png");
            fs::write(&path, bytes).unwrap();
            let message = read(&path).unwrap_err().message;
            assert!(message.contains(words) && message.contains("x.png"), "{message}");
        }
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_picture_covers_a_size_from_its_middle() {
        // Red, white and blue columns of 2 pixels each, 2 high; half seen, which must not change a colour.
        let column = |x: usize| [[255, 0, 0, 128], [255, 255, 255, 128], [0, 0, 255, 128]][x / 2];
        let picture = Image { width: 6, height: 2, rgba: (0..12).flat_map(|i| column(i % 6)).collect() };
        let cut = cover(&picture, [2, 2], false).unwrap();
        assert_eq!(cut.rgba, [255, 255, 255, 128].repeat(4));
        assert_eq!(cover(&picture, [6, 2], true).unwrap(), picture);
        let large = cover(&picture, [60, 20], true).unwrap();
        assert!(
            large.rgba[..4].iter().zip([255, 0, 0, 128]).all(|(a, b)| a.abs_diff(b) <= 16),
            "{:?}",
            &large.rgba[..4]
        );
        // What cannot be seen lends no colour to what can.
        let edge = Image { width: 2, height: 1, rgba: vec![200, 100, 50, 255, 0, 255, 0, 0] };
        let edge = cover(&edge, [4, 2], true).unwrap();
        for pixel in edge.rgba.chunks_exact(4).filter(|pixel| pixel[3] > 8) {
            assert!(pixel[0].abs_diff(pixel[1] * 2) <= 4 && pixel[1].abs_diff(pixel[2] * 2) <= 4, "{pixel:?}");
        }
        assert!(cover(&Image { width: 0, height: 0, rgba: vec![] }, [2, 2], true).is_err());
    }

    #[test]
    fn an_ending_says_the_format() {
        for (name, expected) in [
            ("a.png", ImageFormat::Png),
            ("a.PNG", ImageFormat::Png),
            ("a.jpg", ImageFormat::Jpeg),
            ("a.jpeg", ImageFormat::Jpeg),
            ("a.webp", ImageFormat::WebP),
            ("a", ImageFormat::Png),
            ("v1.0/a", ImageFormat::Png),
        ] {
            assert_eq!(format(Path::new(name)).unwrap(), expected, "{name}");
        }
        for name in ["a.gif", "a.txt", "v1.5", "a.png.part"] {
            let message = format(Path::new(name)).unwrap_err().message;
            assert!(message.contains(name) && message.contains(".webp"), "{message}");
        }
    }
}
