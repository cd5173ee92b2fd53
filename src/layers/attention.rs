//! Multi-head attention.

use burn::tensor::{Device, Tensor};

use super::{
    Linear, RmsNorm, Rotary,
    kernels::{Residual, flex, short_attention, softmax},
    linear::laid_out,
};
use crate::{
    Result,
    weights::{MAX_PIECE_BYTES, Params},
};

/// Up to so many queries are multiplied by keys as they lie in a cache.
const FEW_QUERIES: usize = 8;

/// Scaled dot-product attention over heads.
///
/// `query` is `[N, Tq, heads * d]`, `key` and `value` are `[N, Tk, heads * d]`; `bias`, if given, is
/// `[N, 1 or heads, 1 or Tq, Tk]` and is added to the scores, which are multiplied by `scale` before that: the root of
/// `1 / d` where nothing is said. Gives `[N, Tq, heads * d]`.
///
/// Queries are taken in turns where all scores at once would be larger than any device must allow; the result is the same.
pub fn multi_head_attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    bias: Option<Tensor<4>>,
    scale: Option<f64>,
) -> Tensor<3> {
    let [query, key, value] = [query, key, value].map(|x| {
        let [x] = by_head(x, heads);
        x
    });
    attend(query, key, value, bias, scale)
}

/// The `P` parts of a joined product, each by head: `[N, T, P * heads * d]` gives `[N, heads, T, d]` each.
fn by_head<const P: usize>(x: Tensor<3>, heads: usize) -> [Tensor<4>; P] {
    let [n, t, width] = x.dims();
    let x = x.reshape([n, t, P * heads, width / (P * heads)]).swap_dims(1, 2);
    std::array::from_fn(|part| x.clone().narrow(1, part * heads, heads))
}

/// [`multi_head_attention`] for what is split by head already: `[N, heads, T, d]` each.
pub(super) fn attend(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: Option<f64>,
) -> Tensor<3> {
    let [n, heads, tq, d] = query.dims();
    let [_, _, tk, _] = key.dims();
    let scale = scale.unwrap_or((d as f64).sqrt().recip());
    if let Some(attended) = short_attention(&query, &key, &value, bias.as_ref(), scale) {
        return attended;
    }
    // The CPU device has a loop for all of it, which packs keys and values first; few queries are not worth that.
    if query.device() == Device::flex() && tq > FEW_QUERIES {
        return flex::attention(query, key, value, bias, scale);
    }
    let turn = MAX_PIECE_BYTES / size_of::<f32>() / (n * heads * tk).max(1);
    in_turns(query, bias, turn.max(1), |query, bias| {
        let [_, _, tq, _] = query.dims();
        let out = scaled_dot_product(query, key.clone(), value.clone(), bias, scale);
        // [N, heads, Tq, d] -> [N, Tq, heads * d]
        out.swap_dims(1, 2).reshape([n, tq, heads * d])
    })
}

/// `softmax(Q K^T scale + bias) V` over `[N, heads, T, d]`.
fn scaled_dot_product(
    query: Tensor<4>,
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Option<Tensor<4>>,
    scale: f64,
) -> Tensor<4> {
    softmax(query.matmul(key.transpose()), scale, bias).matmul(value)
}

/// `attend` for at most `turn` queries at a time, each with its part of the bias.
fn in_turns(
    query: Tensor<4>,
    bias: Option<Tensor<4>>,
    turn: usize,
    attend: impl Fn(Tensor<4>, Option<Tensor<4>>) -> Tensor<3>,
) -> Tensor<3> {
    let [_, _, tq, _] = query.dims();
    if tq <= turn {
        return attend(query, bias);
    }
    let outputs = (0..tq).step_by(turn).map(|start| {
        let length = turn.min(tq - start);
        let bias = bias.clone().map(|bias| if bias.dims()[2] == 1 { bias } else { bias.narrow(2, start, length) });
        attend(query.clone().narrow(2, start, length), bias)
    });
    Tensor::cat(outputs.collect(), 1)
}

/// The most scores that [`multi_head_attention`] holds at once, among `tokens` that all look at each other.
pub fn live_scores(n: usize, heads: usize, tokens: usize) -> u64 {
    ((n * heads * tokens) as u64).saturating_mul(tokens as u64).min((MAX_PIECE_BYTES / size_of::<f32>()) as u64)
}

/// A keep-mask `[N, T]` (1 = keep) as an attention bias `[N, 1, 1, T]`: 0 where kept, `discard` elsewhere.
pub fn mask_to_bias(mask: Tensor<2>, discard: f32) -> Tensor<4> {
    let [n, t] = mask.dims();
    (mask * -discard + discard).reshape([n, 1, 1, t])
}

/// Tokens that look at each other: query, key and value in one product, and an output projection.
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: usize,
    scale: Option<f64>,
}

impl SelfAttention {
    /// diffusers `Attention`: `to_q`, `to_k`, `to_v`, which have a `bias` or none, and `to_out.0`, which has one. `dim` is
    /// the tokens' width; inside, `heads * head_dim`.
    pub fn load(params: &Params, dim: usize, heads: usize, head_dim: usize, bias: bool) -> Result<Self> {
        Self::load_named(params, ["to_q", "to_k", "to_v", "to_out.0"], dim, heads, head_dim, [bias, true])
    }

