//! Animations in files.

use std::{
    fmt::Debug,
    fs,
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    animation::{self, Format, Quality, Save},
    values::{Animation, Image},
};

use crate::picture;

/// How an animation is saved.
#[derive(clap::Args)]
pub struct SaveArgs {
    /// How good an animated WebP looks, 1 to 100 [default: 80]
    #[arg(long, value_name = "N")]
    quality: Option<f32>,
    /// Save the animation as chat programs take a sticker: a WebP of 512 x 512 and at most 500 KB, for which the quality is
    /// lowered
    #[arg(long)]
    sticker: bool,
    /// Also write each frame as a PNG into this folder, which is made
    #[arg(long, value_name = "DIR")]
    frames_dir: Option<PathBuf>,
}

impl SaveArgs {
    /// Whether `out` can be written, before anything is drawn; `moves` says whether an animation is to be.
    ///
    /// # Errors
    /// `BadInput` naming what cannot be.
    pub fn check(&self, out: &Path, moves: bool) -> Result<()> {
        if moves {
            return self.save(out).map(drop);
        }
        let given = [
            ("--quality", self.quality.is_some()),
            ("--sticker", self.sticker),
            ("--frames-dir", self.frames_dir.is_some()),
        ];
        match given.into_iter().find(|(_, given)| *given) {
            Some((name, _)) => Err(Error::bad_input(format!("{name} is about animations; give a --motion, too"))),
            None => picture::format(out).map(drop),
        }
    }

    fn save(&self, out: &Path) -> Result<Save> {
        let ending = out.extension().unwrap_or_default().to_string_lossy();
        let format = if ending.is_empty() { Some(Format::WebP) } else { Format::of(&ending) }.ok_or_else(|| {
            Error::bad_input(format!(
                "{} cannot be written: animations are .webp, .png (APNG) or .gif, not .{ending}",
                out.display()
            ))
        })?;
        if self.sticker && format != Format::WebP {
            return Err(Error::bad_input(format!("a sticker file is a WebP; name it .webp, not {}", out.display())));
        }
        if let Some(folder) = self.frames_dir.as_ref().filter(|folder| folder.exists() && !folder.is_dir()) {
            return Err(Error::bad_input(format!("{} is no folder; name another for the frames", folder.display())));
        }
        let save = if self.sticker { Save::sticker() } else { Save::new(format) };
        Ok(Save { quality: self.quality, ..save })
    }

    /// Writes `out`, and the frames where they were asked for. The file is whole before any of it is written.
    ///
    /// # Errors
    /// `BadInput` where it cannot be written.
    pub fn write(&self, out: &Path, animation: &Animation) -> Result<()> {
        let cannot = |path: &Path, error: std::io::Error| {
            Error::bad_input(format!("{} cannot be written: {error}", path.display()))
        };
        let file = pollster::block_on(animation::encode(animation, self.save(out)?, async |image, quality| {
            lossy(image, quality)
        }))?;
        if let Some(folder) = &self.frames_dir {
            fs::create_dir_all(folder).map_err(|error| cannot(folder, error))?;
            let stem = out.file_stem().unwrap_or_default().to_string_lossy();
            for (i, frame) in animation.frames.iter().enumerate() {
                picture::write(&folder.join(format!("{stem}-{i:02}.png")), frame)?;
            }
        }
        fs::write(out, file.bytes).map_err(|error| cannot(out, error))?;
        file.notes.iter().for_each(|note| eprintln!("note: {}: {note}", out.display()));
        Ok(())
    }
}

/// A still WebP by libwebp.
fn lossy(image: &Image, quality: Quality) -> Result<Vec<u8>> {
    let failed = |error: &dyn Debug| Error::bad_input(format!("libwebp cannot encode it: {error:?}"));
    let mut config = webp::WebPConfig::new().map_err(|()| failed(&"no configuration"))?;
    config.quality = quality.colour;
    config.alpha_quality = quality.alpha as i32;
    let encoder = webp::Encoder::from_rgba(&image.rgba, image.width as u32, image.height as u32);
    encoder.encode_advanced(&config).map(|bytes| bytes.to_vec()).map_err(|error| failed(&error))
}
