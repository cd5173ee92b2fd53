//! Multi-head attention.

use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

use super::{Linear, RmsNorm, Rotary};
use crate::{
    Result,
    weights::{MAX_PIECE_BYTES, Params},
};

/// Scaled dot-product attention over heads.
///
/// `query` is `[N, Tq, heads * d]`, `key` and `value` are `[N, Tk, heads * d]`; `bias`, if given, is
/// `[N, 1 or heads, 1 or Tq, Tk]` and is added to the scores. Gives `[N, Tq, heads * d]`.
///
/// Queries are taken in turns where all scores at once would be larger than any device must allow; the result is the same.
pub fn multi_head_attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
) -> Tensor<3> {
    let [n, _, dim] = query.dims();
    let [_, tk, _] = key.dims();
    // [N, T, heads * d] -> [N, heads, T, d]
    let split = |x: Tensor<3>| {
        let [_, t, _] = x.dims();
        x.reshape([n, t, heads, dim / heads]).swap_dims(1, 2)
    };
    let (key, value) = (split(key), split(value));
    let turn = MAX_PIECE_BYTES / size_of::<f32>() / (n * heads * tk).max(1);
    in_turns(query, bias, turn.max(1), |query, bias| {
        let [_, tq, _] = query.dims();
        let bias = bias.map(|bias| bias.expand([n, heads, tq, tk]));
        let out = module::attention(split(query), key.clone(), value.clone(), None, bias, options);
        // [N, heads, Tq, d] -> [N, Tq, heads * d]
        out.swap_dims(1, 2).reshape([n, tq, dim])
    })
}

/// `attend` for at most `turn` queries at a time, each with its part of the bias.
fn in_turns(
    query: Tensor<3>,
    bias: Option<Tensor<4>>,
    turn: usize,
    attend: impl Fn(Tensor<3>, Option<Tensor<4>>) -> Tensor<3>,
) -> Tensor<3> {
    let [_, tq, _] = query.dims();
    if tq <= turn {
        return attend(query, bias);
    }
    let outputs = (0..tq).step_by(turn).map(|start| {
        let length = turn.min(tq - start);
        let bias = bias.clone().map(|bias| if bias.dims()[2] == 1 { bias } else { bias.narrow(2, start, length) });
        attend(query.clone().narrow(1, start, length), bias)
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
    ((mask * -1.0 + 1.0) * discard).reshape([n, 1, 1, t])
}

/// diffusers `Attention` with `to_q`, `to_k`, `to_v` and `to_out.0`.
pub struct Attention {
    to_q: Linear,
    to_k: Linear,
    to_v: Linear,
    to_out: Linear,
    heads: usize,
}

impl Attention {
    /// `dim` is the query's width, `context_dim` that of keys and values; inside, `heads * head_dim`.
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
            to_k: Linear::load_with(&params.at("to_k"), context_dim, inner, bias)?,
            to_v: Linear::load_with(&params.at("to_v"), context_dim, inner, bias)?,
            to_out: Linear::load(&params.at("to_out.0"), inner, dim)?,
            heads,
        })
    }

    /// Self-attention where `context` is `x` itself. `x` is `[N, T, dim]`, `context` `[N, Tk, context_dim]`.
    pub fn forward(&self, x: Tensor<3>, context: Tensor<3>, bias: Option<Tensor<4>>) -> Tensor<3> {
        let out = multi_head_attention(
            self.to_q.forward(x),
            self.to_k.forward(context.clone()),
            self.to_v.forward(context),
            self.heads,
            bias,
            AttentionModuleOptions::default(),
        );
        self.to_out.forward(out)
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
    use burn::tensor::{Device, TensorData};

    use super::*;

    fn values<const D: usize>(shape: [usize; D], step: f32) -> Tensor<D> {
        let values = (0..shape.iter().product()).map(|i| (i as f32 * step).sin()).collect::<Vec<f32>>();
        Tensor::from_data(TensorData::new(values, shape), &Device::flex())
    }

    #[test]
    fn attention_in_turns_is_attention_at_once() {
        let (n, heads, tq, tk, dim) = (2, 3, 13, 7, 12);
        let [query, key, value] = [(tq, 0.7), (tk, 0.3), (tk, 1.1)].map(|(t, step)| values([n, t, dim], step));
        for bias in [None, Some(values([n, 1, 1, tk], 0.9)), Some(values([1, heads, tq, tk], 0.4))] {
            let attend =
                |query, bias| multi_head_attention(query, key.clone(), value.clone(), heads, bias, Default::default());
            let whole = attend(query.clone(), bias.clone());
            for turn in [1, 5] {
                let turns = in_turns(query.clone(), bias.clone(), turn, attend);
                let difference = (whole.clone() - turns).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
                assert!(difference < 1e-6, "{difference}");
            }
        }
    }
}