    /// By the names of query, key, value and output; `biases` says whether the first three have one, and the last.
    pub fn load_named(
        params: &Params,
        names: [&str; 4],
        dim: usize,
        heads: usize,
        head_dim: usize,
        biases: [bool; 2],
    ) -> Result<Self> {
        let inner = heads * head_dim;
        let [query, key, value, out] = names.map(|name| params.at(name));
        Ok(Self {
            qkv: Linear::load_joined(&[query, key, value], dim, inner, biases[0])?,
            out: Linear::load_with(&out, inner, dim, biases[1])?,
            heads,
            scale: None,
        })
    }

    /// The same with scores multiplied by `scale`.
    pub fn with_scale(self, scale: f64) -> Self {
        Self { scale: Some(scale), ..self }
    }

    /// `x` `[N, T, dim]`, `bias` as in [`multi_head_attention`].
    pub fn forward(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        self.out.forward(self.attended(x, bias))
    }

    /// The same, added to the residual.
    pub fn forward_onto(&self, x: Tensor<3>, bias: Option<Tensor<4>>, residual: Residual<3>) -> Tensor<3> {
        self.out.forward_then(self.attended(x, bias), None, Some(residual))
    }

    fn attended(&self, x: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let [query, key, value] = by_head(self.qkv.forward(x), self.heads);
        attend(query, key, value, bias, self.scale)
    }
}

/// Tokens that look at others (diffusers `Attention` with `to_q`, `to_k`, `to_v` and `to_out.0`). What they look at is
/// [prepared](Self::prepare) once, where it stays the same from step to step.
pub struct CrossAttention {
    to_q: Linear,
    kv: Linear,
    to_out: Linear,
    heads: usize,
}

/// Keys and values of a [`CrossAttention`], `[N, heads, Tk, d]` each, and what is added to the scores.
pub struct KeysValues {
    key: Tensor<4>,
    value: Tensor<4>,
    bias: Option<Tensor<4>>,
}

impl CrossAttention {
    /// `dim` is the query's width, `context_dim` that of what it looks at; inside, `heads * head_dim`.
    /// The output projection always has a bias.
    pub fn load(
        params: &Params,
        dim: usize,
        context_dim: usize,
        heads: usize,
        head_dim: usize,
        bias: bool,
    ) -> Result<Self> {
        let inner = heads * head_dim;
        Ok(Self {
            to_q: Linear::load_with(&params.at("to_q"), dim, inner, bias)?,
            kv: Linear::load_joined(&[params.at("to_k"), params.at("to_v")], context_dim, inner, bias)?,
            to_out: Linear::load(&params.at("to_out.0"), inner, dim)?,
            heads,
        })
    }

    /// `context` `[N, Tk, context_dim]`; `bias` as in [`multi_head_attention`].
    pub fn prepare(&self, context: Tensor<3>, bias: Option<Tensor<4>>) -> KeysValues {
        let [key, value] = by_head(self.kv.forward(context), self.heads).map(laid_out);
        KeysValues { key, value, bias }
    }

    /// `x` is `[N * frames, Tq, dim]`: the frames of an animation all look at the same.
    pub fn forward(&self, x: Tensor<3>, keys_values: &KeysValues) -> Tensor<3> {
        self.to_out.forward(self.attended(x, keys_values))
    }

    /// The same, added to the residual.
    pub fn forward_onto(&self, x: Tensor<3>, keys_values: &KeysValues, residual: Residual<3>) -> Tensor<3> {
        self.to_out.forward_then(self.attended(x, keys_values), None, Some(residual))
    }

    fn attended(&self, x: Tensor<3>, KeysValues { key, value, bias }: &KeysValues) -> Tensor<3> {
        let ([rows, tq, dim], [n, ..]) = (x.dims(), key.dims());
        let [query] = by_head(self.to_q.forward(x.reshape([n, rows / n * tq, dim])), self.heads);
        attend(query, key.clone(), value.clone(), bias.clone(), None).reshape([rows as i64, tq as i64, -1])
    }
}

/// What one of several streams of tokens takes part in an attention with.
pub struct Stream {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    /// Over each head's width.
    norm_q: Option<RmsNorm>,
    norm_k: Option<RmsNorm>,
    to_out: Option<Linear>,
}

