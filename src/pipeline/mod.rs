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
//! glm_image, janus                    models that write codes in a way that is no other's
//! kind                                any kind of model
//! mod                                 Pipeline: load, choose the way, generate
//! ```

mod codes;
mod diffusion;
mod event;
mod family;
mod finish;
mod glm_image;
mod hybrid;
mod image_to_image;
mod inpaint;
mod janus;
mod kind;
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
pub use family::{GLM_IMAGE, JANUS};
use kind::Kind;
pub use kind::{memory_needs, required_params, ways};
pub use memory::{MemoryBudget, MemoryNeeds, MemoryPlan};
use model::Model;
pub use model::{AUTOREGRESSIVE, CODEBOOK, HYBRID, MOTION, OPTIONAL, PREVIEW, SCORER, default_frames};
pub use request::{CodesPlan, Generated, Info, Keep, Plan, Request, Search, Way};

pub use crate::denoise::{SkipLayers, schedule::Churn};
use crate::{
    Code, Error, Result, animation,
    values::read,
    weights::{ModelFiles, Tensors},
};

/// A loaded model of any class that this version runs, ready to draw.
pub struct Pipeline {
    kind: Kind,
}

impl Pipeline {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        Ok(Self { kind: Kind::load(files, tensors)? })
    }

    /// The same model, making do with less memory. Its `tensors` were kept as the plan says.
    pub fn with_memory(mut self, memory: MemoryPlan) -> Self {
        match &mut self.kind {
            Kind::Model(model) => model.memory = memory,
            Kind::GlmImage(glm) => glm.memory = memory,
            Kind::Janus(janus) => janus.memory = memory,
        }
        self
    }

    /// Brings back text encoders that the memory plan released.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for the text encoders alone.
    pub fn restore_text(&mut self, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        match &mut self.kind {
            Kind::Model(model) => model.restore_text(files, tensors),
            Kind::GlmImage(_) | Kind::Janus(_) => Ok(()),
        }
    }

    /// Adds one of the [`OPTIONAL`] components to a model that was loaded without it.
    ///
    /// # Errors
    /// Those of [`load`](Self::load), for that component alone.
    pub fn add_optional(&mut self, component: &str, files: &ModelFiles, tensors: &Tensors) -> Result<()> {
        match &mut self.kind {
            Kind::Model(model) => model.add_optional(component, files, tensors),
            Kind::GlmImage(_) | Kind::Janus(_) => {
                Err(Error::bad_model(format!("`{component}` is no component of this model")))
            }
        }
    }

    /// Whether that one of the [`OPTIONAL`] components is there.
    pub fn has_optional(&self, component: &str) -> bool {
        self.kind.model().is_some_and(|model| model.has_optional(component))
    }

    /// Whether the text encoders are on the device, or there are none to release.
    pub fn has_text(&self) -> bool {
        self.kind.model().is_none_or(Model::has_text)
    }

    pub fn info(&self) -> &Info {
        self.kind.info()
    }

    /// The size in which a picture of any size is drawn: its own, cut to what the model can do; the model's own of the
    /// nearest shape, where that is too small or too large.
    pub fn drawable_size(&self, width: usize, height: usize) -> [usize; 2] {
        self.kind.model().map_or(self.info().sizes[0], |model| plan::drawable_size(model, width, height))
    }

    /// Whether the network takes mask and masked picture, and nothing less.
    pub fn repaints_only(&self) -> bool {
        self.kind.model().is_some_and(Model::repaints_only)
    }

    /// Checks a request and fills in the model's defaults.
    ///
    /// # Errors
    /// `BadInput`: one sentence that says what is wrong and what would be right.
    pub fn plan(&self, request: &Request) -> Result<Plan> {
        match &self.kind {
            Kind::Model(model) => plan::plan(model, request),
            Kind::GlmImage(glm) => glm.plan(request),
            Kind::Janus(janus) => janus.plan(request),
        }
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
        let mut drawn = match (&mut self.kind, request.way) {
            (Kind::GlmImage(glm), _) => Box::pin(glm.draw(request, on_event)).await,
            (Kind::Janus(janus), _) => Box::pin(janus.draw(request, on_event)).await,
            (Kind::Model(model), None | Some(Way::Diffusion)) => {
                Box::pin(diffusion::draw(model, request, on_event)).await
            }
            (Kind::Model(model), Some(Way::Tokens)) => Box::pin(tokens::draw(model, request, on_event)).await,
            (Kind::Model(model), Some(Way::Hybrid)) => Box::pin(hybrid::draw(model, request, on_event)).await,
        }?;
        if let Some((motion, frames, frame_ms)) = plan::pace(request)? {
            let moved = drawn.images.iter().map(|image| animation::animate(image, motion, frames, frame_ms));
            drawn.animations = moved.collect::<Result<_>>()?;
        }
        Ok(drawn)
    }

    /// Asks the device for all that the model's own kind of picture takes, a preview among it, and waits for it, but gives
    /// nothing: what is to be compiled for such a picture then is. `pause` is awaited in between.
    ///
    /// # Errors
    /// `BadInput` where the model draws no picture from noise and a prompt alone; `DeviceLost` or `OutOfMemory` from the
    /// device.
    pub async fn rehearse(&mut self, mut pause: impl AsyncFnMut()) -> Result<()> {
        // All steps, for what is computed for them beforehand has as many rows.
        let request = Request { prompt: "rehearsal".to_owned(), way: Some(Way::Diffusion), ..Default::default() };
        let on_event = async |event: Event<'_>| {
            match event {
                Event::Step { step: 1, preview, .. } => drop(preview.pixels()?),
                Event::Decoded { pixels, .. } => {
                    read(pixels.clone()).await?;
                    // Its values may be anything.
                    return Err(Error::aborted());
                }
                _ => {}
            }
            pause().await;
            Ok(())
        };
        match self.generate(&request, on_event).await {
            Err(error) if error.code == Code::Aborted => Ok(()),
            drawn => drawn.map(drop),
        }
    }
}
