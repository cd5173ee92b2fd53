//! What the multimodal Diffusion Transformers share: blocks in which picture and text attend to each other, each with
//! weights of its own (Esser et al., arXiv 2403.03206).

use burn::tensor::Tensor;

use crate::{
    Error, Result,
    layers::{
        FeedForward, LIVE_WIDTHS, LayerNorm, Modulation, Residual, Rotary, Stream, StreamNames, TimestepEmbedding,
        joint_attention, live_scores, timestep_embedding,
    },
    values::TextEmbedding,
    weights::Params,
};

/// What the layer norms use whatever the config says.
pub const NORM_EPS: f64 = 1e-6;
/// About how many tokens of text join the picture's, for what memory is needed.
const TEXT_TOKENS: usize = 512;
/// Width of the sinusoidal features before they are embedded.
const TIME_FEATURES: usize = 256;

/// Time, pooled text and, where a model is told it, guidance in one vector (diffusers
/// `CombinedTimestepTextProjEmbeddings`, `CombinedTimestepGuidanceTextProjEmbeddings`).
pub struct TimeTextEmbedding {
    time: TimestepEmbedding,
    guidance: Option<TimestepEmbedding>,
    text: TimestepEmbedding,
}

impl TimeTextEmbedding {
    pub fn load(params: &Params, pooled_dim: usize, dim: usize, told_guidance: bool) -> Result<Self> {
        let embedder = |name: &str, d_in| TimestepEmbedding::load(&params.at(name), d_in, dim);
        Ok(Self {
            time: embedder("timestep_embedder", TIME_FEATURES)?,
            guidance: told_guidance.then(|| embedder("guidance_embedder", TIME_FEATURES)).transpose()?,
            text: embedder("text_embedder", pooled_dim)?,
        })
    }

    /// `timesteps` and the guidance are both in thousandths; each step has `rows` timesteps: one for all pictures of the
    /// batch, or one for each. `pooled` is `[N, pooled_dim]`. Gives `[steps, N, D]`.
    pub fn forward(&self, timesteps: &[f32], rows: usize, guidance: f32, pooled: Tensor<2>) -> Tensor<3> {
        let features = |values: &[f32]| timestep_embedding(values, TIME_FEATURES, &pooled.device());
        let mut time = self.time.forward(features(timesteps));
        if let Some(embedder) = &self.guidance {
            time = time + embedder.forward(features(&[guidance]));
        }
        let [_, d] = time.dims();
        time.reshape([timesteps.len() / rows, rows, d]) + self.text.forward(pooled).unsqueeze()
    }
}

/// The token's and the pooled embedding of `text`, of the widths that `file` expects.
///
/// # Errors
/// `BadModel` where the text encoders give other widths.
pub fn text_of(text: &TextEmbedding, [dim, pooled_dim]: [usize; 2], file: &str) -> Result<(Tensor<3>, Tensor<2>)> {
    let [_, _, found] = text.hidden.dims();
    let pooled = text.pooled.clone().filter(|pooled| found == dim && pooled.dims()[1] == pooled_dim);
    let pooled = pooled.ok_or_else(|| {
        let found_pooled = text.pooled.as_ref().map_or(0, |pooled| pooled.dims()[1]);
        Error::bad_model(format!(
            "the text encoders give vectors of {found} and pooled {found_pooled}, but {file} expects {dim} and {pooled_dim}"
        ))
    })?;
    Ok((text.hidden.clone(), pooled))
}

/// About how many values are in memory at once while `n` pictures of `image_tokens` tokens are predicted.
pub fn live_values(n: usize, image_tokens: usize, dim: usize, heads: usize) -> u64 {
    let tokens = image_tokens + TEXT_TOKENS;
    (n * tokens * dim) as u64 * LIVE_WIDTHS + live_scores(n, heads, tokens)
}

/// One block (diffusers `JointTransformerBlock`, `FluxTransformerBlock`).
pub struct JointBlock {
    image: Side,
    text: Side,
    /// A second attention, of the picture's tokens alone.
    dual: Option<Stream>,
    norm: LayerNorm,
    heads: usize,
}

