//! The only room that knows the order of the others, as floors: nothing imports what stands above it.
//!
//! ```text
//! request, event                      the words
//! family/                             what sets pipelines apart, a page each
//! text, memory                        the text stage; a memory plan from numbers alone
//! model                               what is loaded, and what it needs
//! motion                              what an animation has beside a still
//! start, text_to_image, ...           where a run begins
//! plan                                a request checked against a model
//! finish                              where every way ends: scores, the best of them, pixels
//! diffusion, codes, tokens, hybrid    the ways of drawing, a file each; codes are what the last two draw
//! mod                                 Pipeline: load, choose the way, generate
//! janus                               a model of another kind, with a way of its own
//! ```

mod codes;
mod diffusion;
mod event;
mod family;
mod finish;
mod hybrid;
mod image_to_image;
mod inpaint;
pub mod janus;
mod memory;
mod model;
mod motion;
mod plan;
mod request;
mod start;
mod text;
mod text_to_image;
mod tokens;

pub use event::{Event, Preview, Stage};
pub use memory::{MemoryBudget, MemoryNeeds, MemoryPlan};
use model::Model;
pub use model::{
    AUTOREGRESSIVE, CODEBOOK, HYBRID, MOTION, OPTIONAL, PREVIEW, SCORER, default_frames, memory_needs, required_params,
    ways,
};
pub use request::{CodesPlan, Generated, Info, Keep, Plan, Request, Search, Way};

pub use crate::denoise::{SkipLayers, schedule::Churn};
use crate::{
    Result, animation,
    weights::{ModelFiles, Tensors},
};

/// A loaded model of any class that this version runs, ready to draw.
pub struct Pipeline {
    model: Model,
}

impl Pipeline {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        Ok(Self { model: Model::load(files, tensors)? })
    }

    /// The same model, making do with less memory. Its `tensors` were kept as the plan says.
    pub fn with_memory(mut self, memory: MemoryPlan) -> Self {
        self.model.memory = memory;
        self
    }

    /// Brings back text encoders that the memory plan released.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for the text encoders alone.
    pub fn restore_text(&mut self, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        self.model.restore_text(files, tensors)
    }

    /// Adds one of the [`OPTIONAL`] components to a model that was loaded without it.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for that component alone.
    pub fn add_optional(&mut self, component: &str, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        self.model.add_optional(component, files, tensors)
    }

    /// Whether that one of the [`OPTIONAL`] components is there.
    pub fn has_optional(&self, component: &str) -> bool {
        self.model.has_optional(component)
    }

    /// Whether the text encoders are on the device.
    pub fn has_text(&self) -> bool {
        self.model.has_text()
    }

    pub fn info(&self) -> &Info {
        &self.model.info
    }

    /// The shape of starting noise for a picture of this size: `[C, height / factor, width / factor]`.
    pub fn latent_shape(&self, width: usize, height: usize) -> [usize; 3] {
        self.model.latent_shape(width, height)
    }

    /// The size in which a picture of any size is drawn: its own, cut to what the model can do; the model's own of the
    /// nearest shape, where that is too small or too large.
    pub fn drawable_size(&self, width: usize, height: usize) -> [usize; 2] {
        plan::drawable_size(&self.model, width, height)
    }

    /// Whether the network takes mask and masked picture, and nothing less.
    pub fn repaints_only(&self) -> bool {
        self.model.repaints_only()
    }

    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        plan::plan(&self.model, request)
    }

    /// Draws. `on_event` is awaited at each [`Event`]; its error ends the drawing, which is how to cancel.
    ///
    /// # Errors
    /// `BadInput` from [`plan`](Self::plan), or where the text encoder is [released](MemoryPlan::release_text);
    /// `DeviceLost` or `OutOfMemory` from the device; whatever `on_event` gives.
    pub async fn generate(
        &mut self,
        request: &Request,
        on_event: impl AsyncFnMut(Event<'_>) -> Result<()>,
    ) -> Result<Generated> {
        // On the heap, for a browser's stack is small.
        let mut drawn = match request.way {
            None | Some(Way::Diffusion) => Box::pin(diffusion::draw(&mut self.model, request, on_event)).await,
            Some(Way::Tokens) => Box::pin(tokens::draw(&mut self.model, request, on_event)).await,
            Some(Way::Hybrid) => Box::pin(hybrid::draw(&mut self.model, request, on_event)).await,
        }?;
        if let Some((motion, frames, frame_ms)) = plan::pace(request)? {
            let moved = drawn.images.iter().map(|image| animation::animate(image, motion, frames, frame_ms));
            drawn.animations = moved.collect::<Result<_>>()?;
        }
        Ok(drawn)
    }
}