/// How a [`Stream`] calls its tensors: query, key, value, the norms of the first two, output.
pub struct StreamNames([&'static str; 6]);

impl StreamNames {
    /// Of an attention's first stream.
    pub const OWN: Self = Self(["to_q", "to_k", "to_v", "norm_q", "norm_k", "to_out.0"]);
    /// Of the one that joins it.
    pub const ADDED: Self =
        Self(["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k", "to_add_out"]);
}

/// What the norms of queries and keys use whatever a config says.
const QK_NORM_EPS: f64 = 1e-6;

impl Stream {
    /// `params` is the attention's; all projections are `dim` wide and have biases. `norms` is whether queries and keys
    /// are normalised, `output` whether what is attended to is projected at last.
    pub fn load(
        params: &Params,
        StreamNames([q, k, v, norm_q, norm_k, out]): StreamNames,
        dim: usize,
        heads: usize,
        norms: bool,
        output: bool,
    ) -> Result<Self> {
        let linear = |name: &str| Linear::load(&params.at(name), dim, dim);
        let norm = |name: &str| norms.then(|| RmsNorm::load(&params.at(name), dim / heads, QK_NORM_EPS)).transpose();
        Ok(Self {
            to_q: linear(q)?,
            to_k: linear(k)?,
            to_v: linear(v)?,
            norm_q: norm(norm_q)?,
            norm_k: norm(norm_k)?,
            to_out: output.then(|| linear(out)).transpose()?,
        })
    }

    /// Query, key and value of `x` `[N, T, dim]`, normalised: `[N, T, dim]` each.
    fn project(&self, x: Tensor<3>, heads: usize) -> [Tensor<3>; 3] {
        let [n, t, dim] = x.dims();
        let normed = |x: Tensor<3>, norm: &Option<RmsNorm>| match norm {
            // [N, T, heads * d] -> [N, T, heads, d] and back
            Some(norm) => norm.forward(x.reshape([n, t, heads, dim / heads])).reshape([n, t, dim]),
            None => x,
        };
        [
            normed(self.to_q.forward(x.clone()), &self.norm_q),
            normed(self.to_k.forward(x.clone()), &self.norm_k),
            self.to_v.forward(x),
        ]
    }
}

/// Attention over several streams `[N, T, dim]` as one sequence, each with projections of its own (Esser et al.,
/// arXiv 2403.03206; diffusers `JointAttnProcessor2_0`, `FluxAttnProcessor`). `rotary`, if given, places all their
/// tokens in the same order, which else makes no difference.
pub fn joint_attention<const S: usize>(
    streams: [(&Stream, Tensor<3>); S],
    heads: usize,
    rotary: Option<&Rotary>,
) -> [Tensor<3>; S] {
    let lengths = streams.each_ref().map(|(_, x)| x.dims()[1]);
    let outputs = streams.each_ref().map(|(stream, _)| stream.to_out.as_ref());
    let mut joined: [Vec<Tensor<3>>; 3] = Default::default();
    for (stream, x) in streams {
        joined.iter_mut().zip(stream.project(x, heads)).for_each(|(list, x)| list.push(x));
    }
    let [query, key, value] = joined.map(|list| Tensor::cat(list, 1));
    let placed = |x: Tensor<3>| match rotary {
        Some(rotary) => {
            let [n, t, dim] = x.dims();
            rotary.forward(x.reshape([n, t, heads, dim / heads])).reshape([n, t, dim])
        }
        None => x,
    };
    let attended = multi_head_attention(placed(query), placed(key), value, heads, None, Default::default());
    let mut start = 0;
    std::array::from_fn(|i| {
        let part = attended.clone().narrow(1, start, lengths[i]);
        start += lengths[i];
        outputs[i].map_or_else(|| part.clone(), |linear| linear.forward(part.clone()))
    })
}

#[cfg(test)]
mod tests {
    use burn::tensor::TensorData;

    use super::*;

    fn values<const D: usize>(shape: [usize; D], step: f32) -> Tensor<D> {
        let values = (0..shape.iter().product()).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn attention_written_out_is_the_devices_own() {
        let (n, heads, tq, tk, d) = (2, 3, FEW_QUERIES + 1, 7, 4);
        let [query, key, value] = [(tq, 0.7), (tk, 0.3), (tk, 1.1)].map(|(t, step)| values([n, heads, t, d], step));
        for bias in [None, Some(values([n, 1, 1, tk], 0.9)), Some(values([1, heads, tq, tk], 0.4))] {
            let [query, key, value] = [&query, &key, &value].map(Clone::clone);
            let own = flex::attention(query.clone(), key.clone(), value.clone(), bias.clone(), 0.3);
            let written_out =
                scaled_dot_product(query, key, value, bias, 0.3).swap_dims(1, 2).reshape([n, tq, heads * d]);
            let difference = (own - written_out).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
            assert!(difference < 1e-6, "{difference}");
        }
    }

    #[test]
    fn attention_in_turns_is_attention_at_once() {
        let (n, heads, tq, tk, dim) = (2, 3, 13, 7, 12);
        let [query, key, value] = [(tq, 0.7), (tk, 0.3), (tk, 1.1)].map(|(t, step)| values([n, t, dim], step));
        for bias in [None, Some(values([n, 1, 1, tk], 0.9)), Some(values([1, heads, tq, tk], 0.4))] {
            let [query, key, value] = [&query, &key, &value].map(|x| {
                let [x] = by_head(x.clone(), heads);
                x
            });
            let attend = |query, bias| super::attend(query, key.clone(), value.clone(), bias, None);
            let whole = attend(query.clone(), bias.clone());
            for turn in [1, 5] {
                let turns = in_turns(query.clone(), bias.clone(), turn, attend);
                let difference = (whole.clone() - turns).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
                assert!(difference < 1e-6, "{difference}");
            }
        }
    }
}
