//! The words: what a model says of itself, what can be asked of it, what was planned, and what came of it.

use std::collections::BTreeMap;

use serde::{Deserialize, Deserializer};

use crate::{
    Error, Result,
    animation::Motion,
    autoregress::sample::Sampling,
    denoise::{
        SkipLayers,
        schedule::{Churn, Schedule},
    },
    pixels::Alpha,
    values::{Animation, Image},
};

/// What a model says of itself.
#[derive(Clone, Debug)]
pub struct Info {
    pub alpha: Alpha,
    pub max_text_tokens: usize,
    pub default_steps: usize,
    pub default_guidance: f32,
    /// (width, height) pairs the model was trained for; the first is the default.
    pub sizes: Vec<[usize; 2]>,
    /// Side in pixels of the squares that a mask acts on: what one place of a latent draws.
    pub cell: usize,
    pub styles: Vec<String>,
    /// The ways of drawing that the model has, the default first.
    pub ways: Vec<Way>,
    /// How many frames an animation has where nothing is said, of models that animate; 1 where only stills are drawn.
    pub default_frames: usize,
    /// How long each is shown, in milliseconds.
    pub frame_ms: u32,
}

/// A way of drawing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename_all = "lowercase"))]
pub enum Way {
    /// Noise becomes a picture, all of it at once, in a few steps.
    Diffusion,
    /// A transformer writes the picture as codes, one after the other: a small one, then in detail.
    Tokens,
    /// It lays out the small one, and diffusion draws the picture to it.
    Hybrid,
}

impl Way {
    pub const ALL: [Self; 3] = [Self::Diffusion, Self::Tokens, Self::Hybrid];

    pub fn name(self) -> &'static str {
        match self {
            Self::Diffusion => "diffusion",
            Self::Tokens => "tokens",
            Self::Hybrid => "hybrid",
        }
    }
}

/// How candidates are searched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename_all = "lowercase"))]
pub enum Search {
    /// Not at all: each picture is drawn once.
    Sample,
    /// All are drawn, then the best are chosen.
    Best,
    /// Few are drawn to the end: those whose small picture is best.
    Beam,
}

impl Search {
    pub const ALL: [Self; 3] = [Self::Sample, Self::Best, Self::Beam];

    pub fn name(self) -> &'static str {
        match self {
            Self::Sample => "sample",
            Self::Best => "best",
            Self::Beam => "beam",
        }
    }
}

