//! JavaScript bindings: what the package's worker calls. WebAssembly only.
//!
//! Every failure is thrown as a JavaScript `Error` with a `code` (see [`crate::Code`]) and a message for people.

mod animation;
mod device;

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use js_sys::{Float32Array, Function, Object, Promise, Reflect, Uint8ClampedArray};
use serde::{Deserialize, Serialize};
use wasm_bindgen::{JsCast, prelude::*};
use wasm_bindgen_futures::{JsFuture, future_to_promise};

use crate::{
    Code, Error, Result, gpu,
    pipeline::{
        Event, MOTION, MemoryBudget, MemoryPlan, OPTIONAL, PREVIEW, Pipeline, Request, SCORER, Stage, Way,
        default_frames, memory_needs, required_params, ways,
    },
    values::{Animation, Image, read},
    weights::{
        ModelFiles, Tensors,
        bundle::{self, Manifest},
    },
};
use device::ChosenDevice;

/// What the components that [`MemoryPlan::release_text`] speaks of begin with.
const TEXT_ENCODERS: &str = "text_encoder";

unsafe extern "C" {
    /// Runs what dependencies have registered to run before all else (the crate `inventory`).
    fn __wasm_call_ctors();
}

/// Panics are defects, but one that happens should at least say where.
#[wasm_bindgen(start)]
fn start() {
    // SAFETY: the linker makes it, and this is the only call. Where there is none the linker calls it before every function
    // that JavaScript calls, thousands of registrations each time: a picture took fifty times as long to ask of a GPU.
    unsafe { __wasm_call_ctors() };
    console_error_panic_hook::set_once();
}

/// Takes a model's shards and gives the [`Model`].
#[wasm_bindgen]
pub struct Loader {
    /// The whole bundle, where parts of it may be asked for later.
    whole: Option<Manifest>,
    inner: bundle::Loader,
    device: ChosenDevice,
    memory: MemoryPlan,
}

#[wasm_bindgen]
impl Loader {
    /// Checks a manifest, down to the name and shape of every tensor its configs ask for, before anything
    /// is downloaded; and picks the device: `"auto"` (WebGPU, else the CPU), `"gpu"` or `"cpu"`, of whose memory at
    /// most `memory_mib` MiB are to be taken.
    ///
    /// # Errors
    /// `bad-model`, `bad-input` for another device, `unsupported` where `"gpu"` is not to be had.
    pub async fn open(manifest_json: String, device: String, memory_mib: Option<f64>) -> Thrown<Loader> {
        let manifest = Manifest::parse(&manifest_json)?;
        // Nothing is computed for the check, so the device that is always there will do.
        manifest.check_params(&required_params(&manifest.files)?)?;
        let device = device::choose(&device).await?;
        let bytes = memory_mib.map_or(device.budget.bytes, |mib| (mib * f64::from(1 << 20)) as u64);
        let memory = MemoryPlan::new(&memory_needs(&manifest.files)?, MemoryBudget { bytes, ..device.budget });
        let whole = (memory.release_text || !manifest.optional.is_empty()).then(|| manifest.clone());
        Ok(Loader { whole, ..Loader::new(manifest.into_core(), device, memory) })
    }

    /// `{kind, name, note?}`.
    pub fn device(&self) -> Thrown<JsValue> {
        to_js(&self.device.info)
    }

    /// `[{file, size, sha256}]` of what is to be pushed: not of optional components, which come when a request needs them.
    pub fn shards(&self) -> Thrown<JsValue> {
        to_js(&self.inner.manifest().shards)
    }

    /// Compiles the kernels of a drawing while the shards are on their way, which needs the configs alone; `pause` is called in
    /// between, and its promise awaited, so that the worker hears what is told to it. Gives whether that could be done; else
    /// [`Model::warm_up`] is to do it. It cannot on the CPU, nor where there is no room for a second such model (what is uploaded
    /// is little, but memory is taken in pages as large as the largest tensor), nor for a model that draws no picture from
    /// noise and a prompt.
    pub fn compile(&self, pause: Function) -> Promise {
        let (files, device, memory) = (self.inner.manifest().files.clone(), self.device.clone(), self.memory);
        future_to_promise(async move {
            let compiled = device.is_gpu()
                && memory.copies > 1
                && gpu::compile_only(rehearse(&files, &device, memory, pause)).await.is_ok();
            Ok(compiled.into())
        })
    }

