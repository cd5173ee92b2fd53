//! A finished picture moved, turned and stretched along a closed path. No model is asked.

use libm::{cos, sin};
use std::f64::consts::{PI, TAU};

use super::frames::check;
use crate::{
    Error, Result,
    values::{Animation, Image},
};

/// The largest side that a picture is scaled to.
const MAX_SIDE: usize = 4096;

/// A path on which a picture moves and comes back to where it began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "cli", derive(clap::ValueEnum))]
#[cfg_attr(test, derive(ts_rs::TS), ts(rename_all = "lowercase"))]
pub enum Motion {
    /// Up and down, flat where it lands
    Bounce,
    /// Once around its middle
    Spin,
    /// From side to side on its foot
    Wobble,
    /// Larger and smaller
    Pulse,
    /// Slowly up and down
    Float,
    /// Quickly left and right
    Shake,
    /// Wider and taller in turn
    Jelly,
}

impl Motion {
    pub const ALL: [(&'static str, Self); 7] = [
        ("bounce", Self::Bounce),
        ("spin", Self::Spin),
        ("wobble", Self::Wobble),
        ("pulse", Self::Pulse),
        ("float", Self::Float),
        ("shake", Self::Shake),
        ("jelly", Self::Jelly),
    ];

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, motion)| *motion)
    }

    /// Where frame `frame` of `frames` stands, as a change of what is seen of the picture: its box `[x0, y0, x1, y1]`.
    fn at(self, frame: usize, frames: usize, [x0, y0, x1, y1]: [f64; 4]) -> Affine {
        let phase = frame as f64 / frames as f64;
        let swing = sin(TAU * phase);
        let (width, height, middle) = (x1 - x0, y1 - y0, [(x0 + x1) / 2.0, (y0 + y1) / 2.0]);
        let foot = [middle[0], y1];
        match self {
            Self::Bounce => {
                let high = 4.0 * phase * (1.0 - phase);
                let flat = 0.14 * (1.0 - high).powi(4);
                Affine::scale(foot, 1.0 + flat, 1.0 - flat).then(Affine::shift(0.0, -0.25 * height * high))
            }
            Self::Spin => Affine::turn(middle, TAU * phase),
            Self::Wobble => Affine::turn(foot, PI / 14.0 * swing),
            Self::Pulse => Affine::scale(middle, 1.0 + 0.08 * swing, 1.0 + 0.08 * swing),
            Self::Float => Affine::shift(0.0, -0.06 * height * swing),
            Self::Shake => {
                // As often as the frames can show.
                let times = (frames / 4).clamp(1, 3) as f64;
                Affine::shift(0.05 * width * sin(TAU * times * phase), 0.0)
            }
            Self::Jelly => Affine::scale(foot, 1.0 + 0.09 * swing, 1.0 - 0.09 * swing),
        }
    }
}

/// `image` on the path of `motion`, in `frames` frames of `frame_ms` milliseconds. A picture that would leave its frame on
/// the way is made smaller, by as much in every frame.
///
/// # Errors
/// `BadInput` for a picture without pixels.
pub fn animate(image: &Image, motion: Motion, frames: usize, frame_ms: u32) -> Result<Animation> {
    let whole = Animation { frames: vec![image.clone()], frame_ms };
    check(&whole)?;
    let outline = outline(image);
    let seen = bounds(&outline, Affine::SAME);
    let size = [image.width, image.height];
    let path: Vec<_> = (0..frames).map(|frame| motion.at(frame, frames, seen)).collect();
    let fit = fit(path.iter().map(|at| bounds(&outline, *at)), size.map(|side| side as f64));
    let frames = path.into_iter().map(|at| warp(image, at.then(fit), size)).collect();
    Ok(Animation { frames, frame_ms })
}

/// `animation` in squares of `side` pixels, in their middle and as large as they allow.
///
/// # Errors
/// `BadInput` for a side out of range, or frames of several sizes.
pub fn fit_square(animation: &Animation, side: usize) -> Result<Animation> {
    if !(1..=MAX_SIDE).contains(&side) {
        return Err(Error::bad_input(format!("the side of {side} pixels is out of range; give 1 to {MAX_SIDE}")));
    }
    let [width, height] = check(animation)?.map(|side| side as f64);
    let square = side as f64;
    let scale = square / width.max(height);
    let to_middle = Affine::shift((square - scale * width) / 2.0, (square - scale * height) / 2.0);
    let at = Affine::scale([0.0, 0.0], scale, scale).then(to_middle);
    let frames = animation.frames.iter().map(|frame| warp(frame, at, [side, side])).collect();
    Ok(Animation { frames, ..*animation })
}

/// `x' = a x + b y + c`, `y' = d x + e y + f`, in pixels from the picture's corner.
#[derive(Clone, Copy, Debug)]
struct Affine([[f64; 3]; 2]);

impl Affine {
    const SAME: Self = Self([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]);