/// What to draw. `None` means the model's default.
///
/// Each option is written here and nowhere else: JavaScript's object is read into this by serde, its type in
/// `pkg/src/options.d.ts` is written from this by a test below, and the command line's options are these
/// (feature `cli`). So the comments speak to all three.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename = "Options", optional_fields))]
pub struct Request {
    /// What to draw
    #[serde(deserialize_with = "kind::text")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "TEXT"))]
    pub prompt: String,
    /// What to steer away from
    #[serde(deserialize_with = "kind::text")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "TEXT", default_value = ""))]
    #[cfg_attr(test, ts(as = "Option<String>"))]
    pub negative_prompt: String,
    /// The same seed gives the same picture; picture i of a count has the seed + i
    #[serde(deserialize_with = "kind::seed")]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(as = "Option<String>"))]
    pub seed: u64,
    /// How many pictures
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub count: Option<usize>,
    /// Draw N pictures, from the seed on, and choose the best by the model's scorer: best first, each with its seed and
    /// score
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub candidates: Option<usize>,
    /// Which of the candidates come back: the best, as many as the count says, or all [default: best]
    #[serde(deserialize_with = "kind::keep")]
    #[cfg_attr(feature = "cli", arg(long, requires = "candidates"))]
    #[cfg_attr(test, ts(inline))]
    pub keep: Option<Keep>,
    /// How to draw, where the model has several ways [default: diffusion]
    #[serde(deserialize_with = "kind::way")]
    #[cfg_attr(feature = "cli", arg(long))]
    #[cfg_attr(test, ts(inline))]
    pub way: Option<Way>,
    /// How candidates are searched: best draws all of them to the end; beam, of the ways tokens and hybrid, only those
    /// whose small pictures the scorer likes best [default: best with candidates, else sample]
    #[serde(deserialize_with = "kind::search")]
    #[cfg_attr(feature = "cli", arg(long))]
    #[cfg_attr(test, ts(inline))]
    pub search: Option<Search>,
    /// How many candidates beam search draws to the end [default: 2, or as many as the count says]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N", requires = "search"))]
    pub beams: Option<usize>,
    /// Of the ways tokens and hybrid: how freely codes are drawn; below 1 the likely ones more often, 0 the likeliest only
    /// [default: the model's]
    #[serde(deserialize_with = "kind::number")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub temperature: Option<f64>,
    /// Draw codes from the N likeliest only [default: the model's]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub top_k: Option<usize>,
    /// Draw codes from the likeliest that together have this share of all likelihood, above 0 and up to 1 [default: the
    /// model's]
    #[serde(deserialize_with = "kind::number")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub top_p: Option<f64>,
    /// Denoising steps [default: the model's]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub steps: Option<usize>,
    /// Classifier-free guidance: how strictly the prompt is followed; 1 is none and halves the work [default: the model's]
    #[serde(deserialize_with = "kind::number32")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub guidance: Option<f32>,
    /// Of models that are but told the guidance, as Flux is: by how much the negative prompt steers, above 1 (diffusers'
    /// true_cfg_scale) [default: 1, which leaves it unused]
    #[serde(deserialize_with = "kind::number32")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub true_guidance: Option<f32>,
    /// Skip-layer guidance of Stable Diffusion 3: push away from what is drawn without these layers, counted from 0 (7,8,9
    /// for 3.5 medium)
    #[serde(deserialize_with = "kind::skip_layers")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N,N,..."))]
    #[cfg_attr(test, ts(as = "Option<Vec<usize>>"))]
    pub skip_layers: Option<SkipLayers>,
    /// In pixels; with a picture to start from, its size [default: the model's]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub width: Option<usize>,
    /// As the width
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(skip))]
    pub height: Option<usize>,
    /// Sample with this scheduler, a short name or a diffusers class: ddpm, ddim, dpm++, dpm++-single, unipc, deis, euler,
    /// euler-a, heun, lms, kdpm2, kdpm2-a, pndm, lcm, tcd, flow-euler, flow-heun [default: the model's]
    #[serde(deserialize_with = "kind::text_or_none")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "NAME"))]
    pub scheduler: Option<String>,
    /// Fresh noise in each step of ddim or tcd, 0 to 1 [default: 0]
    #[serde(deserialize_with = "kind::number")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub eta: Option<f64>,
    /// Noise that each step of euler or flow-heun adds before it goes down, as diffusers' s_churn
    #[serde(deserialize_with = "kind::churn")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    #[cfg_attr(test, ts(as = "Option<f64>"))]
    pub churn: Option<Churn>,
    /// How much of the picture to start from is drawn anew, above 0 and up to 1 [default: 0.8; with a mask 1]
    #[serde(deserialize_with = "kind::number")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F", requires = "init"))]
    pub strength: Option<f64>,
    /// Decode in tiles of N pixels a side, at least 16 latent positions, with blended seams [default: in one piece, or in
    /// the largest that the memory plan has room for]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub tile: Option<usize>,
    /// How many frames: denoised together by models that animate, 1 being a still; of a motion 4 to 100 [default: the
    /// model's; with a motion 16]
    #[serde(deserialize_with = "kind::whole")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "N"))]
    pub frames: Option<usize>,
    /// Frames shown in a second, 1 to 50 [default: the model's; with a motion 12.5]
    #[serde(deserialize_with = "kind::number")]
    #[cfg_attr(feature = "cli", arg(long, value_name = "F"))]
    pub fps: Option<f64>,
    /// Move the finished picture along a path that closes; every model can
    #[serde(deserialize_with = "kind::motion")]
    #[cfg_attr(feature = "cli", arg(long))]
    #[cfg_attr(test, ts(inline))]
    pub motion: Option<Motion>,

    /// The picture to start from. Models without an alpha channel see it over white.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub init: Option<Image>,
    /// Of the size of `init`: white where it is drawn anew, black where it stays; what is between counts as the nearer. One
    /// that is clear in places is understood by that: see [`Convention`](crate::pixels::Convention).
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub mask: Option<Image>,
    /// Unit noise `[frames, C, height / factor, width / factor]` in place of the seed's, for every picture.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub noise: Option<Vec<f32>>,
    /// The same for the steps of stochastic schedulers, by step; steps beyond take the seed's.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub step_noise: Vec<Vec<f32>>,
    /// The same for encoding `init`, which is one frame.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub encode_noise: Option<Vec<f32>>,
    /// Codes of the first places, first and second, in place of drawn ones.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub tokens: Vec<[u32; 2]>,
    /// Gumbel noise in place of the seed's, for every picture, by draw: a place's number times two, and one more for its
    /// second code.
    #[serde(skip)]
    #[cfg_attr(feature = "cli", arg(skip))]
    #[cfg_attr(test, ts(skip))]
    pub gumbel: BTreeMap<usize, Vec<f32>>,
}

/// Which candidates are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename_all = "lowercase"))]
pub enum Keep {
    Best,
    All,
}

