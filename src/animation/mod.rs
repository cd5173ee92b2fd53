//! Moving pictures: a finished one set in motion, and the files that hold animations.
//!
//! ```text
//! Image -> affine -> Animation -> webp, apng, gif -> bytes
//! ```

mod affine;
mod apng;
mod frames;
mod gif;
mod webp;

pub use affine::{Motion, animate, fit_square};
use frames::check;
pub use webp::{Quality, lossless};

use std::iter;

use crate::{
    Error, Result,
    values::{Animation, Image},
};

/// How many frames an animation has where nothing is said.
const FRAMES: usize = 16;
/// Fewer cannot go there and back again.
const MIN_FRAMES: usize = 4;
/// More frames than this are a film.
pub const MAX_FRAMES: usize = 100;
/// Frames a second where nothing is said: 80 ms each, which a GIF can say, too.
const FPS: f64 = 12.5;
/// GIFs that are faster than this are slowed down by browsers.
const MAX_FPS: f64 = 50.0;
/// The quality of lossy files, of 100, where nothing is said.
const QUALITY: f32 = 80.0;
/// What is tried, below what was asked for, to keep a limit.
const LOWER_QUALITIES: [f32; 6] = [70.0, 60.0, 45.0, 30.0, 15.0, 5.0];
/// Of so many frames, one tells how large the others will be.
const PROBED: usize = 8;
/// What chat programs take as a moving sticker: this many pixels a side, and this many bytes.
const STICKER_SIDE: usize = 512;
const STICKER_BYTES: usize = 500_000;

/// A kind of file that holds an animation; all of them repeat for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// 8 bits of alpha, lossy or not.
    WebP,
    /// 8 bits of alpha, lossless.
    Apng,
    /// 1 bit of alpha and 256 colours.
    Gif,
}

impl Format {
    const ALL: [(Self, &'static [&'static str]); 3] = [
        (Self::WebP, &["webp", "image/webp"]),
        (Self::Apng, &["png", "apng", "image/apng", "image/png"]),
        (Self::Gif, &["gif", "image/gif"]),
    ];

    /// By a file's ending or its media type.
    pub fn of(name: &str) -> Option<Self> {
        let name = name.to_ascii_lowercase();
        Self::ALL.iter().find(|(_, names)| names.contains(&name.as_str())).map(|(format, _)| *format)
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Self::WebP => "image/webp",
            Self::Apng => "image/apng",
            Self::Gif => "image/gif",
        }
    }
}

/// How an animation becomes a file. What is `None` is left as it is.
#[derive(Clone, Copy, Debug)]
pub struct Save {
    pub format: Format,
    /// 1 to 100, of lossy files [default: 80].
    pub quality: Option<f32>,
    /// Scaled to fit a square of so many pixels, transparent where the picture is not one.
    pub side: Option<usize>,
    /// At most so many bytes, for which the quality is lowered.
    pub max_bytes: Option<usize>,
}

impl Save {
    /// As it is, in the usual quality.
    pub fn new(format: Format) -> Self {
        Self { format, quality: None, side: None, max_bytes: None }
    }

    /// What chat programs take as a sticker.
    pub fn sticker() -> Self {
        Self { side: Some(STICKER_SIDE), max_bytes: Some(STICKER_BYTES), ..Self::new(Format::WebP) }
    }
}

/// A file, and what there is to say of it.
#[derive(Clone, Debug)]
pub struct File {
    pub bytes: Vec<u8>,
    pub notes: Vec<String>,
}

/// How many frames, and how long each is shown in milliseconds, by what a request says.
///
/// # Errors
/// `BadInput` naming the range.
pub fn pace(frames: Option<usize>, fps: Option<f64>) -> Result<(usize, u32)> {
    let frames = frames.unwrap_or(FRAMES);
    if !(MIN_FRAMES..=MAX_FRAMES).contains(&frames) {
        return Err(Error::bad_input(format!(
            "a motion of {frames} frames cannot be made; give a number from {MIN_FRAMES} to {MAX_FRAMES}"
        )));
    }
    Ok((frames, frame_ms(fps.unwrap_or(FPS))?))
}

/// How long a frame is shown at `fps` frames a second, in milliseconds.
///
/// # Errors
/// `BadInput` naming the range.
pub fn frame_ms(fps: f64) -> Result<u32> {
    if !(1.0..=MAX_FPS).contains(&fps) {
        return Err(Error::bad_input(format!(
            "{fps} frames a second cannot be shown; give a number from 1 to {MAX_FPS}"
        )));
    }
    Ok((1000.0 / fps).round() as u32)
}