    /// Checks one shard and uploads its tensors; in any order.
    ///
    /// # Errors
    /// `corrupt-weights` where size or SHA-256 are not the manifest's; nothing is kept of such a shard.
    pub async fn push(&mut self, index: usize, bytes: &[u8]) -> Thrown<()> {
        Ok(self.inner.push(index, bytes)?)
    }

    /// The model, once every shard has been pushed.
    ///
    /// # Errors
    /// `bad-input` naming a shard that is missing.
    pub async fn finish(self) -> Thrown<Model> {
        let (manifest, tensors) = self.inner.finish()?;
        let pipeline = Pipeline::load(&manifest.files, &tensors)?.with_memory(self.memory);
        let info = pipeline.info();
        let whole = self.whole.as_ref().unwrap_or(&manifest);
        let own = ways(&whole.files)?;
        let more = |way: &Way| (way.name(), missing_bytes(whole, &pipeline, way.components()));
        let later = |component: &str| self.whole.as_ref().is_some_and(|whole| whole.is_optional(component));
        let has = |component: &str| pipeline.has_optional(component) || later(component);
        let moving = has(MOTION).then(|| (FRAMES, missing_bytes(whole, &pipeline, &[MOTION])));
        let info = Info {
            ways: own.iter().map(|way| way.name()).collect(),
            downloads: own.iter().map(more).chain(moving).collect(),
            name: manifest.name.clone(),
            sizes: info.sizes.clone(),
            cell: info.cell,
            styles: info.styles.clone(),
            default_steps: info.default_steps,
            default_guidance: info.default_guidance,
            max_text_tokens: info.max_text_tokens,
            alpha: info.alpha.name(),
            license: manifest.license.clone(),
            attribution: manifest.attribution.clone(),
            repaints_only: pipeline.repaints_only(),
            chooses: has(SCORER),
            animates: has(MOTION),
            default_frames: default_frames(&whole.files, info.default_frames)?,
            weights: self.memory.kept.name(),
            releases_text: self.memory.release_text,
            copies: self.memory.copies,
        };
        Ok(Model { pipeline, info, device: self.device, memory: self.memory, whole: self.whole })
    }
}

impl Loader {
    fn new(part: Manifest, device: ChosenDevice, memory: MemoryPlan) -> Self {
        let inner = bundle::Loader::new(part, Tensors::kept_as(&device.device, memory.kept));
        Self { whole: None, inner, device, memory }
    }
}

/// Goes through a drawing of the model in `files` without its weights.
async fn rehearse(files: &ModelFiles, device: &ChosenDevice, memory: MemoryPlan, pause: Function) -> Result<()> {
    let tensors = Tensors::unwritten(&device.device, memory.kept);
    let mut pipeline = Pipeline::load(files, &tensors)?.with_memory(memory);
    let pause = async || {
        if let Ok(turn) = pause.call0(&JsValue::NULL) {
            // Whatever it says, it has been waited for.
            let _ = JsFuture::from(Promise::resolve(&turn)).await;
        }
    };
    pause().await;
    pipeline.rehearse(pause).await
}

/// A model on its device.
#[wasm_bindgen]
pub struct Model {
    pipeline: Pipeline,
    info: Info,
    device: ChosenDevice,
    memory: MemoryPlan,
    /// The bundle, where parts of it may be asked for later.
    whole: Option<Manifest>,
}

/// What animations are called among downloads.
const FRAMES: &str = "frames";

/// What a request needs that a model may lack.
#[derive(Deserialize)]
struct Wants {
    #[serde(default)]
    preview: bool,
    candidates: Option<f64>,
    way: Option<String>,
    frames: Option<f64>,
    /// Which moves the finished picture, without the model.
    motion: Option<serde::de::IgnoredAny>,
}

#[derive(Serialize)]
struct Info {
    name: String,
    sizes: Vec<[usize; 2]>,
    cell: usize,
    styles: Vec<String>,
    default_steps: usize,
    default_guidance: f32,
    max_text_tokens: usize,
    alpha: &'static str,
    license: String,
    attribution: String,
    repaints_only: bool,
    chooses: bool,
    ways: Vec<&'static str>,
    /// How many bytes each way has yet to fetch, and what draws [`FRAMES`].
    downloads: BTreeMap<&'static str, u64>,
    animates: bool,
    default_frames: usize,
    weights: &'static str,
    releases_text: bool,
    copies: u64,
}

