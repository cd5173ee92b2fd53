//! What a folder or a bundle holds, of either kind, and what can be said of it without its weights.

use burn::tensor::Device;

use super::{
    family::{self, GLM_IMAGE, JANUS},
    glm_image::GlmImage,
    janus::Janus,
    memory::{F32_BYTES, MemoryNeeds},
    model::Model,
    request::{Info, Way},
};
use crate::{
    Result,
    weights::{ModelFiles, ParamShape, Tensors, list_params},
};

/// A loaded model.
pub enum Kind {
    /// One that denoises, of any family, perhaps to a layout of codes.
    Model(Box<Model>),
    /// A language model that lays pictures out, and a transformer that draws them.
    GlmImage(Box<GlmImage>),
    /// A language model that writes pictures.
    Janus(Box<Janus>),
}

impl Kind {
    /// Builds the model that `files` describe from `tensors`, which it takes.
    ///
    /// # Errors
    /// `BadModel` naming file, key and value, or the tensor, for whatever does not fit.
    pub fn load(files: &ModelFiles, tensors: &Tensors) -> Result<Self> {
        Ok(match family::pipeline_class(&files.index()?)? {
            GLM_IMAGE => Self::GlmImage(Box::new(GlmImage::load(files, tensors)?)),
            JANUS => Self::Janus(Box::new(Janus::load(files, tensors)?)),
            _ => Self::Model(Box::new(Model::load(files, tensors)?)),
        })
    }

    pub fn info(&self) -> &Info {
        match self {
            Self::Model(model) => &model.info,
            Self::GlmImage(glm) => &glm.info,
            Self::Janus(janus) => &janus.info,
        }
    }

    /// The model that denoises, where it is one.
    pub fn model(&self) -> Option<&Model> {
        match self {
            Self::Model(model) => Some(model),
            Self::GlmImage(_) | Self::Janus(_) => None,
        }
    }
}

/// The ways of drawing that the model in `files` has with all its components, the default first.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn ways(files: &ModelFiles) -> Result<Vec<Way>> {
    list_params(&Device::flex(), |tensors| Kind::load(files, tensors)).map(|(_, kind)| kind.info().ways.clone())
}

/// Names and shapes of every tensor that the model in `files` takes: `component/key`. Nothing is computed for it.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn required_params(files: &ModelFiles) -> Result<Vec<ParamShape>> {
    list_params(&Device::flex(), |tensors| Kind::load(files, tensors)).map(|(params, _)| params)
}

/// What the model in `files` needs of a device's memory, read off its configs alone.
///
/// # Errors
/// `BadModel` for a class or an option that this version does not know.
pub fn memory_needs(files: &ModelFiles) -> Result<MemoryNeeds> {
    let (params, kind) = list_params(&Device::flex(), |tensors| Kind::load(files, tensors))?;
    let bytes = |of_text: bool| {
        // A table that can be computed is left out.
        let kept = params.iter().filter(|param| param.computed.is_none());
        let params = kept.filter(|param| param.name.starts_with("text_encoder") == of_text);
        let bytes = |param: &ParamShape| param.shape.iter().fold(F32_BYTES, |n, side| n.saturating_mul(*side as u64));
        params.map(bytes).fold(0, u64::saturating_add)
    };
    let (text, other) = (bytes(true), bytes(false));
    // Only the first can do without its text encoders for a while.
    let (drawing, text, other) = match &kind {
        Kind::Model(model) => (model.drawing_needs(), text, other),
        Kind::GlmImage(glm) => (glm.drawing_needs(), 0, text + other),
        Kind::Janus(janus) => (janus.drawing_needs(), 0, text + other),
    };
    Ok(MemoryNeeds { text, other, ..drawing })
}
