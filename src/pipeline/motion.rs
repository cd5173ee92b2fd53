//! What an animation has beside a still: how many frames, and their noise.

use super::{model::Model, request::Request};
use crate::{
    Error, Result,
    animation::{self, Motion},
    noise,
};

/// The stream of a seed's noise that each frame has to itself; see [`noise`](crate::noise).
const OWN_STREAM: u64 = u64::MAX - 1;

/// How many frames are denoised together: 1 is a still, also where a motion moves the finished one.
///
/// # Errors
/// `BadInput` for a number that the model does not take: one sentence that names those it does.
pub fn frames(model: &Model, request: &Request) -> Result<usize> {
    if request.motion.is_some() {
        return Ok(1);
    }
    let known = model.network.denoiser.frames();
    match (request.frames, known) {
        (None, Some(known)) if model.family.animates() => Ok(model.info.default_frames.min(known.most())),
        (None | Some(1), _) => Ok(1),
        (Some(frames), Some(known)) if known.takes(frames) => Ok(frames),
        (Some(frames), Some(known)) => Err(Error::bad_input(format!(
            "{frames} frames cannot be drawn; this model has positions for {}, so give {}, where 1 is a still",
            known.most(),
            known.words()
        ))),
        (Some(frames), None) => Err(Error::bad_input(format!(
            "{frames} frames cannot be drawn: this model draws single pictures; give a motion that moves the finished one ({}), a motion \
             adapter, or leave the frames out",
            Motion::ALL.map(|(name, _)| name).join(", ")
        ))),
    }
}

/// How long each frame is shown, in milliseconds, of a model that denoises `frames` together.
///
/// # Errors
/// `BadInput` for a number of frames a second that is out of range, or where nothing moves.
pub fn frame_ms(model: &Model, request: &Request, frames: usize) -> Result<u32> {
    match request.fps {
        Some(_) if frames == 1 && request.motion.is_none() => {
            Err(Error::bad_input("frames a second are told of what moves; give frames or a motion, too"))
        }
        Some(fps) => animation::frame_ms(fps),
        None => Ok(model.info.frame_ms),
    }
}

/// Unit noise of so many `frames`, each of `count` values: the still's of that seed, which they have in common, weighs
/// `shared` of the variance, and the rest is each one's own.
pub fn noise(seed: u64, frames: usize, count: usize, shared: f64) -> Vec<f32> {
    if frames == 1 || shared == 0.0 {
        return noise::normal(seed, 0, frames * count);
    }
    let (common, own) = (noise::normal(seed, 0, count), noise::normal(seed, OWN_STREAM, frames * count));
    let [common_weight, own_weight] = [shared, 1.0 - shared].map(|share| share.sqrt() as f32);
    own.iter().zip(common.iter().cycle()).map(|(own, common)| common * common_weight + own * own_weight).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_share_their_noise() {
        let count = 20_000;
        let values = noise(3, 4, count, 0.8);
        let frames: Vec<&[f32]> = values.chunks(count).collect();
        let product = |a: &[f32], b: &[f32]| {
            a.iter().zip(b).map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>() / count as f64
        };
        assert!((product(frames[2], frames[2]) - 1.0).abs() < 0.03);
        assert!((product(frames[0], frames[3]) - 0.8).abs() < 0.03);
        assert_eq!(noise(3, 1, count, 0.8), noise::normal(3, 0, count));
        assert_eq!(noise(3, 2, count, 0.0)[..count], noise::normal(3, 0, count));
    }
}
