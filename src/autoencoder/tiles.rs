//! Decoding piece by piece (the tiling of diffusers' `AutoencoderKL`, with even weights across each overlap).

use burn::tensor::{Tensor, TensorData};

use crate::values::{Latent, PixelTensor};

/// The share of a tile that its neighbour covers, too: one of so many parts.
const OVERLAP_PARTS: usize = 4;

/// Decodes `latent` `[N, C, h, w]` in tiles of at most `tile` positions a side; `decode` makes `factor` pixels of each.
pub fn decode(latent: Latent, tile: usize, factor: usize, decode: impl Fn(Latent) -> PixelTensor) -> PixelTensor {
    let [_, _, height, width] = latent.dims();
    let overlap = tile.max(OVERLAP_PARTS) / OVERLAP_PARTS;
    let rows = spans(height, tile, overlap).into_iter().map(|(top, rows)| {
        let columns = spans(width, tile, overlap).into_iter().map(|(left, columns)| {
            let part = latent.clone().narrow(2, top, rows).narrow(3, left, columns);
            (left * factor, decode(part))
        });
        (top * factor, join(columns, 3))
    });
    join(rows, 2)
}

/// `(start, length)` of the tiles along a side: all of one length, each overlapping the one before by at least `overlap`.
fn spans(side: usize, tile: usize, overlap: usize) -> Vec<(usize, usize)> {
    if side <= tile {
        return vec![(0, side)];
    }
    let count = (side - overlap).div_ceil(tile.saturating_sub(overlap).max(1));
    let room = side - tile;
    (0..count).map(|i| (room * i / (count - 1).max(1), tile)).collect()
}

/// Pieces that begin at the given pixels along `dim`, each faded over what it shares with those before.
fn join(pieces: impl Iterator<Item = (usize, Tensor<4>)>, dim: usize) -> Tensor<4> {
    let mut whole: Option<Tensor<4>> = None;
    for (start, piece) in pieces {
        whole = Some(match whole {
            None => piece,
            Some(before) => {
                let (end, length) = (before.dims()[dim], piece.dims()[dim]);
                let shared = end - start;
                let ramp = (0..shared).map(|i| (i as f32 + 0.5) / shared as f32).collect::<Vec<_>>();
                let mut shape = [1; 4];
                shape[dim] = shared;
                let ramp = Tensor::<4>::from_data(TensorData::new(ramp, shape), &piece.device());
                let old = before.clone().narrow(dim, start, shared);
                let new = piece.clone().narrow(dim, 0, shared);
                let blended = old.clone() + (new - old) * ramp;
                Tensor::cat(
                    vec![before.narrow(dim, 0, start), blended, piece.narrow(dim, shared, length - shared)],
                    dim,
                )
            }
        });
    }
    whole.unwrap_or_else(|| unreachable!("a side has at least one tile"))
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn tiles_cover_a_side_and_overlap() {
        for side in 1..80 {
            for tile in [4, 8, 13, 32] {
                let overlap = tile / OVERLAP_PARTS;
                let spans = spans(side, tile, overlap);
                assert_eq!(spans[0].0, 0);
                assert_eq!(spans.last().map(|(start, length)| start + length), Some(side));
                for pair in spans.windows(2) {
                    assert!(pair[1].0 > pair[0].0 && pair[0].0 + pair[0].1 >= pair[1].0 + overlap, "{side} {tile}");
                }
            }
        }
    }

    /// What looks at single positions only is the same in tiles.
    #[test]
    fn a_local_decoder_is_the_same_in_tiles() {
        let latent = Tensor::<4>::from_data(
            TensorData::new((0..2 * 3 * 21 * 34).map(|i| (i as f32 * 0.37).sin()).collect::<Vec<_>>(), [2, 3, 21, 34]),
            &Device::flex(),
        );
        let twice = |x: Latent| x.repeat_dim(2, 1) * 2.0;
        let whole = twice(latent.clone());
        let tiled = decode(latent, 8, 1, twice);
        let difference = (whole - tiled).abs().max().into_data().try_to_vec::<f32>().unwrap()[0];
        assert!(difference < 1e-5, "{difference}");
    }
}
