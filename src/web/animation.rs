//! Animations in JavaScript: a picture that is set in motion, and files.

use js_sys::{Function, Object, Promise, Uint8Array};
use serde::Deserialize;
use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::JsFuture;

use super::{JsImage, Thrown, animation_to_js, from_js, image_to_js, set, to_js};
use crate::{
    Error, Result,
    animation::{self, Format, Motion, Quality, Save},
    pipeline::Request,
    values::{Animation, Image},
};

#[derive(Deserialize)]
struct JsAnimation {
    frames: Vec<JsImage>,
    frame_ms: u32,
}

/// As [`Save`]; the format by its media type.
#[derive(Deserialize)]
struct JsSave {
    r#type: String,
    quality: Option<f32>,
    side: Option<usize>,
    max_bytes: Option<usize>,
}

impl JsSave {
    fn read(self) -> Result<Save> {
        let format = Format::of(&self.r#type).ok_or_else(|| {
            Error::bad_input(format!(
                "an animation cannot be saved as \"{}\" here; give image/webp, image/apng or image/gif",
                self.r#type
            ))
        })?;
        Ok(Save { format, quality: self.quality, side: self.side, max_bytes: self.max_bytes })
    }
}

/// `{motion, frames?, fps?}` of a picture: gives `{frames, frame_ms}`.
///
/// # Errors
/// `bad-input`.
#[wasm_bindgen]
pub fn animate(image: JsValue, options: JsValue) -> Thrown<JsValue> {
    let request = Request::read(serde_wasm_bindgen::Deserializer::from(options))?;
    let motion = request.motion.ok_or_else(|| {
        let motions = Motion::ALL.map(|(name, _)| name).join(", ");
        Error::bad_input(format!("there is no `motion`; give one of {motions}"))
    })?;
    let (frames, frame_ms) = animation::pace(request.frames, request.fps)?;
    let image = from_js::<JsImage>(image)?.read("image")?;
    Ok(animation_to_js(&animation::animate(&image, motion, frames, frame_ms)?)?.into())
}

/// `{bytes, type, notes}` of `{frames, frame_ms}`, by `{type, quality?, side?, max_bytes?}`. `still` makes a lossy WebP from a
/// picture and the qualities of its colours and its alpha; without it, WebP is lossless.
///
/// # Errors
/// `bad-input`.
#[wasm_bindgen]
pub async fn encode_animation(animation: JsValue, save: JsValue, still: Option<Function>) -> Thrown<JsValue> {
    let save = from_js::<JsSave>(save)?.read()?;
    let JsAnimation { frames, frame_ms } = from_js(animation)?;
    let frames = frames.into_iter().map(|frame| frame.read("frames")).collect::<Result<_>>()?;
    let animation = Animation { frames, frame_ms };
    let file = animation::encode(&animation, save, async |image, quality| match &still {
        Some(still) => lossy(still, image, quality).await,
        None => animation::lossless(image),
    })
    .await?;
    let answer = Object::new();
    set(&answer, "bytes", &Uint8Array::from(file.bytes.as_slice()))?;
    set(&answer, "type", &save.format.media_type().into())?;
    set(&answer, "notes", &to_js(&file.notes)?)?;
    Ok(answer.into())
}

async fn lossy(still: &Function, image: &Image, quality: Quality) -> Result<Vec<u8>> {
    let failed = |error: JsValue| Error::bad_input(format!("the encoder of still pictures failed: {error:?}"));
    let picture = image_to_js(image)?;
    let [colour, alpha] = [quality.colour, quality.alpha].map(|quality| JsValue::from_f64(f64::from(quality)));
    let answer = still.call3(&JsValue::NULL, &picture, &colour, &alpha).map_err(failed)?;
    let bytes = JsFuture::from(Promise::resolve(&answer)).await.map_err(failed)?;
    Ok(bytes.dyn_into::<Uint8Array>().map_err(failed)?.to_vec())
}