/// What a block does with one of its streams besides attention.
struct Side {
    /// Shift, scale and gate of attention, then of the perceptron, then of a second attention. In a stream that ends
    /// here: scale and shift of attention.
    modulation: Modulation,
    stream: Stream,
    /// `None` in a stream that ends here.
    ff: Option<FeedForward>,
}

/// What sets the blocks of a model apart.
#[derive(Clone, Copy)]
pub struct BlockOptions {
    pub heads: usize,
    /// Queries and keys are normalised.
    pub norms: bool,
    pub dual: bool,
    /// The text's stream ends in this block.
    pub last: bool,
}

impl JointBlock {
    pub fn load(params: &Params, dim: usize, options: BlockOptions) -> Result<Self> {
        let BlockOptions { heads, norms, dual, last } = options;
        let (attn, attn2) = (params.at("attn"), params.at("attn2"));
        let side = |suffix: &str, names, parts, ends: bool| {
            let perceptron = || FeedForward::load(&params.at(&format!("ff{suffix}")), dim, "gelu-approximate", "");
            Ok(Side {
                modulation: Modulation::load(&params.at(&format!("norm1{suffix}")), dim, parts)?,
                stream: Stream::load(&attn, names, dim, heads, norms, !ends)?,
                ff: (!ends).then(perceptron).transpose()?,
            })
        };
        Ok(Self {
            image: side("", StreamNames::OWN, if dual { 9 } else { 6 }, false)?,
            text: side("_context", StreamNames::ADDED, if last { 2 } else { 6 }, last)?,
            dual: dual.then(|| Stream::load(&attn2, StreamNames::OWN, dim, heads, norms, true)).transpose()?,
            norm: LayerNorm::plain(params, dim, NORM_EPS),
            heads,
        })
    }

    /// `text` `[N, Tt, D]` and `image` `[N, Ti, D]` under `time` `[N, D]`; `rotary` places the text's tokens, then the
    /// picture's.
    pub fn forward(
        &self,
        text: Tensor<3>,
        image: Tensor<3>,
        time: &Tensor<2>,
        rotary: Option<&Rotary>,
    ) -> (Tensor<3>, Tensor<3>) {
        let (of_text, of_image) = (self.text.modulation.forward(time), self.image.modulation.forward(time));
        let [text_shift, text_scale] = match &self.text.ff {
            Some(_) => [0, 1],
            None => [1, 0],
        };
        let modulated = |x: &Tensor<3>, shift: &Tensor<3>, scale: &Tensor<3>| {
            self.norm.modulated(x.clone(), shift.clone(), scale.clone() + 1.0)
        };
        let text_in = modulated(&text, &of_text[text_shift], &of_text[text_scale]);
        let image_in = modulated(&image, &of_image[0], &of_image[1]);
        let dual = self.dual.as_ref().map(|dual| (dual, modulated(&image, &of_image[6], &of_image[7])));
        let [from_text, from_image] =
            joint_attention([(&self.text.stream, text_in), (&self.image.stream, image_in)], self.heads, rotary);
        let mut image = image + from_image * of_image[2].clone();
        if let Some((dual, h)) = dual {
            let [attended] = joint_attention([(dual, h)], self.heads, None);
            image = image + attended * of_image[8].clone();
        }
        let image = self.image.perceive(image, &self.norm, &of_image);
        let text = match &self.text.ff {
            Some(_) => self.text.perceive(text + from_text * of_text[2].clone(), &self.norm, &of_text),
            None => text,
        };
        (text, image)
    }
}

impl Side {
    /// The perceptron with its residual.
    fn perceive(&self, x: Tensor<3>, norm: &LayerNorm, parts: &[Tensor<3>]) -> Tensor<3> {
        let Some(ff) = &self.ff else { return x };
        let h = norm.modulated(x.clone(), parts[3].clone(), parts[4].clone() + 1.0);
        ff.forward_onto(h, Residual::gated(x, parts[5].clone()))
    }
}
