//! What can be asked of a model, and whether it makes sense.

use super::{memory::MIN_TILE, model::Pipeline};
use crate::{
    Error, Result,
    denoise::schedule::{Churn, Extra, Run, Schedule},
    pixels::Alpha,
    values::Image,
};

/// More steps than this only cost time.
pub const MAX_STEPS: usize = 1000;
/// The longest prompt that is looked at, in bytes; far more than any model reads.
pub const MAX_PROMPT_BYTES: usize = 20_000;
/// The largest side, as a multiple of the largest that the model was trained for.
const MAX_SIDE_FACTOR: usize = 4;
/// How much of a picture is drawn anew where nothing is said: of a whole picture, and below a mask.
const STRENGTH: f64 = 0.8;
const STRENGTH_BELOW_MASK: f64 = 1.0;

/// What a model says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    pub alpha: Alpha,
    pub max_text_tokens: usize,
    pub default_steps: usize,
    pub default_guidance: f32,
    /// (width, height) pairs the model was trained for; the first is the default.
    pub sizes: Vec<[usize; 2]>,
    pub styles: Vec<String>,
}

/// What to draw. `None` means the model's default.
#[derive(Clone, Debug, Default)]
pub struct Request {
    pub prompt: String,
    /// What to steer away from; "" is the unconditional prompt.
    pub negative_prompt: String,
    pub seed: u64,
    /// How many pictures; picture `i` has the seed `seed + i`.
    pub count: Option<usize>,
    pub steps: Option<usize>,
    pub guidance: Option<f32>,
    /// In place of the model's own: a short name (`euler-a`) or a diffusers class.
    pub scheduler: Option<String>,
    /// How much fresh noise each step of `ddim` or `tcd` adds: 0 (where nothing is said) to 1.
    pub eta: Option<f64>,
    /// Noise that each step of `euler` or `flow-heun` adds before it goes down.
    pub churn: Option<Churn>,
    /// In pixels; with `init`, its size.
    pub width: Option<usize>,
    pub height: Option<usize>,
    /// The picture to start from. Models without an alpha channel see it over white.
    pub init: Option<Image>,
    /// How much of `init` is drawn anew: above 0, up to 1. By default 0.8, below a mask 1.
    pub strength: Option<f64>,
    /// Of the size of `init`: white where it is drawn anew, black where it stays; what is between counts as the nearer.
    pub mask: Option<Image>,
    /// Decode in overlapping tiles of this many pixels a side, at least 16 latent positions; by default in one piece, or
    /// in the largest tiles that the memory plan has room for.
    pub tile: Option<usize>,
    /// Unit noise `[C, height / factor, width / factor]` in place of the seed's, for every picture.
    pub noise: Option<Vec<f32>>,
    /// The same for the steps of stochastic schedulers, by step; steps beyond take the seed's.
    pub step_noise: Vec<Vec<f32>>,
    /// The same for encoding `init`.
    pub encode_noise: Option<Vec<f32>>,
}

/// A [`Request`] with every default filled in and every value checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub steps: usize,
    pub guidance: f32,
    pub width: usize,
    pub height: usize,
    pub count: usize,
    /// The side of the tiles of decoding, in latent positions.
    pub tile: Option<usize>,
    /// 1 where nothing is started from.
    pub strength: f64,
    /// The steps that are taken.
    pub schedule: Schedule,
    /// What is not wrong but worth telling.
    pub warnings: Vec<String>,
}

impl Pipeline {
    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        let info = self.info();
        if request.prompt.trim().is_empty() {
            return Err(Error::bad_input("the prompt is empty; say what to draw, for example \"a red apple\""));
        }
        for (name, prompt) in [("prompt", &request.prompt), ("negative prompt", &request.negative_prompt)] {
            if prompt.len() > MAX_PROMPT_BYTES {
                return Err(Error::bad_input(format!(
                    "the {name} has {} bytes; at most {MAX_PROMPT_BYTES} are read",
                    prompt.len()
                )));
            }
        }
        let steps = request.steps.unwrap_or(info.default_steps);
        if steps == 0 || steps > MAX_STEPS {
            return Err(Error::bad_input(format!(
                "{steps} steps cannot be drawn; give a number from 1 to {MAX_STEPS}"
            )));
        }
        let guidance = request.guidance.unwrap_or(info.default_guidance);
        if !guidance.is_finite() || !(0.0..=100.0).contains(&guidance) {
            return Err(Error::bad_input(format!(
                "the guidance {guidance} is out of range; give a number from 0 to 100 (this model's own is {})",
                info.default_guidance
            )));
        }
        let count = request.count.unwrap_or(1);
        if count == 0 {
            return Err(Error::bad_input("a count of 0 pictures draws nothing; give at least 1"));
        }
        let mut warnings = Vec::new();
        if self.memory.short_by > 0 {
            warnings.push(format!(
                "this model needs about {} MiB more memory than it may take; drawing may fail",
                self.memory.short_by.div_ceil(1 << 20)
            ));
        }
        let (width, height) = self.size(request, &mut warnings)?;
        let strength = self.strength(request, &mut warnings)?;

