//! A request checked against a model.

use super::{
    memory::{F32_BYTES, MIN_TILE},
    model::Model,
    motion,
    request::{CodesPlan, Keep, Plan, Request, Search, Way},
};
use crate::{
    Error, Result,
    animation::{self, Motion},
    autoregress::sample::Sampling,
    denoise::{
        SkipLayers,
        schedule::{Extra, Run},
    },
    pixels::{Alpha, Convention, redraw},
};

/// More steps than this only cost time.
pub const MAX_STEPS: usize = 1000;
/// More candidates than this only cost time.
pub const MAX_CANDIDATES: usize = 1024;
/// More pictures are not drawn as codes side by side, for they would not be drawn faster.
const MOST_SIDE_BY_SIDE: usize = 16;
/// How many candidates beam search draws to the end where nothing is said.
const BEAMS: usize = 2;
/// The longest prompt that is looked at, in bytes; far more than any model reads.
pub const MAX_PROMPT_BYTES: usize = 20_000;
/// The largest side, as a multiple of the largest that the model was trained for.
const MAX_SIDE_FACTOR: usize = 4;
/// How much of a picture is drawn anew where nothing is said: of a whole picture, and below a mask.
const STRENGTH: f64 = 0.8;
const STRENGTH_BELOW_MASK: f64 = 1.0;

/// Checks a request and fills in the model's defaults.
///
/// # Errors
/// `BadInput`: one sentence that says what is wrong and what would be right.
pub fn plan(model: &Model, request: &Request) -> Result<Plan> {
    let info = &model.info;
    check_prompts(request)?;
    pace(request)?;
    let way = way(model, request)?;
    let (own_steps, own_guidance) = match way {
        Way::Hybrid => model.hybrid_defaults,
        _ => (info.default_steps, info.default_guidance),
    };
    let steps = self::steps(request.steps.unwrap_or(own_steps))?;
    // What draws codes has a guidance of its own.
    let guidance = request.guidance.filter(|_| way != Way::Tokens).unwrap_or(own_guidance);
    let count = count(request)?;
    let candidates = candidates(model, request, count)?;
    let codes = codes(model, request, way, candidates, count)?;
    let all = codes.as_ref().and_then(|codes| codes.beams).or(candidates).unwrap_or(count);
    let count = if request.keep == Some(Keep::All) { all } else { count };
    let mut warnings: Vec<String> = model.memory.warning().into_iter().collect();
    let guides = guides(model, request, guidance, steps, &mut warnings)?;
    unused(request, way, &mut warnings);
    let (width, height) = size(model, request, way, &mut warnings)?;
    let strength = strength(model, request, &mut warnings)?;
    let frames = motion::frames(model, request)?;
    let frame_ms = motion::frame_ms(model, request, frames)?;
    if frames > 1 && way != Way::Diffusion {
        return Err(Error::bad_input(format!(
            "{frames} frames cannot be drawn in the way {}; leave the way out to draw an animation",
            way.name()
        )));
    }
    let turns = turns(model, [frames, width, height], guides, &mut warnings);

    let (scheduler, notes) = model.scheduler(request.scheduler.as_deref())?;
    warnings.extend(notes);
    let spread = model.family.spreads_strength() && scheduler.has(Extra::Strength);
    let skipped = if spread { 0 } else { model.family.skipped_steps(steps, strength) };
    if skipped == steps {
        return Err(Error::bad_input(format!(
            "a strength of {strength} leaves none of {steps} steps to draw; raise the strength or the steps"
        )));
    }
    let schedule = scheduler.schedule(&Run {
        steps,
        begin: skipped * scheduler.order(),
        strength: if spread { strength } else { 1.0 },
        patches: model.patches(width, height),
        // What diffusers' pipelines hand to every scheduler that takes one.
        eta: request.eta.or_else(|| scheduler.has(Extra::Eta).then_some(0.0)),
        churn: request.churn,
    })?;

    if candidates.is_some() {
        let scorer = model.scorer()?;
        scorer.reduction(height, width)?;
        if codes.as_ref().is_some_and(|codes| codes.beams.is_some()) {
            let small = model.codes()?.0.config().grids[0] * model.autoencoder.shape().factor;
            scorer.reduction(small, small)?;
        }
    }
    let tile = tile(model, request, width, height)?;
    let latent: usize = model.latent_shape(width, height).iter().product();
    let noises = request.noise.iter().chain(&request.step_noise).map(|noise| (noise, frames * latent));
    let encode_noise = request.encode_noise.iter().map(|noise| (noise, latent));
    if let Some((noise, expected)) = noises.chain(encode_noise).find(|(noise, expected)| noise.len() != *expected) {
        let what = if frames == 1 { "a picture".to_owned() } else { format!("an animation of {frames} frames") };
        return Err(Error::bad_input(format!(
            "the noise has {} values; {what} of {width} x {height} starts from {expected}",
            noise.len()
        )));
    }
    Ok(Plan {
        way,
        codes,
        steps,
        guidance,
        guides,
        width,
        height,
        count,
        candidates,
        frames,
        frame_ms,
        turns,
        tile,
        strength,
        schedule,
        warnings,
    })
}

