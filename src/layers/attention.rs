//! Multi-head attention.

use burn::tensor::{Tensor, module, ops::AttentionModuleOptions};

use super::Linear;
use crate::{Result, weights::Params};

/// Scaled dot-product attention over heads.
///
/// `query` is `[N, Tq, heads * d]`, `key` and `value` are `[N, Tk, heads * d]`; `bias`, if given, is
/// `[N, 1 or heads, 1 or Tq, Tk]` and is added to the scores. Gives `[N, Tq, heads * d]`.
pub fn multi_head_attention(
    query: Tensor<3>,
    key: Tensor<3>,
    value: Tensor<3>,
    heads: usize,
    bias: Option<Tensor<4>>,
    options: AttentionModuleOptions,
) -> Tensor<3> {
    let [n, tq, dim] = query.dims();
    let [_, tk, _] = key.dims();
    // [N, T, heads * d] -> [N, heads, T, d]
    let split = |x: Tensor<3>, t: usize| x.reshape([n, t, heads, dim / heads]).swap_dims(1, 2);
    let bias = bias.map(|bias| bias.expand([n, heads, tq, tk]));
    let out = module::attention(split(query, tq), split(key, tk), split(value, tk), None, bias, options);
    // [N, heads, Tq, d] -> [N, Tq, heads * d]
    out.swap_dims(1, 2).reshape([n, tq, dim])
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
