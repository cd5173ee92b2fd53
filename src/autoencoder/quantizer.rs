//! The table of a vector-quantised autoencoder (van den Oord et al., arXiv 1711.00937).

use burn::tensor::{Int, Tensor, TensorData};

use crate::{
    Error, Result,
    values::{ImageTokens, Latent, read},
    weights::Params,
};

/// A vector for each code.
pub struct Quantizer {
    /// `[codes, C]`.
    table: Tensor<2>,
    codes: usize,
    channels: usize,
}

impl Quantizer {
    pub fn load(params: &Params, codes: usize, channels: usize) -> Result<Self> {
        Ok(Self { table: params.at("embedding").tensor("weight", [codes, channels])?, codes, channels })
    }

    /// The code of the nearest vector, for each place of `[N, C, h, w]`: one grid for each of N.
    ///
    /// # Errors
    /// `DeviceLost` or `OutOfMemory` from the device.
    pub async fn codes(&self, latent: Latent) -> Result<Vec<ImageTokens>> {
        let [n, c, h, w] = latent.dims();
        // [N, C, h, w] -> [N * h * w, C]
        let places: Tensor<2> = latent.permute([0, 2, 3, 1]).reshape([n * h * w, c]);
        // (z - e)^2 without z^2, which is the same for all codes
        let squares = (self.table.clone() * self.table.clone()).sum_dim(1).transpose();
        let nearest = (squares - places.matmul(self.table.clone().transpose()) * 2.0).argmin(1);
        let nearest = read(nearest.float()).await?;
        let grid = |codes: &[f32]| ImageTokens {
            grid: [h, w],
            codes: codes.iter().map(|code| *code as u32).collect(),
            residual: Vec::new(),
        };
        Ok(nearest.chunks(h * w).map(grid).collect())
    }

    /// The vectors of a whole grid, `[1, C, h, w]`; `unit` gives each the length 1.
    ///
    /// # Errors
    /// `BadInput` for a code that the table has not, or a grid that is not full.
    pub fn vectors(&self, tokens: &ImageTokens, unit: bool) -> Result<Latent> {
        let [h, w] = tokens.grid;
        if tokens.codes.len() != h * w {
            return Err(Error::bad_input(format!(
                "a grid of {h} x {w} takes {} tokens, and there are {}",
                h * w,
                tokens.codes.len()
            )));
        }
        if let Some(code) = tokens.codes.iter().find(|code| **code as usize >= self.codes) {
            return Err(Error::bad_input(format!(
                "the token {code} is none of this tokenizer's, which has {}",
                self.codes
            )));
        }
        let ids: Vec<i64> = tokens.codes.iter().map(|code| i64::from(*code)).collect();
        let ids = Tensor::<1, Int>::from_data(TensorData::new(ids, [h * w]), &self.table.device());
        let vectors = self.table.clone().select(0, ids);
        let vectors = match unit {
            true => {
                let length = (vectors.clone() * vectors.clone()).sum_dim(1).sqrt();
                vectors / length.clamp_min(1e-12)
            }
            false => vectors,
        };
        // [h * w, C] -> [1, C, h, w]
        Ok(vectors.transpose().reshape([1, self.channels, h, w]))
    }
}