/// What a request holds beside its [options](Request).
#[derive(Deserialize)]
struct JsRequest {
    init: Option<JsImage>,
    mask: Option<JsImage>,
    #[serde(default)]
    preview: bool,
    /// Somebody sees the steps or may cancel between them.
    #[serde(default)]
    watched: bool,
    #[serde(default, with = "serde_wasm_bindgen::preserve")]
    noise: JsValue,
    #[serde(default)]
    raw: bool,
}

/// An `ImageData`, or what looks like one: straight RGBA8.
#[derive(Deserialize)]
struct JsImage {
    width: usize,
    height: usize,
    /// Left as it is and copied at once: element by element would take seconds.
    #[serde(with = "serde_wasm_bindgen::preserve")]
    data: Uint8ClampedArray,
}

impl JsImage {
    fn read(self, name: &str) -> Result<Image> {
        let JsImage { width, height, data } = self;
        let rgba = data.to_vec();
        if width.checked_mul(height).and_then(|n| n.checked_mul(4)) != Some(rgba.len()) {
            return Err(Error::bad_input(format!(
                "`{name}` must hold four bytes for each of its {width} x {height} pixels"
            )));
        }
        Ok(Image { width, height, rgba })
    }
}

#[derive(Default, Serialize)]
struct Timings {
    text_ms: f64,
    denoise_ms: f64,
    decode_ms: f64,
}

#[wasm_bindgen]
impl Model {
    pub fn info(&self) -> Thrown<JsValue> {
        to_js(&self.info)
    }

    /// `{kind, name, note?}`.
    pub fn device(&self) -> Thrown<JsValue> {
        to_js(&self.device.info)
    }