        let scheduler = self.scheduler(request.scheduler.as_deref())?;
        let spread = self.family().spreads_strength() && scheduler.has(Extra::Strength);
        let skipped = if spread { 0 } else { self.family().skipped_steps(steps, strength) };
        if skipped == steps {
            return Err(Error::bad_input(format!(
                "a strength of {strength} leaves none of {steps} steps to draw; raise the strength or the steps"
            )));
        }
        let schedule = scheduler.schedule(&Run {
            steps,
            begin: skipped * scheduler.order(),
            strength: if spread { strength } else { 1.0 },
            patches: self.patches(width, height),
            // What diffusers' pipelines hand to every scheduler that takes one.
            eta: request.eta.or_else(|| scheduler.has(Extra::Eta).then_some(0.0)),
            churn: request.churn,
        })?;

        let tile = self.tile(request, width, height)?;
        let latent: usize = self.latent_shape(width, height).iter().product();
        let noises = request.noise.iter().chain(&request.step_noise).chain(&request.encode_noise);
        if let Some(noise) = noises.into_iter().find(|noise| noise.len() != latent) {
            return Err(Error::bad_input(format!(
                "the noise has {} values; a picture of {width} x {height} starts from {latent}",
                noise.len()
            )));
        }
        Ok(Plan { steps, guidance, width, height, count, tile, strength, schedule, warnings })
    }

    fn size(&self, request: &Request, warnings: &mut Vec<String>) -> Result<(usize, usize)> {
        let info = self.info();
        let [default_width, default_height] = match &request.init {
            Some(init) => [init.width, init.height],
            None => info.sizes[0],
        };
        let (width, height) = (request.width.unwrap_or(default_width), request.height.unwrap_or(default_height));
        let step = self.size_step();
        let largest = MAX_SIDE_FACTOR * info.sizes.iter().flatten().max().copied().unwrap_or(step);
        let trained = info.sizes.iter().map(|[w, h]| format!("{w} x {h}")).collect::<Vec<_>>().join(", ");
        for (name, side) in [("width", width), ("height", height)] {
            if side == 0 || !side.is_multiple_of(step) || side > largest {
                return Err(Error::bad_input(format!(
                    "the {name} of {side} pixels cannot be drawn; give a multiple of {step} up to {largest} (this model was trained for {trained})"
                )));
            }
        }
        if !info.sizes.contains(&[width, height]) {
            warnings
                .push(format!("this model was trained for {trained}; a picture of {width} x {height} may look wrong"));
        }
        for (name, picture) in [("init picture", &request.init), ("mask", &request.mask)] {
            if let Some(picture) = picture
                && (picture.width, picture.height) != (width, height)
            {
                return Err(Error::bad_input(format!(
                    "the {name} is {} x {}, but the picture is to be {width} x {height}; make them the same size",
                    picture.width, picture.height
                )));
            }
        }
        Ok((width, height))
    }

    /// In latent positions.
    fn tile(&self, request: &Request, width: usize, height: usize) -> Result<Option<usize>> {
        let factor = self.autoencoder.shape().factor;
        match request.tile {
            Some(tile) if tile < MIN_TILE * factor => Err(Error::bad_input(format!(
                "tiles of {tile} pixels are mostly seam; give at least {}",
                MIN_TILE * factor
            ))),
            Some(tile) => Ok(Some(tile / factor)),
            None => {
                let map = self.autoencoder.shape().map_per_position;
                Ok(self.memory.tile(map, height / factor, width / factor))
            }
        }
    }

    fn strength(&self, request: &Request, warnings: &mut Vec<String>) -> Result<f64> {
        let Some(init) = &request.init else {
            if request.mask.is_some() || request.strength.is_some() {
                return Err(Error::bad_input("a mask and a strength need an init picture to start from"));
            }
            if self.repaints_only() {
                return Err(Error::bad_input("this model only repaints: give it an init picture and a mask"));
            }
            return Ok(1.0);
        };
        match &request.mask {
            None if self.repaints_only() => {
                return Err(Error::bad_input("this model only repaints: give it a mask, too"));
            }
            Some(mask) if !super::inpaint::redraw(mask).contains(&1.0) => {
                return Err(Error::bad_input("the mask has no white pixel, so there is nothing to draw anew"));
            }
            _ => {}
        }
        if self.info().alpha == Alpha::None && init.rgba.chunks_exact(4).any(|pixel| pixel[3] != u8::MAX) {
            warnings.push("the init picture is transparent in places; this model sees it over white".to_owned());
        }
        let default = if request.mask.is_some() { STRENGTH_BELOW_MASK } else { STRENGTH };
        let strength = request.strength.unwrap_or(default);
        if !(strength > 0.0 && strength <= 1.0) {
            return Err(Error::bad_input(format!(
                "the strength {strength} is out of range; give a number above 0 (as the init picture) up to 1 (all anew)"
            )));
        }
        Ok(strength)
    }
}
