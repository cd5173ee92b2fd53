//! The sizes of an autoencoder, of whichever family.

/// What the rest of a pipeline must know of an autoencoder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AutoencoderShape {
    /// Channels of pictures: 3 or 4.
    pub pixel_channels: usize,
    pub latent_channels: usize,
    /// Pixels per latent position, along each side.
    pub factor: usize,
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
