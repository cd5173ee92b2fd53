//! The sizes of an autoencoder, of whichever family.

use crate::{Result, weights::Config};

/// More pixels a side for each latent position than any published autoencoder makes, and few enough to multiply.
const LARGEST_FACTOR: usize = 1 << 10;

/// What the rest of a pipeline must know of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoencoderShape {
    /// Channels of pictures: 3 or 4.
    pub pixel_channels: usize,
    pub latent_channels: usize,
    /// Pixels per latent position, along each side.
    pub factor: usize,
    /// How many times smaller the encoder takes a picture's sides: more than 1 where the decoder has more stages.
    pub reduction: usize,
    /// How many values the decoder's largest feature map has for each latent position.
    pub map_per_position: usize,
}

/// [`AutoencoderShape::map_per_position`] of a decoder whose stages, coarse to fine, have these widths and each double
/// the sides: a stage's first layers may still be as wide as the one before.
pub fn map_per_position(widths: impl Iterator<Item = usize>) -> usize {
    let mut before = 0;
    let values =
        widths.enumerate().map(|(level, width)| width.max(std::mem::replace(&mut before, width)) << (2 * level));
    values.max().unwrap_or(0)
}

/// [`AutoencoderShape`]'s `factor` and `reduction`, of an encoder that halves the sides between its stages and a decoder
/// that enlarges them `scale` times between its own. `key` of `config` says how many stages the decoder has.
///
/// # Errors
/// `BadModel` where the decoder makes smaller pictures than the encoder takes, no whole number of times larger ones, or
/// larger ones than any device holds.
pub fn factors(config: &Config, key: &str, encoder: usize, decoder: usize, scale: usize) -> Result<(usize, usize)> {
    let power = |base: usize, stages: usize| {
        let factor = base.checked_pow(stages.saturating_sub(1) as u32).filter(|factor| *factor <= LARGEST_FACTOR);
        let most = format!("at most {LARGEST_FACTOR} pixels a side can stand for a latent position");
        factor.ok_or_else(|| config.wrong(key, &most))
    };
    let (taken, factor) = (power(2, encoder)?, power(scale, decoder)?);
    if !factor.is_multiple_of(taken) {
        return Err(config.wrong(
            key,
            &format!("these stages make {factor} pixels of a latent position, a side, which must be a multiple of the encoder's {taken}"),
        ));
    }
    Ok((factor, factor / taken))
}
