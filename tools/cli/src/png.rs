//! PNG files.

use std::path::Path;

use image::{ImageFormat, RgbaImage};
use inkbloom::{Error, Result, values::Image};

/// # Errors
/// `BadInput` where the file cannot be written.
pub fn write(path: &Path, image: &Image) -> Result<()> {
    let cannot = |why: String| Error::bad_input(format!("{} cannot be written: {why}", path.display()));
    let buffer = RgbaImage::from_raw(image.width as u32, image.height as u32, image.rgba.clone())
        .ok_or_else(|| cannot("the picture has no pixels".to_owned()))?;
    buffer.save_with_format(path, ImageFormat::Png).map_err(|error| cannot(error.to_string()))
}

/// # Errors
/// `BadInput` where the file cannot be read as a picture.
pub fn read(path: &Path) -> Result<Image> {
    let picture = image::open(path)
        .map_err(|error| Error::bad_input(format!("{} cannot be read as a PNG: {error}", path.display())))?
        .to_rgba8();
    Ok(Image { width: picture.width() as usize, height: picture.height() as usize, rgba: picture.into_raw() })
}