    /// Compiles the shaders where the loader did not, by drawing one step of a picture that nobody sees, or its first row of codes. The CPU has none to
    /// compile.
    ///
    /// # Errors
    /// `device-lost`, `out-of-memory`.
    pub async fn warm_up(&mut self) -> Thrown<()> {
        // A model that only repaints has nothing to draw from a prompt alone, and one that gives its text encoder away
        // keeps it for the first prompt.
        if self.device.is_gpu() && !self.pipeline.repaints_only() && !self.memory.release_text {
            let request = Request { prompt: "warm up".to_owned(), steps: Some(1), ..Default::default() };
            let first_row = async |event: Event<'_>| match event {
                Event::Tokens { .. } => Err(Error::aborted()),
                _ => Ok(()),
            };
            let warmed = self.pipeline.generate(&request, first_row).await;
            return Ok(warmed.map(drop).or_else(|error| match error.code {
                // What it cannot draw in the size of its own it says when that is asked for.
                Code::Aborted | Code::BadInput => Ok(()),
                _ => Err(error),
            })?);
        }
        Ok(())
    }

    /// The loader of text encoders that were released and must be back before the next picture: push its shards, then
    /// [`add`](Self::add).
    pub fn text_loader(&self) -> Option<Loader> {
        let whole = self.whole.as_ref().filter(|_| !self.pipeline.has_text())?;
        Some(self.part(whole, |component| component.starts_with(TEXT_ENCODERS)))
    }

    /// The same of optional components that `request` needs and that are not here yet.
    ///
    /// # Errors
    /// `bad-input` for what is no request.
    pub fn optional_loader(&self, request: JsValue) -> Thrown<Option<Loader>> {
        let wants: Wants = from_js(request)?;
        let Some(whole) = &self.whole else { return Ok(None) };
        let way = Way::ALL.into_iter().find(|way| wants.way.as_deref() == Some(way.name()));
        let of_way =
            way.unwrap_or(self.pipeline.info().ways[0]).components().iter().map(|component| (*component, true));
        let moves = wants.motion.is_none() && wants.frames.is_some_and(|frames| frames > 1.0);
        let asked = [(PREVIEW, wants.preview), (SCORER, wants.candidates.is_some()), (MOTION, moves)];
        let asked = asked.into_iter().chain(of_way);
        let missing = |name: &str| whole.is_optional(name) && !self.pipeline.has_optional(name);
        let wanted: Vec<_> = asked.filter(|(name, asked)| *asked && missing(name)).collect();
        let part = || self.part(whole, |component| wanted.iter().any(|(name, _)| *name == component));
        Ok((!wanted.is_empty()).then(part))
    }

    /// Takes what a loader of this model's brought.
    ///
    /// # Errors
    /// `bad-input` naming a shard that is missing.
    pub fn add(&mut self, loader: Loader) -> Thrown<()> {
        let (part, tensors) = loader.inner.finish()?;
        for component in OPTIONAL.into_iter().filter(|component| part.has_component(component)) {
            self.pipeline.add_optional(component, &part.files, &tensors)?;
        }
        if part.has_component(TEXT_ENCODERS) {
            self.pipeline.restore_text(&part.files, &tensors)?;
        }
        Ok(())
    }

    fn part(&self, whole: &Manifest, keep: impl Fn(&str) -> bool) -> Loader {
        let mut part = whole.clone();
        part.retain_components(keep);
        Loader::new(part, self.device.clone(), self.memory)
    }

    /// Draws; `on_step` is called after each step with `{stage, image, count, step, steps, preview?}`, once more with `{seed,
    /// score}` for each candidate, and its promise awaited: false cancels. Gives `{images, animations?, seed, seeds, scores?,
    /// warnings, timings, raw?}`.
    ///
    /// # Errors
    /// `bad-input`, `aborted`, `device-lost`, `out-of-memory`.
    pub async fn generate(&mut self, request: JsValue, on_step: Function) -> Thrown<JsValue> {
        let mut options = Request::read(serde_wasm_bindgen::Deserializer::from(request.clone()))?;
        let request: JsRequest = from_js(request)?;
        let JsRequest { preview: wants_preview, raw: wants_raw, watched, .. } = request;
        options.init = request.init.map(|init| init.read("init")).transpose()?;
        options.mask = request.mask.map(|mask| mask.read("mask")).transpose()?;
        options.noise = request.noise.dyn_into::<Float32Array>().ok().map(|noise| noise.to_vec());
        let (seed, request) = (options.seed, options);
        let mut timings = Timings::default();
        // What the device may still be computing while the next step is told to it.
        let mut ahead: Option<Tensor<4>> = None;
        let mut raw = Vec::new();
        let (mut last_stage, mut last_step) = (Stage::Denoise, 0);
        let mut since = js_sys::Date::now();
        let mut lap = || {
            let now = js_sys::Date::now();
            now - std::mem::replace(&mut since, now)
        };
        let result = self
            .pipeline
            .generate(&request, async |event| {
                self.device.check_alive()?;
                match event {
                    Event::Text { embedding, .. } => {
                        if watched {
                            settle(embedding.hidden.clone()).await?;
                        }
                        timings.text_ms += lap();
                    }
                    Event::Start { .. } => timings.decode_ms += lap(),
                    Event::Step { image, count, step, steps, x_t, preview } => {
                        if let Some(before) = ahead.replace(x_t.clone()).filter(|_| watched) {
                            settle(before).await?;
                        }
                        let preview = if wants_preview { Some(preview.image().await?) } else { None };
                        (last_stage, last_step) = (Stage::Denoise, steps);
                        tell(&on_step, Stage::Denoise, [image, count, step, steps], preview, None).await?;
                        timings.denoise_ms += lap();
                    }
                    Event::Tokens { image, count, stage, row, rows, preview, .. } => {
                        let preview = match preview.filter(|_| wants_preview) {
                            Some(preview) => Some(preview.image().await?),
                            None => None,
                        };
                        (last_stage, last_step) = (stage, rows);
                        tell(&on_step, stage, [image, count, row, rows], preview, None).await?;
                        timings.denoise_ms += lap();
                    }
                    Event::Candidate { image, count, seed, score, picture } => {
                        let picture = wants_preview.then(|| picture.clone());
                        let numbers = [image, count, last_step, last_step];
                        tell(&on_step, last_stage, numbers, picture, Some((seed, score))).await?;
                        timings.decode_ms += lap();
                    }
                    Event::Decoded { pixels, .. } => {
                        if wants_raw {
                            raw.push(read(pixels.clone()).await?);
                        }
                    }
                }
                Ok(())
            })
            .await;
        // A lost device shows itself as whatever failed first; its own word is the better explanation.
        self.device.check_alive()?;
        let generated = result?;
        timings.decode_ms += lap();

        let answer = Object::new();
        let images: js_sys::Array = generated.images.iter().map(image_to_js).collect::<Result<_>>()?;
        set(&answer, "images", &images)?;
        if !generated.animations.is_empty() {
            let animations: js_sys::Array = generated.animations.iter().map(animation_to_js).collect::<Result<_>>()?;
            set(&answer, "animations", &animations)?;
        }
        set(&answer, "seed", &JsValue::from_str(&seed.to_string()))?;
        set(&answer, "seeds", &to_js(&generated.seeds.iter().map(u64::to_string).collect::<Vec<_>>())?)?;
        if !generated.scores.is_empty() {
            set(&answer, "scores", &to_js(&generated.scores)?)?;
        }
        set(&answer, "warnings", &to_js(&generated.warnings)?)?;
        set(&answer, "timings", &to_js(&timings)?)?;
        if wants_raw {
            set(
                &answer,
                "raw",
                &raw.iter().map(|values| Float32Array::from(values.as_slice())).collect::<js_sys::Array>(),
            )?;
        }
        Ok(answer.into())
    }
}