/// Writes `animation` as `save` says. `still` encodes one picture as a WebP of some quality: by a lossy encoder
/// of the caller's, or [`lossless`], which has no quality to lower.
///
/// # Errors
/// `BadInput` for an animation without frames or with frames of several sizes, a quality or side out of range, and where
/// the limit cannot be kept; what `still` gives.
pub async fn encode(
    animation: &Animation,
    save: Save,
    mut still: impl AsyncFnMut(&Image, Quality) -> Result<Vec<u8>>,
) -> Result<File> {
    check(animation)?;
    let quality = save.quality.unwrap_or(QUALITY);
    if !(1.0..=100.0).contains(&quality) {
        return Err(Error::bad_input(format!("the quality {quality} is out of range; give a number from 1 to 100")));
    }
    let fitted = save.side.map(|side| fit_square(animation, side)).transpose()?;
    let animation = fitted.as_ref().unwrap_or(animation);
    let most = save.max_bytes.unwrap_or(usize::MAX);
    let too_large = |bytes: &[u8], why: &str| {
        Error::bad_input(format!(
            "the file would have {} KB, above the limit of {} KB{why}; give fewer frames, a smaller side or a higher limit",
            bytes.len().div_ceil(1000),
            most / 1000
        ))
    };
    let whole = match save.format {
        Format::WebP => None,
        Format::Apng => Some(apng::encode(animation)?),
        Format::Gif => Some(gif::encode(animation)?),
    };
    if let Some(bytes) = whole {
        return match bytes.len() <= most {
            true => Ok(File { bytes, notes: Vec::new() }),
            false => Err(too_large(&bytes, ", and this kind of file has no quality to lower: save it as WebP")),
        };
    }
    let lower = LOWER_QUALITIES.into_iter().filter(|lower| *lower < quality);
    let qualities: Vec<f32> = iter::once(quality).chain(lower).collect();
    // The first quality that will do is sought by a few frames: all of them take seconds.
    let few = Animation { frames: animation.frames.iter().step_by(PROBED).cloned().collect(), ..*animation };
    let (mut first, mut end, mut probed) = (0, qualities.len() - 1, 0);
    while first < end && most < usize::MAX {
        let size = webp::encode(&few, qualities[probed].into(), &mut still).await?.len();
        match size * animation.frames.len() <= most * few.frames.len() {
            true => end = probed,
            false => first = probed + 1,
        }
        probed = (first + end) / 2;
    }
    let mut last = Vec::new();
    for tried in &qualities[first..] {
        let bytes = webp::encode(animation, (*tried).into(), &mut still).await?;
        if bytes.len() <= most {
            let lowered =
                format!("the quality was lowered from {quality} to {tried} to keep the file below {} KB", most / 1000);
            let notes = if *tried < quality { vec![lowered] } else { Vec::new() };
            return Ok(File { bytes, notes });
        }
        last = bytes;
    }
    Err(too_large(&last, ", in the lowest quality"))
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, io::Cursor};

    use image::{AnimationDecoder, codecs};

    use super::*;

    /// A disc that is half seen at its rim.
    fn picture(side: usize) -> Image {
        let rgba = (0..side * side).flat_map(|i| {
            let far = [i % side, i / side].map(|at| (at as f64 + 0.5 - side as f64 / 2.0).powi(2)).iter().sum::<f64>();
            let seen = ((side as f64 * 0.4 - far.sqrt()) / 3.0).clamp(0.0, 1.0);
            if seen == 0.0 { [0; 4] } else { [200, (i % side * 255 / side) as u8, 40, (seen * 255.0) as u8] }
        });
        Image { width: side, height: side, rgba: rgba.collect() }
    }

    fn clip() -> Animation {
        animate(&picture(32), Motion::Wobble, 8, 80).unwrap()
    }

    async fn exact(image: &Image, _: Quality) -> Result<Vec<u8>> {
        lossless(image)
    }

    fn saved(animation: &Animation, format: Format) -> Vec<u8> {
        pollster::block_on(encode(animation, Save::new(format), exact)).unwrap().bytes
    }

    fn frames<'a>(decoder: impl AnimationDecoder<'a>) -> Vec<(Vec<u8>, u32)> {
        let frames = decoder.into_frames().collect_frames().unwrap();
        let told = frames.iter().map(|frame| (frame.buffer().as_raw().clone(), frame.delay().numer_denom_ms().0));
        told.collect()
    }

    #[test]
    fn files_hold_every_frame_its_alpha_and_its_time() {
        let clip = clip();
        let whole: Vec<_> = clip.frames.iter().map(|frame| (frame.rgba.clone(), 80)).collect();
        let webp = codecs::webp::WebPDecoder::new(Cursor::new(saved(&clip, Format::WebP))).unwrap();
        assert!(frames(webp) == whole);
        let apng = codecs::png::PngDecoder::new(Cursor::new(saved(&clip, Format::Apng))).unwrap().apng().unwrap();
        assert!(frames(apng) == whole);
        let gif = frames(codecs::gif::GifDecoder::new(Cursor::new(saved(&clip, Format::Gif))).unwrap());
        assert_eq!(gif.len(), 8);
        for ((found, ms), (rgba, _)) in gif.iter().zip(&whole) {
            assert_eq!(*ms, 80);
            for (found, pixel) in found.chunks_exact(4).zip(rgba.chunks_exact(4)) {
                assert_eq!(found[3], if pixel[3] < 128 { 0 } else { 255 });
                assert!(found[3] == 0 || found.iter().zip(pixel).take(3).all(|(a, b)| a.abs_diff(*b) < 48));
            }
        }
    }

    #[test]
    fn a_limit_is_kept_by_lowering_the_quality_and_that_is_said() {
        let clip = clip();
        // Stands for a lossy encoder: the lower the quality, the less is left of the picture.
        let lossy = async |image: &Image, quality: Quality| {
            let step = (101.0 - quality.colour) as u8;
            let rgba = image.rgba.iter().map(|value| value / step * step).collect();
            lossless(&Image { rgba, ..image.clone() })
        };
        let all = Save { quality: Some(90.0), ..Save::new(Format::WebP) };
        let size = pollster::block_on(encode(&clip, all, lossy)).unwrap().bytes.len();
        let file = pollster::block_on(encode(&clip, Save { max_bytes: Some(size - 1), ..all }, lossy)).unwrap();
        assert!(file.bytes.len() < size);
        // Of seven qualities, few are tried, and only one on all frames.
        let asked = Cell::new(0);
        let counted = async |image: &Image, quality: Quality| {
            asked.set(asked.get() + 1);
            lossy(image, quality).await
        };
        let small = pollster::block_on(encode(&clip, Save { quality: Some(5.0), ..all }, lossy)).unwrap().bytes.len();
        let file_of = Save { max_bytes: Some(small + 1), ..all };
        assert!(pollster::block_on(encode(&clip, file_of, counted)).unwrap().notes[0].contains("from 90 to 5"));
        assert!(asked.get() <= 4 + clip.frames.len(), "{} frames were encoded", asked.get());
        assert!(file.notes[0].contains("from 90 to 70"), "{:?}", file.notes);
        let fails = |save: Save, words: &str| {
            let message = pollster::block_on(encode(&clip, save, exact)).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        };
        fails(Save { max_bytes: Some(50), ..all }, "above the limit");
        fails(Save { max_bytes: Some(50), ..Save::new(Format::Gif) }, "no quality to lower");
        fails(Save { quality: Some(0.0), ..all }, "from 1 to 100");
        fails(Save { side: Some(0), ..all }, "side");
    }

    #[test]
    fn a_sticker_is_a_square_of_512_pixels() {
        let mut clip = clip();
        clip.frames =
            clip.frames.iter().map(|frame| Image { width: 32, height: 16, rgba: frame.rgba[..2048].into() }).collect();
        let file = pollster::block_on(encode(&clip, Save::sticker(), exact)).unwrap();
        let webp = frames(codecs::webp::WebPDecoder::new(Cursor::new(&file.bytes)).unwrap());
        assert_eq!((webp.len(), webp[0].0.len()), (8, 512 * 512 * 4));
        assert!(webp[0].0[..512 * 128 * 4].iter().all(|value| *value == 0), "above the picture nothing is seen");
    }

    #[test]
    fn bad_input_is_a_sentence() {
        assert_eq!(pace(None, None).unwrap(), (16, 80));
        assert_eq!(pace(Some(8), Some(25.0)).unwrap(), (8, 40));
        for (frames, fps, words) in [
            (Some(1000), None, "1000 frames cannot be made; give a number from 4 to 100"),
            (Some(0), None, "from 4 to 100"),
            (None, Some(0.0), "0 frames a second cannot be shown; give a number from 1 to 50"),
            (None, Some(f64::NAN), "from 1 to 50"),
        ] {
            let message = pace(frames, fps).unwrap_err().message;
            assert!(message.contains(words), "{message}");
        }
        let none = Animation { frames: vec![], frame_ms: 80 };
        assert!(pollster::block_on(encode(&none, Save::new(Format::Gif), exact)).is_err());
        let mixed = Animation { frames: vec![picture(8), picture(9)], frame_ms: 80 };
        assert!(pollster::block_on(encode(&mixed, Save::new(Format::Apng), exact)).is_err());
        assert_eq!(Format::of("GIF"), Some(Format::Gif));
        assert_eq!(Format::of("video/webm"), None);
    }
}
