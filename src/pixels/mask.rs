//! Masks: which pixels are drawn anew, and how what was drawn is set into what stays.

use super::Alpha;
use crate::values::Image;

/// From here on a mask's pixel is white, and one of any picture is seen.
const HALF: u8 = 128;
/// Colours whose channels differ by no more than this are one colour, as it comes out of a brush with soft edges.
const ONE_COLOUR: u8 = 48;
/// Over this many pixels what was drawn fades into what stays.
const SEAM: u8 = 4;

/// What in a mask means "draw anew".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convention {
    /// White, as in diffusers; what is clear stays.
    White,
    /// Marks of one colour on nothing: all that is not clear.
    Strokes,
    /// A picture with a hole: all that is clear.
    Hole,
}

impl Convention {
    /// Reads it off a mask: where nothing is clear, or what is seen is black and white with white in it, white counts. Else
    /// it is a picture with a hole, unless what is seen has one colour and most of the border is clear.
    pub fn of(mask: &Image) -> Self {
        let seen = || mask.rgba.chunks_exact(4).filter(|pixel| pixel[3] >= HALF);
        if mask.rgba.chunks_exact(4).all(|pixel| pixel[3] >= HALF) {
            return Self::White;
        }
        let range = |channel: usize| {
            let values = seen().map(|pixel| pixel[channel]);
            values.fold((u8::MAX, 0), |(least, most), value| (least.min(value), most.max(value)))
        };
        let ranges = [0, 1, 2].map(range);
        let extreme = |value: u8| value <= ONE_COLOUR || value >= u8::MAX - ONE_COLOUR;
        let black_or_white =
            |pixel: &[u8]| pixel[..3].iter().all(|value| extreme(*value) && (*value >= HALF) == (pixel[0] >= HALF));
        if seen().any(is_white) && seen().all(black_or_white) {
            return Self::White;
        }
        let one_colour = ranges.iter().all(|(least, most)| most.saturating_sub(*least) <= ONE_COLOUR);
        let (w, h) = (mask.width, mask.height);
        let border = (0..w * h).filter(|i| i % w == 0 || i % w == w - 1 || i / w == 0 || i / w == h - 1);
        let (clear, all) =
            border.fold((0, 0), |(clear, all), i| (clear + usize::from(mask.rgba[4 * i + 3] < HALF), all + 1));
        if one_colour && 2 * clear > all { Self::Strokes } else { Self::Hole }
    }

    /// What to tell of one that is not the usual.
    pub fn note(self) -> Option<&'static str> {
        match self {
            Self::White => None,
            Self::Strokes => Some("the mask is marks on a clear ground; what is marked is drawn anew"),
            Self::Hole => Some("the mask is a picture with clear places; what is clear is drawn anew"),
        }
    }
}

/// ITU-R 601 luma, as PIL rounds it.
fn is_white(pixel: &[u8]) -> bool {
    let [r, g, b] = [0, 1, 2].map(|channel| u32::from(pixel[channel]));
    (r * 19595 + g * 38470 + b * 7471 + 0x8000) >> 16 >= u32::from(HALF)
}

/// Each pixel: 1 where the picture is drawn anew, 0 where it stays.
pub fn redraw(mask: &Image) -> Vec<f32> {
    let convention = Convention::of(mask);
    let anew = |pixel: &[u8]| match convention {
        Convention::White => pixel[3] >= HALF && is_white(pixel),
        Convention::Strokes => pixel[3] >= HALF,
        Convention::Hole => pixel[3] < HALF,
    };
    mask.rgba.chunks_exact(4).map(|pixel| if anew(pixel) { 1.0 } else { 0.0 }).collect()
}