/// How many bytes of the optional `components` are not here yet.
fn missing_bytes(whole: &Manifest, pipeline: &Pipeline, components: &[&str]) -> u64 {
    let mut part = whole.clone();
    part.retain_components(|component| components.contains(&component) && !pipeline.has_optional(component));
    part.shards.iter().map(|shard| shard.size).sum()
}

/// Waits until the device has computed `tensor`, so that it is at most one step behind what is told, and cancelled soon.
async fn settle<const D: usize>(tensor: Tensor<D>) -> Result<()> {
    read(tensor).await.map(drop)
}

/// Calls `on_step` with the stage and `[image, count, step, steps]`, and of a candidate with its seed and score, and awaits its answer.
///
/// # Errors
/// `Aborted` where the answer is false.
async fn tell(
    on_step: &Function,
    stage: Stage,
    numbers: [usize; 4],
    preview: Option<Image>,
    candidate: Option<(u64, f32)>,
) -> Result<()> {
    let event = Object::new();
    for (key, value) in ["image", "count", "step", "steps"].into_iter().zip(numbers) {
        set(&event, key, &JsValue::from_f64(value as f64))?;
    }
    set(&event, "stage", &JsValue::from_str(stage.name()))?;
    if let Some((seed, score)) = candidate {
        set(&event, "seed", &JsValue::from_str(&seed.to_string()))?;
        set(&event, "score", &JsValue::from_f64(f64::from(score)))?;
    }
    if let Some(preview) = preview {
        let preview = image_to_js(&preview)?;
        set(&event, "preview", &preview)?;
    }
    let answer = on_step.call1(&JsValue::NULL, &event).map_err(callback_failed)?;
    let answer = JsFuture::from(Promise::resolve(&answer)).await.map_err(callback_failed)?;
    if answer == JsValue::FALSE { Err(Error::aborted()) } else { Ok(()) }
}

fn callback_failed(error: JsValue) -> Error {
    Error::bad_input(format!("the step callback failed: {error:?}"))
}

/// `{width, height, data}`.
fn image_to_js(image: &Image) -> Result<Object> {
    let object = Object::new();
    set(&object, "width", &JsValue::from_f64(image.width as f64))?;
    set(&object, "height", &JsValue::from_f64(image.height as f64))?;
    set(&object, "data", &Uint8ClampedArray::from(image.rgba.as_slice()))?;
    Ok(object)
}

/// `{frames, frame_ms}`.
fn animation_to_js(animation: &Animation) -> Result<Object> {
    let object = Object::new();
    let frames: js_sys::Array = animation.frames.iter().map(image_to_js).collect::<Result<_>>()?;
    set(&object, "frames", &frames)?;
    set(&object, "frame_ms", &JsValue::from_f64(f64::from(animation.frame_ms)))?;
    Ok(object)
}

fn set(object: &Object, key: &str, value: &JsValue) -> Result<()> {
    Reflect::set(object, &JsValue::from_str(key), value)
        .map(drop)
        .map_err(|error| Error::bad_input(format!("{error:?}")))
}

fn from_js<T: for<'de> Deserialize<'de>>(request: JsValue) -> Result<T> {
    serde_wasm_bindgen::from_value(request)
        .map_err(|error| Error::bad_input(format!("the request is not valid: {error}")))
}

fn to_js(value: &impl Serialize) -> Thrown<JsValue> {
    let serializer = serde_wasm_bindgen::Serializer::json_compatible();
    Ok(value.serialize(&serializer).map_err(|error| Error::bad_model(error.to_string()))?)
}

/// What a binding returns: an [`Error`] crosses into JavaScript by way of [`JsError`].
type Thrown<T> = std::result::Result<T, JsError>;

/// An [`Error`] as a JavaScript `Error` with a `code`.
pub struct JsError(Error);

impl From<Error> for JsError {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl From<JsError> for JsValue {
    fn from(JsError(error): JsError) -> Self {
        let value = js_sys::Error::new(&error.message);
        // Setting a property of a fresh object cannot fail.
        let _ = Reflect::set(&value, &JsValue::from_str("code"), &JsValue::from_str(error.code.as_str()));
        value.into()
    }
}
