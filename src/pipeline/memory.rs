//! What a model needs of its device's memory, and how it makes do with less. Counted in 64 bits, for WebAssembly's own
//! are 32, and large models have more bytes than those can say.

use crate::weights::Kept;

/// The smallest side of a tile of decoding, in latent positions.
pub const MIN_TILE: usize = 16;
/// Feature maps that a decoder holds at once: what a block skips with, what enters a layer, what leaves it.
const LIVE_MAPS: u64 = 3;
pub const F32_BYTES: u64 = size_of::<f32>() as u64;

/// What a model needs, in bytes, everything in f32. Weights are exact, the rest is an estimate from the configs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryNeeds {
    /// The weights of the text encoders.
    pub text: u64,
    /// All other weights.
    pub other: u64,
    /// On top of the weights, to predict once for a picture of the model's own size.
    pub denoising: u64,
    /// The same, to decode that picture in one piece.
    pub decoding: u64,
    /// The same, to decode it in the smallest tiles.
    pub decoding_tile: u64,
}

/// What a device has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryBudget {
    pub bytes: u64,
    /// The largest tensor that it takes.
    pub largest_tensor: u64,
    /// Whether it can keep f16 values.
    pub keeps_f16: bool,
}

impl Default for MemoryBudget {
    /// All that could be asked for.
    fn default() -> Self {
        Self { bytes: u64::MAX, largest_tensor: u64::MAX, keeps_f16: false }
    }
}

/// How a model lives on its device. By default as if memory had no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryPlan {
    pub kept: Kept,
    /// The text encoders leave the device once the prompt is read, and must be
    /// [restored](super::Pipeline::restore_text) before the next.
    pub release_text: bool,
    /// How many bytes are wanting all the same.
    pub short_by: u64,
    /// How many such models the device has room for; 0 as if for any number.
    pub copies: u64,
    budget: MemoryBudget,
    resident: u64,
}

impl MemoryNeeds {
    /// The most that is in use at any time under `plan`.
    fn peak(&self, kept: Kept, release_text: bool) -> u64 {
        let drawing = self.denoising.max(self.decoding_tile);
        let text = if release_text { 0 } else { in_memory(self.text, kept) };
        let loaded = in_memory(self.text, kept) + in_memory(self.other, kept);
        loaded.max(text + in_memory(self.other, kept) + drawing)
    }
}

impl MemoryPlan {
    /// The first that fits of: all as it is, weights kept as f16, and text encoders released; else the smallest.
    pub fn new(needs: &MemoryNeeds, budget: MemoryBudget) -> Self {
        let smallest = if budget.keeps_f16 { Kept::F16 } else { Kept::F32 };
        let choices = [(Kept::F32, false), (smallest, false), (smallest, true)];
        let fits = choices.iter().find(|(kept, release)| needs.peak(*kept, *release) <= budget.bytes);
        let (kept, release_text) = *fits.unwrap_or(&(smallest, true));
        let text = if release_text { 0 } else { in_memory(needs.text, kept) };
        Self {
            kept,
            release_text,
            short_by: needs.peak(kept, release_text).saturating_sub(budget.bytes),
            copies: (budget.bytes / needs.peak(kept, release_text).max(1)).max(1),
            budget,
            resident: text + in_memory(needs.other, kept),
        }
    }

    /// What is to be told of too little memory.
    pub fn warning(&self) -> Option<String> {
        let mib = self.short_by.div_ceil(1 << 20);
        let words = || format!("this model needs about {mib} MiB more memory than it may take; drawing may fail");
        (self.short_by > 0).then(words)
    }

    /// How many bytes there are to draw with, besides what stays.
    pub fn room(&self) -> u64 {
        self.budget.bytes.saturating_sub(self.resident)
    }

    /// How many bytes are wanting to hold so many on top of the weights.
    pub fn wants(&self, bytes: u64) -> u64 {
        bytes.saturating_sub(self.room())
    }

    /// The tile in which a latent of `h` x `w` positions is decoded; `None` where it fits in one piece. `map` is what
    /// [`AutoencoderShape::map_per_position`](crate::autoencoder::AutoencoderShape) says.
    pub fn tile(&self, map: usize, h: usize, w: usize) -> Option<usize> {
        let room = self.room();
        let fits = |h: usize, w: usize| {
            decoding(map, h, w) <= room && decoding(map, h, w) / LIVE_MAPS <= self.budget.largest_tensor
        };
        if fits(h, w) {
            return None;
        }
        let largest = (MIN_TILE..h.max(w)).rev().find(|tile| fits(*tile, *tile));
        largest.or(Some(MIN_TILE)).filter(|tile| *tile < h.max(w))
    }
}

fn in_memory(f32_bytes: u64, kept: Kept) -> u64 {
    if kept == Kept::F16 { f32_bytes / 2 } else { f32_bytes }
}

/// Bytes that decoding `h` x `w` latent positions takes, where the largest feature map has `map` values for each.
pub fn decoding(map: usize, h: usize, w: usize) -> u64 {
    (LIVE_MAPS * F32_BYTES * map as u64).saturating_mul((h * w) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const NEEDS: MemoryNeeds = MemoryNeeds {
        text: 400 * MIB,
        other: 1000 * MIB,
        denoising: 100 * MIB,
        decoding: 800 * MIB,
        decoding_tile: 50 * MIB,
    };

    fn budget(mib: u64, keeps_f16: bool) -> MemoryBudget {
        MemoryBudget { bytes: mib * MIB, largest_tensor: u64::MAX, keeps_f16 }
    }

    #[test]
    fn the_first_plan_that_fits_is_taken() {
        let plan = |mib, keeps_f16| {
            let plan = MemoryPlan::new(&NEEDS, budget(mib, keeps_f16));
            (plan.kept, plan.release_text, plan.short_by / MIB)
        };
        assert_eq!(plan(1500, true), (Kept::F32, false, 0));
        assert_eq!(plan(1499, true), (Kept::F16, false, 0));
        assert_eq!(plan(800, true), (Kept::F16, false, 0));
        // Released, the encoder must still fit beside the rest while it reads.
        assert_eq!(plan(799, true), (Kept::F16, true, 0));
        assert_eq!(plan(699, true), (Kept::F16, true, 1));
        assert_eq!(plan(1499, false), (Kept::F32, true, 0));
        assert_eq!([1499, 3000, 4600].map(|mib| MemoryPlan::new(&NEEDS, budget(mib, true)).copies), [1, 2, 3]);
        assert_eq!(plan(1399, false), (Kept::F32, true, 1));
        assert_eq!(MemoryPlan::new(&NEEDS, MemoryBudget::default()).tile(1 << 15, 512, 512), None);
    }

    #[test]
    fn a_tile_is_as_large_as_fits() {
        let map = 64 * 64;
        let tile = |mib, h, w| MemoryPlan::new(&NEEDS, budget(mib, false)).tile(map, h, w);
        // 3 x 4 x 4096 bytes a position: 100 MiB hold 46 x 46 of them.
        assert_eq!(tile(1500, 46, 46), None);
        assert_eq!(tile(1500, 64, 64), Some(46));
        assert_eq!(tile(1500, 16, 96), None);
        // Released text makes room; too little of it leaves the smallest tiles.
        assert_eq!(tile(1400, 64, 64), None);
        assert_eq!(tile(1010, 64, 64), Some(MIN_TILE));
        assert_eq!(tile(1010, 16, 16), None);
        let bound = MemoryBudget { largest_tensor: 16 * MIB, ..Default::default() };
        assert_eq!(MemoryPlan::new(&NEEDS, bound).tile(map, 64, 64), Some(32));
    }
}