/// `drawn` where `mask` has it drawn anew, and `init` to the byte where it stays; all three of one size. Along the inner
/// side of the seam the one fades into the other. A picture without alpha lies over white, as the model saw it.
pub fn keep_spared(drawn: &Image, init: &Image, mask: &Image, alpha: Alpha) -> Image {
    let weights = seam(&redraw(mask), mask.width, mask.height);
    let mut rgba = Vec::with_capacity(drawn.rgba.len());
    for ((new, old), weight) in drawn.rgba.chunks_exact(4).zip(init.rgba.chunks_exact(4)).zip(weights) {
        let old = match alpha {
            Alpha::None => {
                let a = u32::from(old[3]);
                let over_white = |value: u8| ((u32::from(value) * a + 255 * (255 - a) + 127) / 255) as u8;
                [over_white(old[0]), over_white(old[1]), over_white(old[2]), u8::MAX]
            }
            Alpha::Straight | Alpha::Premultiplied => [old[0], old[1], old[2], old[3]],
        };
        if weight == 0.0 {
            rgba.extend(old);
            continue;
        }
        // Colours count as much as they are seen.
        let (a, b) = (weight * f32::from(new[3]), (1.0 - weight) * f32::from(old[3]));
        for channel in 0..3 {
            let mixed = (a * f32::from(new[channel]) + b * f32::from(old[channel])) / (a + b).max(f32::MIN_POSITIVE);
            rgba.push(mixed.round() as u8);
        }
        rgba.push((a + b).round() as u8);
    }
    Image { width: drawn.width, height: drawn.height, rgba }
}

/// How much of each pixel is what was drawn: 0 outside of the mask, rising within it over [`SEAM`] pixels, or over as many
/// as a mark has, so that the smallest mark shows.
fn seam(redraw: &[f32], width: usize, height: usize) -> Vec<f32> {
    // How far in: by taking away a rim of one pixel after the other.
    let mut inside: Vec<u8> = redraw.iter().map(|anew| u8::from(*anew == 1.0)).collect();
    let mut depth = inside.clone();
    for _ in 0..SEAM {
        inside = neighbours(&inside, width, height, u8::min);
        depth.iter_mut().zip(&inside).for_each(|(depth, inside)| *depth += inside);
    }
    let mut deepest = depth.clone();
    for _ in 0..SEAM {
        deepest = neighbours(&deepest, width, height, u8::max);
    }
    let share = |(depth, deepest): (&u8, &u8)| f32::from(*depth) / f32::from((*deepest).max(1));
    depth.iter().zip(&deepest).map(share).collect()
}