impl Request {
    /// The options in an object of another language, whose other keys are left aside.
    ///
    /// # Errors
    /// `BadInput` naming the option, what it must be, and what it is.
    pub fn read<'de>(object: impl Deserializer<'de>) -> Result<Self> {
        serde_path_to_error::deserialize(object).map_err(|error| {
            // JavaScript's errors put their name before their words.
            let words = error.inner().to_string();
            Error::bad_input(format!("`{}` {}", error.path(), words.strip_prefix("Error: ").unwrap_or(&words)))
        })
    }
}

/// The kinds of options, refused in words.
mod kind {
    use serde::{Deserialize, Deserializer, de::Error};
    use serde_json::Value;

    use super::{Keep, Search, Way};
    use crate::{
        animation::Motion,
        denoise::{SkipLayers, schedule::Churn},
    };

    fn read<'de, D: Deserializer<'de>, T>(
        from: D,
        kind: &str,
        read: impl Fn(&Value) -> Option<T>,
    ) -> Result<Option<T>, D::Error> {
        match Value::deserialize(from)? {
            Value::Null => Ok(None),
            value => read(&value).map(Some).ok_or_else(|| D::Error::custom(format!("must be {kind}, not {value}"))),
        }
    }

    pub fn text_or_none<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
        read(from, "a string", |value| value.as_str().map(str::to_owned))
    }

    pub fn text<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
        text_or_none(from).map(Option::unwrap_or_default)
    }

    pub fn number<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f64>, D::Error> {
        read(from, "a number", Value::as_f64)
    }

    pub fn number32<'de, D: Deserializer<'de>>(from: D) -> Result<Option<f32>, D::Error> {
        number(from).map(|number| number.map(|number| number as f32))
    }

    pub fn churn<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Churn>, D::Error> {
        number(from).map(|amount| amount.map(Churn::new))
    }

    pub fn skip_layers<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SkipLayers>, D::Error> {
        let layer = |value: &Value| value.as_f64().filter(|n| n.fract() == 0.0 && (0.0..1e6).contains(n));
        let layers = |value: &Value| value.as_array()?.iter().map(|value| Some(layer(value)? as usize)).collect();
        read(from, "a list of whole numbers", layers).map(|layers| layers.map(SkipLayers::new))
    }

    pub fn whole<'de, D: Deserializer<'de>>(from: D) -> Result<Option<usize>, D::Error> {
        let whole =
            |value: &Value| value.as_f64().filter(|n| n.fract() == 0.0 && (1.0..=f64::from(u32::MAX)).contains(n));
        read(from, "a whole number of at least 1", |value| whole(value).map(|n| n as usize))
    }

    pub fn keep<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Keep>, D::Error> {
        read(from, "\"best\" or \"all\"", |value| match value.as_str()? {
            "best" => Some(Keep::Best),
            "all" => Some(Keep::All),
            _ => None,
        })
    }

    pub fn way<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Way>, D::Error> {
        one_of(from, &Way::ALL, Way::name)
    }

    pub fn search<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Search>, D::Error> {
        one_of(from, &Search::ALL, Search::name)
    }

    fn one_of<'de, D: Deserializer<'de>, T: Copy>(
        from: D,
        all: &[T],
        name: impl Fn(T) -> &'static str,
    ) -> Result<Option<T>, D::Error> {
        let names: Vec<_> = all.iter().map(|one| format!("\"{}\"", name(*one))).collect();
        read(from, &names.join(" or "), |value| {
            let given = value.as_str()?;
            all.iter().copied().find(|one| name(*one) == given)
        })
    }

    pub fn motion<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Motion>, D::Error> {
        let names = Motion::ALL.map(|(name, _)| format!("\"{name}\""));
        let kind = format!("one of {}", names.join(", "));
        read(from, &kind, |value| Motion::named(value.as_str()?))
    }

    /// In decimal, for JavaScript's numbers end at 2^53.
    pub fn seed<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
        let kind = format!("a whole number from 0 to {}", u64::MAX);
        read(from, &kind, |value| value.as_str()?.parse().ok()).map(Option::unwrap_or_default)
    }
}

/// A [`Request`] with every default filled in and every value checked.
#[derive(Clone, Debug)]
pub struct Plan {
    pub way: Way,
    /// How codes are drawn, where the way has any.
    pub codes: Option<CodesPlan>,
    pub steps: usize,
    /// What guides, or what the network is told.
    pub guidance: f32,
    /// By how much the negative prompt guides, where it does.
    pub guides: Option<f32>,
    pub width: usize,
    pub height: usize,
    /// How many pictures are given back.
    pub count: usize,
    /// How many are drawn to choose them from; `None` where nothing chooses.
    pub candidates: Option<usize>,
    /// How many frames are denoised together; 1 is a still.
    pub frames: usize,
    /// How long each is shown, in milliseconds.
    pub frame_ms: u32,
    /// Guidance takes its prompts one after the other, for both at once would need more memory than there is.
    pub turns: bool,
    /// The side of the tiles of decoding, in latent positions.
    pub tile: Option<usize>,
    /// 1 where nothing is started from.
    pub strength: f64,
    /// The steps that are taken.
    pub schedule: Schedule,
    /// What is not wrong but worth telling.
    pub warnings: Vec<String>,
}

