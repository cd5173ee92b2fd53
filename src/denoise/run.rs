//! The loop: from noise, step by step, to what the autoencoder decodes.

use burn::tensor::{Tensor, TensorData};

use super::{
    Guidance, noise,
    schedule::{Mix, Schedule, Term},
};
use crate::{Result, values::Latent};

/// Where the fresh noise of stochastic steps comes from.
#[derive(Clone, Debug, Default)]
pub struct FreshNoise {
    pub seed: u64,
    /// By step, in place of the seed's.
    pub given: Vec<Vec<f32>>,
}

/// Keeps what is not to be drawn anew: after each step, `x_t` is that of the known latent where the mask is 0.
pub struct Blend {
    /// `[1, 1, H, W]`, for every frame: 1 where the picture is drawn anew.
    pub mask: Tensor<4>,
    pub known: Latent,
    pub noise: Latent,
}

/// A run in progress: call [`step`](Self::step) until it gives `None`, whenever you like; to cancel, stop calling.
pub struct Denoising<'a> {
    guidance: &'a Guidance<'a>,
    schedule: &'a Schedule,
    extra: Option<Latent>,
    fresh: FreshNoise,
    blend: Option<Blend>,
    x_t: Latent,
    step: usize,
    /// The latest first, as many as the schedule looks back on.
    past: Vec<Past>,
}

struct Past {
    x_t: Latent,
    corrected: Latent,
    output: Latent,
    x_0: Latent,
}

/// What one step gave.
pub struct StepOutcome {
    /// Steps done so far, from 1.
    pub step: usize,
    /// After the step.
    pub x_t: Latent,
    /// What the model would draw if it stopped here.
    pub x_0: Latent,
}

impl<'a> Denoising<'a> {
    /// Starts from `x_t`, `[frames, C, H, W]`, in the noise of the schedule's first step. `extra`, as many rows of `C'` channels, is joined to
    /// it along the channels for the network to see: mask and masked picture of those that inpaint.
    pub fn new(
        guidance: &'a Guidance<'a>,
        schedule: &'a Schedule,
        x_t: Latent,
        extra: Option<Latent>,
        fresh: FreshNoise,
        blend: Option<Blend>,
    ) -> Self {
        Self { guidance, schedule, extra, fresh, blend, x_t, step: 0, past: Vec::new() }
    }

    /// The latent as it stands: at first the noise, at last what the autoencoder decodes.
    pub fn x_t(&self) -> &Latent {
        &self.x_t
    }

    /// Takes the next step, or gives `None` when all are taken.
    ///
    /// # Errors
    /// Those of the denoiser.
    pub fn step(&mut self) -> Result<Option<StepOutcome>> {
        let Some(step) = self.schedule.steps.get(self.step) else { return Ok(None) };
        let [_, channels, _, _] = self.x_t.dims();
        let input = scaled(&self.x_t, step.input_scale);
        let input = self.extra.iter().fold(input, |input, extra| Tensor::cat(vec![input, extra.clone()], 1));
        // Models that learnt their variance too give it as a second half, which no solver here uses.
        let output = self.guidance.predict(input, self.step)?.narrow(1, 0, channels);
        let Mix { x, output: o } = step.x_0;
        let x_0 = scaled(&self.x_t, x) + scaled(&output, o);
        let x_0 = step.clip.map_or_else(|| x_0.clone(), |range| x_0.clone().clamp(-range, range));
        let x_t = self.x_t.clone();
        self.past.insert(0, Past { x_t: x_t.clone(), corrected: x_t, output, x_0: x_0.clone() });
        self.past.truncate(self.schedule.reach() + 1);
        if !step.corrected.is_empty() {
            self.past[0].corrected = self.sum(&step.corrected);
        }
        let mut x_t = self.sum(&step.next);
        self.step += 1;
        if let Some(Blend { mask, known, noise }) = &self.blend {
            let known = match self.schedule.steps.get(self.step) {
                Some(next) => scaled(known, next.noised.x_0) + scaled(noise, next.noised.noise),
                None => known.clone(),
            };
            x_t = known.clone() + (x_t - known) * mask.clone();
        }
        self.x_t = x_t.clone();
        Ok(Some(StepOutcome { step: self.step, x_t, x_0 }))
    }

    /// Weighted terms of this step and those before.
    fn sum(&self, terms: &[(Term, f64)]) -> Latent {
        let mut sum: Option<Latent> = None;
        for (term, weight) in terms.iter().filter(|(_, weight)| *weight != 0.0) {
            let part = match *term {
                Term::X(back) => scaled(&self.past[back].x_t, *weight),
                Term::Corrected(back) => scaled(&self.past[back].corrected, *weight),
                Term::Output(back) => scaled(&self.past[back].output, *weight),
                Term::X0(back) => scaled(&self.past[back].x_0, *weight),
                Term::Noise => scaled(&self.fresh(self.step), *weight),
            };
            sum = Some(match sum {
                Some(sum) => sum + part,
                None => part,
            });
        }
        sum.unwrap_or_else(|| self.x_t.zeros_like())
    }

    /// Unit noise for `step`, the same for the same seed.
    fn fresh(&self, step: usize) -> Latent {
        let shape = self.x_t.dims();
        let values = match self.fresh.given.get(step) {
            Some(values) => values.clone(),
            None => noise::normal(self.fresh.seed, step as u64 + 1, shape.iter().product()),
        };
        Tensor::from_data(TensorData::new(values, shape), &self.x_t.device())
    }
}

/// A product that leaves a factor of 1 alone.
fn scaled(x: &Latent, factor: f64) -> Latent {
    if factor == 1.0 { x.clone() } else { x.clone() * factor }
}