    fn shift(x: f64, y: f64) -> Self {
        Self([[1.0, 0.0, x], [0.0, 1.0, y]])
    }

    fn scale([x, y]: [f64; 2], by_x: f64, by_y: f64) -> Self {
        Self([[by_x, 0.0, x - by_x * x], [0.0, by_y, y - by_y * y]])
    }

    /// Clockwise, as y grows downwards.
    fn turn([x, y]: [f64; 2], angle: f64) -> Self {
        let (s, c) = (sin(angle), cos(angle));
        Self([[c, -s, x - c * x + s * y], [s, c, y - s * x - c * y]])
    }

    fn then(self, next: Self) -> Self {
        let [first, second] = self.0;
        let row = |[a, b, c]: [f64; 3]| {
            let by = |i: usize| a * first[i] + b * second[i];
            [by(0), by(1), by(2) + c]
        };
        Self(next.0.map(row))
    }

    fn apply(self, [x, y]: [f64; 2]) -> [f64; 2] {
        self.0.map(|[a, b, c]| a * x + b * y + c)
    }

    /// Of what neither flattens nor mirrors.
    fn inverse(self) -> Self {
        let [[a, b, c], [d, e, f]] = self.0;
        let area = a * e - b * d;
        let (a, b, d, e) = (e / area, -b / area, -d / area, a / area);
        Self([[a, b, -a * c - b * f], [d, e, -d * c - e * f]])
    }
}

/// The corners of the first and last pixel that is seen in each row; of the whole picture, where none is.
fn outline(image: &Image) -> Vec<[f64; 2]> {
    let mut corners = Vec::new();
    for (y, row) in image.rgba.chunks_exact(4 * image.width).enumerate() {
        let seen = |x: &usize| row[4 * x + 3] > 0;
        if let (Some(first), Some(last)) = ((0..image.width).find(seen), (0..image.width).rfind(seen)) {
            let (left, right, top) = (first as f64, (last + 1) as f64, y as f64);
            corners.extend([[left, top], [right, top], [left, top + 1.0], [right, top + 1.0]]);
        }
    }
    if corners.is_empty() {
        let (right, bottom) = (image.width as f64, image.height as f64);
        corners.extend([[0.0, 0.0], [right, bottom]]);
    }
    corners
}

/// `[x0, y0, x1, y1]` around `points`, once `at` has moved them.
fn bounds(points: &[[f64; 2]], at: Affine) -> [f64; 4] {
    points.iter().map(|point| at.apply(*point)).fold([f64::MAX, f64::MAX, f64::MIN, f64::MIN], |box_, [x, y]| {
        [box_[0].min(x), box_[1].min(y), box_[2].max(x), box_[3].max(y)]
    })
}

/// What brings all of `boxes` into `size`; nothing, where they are in it.
fn fit(boxes: impl Iterator<Item = [f64; 4]>, size: [f64; 2]) -> Affine {
    let all = boxes.fold([0.0, 0.0, 0.0, 0.0], |all: [f64; 4], one| {
        // As far as they stand out at each side.
        [all[0].max(-one[0]), all[1].max(-one[1]), all[2].max(one[2] - size[0]), all[3].max(one[3] - size[1])]
    });
    let scale = [0, 1].map(|axis| size[axis] / (size[axis] + all[axis] + all[axis + 2]));
    let scale = scale[0].min(scale[1]);
    let shift = [0, 1].map(|axis| {
        // Where there is room, it stays in the middle of what it was.
        let (before, after) = (all[axis], all[axis + 2]);
        let free = size[axis] - scale * (size[axis] + before + after);
        scale * before + free / 2.0
    });
    Affine::scale([0.0, 0.0], scale, scale).then(Affine::shift(shift[0], shift[1]))
}