/// Each value joined with its eight neighbours.
fn neighbours(values: &[u8], width: usize, height: usize, join: fn(u8, u8) -> u8) -> Vec<u8> {
    let along = |values: &[u8], step: usize, place: &dyn Fn(usize) -> usize, length: usize| -> Vec<u8> {
        let joined = values.iter().enumerate().map(|(i, value)| {
            let before = if place(i) > 0 { values[i - step] } else { *value };
            let after = if place(i) + 1 < length { values[i + step] } else { *value };
            join(join(before, after), *value)
        });
        joined.collect()
    };
    let rows = along(values, 1, &|i| i % width, width);
    along(&rows, width, &|i| i / width, height)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLEAR: [u8; 4] = [0; 4];
    const BLACK: [u8; 4] = [0, 0, 0, 255];
    const WHITE: [u8; 4] = [255; 4];

    /// 6 x 5 pixels: `mark` in a rectangle of 2 x 2, `ground` around it.
    fn mask(ground: impl Fn(usize) -> [u8; 4], mark: [u8; 4]) -> Image {
        let pixel = |i: usize| if marked(i) { mark } else { ground(i) };
        Image { width: 6, height: 5, rgba: (0..30).flat_map(pixel).collect() }
    }

    fn marked(i: usize) -> bool {
        (2..4).contains(&(i % 6)) && (1..3).contains(&(i / 6))
    }

    #[test]
    fn every_way_to_mark_the_same_place_means_that_place() {
        let photo = |i: usize| [(i * 8) as u8, 255 - (i * 5) as u8, (i * 3) as u8, 255];
        let marks = [
            (mask(|_| BLACK, WHITE), Convention::White),
            // Light enough, and clear as PIL sees it not.
            (mask(|_| BLACK, [128, 128, 128, 255]), Convention::White),
            (mask(|_| CLEAR, WHITE), Convention::White),
            (mask(|_| [255, 255, 255, 0], WHITE), Convention::White),
            (mask(|i| if i < 6 { CLEAR } else { BLACK }, WHITE), Convention::White),
            (mask(|_| CLEAR, BLACK), Convention::Strokes),
            (mask(|_| CLEAR, [200, 30, 30, 255]), Convention::Strokes),
            (mask(|_| BLACK, CLEAR), Convention::Hole),
            (mask(|_| [90, 90, 90, 255], CLEAR), Convention::Hole),
            (mask(photo, CLEAR), Convention::Hole),
            (mask(photo, [255, 255, 255, 0]), Convention::Hole),
        ];
        let expected: Vec<f32> = (0..30).map(|i| if marked(i) { 1.0 } else { 0.0 }).collect();
        for (i, (mask, convention)) in marks.iter().enumerate() {
            assert_eq!(Convention::of(mask), *convention, "mask {i}");
            assert_eq!(redraw(mask), expected, "mask {i}");
            assert_eq!(convention.note().is_none(), *convention == Convention::White);
        }
        // A photo in the middle of a larger canvas: what is around it is to be drawn.
        let margins = mask(|_| CLEAR, BLACK);
        let rgba = margins.rgba.chunks_exact(4).enumerate();
        let rgba = rgba.flat_map(|(i, pixel)| if pixel == BLACK { photo(i) } else { CLEAR }).collect();
        assert_eq!(Convention::of(&Image { rgba, ..margins }), Convention::Hole);
        // An empty layer marks nothing, and neither does a black one.
        for nothing in [CLEAR, BLACK] {
            assert!(redraw(&mask(|_| nothing, nothing)).iter().all(|anew| *anew == 0.0));
        }
    }

    /// 20 x 16 pixels of one colour.
    fn flat(pixel: [u8; 4]) -> Image {
        Image { width: 20, height: 16, rgba: pixel.repeat(320) }
    }

    #[test]
    fn what_a_mask_spares_is_kept_to_the_byte_behind_a_soft_seam() {
        let mut mask = flat(BLACK);
        for i in (0..320).filter(|i| i % 20 >= 8) {
            mask.rgba[4 * i..4 * i + 4].copy_from_slice(&WHITE);
        }
        // A mark of one pixel.
        mask.rgba[4 * 42..4 * 43].copy_from_slice(&WHITE);
        let (drawn, init) = (flat([210, 10, 10, 255]), flat([10, 210, 10, 255]));
        let image = keep_spared(&drawn, &init, &mask, Alpha::None);
        let red = |x: usize, y: usize| image.rgba[4 * (20 * y + x)];
        assert_eq!([0, 5, 7].map(|x| red(x, 9)), [10; 3]);
        assert_eq!([8, 9, 10, 11, 12, 19].map(|x| red(x, 9)), [50, 90, 130, 170, 210, 210]);
        // The border of the picture is no seam, and the smallest mark shows.
        assert_eq!(red(14, 0), 210);
        assert_eq!([1, 2, 3].map(|x| red(x, 2)), [10, 210, 10]);
    }

    #[test]
    fn alpha_is_kept_as_the_model_has_it() {
        let mask = mask(|_| BLACK, WHITE);
        let of = |pixel: [u8; 4]| Image { width: 6, height: 5, rgba: pixel.repeat(30) };
        let (drawn, init) = (of([0, 0, 200, 255]), of([100, 0, 0, 51]));
        let at = |image: &Image, i: usize| image.rgba[4 * i..4 * i + 4].to_vec();
        assert_eq!(at(&keep_spared(&drawn, &init, &mask, Alpha::None), 0), [224, 204, 204, 255]);
        for alpha in [Alpha::Straight, Alpha::Premultiplied] {
            let kept = keep_spared(&drawn, &init, &mask, alpha);
            assert_eq!(at(&kept, 0), [100, 0, 0, 51]);
            assert_eq!(at(&kept, 8), [0, 0, 200, 255]);
        }
        // What cannot be seen lends no colour.
        let kept = keep_spared(&of(CLEAR), &of([100, 0, 0, 51]), &mask, Alpha::Straight);
        assert_eq!((at(&kept, 0), at(&kept, 8)), (vec![100, 0, 0, 51], vec![0; 4]));
    }
}
