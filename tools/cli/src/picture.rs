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
        let byte = |value: u32| if a == 0 { 0 } else { (value.min(a) * 255 + a / 2) / a };
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