/// `image` as `at` moves it, in a frame of `[width, height]`: between four pixels each, colours counting as much as they are
/// seen, and nothing beyond the edges.
fn warp(image: &Image, at: Affine, [width, height]: [usize; 2]) -> Image {
    let back = at.inverse();
    let pixel = |x: f64, y: f64| -> [f64; 4] {
        let inside = (0.0..image.width as f64).contains(&x) && (0.0..image.height as f64).contains(&y);
        if !inside {
            return [0.0; 4];
        }
        let i = 4 * (y as usize * image.width + x as usize);
        let [r, g, b, a] = [0, 1, 2, 3].map(|channel| f64::from(image.rgba[i + channel]));
        [r * a, g * a, b * a, a]
    };
    let mut rgba = Vec::with_capacity(4 * width * height);
    for i in 0..width * height {
        let [x, y] = back.apply([(i % width) as f64 + 0.5, (i / width) as f64 + 0.5]).map(|value| value - 0.5);
        let (left, top) = (x.floor(), y.floor());
        let (u, v) = (x - left, y - top);
        let mut sum = [0.0; 4];
        for (dx, dy, weight) in
            [(0.0, 0.0, (1.0 - u) * (1.0 - v)), (1.0, 0.0, u * (1.0 - v)), (0.0, 1.0, (1.0 - u) * v), (1.0, 1.0, u * v)]
        {
            let found = pixel(left + dx, top + dy);
            (0..4).for_each(|channel| sum[channel] += weight * found[channel]);
        }
        let alpha = sum[3].round();
        rgba.extend(match alpha > 0.0 {
            true => [sum[0] / sum[3], sum[1] / sum[3], sum[2] / sum[3], alpha].map(|value| value.round() as u8),
            false => [0; 4],
        });
    }
    Image { width, height, rgba }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An upright bar, red above and half-seen blue below, off the middle.
    fn picture() -> Image {
        let rgba = (0..24 * 32).flat_map(|i| match (i % 24, i / 24) {
            (6..14, 4..16) => [255, 0, 0, 255],
            (6..14, 16..30) => [0, 0, 255, 128],
            _ => [0; 4],
        });
        Image { width: 24, height: 32, rgba: rgba.collect() }
    }

    fn difference(one: &Image, other: &Image) -> f64 {
        let squares = one.rgba.iter().zip(&other.rgba).map(|(a, b)| f64::from(a.abs_diff(*b)).powi(2));
        (squares.sum::<f64>() / one.rgba.len() as f64).sqrt()
    }

    #[test]
    fn every_path_moves_and_closes() {
        for (name, motion) in Motion::ALL {
            for frames in [4, 7, 16] {
                let clip = animate(&picture(), motion, frames, 80).unwrap();
                assert_eq!((clip.frames.len(), clip.frame_ms), (frames, 80));
                let steps: Vec<_> =
                    (0..frames).map(|i| difference(&clip.frames[i], &clip.frames[(i + 1) % frames])).collect();
                let largest = steps[..frames - 1].iter().copied().fold(0.0, f64::max);
                assert!(largest > 2.0, "{name} in {frames} frames stands still");
                assert!(steps[frames - 1] <= 1.5 * largest, "{name} in {frames} frames jumps at its end: {steps:?}");
            }
        }
    }

    #[test]
    fn nothing_is_cut_off() {
        // A picture that fills its frame.
        let full = Image { width: 20, height: 20, rgba: [9, 200, 30, 255].repeat(400) };
        let seen = |image: &Image| image.rgba.chunks_exact(4).map(|pixel| f64::from(pixel[3]) / 255.0).sum::<f64>();
        for (name, motion) in Motion::ALL {
            let clip = animate(&full, motion, 16, 80).unwrap();
            let areas: Vec<_> = clip.frames.iter().map(seen).collect();
            // Those that keep the area keep all of it: what is cut off would be missing.
            if matches!(motion, Motion::Spin | Motion::Wobble | Motion::Float | Motion::Shake) {
                let (least, most) = areas.iter().fold((f64::MAX, 0f64), |(a, b), area| (a.min(*area), b.max(*area)));
                assert!(most - least < 0.03 * most, "{name}: {areas:?}");
            }
            assert!(areas[0] > 100.0, "{name}");
        }
    }

    #[test]
    fn where_nothing_moves_the_picture_is_the_same_to_the_byte() {
        let picture = picture();
        // A motion that stays inside begins with the picture itself.
        for motion in [Motion::Pulse, Motion::Float, Motion::Shake] {
            assert_eq!(animate(&picture, motion, 16, 80).unwrap().frames[0], picture);
        }
        let around = Affine::turn([12.0, 16.0], PI);
        let turned = warp(&picture, around, [24, 32]);
        let backwards: Vec<u8> = picture.rgba.chunks_exact(4).rev().flatten().copied().collect();
        assert_eq!(turned.rgba, backwards);
    }

    #[test]
    fn what_is_not_seen_lends_no_colour() {
        let image = Image { width: 2, height: 1, rgba: vec![200, 100, 50, 255, 0, 255, 0, 0] };
        let moved = warp(&image, Affine::shift(0.5, 0.0), [3, 1]);
        assert_eq!(moved.rgba, [200, 100, 50, 128, 200, 100, 50, 128, 0, 0, 0, 0]);
    }

    #[test]
    fn an_inverse_leads_back() {
        let there =
            Affine::turn([3.0, 4.0], 0.7).then(Affine::scale([1.0, 2.0], 1.5, 0.5)).then(Affine::shift(5.0, 6.0));
        let [x, y] = there.inverse().apply(there.apply([7.0, 8.0]));
        assert!((x - 7.0).abs() < 1e-12 && (y - 8.0).abs() < 1e-12);
    }

    #[test]
    fn a_picture_without_anything_in_it_stays_empty() {
        let none = Image { width: 3, height: 3, rgba: vec![0; 36] };
        assert!(animate(&none, Motion::Bounce, 4, 80).unwrap().frames.iter().all(|frame| *frame == none));
        assert!(animate(&Image { width: 0, height: 0, rgba: vec![] }, Motion::Spin, 4, 80).is_err());
    }
}
