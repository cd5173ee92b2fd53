//! What a convolution is.

/// The shape of a convolution with a square kernel at stride 1.
#[derive(Clone, Copy, Debug)]
pub struct Convolution {
    pub c_in: usize,
    pub c_out: usize,
    pub kernel: usize,
    /// Of the picture.
    pub height: usize,
    pub width: usize,
    /// `[top and left, bottom and right]`, of zeros.
    pub padding: [usize; 2],
}

impl Convolution {
    /// `[height, width]` of what comes out.
    pub fn size(&self) -> [usize; 2] {
        [self.height, self.width].map(|side| side + self.padding[0] + self.padding[1] + 1 - self.kernel)
    }

    /// Calls `place` with the channel, the number of the line and the values of every line of a picture that is among `count`
    /// padded ones from `first` on. What comes out of a few rows depends on as many lines and a few more: gathered for
    /// themselves, they stay near.
    pub(crate) fn lines(
        &self,
        picture: &[f32],
        first: usize,
        count: usize,
        mut place: impl FnMut(usize, usize, &[f32]),
    ) {
        for (c, plane) in picture.chunks_exact(self.height * self.width).enumerate() {
            let shown =
                first.saturating_sub(self.padding[0])..self.height.min((first + count).saturating_sub(self.padding[0]));
            for y in shown {
                place(c, y + self.padding[0] - first, &plane[y * self.width..(y + 1) * self.width]);
            }
        }
    }
}