/// How codes are drawn.
#[derive(Clone, Debug)]
pub struct CodesPlan {
    pub sampling: Sampling,
    /// Of each grid.
    pub guidance: Vec<f32>,
    /// How many candidates are drawn to the end by beam search; `None` where none is lost on the way.
    pub beams: Option<usize>,
    /// How many pictures are drawn side by side, at most.
    pub side_by_side: usize,
}

/// Finished pictures.
#[derive(Clone, Debug, Default)]
pub struct Generated {
    /// With candidates, the best first.
    pub images: Vec<Image>,
    /// Of each picture, where it was asked to move; then the picture is what moves, or the first frame.
    pub animations: Vec<Animation>,
    /// The seed of each picture.
    pub seeds: Vec<u64>,
    /// The scorer's word on each picture, -1 to 1, where there were candidates; else none.
    pub scores: Vec<f32>,
    pub warnings: Vec<String>,
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use ts_rs::TS;

    use super::*;

    /// `WRITE=1 cargo test --workspace --lib options` writes them.
    #[test]
    fn the_package_has_the_types_of_these_options() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/pkg/src/options.d.ts");
        let types = format!(
            "/** Written from `src/pipeline/request.rs` by its test; change the options there. */\nexport {}\n",
            Request::decl(&ts_rs::Config::default())
        );
        if std::env::var_os("WRITE").is_some() {
            std::fs::write(path, &types).unwrap();
        }
        assert!(std::fs::read_to_string(path).unwrap() == types, "run: WRITE=1 cargo test --workspace --lib options");
    }

    #[test]
    fn options_are_read_as_javascript_writes_them() {
        let request = Request::read(json!({
            "prompt": "a cat", "negativePrompt": "a dog", "seed": "18446744073709551615", "steps": 4.0, "guidance": 2,
            "churn": 0.5, "eta": null, "unknown": [1], "trueGuidance": 3, "skipLayers": [7, 8.0],
            "way": "tokens", "search": "beam", "beams": 2, "temperature": 0, "topK": 5, "topP": 0.9
        }))
        .unwrap();
        assert_eq!((request.prompt.as_str(), request.negative_prompt.as_str()), ("a cat", "a dog"));
        assert_eq!((request.seed, request.steps, request.guidance), (u64::MAX, Some(4), Some(2.0)));
        assert_eq!((request.churn, request.eta), (Some(Churn::new(0.5)), None));
        assert_eq!((request.true_guidance, request.skip_layers), (Some(3.0), Some(SkipLayers::new(vec![7, 8]))));
        assert_eq!((request.way, request.search, request.beams), (Some(Way::Tokens), Some(Search::Beam), Some(2)));
        assert_eq!((request.temperature, request.top_k, request.top_p), (Some(0.0), Some(5), Some(0.9)));
        let wrong = [
            (json!({"skipLayers": 7}), "`skipLayers` must be a list of whole numbers, not 7"),
            (json!({"skipLayers": [0.5]}), "`skipLayers` must be a list of whole numbers, not [0.5]"),
            (json!({"way": "magic"}), "`way` must be \"diffusion\" or \"tokens\" or \"hybrid\", not \"magic\""),
            (json!({"search": 1}), "`search` must be \"sample\" or \"best\" or \"beam\", not 1"),
            (json!({"frames": 0}), "`frames` must be a whole number of at least 1, not 0"),
            (json!({"steps": 2.5}), "`steps` must be a whole number of at least 1, not 2.5"),
            (
                json!({"motion": "fly"}),
                "`motion` must be one of \"bounce\", \"spin\", \"wobble\", \"pulse\", \"float\", \"shake\", \"jelly\", not \"fly\"",
            ),
            (json!({"count": 0}), "`count` must be a whole number of at least 1, not 0"),
            (json!({"width": "wide"}), "`width` must be a whole number of at least 1, not \"wide\""),
            (json!({"guidance": "much"}), "`guidance` must be a number, not \"much\""),
            (json!({"negativePrompt": 3}), "`negativePrompt` must be a string, not 3"),
            (json!({"seed": "-1"}), "`seed` must be a whole number from 0 to 18446744073709551615, not \"-1\""),
        ];
        for (object, message) in wrong {
            assert_eq!(Request::read(object).unwrap_err().message, message);
        }
    }
}