/// Whether prompts can be read at all.
///
/// # Errors
/// `BadInput` for an empty prompt, or one that is far too long.
fn check_prompts(request: &Request) -> Result<()> {
    // A picture says by itself what to draw.
    if request.prompt.trim().is_empty() && request.init.is_none() {
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
    Ok(())
}

/// The way of drawing and how many pictures, asked of a model that draws in one of `ways` from a prompt alone, and scores
/// nothing.
///
/// # Errors
/// `BadInput` for a prompt that cannot be read, another way, no picture, or anything that such a model does not do.
pub fn alone(request: &Request, ways: &[Way]) -> Result<(Way, usize)> {
    let searched = request.candidates.is_some()
        || request.keep.is_some()
        || request.beams.is_some()
        || request.search.is_some_and(|search| search != Search::Sample);
    let moves = request.motion.is_none() && request.frames.is_some_and(|frames| frames > 1);
    let refused = [
        (request.init.is_some() || request.mask.is_some(), "starts from no picture; leave the picture out"),
        (!request.negative_prompt.is_empty(), "takes no negative prompt; leave it out"),
        (searched, "has no scorer, so nothing chooses among candidates; leave them out"),
        (moves, "draws single pictures; leave the frames out, or give a motion"),
    ];
    if let Some((_, why)) = refused.iter().find(|(asked, _)| *asked) {
        return Err(Error::bad_input(format!("this model {why}")));
    }
    check_prompts(request)?;
    pace(request)?;
    Ok((known_way(ways, request)?, count(request)?))
}

/// The guidance that is asked for, or the model's `own`.
///
/// # Errors
/// `BadInput` where it is out of range.
pub fn guidance(request: &Request, own: f32) -> Result<f32> {
    let guidance = request.guidance.unwrap_or(own);
    check_scale("guidance", guidance, own)?;
    Ok(guidance)
}

fn check_scale(name: &str, scale: f32, own: f32) -> Result<()> {
    if (0.0..=100.0).contains(&scale) {
        return Ok(());
    }
    Err(Error::bad_input(format!(
        "the {name} {scale} is out of range; give a number from 0 to 100 (this model's own is {own})"
    )))
}

/// # Errors
/// `BadInput` for a number of steps that cannot be taken.
pub fn steps(steps: usize) -> Result<usize> {
    if (1..=MAX_STEPS).contains(&steps) {
        return Ok(steps);
    }
    Err(Error::bad_input(format!("{steps} steps cannot be drawn; give a number from 1 to {MAX_STEPS}")))
}

/// How many pictures are asked for.
///
/// # Errors
/// `BadInput` for none.
fn count(request: &Request) -> Result<usize> {
    match request.count.unwrap_or(1) {
        0 => Err(Error::bad_input("a count of 0 pictures draws nothing; give at least 1")),
        count => Ok(count),
    }
}

/// The way of drawing that is asked for, one of `ways`, or the first of them.
///
/// # Errors
/// `BadInput` for another.
fn known_way(ways: &[Way], request: &Request) -> Result<Way> {
    let way = request.way.or(ways.first().copied()).unwrap_or(Way::Diffusion);
    if ways.contains(&way) {
        return Ok(way);
    }
    let known: Vec<_> = ways.iter().map(|way| way.name()).collect();
    Err(Error::bad_input(format!("this model cannot draw in the way {}; it knows {}", way.name(), known.join(", "))))
}

/// The way of drawing.
fn way(model: &Model, request: &Request) -> Result<Way> {
    let way = known_way(&model.info.ways, request)?;
    if way != Way::Diffusion && (request.init.is_some() || request.mask.is_some()) {
        return Err(Error::bad_input(format!(
            "the way {} draws from a prompt alone; leave it out to start from a picture",
            way.name()
        )));
    }
    Ok(way)
}

/// How codes are drawn, where the way has any, to choose `count` pictures.
fn codes(
    model: &Model,
    request: &Request,
    way: Way,
    candidates: Option<usize>,
    count: usize,
) -> Result<Option<CodesPlan>> {
    let beams = beams(request, way, candidates, count)?;
    if way == Way::Diffusion {
        return Ok(None);
    }
    let (autoregressive, _) = model.codes()?;
    let config = autoregressive.config();
    let sampling = sampling(request, config.sampling)?;
    let scales = config.guidance.iter().map(|own| request.guidance.filter(|_| way == Way::Tokens).unwrap_or(*own));
    check_given(request, config.codes)?;
    let places = if way == Way::Tokens { config.places() } else { config.coarse_places() };
    let fits = |pictures: usize| autoregressive.live_values(pictures, 2, places) * F32_BYTES <= model.memory.room();
    let wanted = candidates.unwrap_or(1);
    let least = if beams.is_some() { wanted } else { 1 };
    if !fits(least) {
        return Err(Error::bad_input(format!(
            "to draw {least} pictures as codes side by side takes about {} MiB, and there are {}; {}",
            (autoregressive.live_values(least, 2, places) * F32_BYTES).div_ceil(1 << 20),
            model.memory.room() >> 20,
            if beams.is_some() { "give fewer candidates" } else { "leave the way of drawing out" }
        )));
    }
    let most = if beams.is_some() { wanted } else { wanted.min(MOST_SIDE_BY_SIDE) };
    let side_by_side = (least..=most).rev().find(|pictures| fits(*pictures)).unwrap_or(least);
    Ok(Some(CodesPlan { sampling, guidance: scales.collect(), beams, side_by_side }))
}

/// How codes are drawn, by a model that draws them by its `own` sampling.
///
/// # Errors
/// `BadInput` for a number that is out of range.
pub fn sampling(request: &Request, own: Sampling) -> Result<Sampling> {
    let sampling = Sampling {
        temperature: request.temperature.unwrap_or(own.temperature),
        top_k: request.top_k.unwrap_or(own.top_k),
        top_p: request.top_p.unwrap_or(own.top_p),
    };
    if !(sampling.temperature >= 0.0 && sampling.temperature <= 100.0) {
        return Err(Error::bad_input(format!(
            "the temperature {} is out of range; give a number from 0 to 100, 1 as it was trained",
            sampling.temperature
        )));
    }
    if !(sampling.top_p > 0.0 && sampling.top_p <= 1.0) {
        return Err(Error::bad_input(format!(
            "the top p {} is out of range; give a share above 0 and up to 1",
            sampling.top_p
        )));
    }
    Ok(sampling)
}

/// Whether codes and Gumbel noise that are given are those of a tokenizer with so many first and second `codes`.
///
/// # Errors
/// `BadInput` for those of another.
pub fn check_given(request: &Request, codes: [usize; 2]) -> Result<()> {
    if request.tokens.iter().flat_map(|pair| pair.iter().zip(codes)).any(|(code, codes)| *code as usize >= codes) {
        return Err(Error::bad_input(format!(
            "the tokens are of another tokenizer; this model's codes are below {} and {}",
            codes[0], codes[1]
        )));
    }
    let wrong = |(draw, noise): &(&usize, &Vec<f32>)| noise.len() != codes[*draw % 2];
    if let Some((draw, noise)) = request.gumbel.iter().find(wrong) {
        return Err(Error::bad_input(format!(
            "the Gumbel noise {draw} has {} values; there are {} codes to draw from",
            noise.len(),
            codes[draw % 2]
        )));
    }
    Ok(())
}

/// How many candidates beam search draws to the end, where it is asked for.
fn beams(request: &Request, way: Way, candidates: Option<usize>, count: usize) -> Result<Option<usize>> {
    let wrong = |text: String| Err(Error::bad_input(text));
    match (request.search, candidates) {
        (Some(Search::Best | Search::Beam), None) => wrong("what to search is candidates; say how many".to_owned()),
        (Some(Search::Sample), Some(candidates)) => {
            wrong(format!("{candidates} candidates are to be chosen from; search best or beam, or leave them out"))
        }
        (Some(Search::Beam), _) if way == Way::Diffusion => wrong(
            "beam search needs codes, which diffusion does not draw; search best, or give the way tokens or hybrid"
                .to_owned(),
        ),
        (Some(Search::Beam), Some(candidates)) => {
            let beams = request.beams.unwrap_or(BEAMS.max(count).min(candidates));
            if !(count..=candidates).contains(&beams) {
                return wrong(format!(
                    "{beams} beams of {candidates} candidates cannot give {count} pictures; give a number from {count} to {candidates}"
                ));
            }
            Ok(Some(beams))
        }
        _ if request.beams.is_some() => wrong("beams are of beam search; search beam, or leave them out".to_owned()),
        _ => Ok(None),
    }
}

/// Warns of what does not act in a way of drawing.
pub fn unused(request: &Request, way: Way, warnings: &mut Vec<String>) {
    let of_codes = [
        ("temperature", request.temperature.is_some()),
        ("top k", request.top_k.is_some()),
        ("top p", request.top_p.is_some()),
    ];
    let of_noise = [
        ("number of steps", request.steps.is_some()),
        ("scheduler", request.scheduler.is_some()),
        ("eta", request.eta.is_some()),
        ("churn", request.churn.is_some()),
    ];
    let (options, why): (&[_], _) = match way {
        Way::Diffusion => (&of_codes, "diffusion draws no codes"),
        Way::Tokens => (&of_noise, "codes are drawn one after the other, not from noise"),
        Way::Hybrid => return,
    };
    let given = options.iter().filter(|(_, given)| *given);
    warnings.extend(given.map(|(name, _)| format!("the {name} is not used: {why}")));
}

/// Whether the prompts of an animation must be guided one after the other, for lack of memory.
fn turns(model: &Model, [frames, width, height]: [usize; 3], guides: Option<f32>, warnings: &mut Vec<String>) -> bool {
    let [_, h, w] = model.latent_shape(width, height);
    let wants = |rows: usize| model.memory.wants(model.network.denoiser.live_values(rows, h, w) * F32_BYTES);
    if frames == 1 {
        return false;
    }
    let short = wants(frames);
    if short > 0 {
        warnings.push(format!(
            "{frames} frames of {width} x {height} need about {} MiB more memory than may be taken; drawing may fail, and \
             fewer frames need less",
            short.div_ceil(1 << 20)
        ));
    }
    guides.is_some() && wants(2 * frames) > 0
}

/// The motion of the finished picture, its frames, and how long each is shown, in milliseconds.
///
/// # Errors
/// `BadInput` naming the range of frames or of `fps`.
pub fn pace(request: &Request) -> Result<Option<(Motion, usize, u32)>> {
    let Some(motion) = request.motion else { return Ok(None) };
    let (frames, frame_ms) = animation::pace(request.frames, request.fps)?;
    Ok(Some((motion, frames, frame_ms)))
}

/// How many pictures are drawn to choose `count` from.
fn candidates(model: &Model, request: &Request, count: usize) -> Result<Option<usize>> {
    let Some(candidates) = request.candidates else {
        return match request.keep {
            Some(_) => Err(Error::bad_input("what to keep is asked of candidates; say how many, or leave it out")),
            None => Ok(None),
        };
    };
    model.scorer()?;
    if candidates < count {
        return Err(Error::bad_input(format!(
            "{candidates} candidates are fewer than the {count} pictures to choose from them; give at least {count}"
        )));
    }
    if candidates > MAX_CANDIDATES {
        return Err(Error::bad_input(format!("{candidates} candidates are too many; give at most {MAX_CANDIDATES}")));
    }
    Ok(Some(candidates))
}

/// By how much the negative prompt guides, if at all.
fn guides(
    model: &Model,
    request: &Request,
    guidance: f32,
    steps: usize,
    warnings: &mut Vec<String>,
) -> Result<Option<f32>> {
    let (own, network) = (model.info.default_guidance, &model.network);
    for (name, scale, own) in [("guidance", Some(guidance), own), ("true guidance", request.true_guidance, 1.0)] {
        scale.map_or(Ok(()), |scale| check_scale(name, scale, own))?;
    }
    let by_true = model.family.true_guidance();
    if request.true_guidance.is_some() && !by_true {
        return Err(Error::bad_input("this model has no true guidance beside its guidance; give that alone"));
    }
    let mut guides = model.guides(guidance, request.true_guidance);
    if by_true && request.negative_prompt.is_empty() && guides.take().is_some() {
        warnings.push("the true guidance is not used: there is no negative prompt to steer away from".to_owned());
    }
    if !request.negative_prompt.is_empty() && guides.is_none() {
        let how = match (by_true, network.told_guidance) {
            (true, _) => "give a true guidance above 1",
            (false, true) => "this model is told its guidance, and is never shown one",
            (false, false) => "give a guidance above 1",
        };
        warnings.push(format!("the negative prompt is not used: {how}"));
    }
    if by_true && !network.told_guidance && request.guidance.is_some() {
        warnings.push("the guidance is not used: this model was not trained to be told one".to_owned());
    }
    if let Some(skip) = &request.skip_layers {
        check_skipped(model, skip, guides)?;
        if !(0..steps).any(|step| skip.acts(step, steps)) {
            warnings.push(format!(
                "no layer is skipped: none of {steps} steps lies between the shares {} and {} of them",
                skip.start, skip.stop
            ));
        }
    }
    Ok(guides)
}

fn check_skipped(
    model: &Model,
    SkipLayers { layers, scale, start, stop }: &SkipLayers,
    guides: Option<f32>,
) -> Result<()> {
    let most = model.network.layers;
    let wrong = if most == 0 {
        "this model cannot skip layers; leave that out, or take Stable Diffusion 3".to_owned()
    } else if guides.is_none() {
        "skipping layers acts beside guidance; give a guidance above 1".to_owned()
    } else if let Some(layer) = layers.iter().find(|layer| **layer >= most) {
        format!("there is no layer {layer} to skip; this model has the layers 0 to {}", most - 1)
    } else if !(scale.is_finite() && (0.0..=1.0).contains(start) && (0.0..=1.0).contains(stop)) {
        format!(
            "layers cannot be skipped at the scale {scale} from {start} to {stop}; give shares of the steps, 0 to 1"
        )
    } else {
        return Ok(());
    };
    Err(Error::bad_input(wrong))
}

/// See [`Pipeline::drawable_size`](super::Pipeline::drawable_size).
pub fn drawable_size(model: &Model, width: usize, height: usize) -> [usize; 2] {
    let step = model.size_step();
    let cut = [width, height].map(|side| side / step * step);
    if cut.iter().all(|side| (1..=largest_side(model)).contains(side)) {
        return cut;
    }
    let shape = |[width, height]: [usize; 2]| (width.max(1) as f64 / height.max(1) as f64).ln();
    let far = |size: [usize; 2]| (shape(size) - shape([width, height])).abs();
    let sizes = model.info.sizes.iter().copied();
    sizes.min_by(|a, b| far(*a).total_cmp(&far(*b))).unwrap_or([step, step])
}

fn largest_side(model: &Model) -> usize {
    MAX_SIDE_FACTOR * model.info.sizes.iter().flatten().max().copied().unwrap_or(model.size_step())
}

fn size(model: &Model, request: &Request, way: Way, warnings: &mut Vec<String>) -> Result<(usize, usize)> {
    let info = &model.info;
    let only = model.only_size(way);
    let [default_width, default_height] = match &request.init {
        Some(init) => [init.width, init.height],
        None => only.unwrap_or(info.sizes[0]),
    };
    let (width, height) = (request.width.unwrap_or(default_width), request.height.unwrap_or(default_height));
    if let Some([w, h]) = only.filter(|only| *only != [width, height]) {
        return Err(Error::bad_input(format!(
            "the way {} draws {w} x {h} pixels, the grid that it was trained for, and not {width} x {height}",
            way.name()
        )));
    }
    let step = model.size_step();
    let largest = largest_side(model);
    let trained = info.sizes.iter().map(|[w, h]| format!("{w} x {h}")).collect::<Vec<_>>().join(", ");
    let table = model.network.largest.map(|largest| largest * model.autoencoder.shape().factor);
    for (name, side) in [("width", width), ("height", height)] {
        if let Some(table) = table.filter(|table| side > *table) {
            return Err(Error::bad_input(format!(
                "the {name} of {side} pixels cannot be drawn; this model's table of positions ends at {table} pixels"
            )));
        }
        if side == 0 || !side.is_multiple_of(step) || side > largest {
            return Err(Error::bad_input(format!(
                "the {name} of {side} pixels cannot be drawn; give a multiple of {step} up to {largest} (this model was trained for {trained})"
            )));
        }
    }
    if !info.sizes.contains(&[width, height]) {
        warnings.push(format!("this model was trained for {trained}; a picture of {width} x {height} may look wrong"));
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
fn tile(model: &Model, request: &Request, width: usize, height: usize) -> Result<Option<usize>> {
    let factor = model.autoencoder.shape().factor;
    match request.tile {
        Some(tile) if tile < MIN_TILE * factor => Err(Error::bad_input(format!(
            "tiles of {tile} pixels are mostly seam; give at least {}",
            MIN_TILE * factor
        ))),
        Some(tile) => Ok(Some(tile / factor)),
        None => {
            let map = model.autoencoder.shape().map_per_position;
            Ok(model.memory.tile(map, height / factor, width / factor))
        }
    }
}

fn strength(model: &Model, request: &Request, warnings: &mut Vec<String>) -> Result<f64> {
    let Some(init) = &request.init else {
        if request.mask.is_some() || request.strength.is_some() {
            return Err(Error::bad_input("a mask and a strength need an init picture to start from"));
        }
        if model.repaints_only() {
            return Err(Error::bad_input("this model only repaints: give it an init picture and a mask"));
        }
        return Ok(1.0);
    };
    match &request.mask {
        None if model.repaints_only() => {
            return Err(Error::bad_input("this model only repaints: give it a mask, too"));
        }
        Some(mask) if !redraw(mask).contains(&1.0) => {
            return Err(Error::bad_input("the mask has no white pixel, so there is nothing to draw anew"));
        }
        Some(mask) => warnings.extend(Convention::of(mask).note().map(str::to_owned)),
        None => {}
    }
    if model.info.alpha == Alpha::None && init.rgba.chunks_exact(4).any(|pixel| pixel[3] != u8::MAX) {
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
