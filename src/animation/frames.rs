//! What every file asks of the frames.

use crate::{
    Error, Result,
    values::{Animation, Image},
};

/// The size of all frames.
///
/// # Errors
/// `BadInput` where there are none, or several sizes.
pub fn check(animation: &Animation) -> Result<[usize; 2]> {
    let Some(first) = animation.frames.first() else {
        return Err(Error::bad_input("an animation without frames cannot be saved; give at least one"));
    };
    let size = [first.width, first.height];
    let wrong = |image: &Image| [image.width, image.height] != size || image.rgba.len() != 4 * size[0] * size[1];
    if size.contains(&0) || animation.frames.iter().any(wrong) {
        return Err(Error::bad_input("the frames of an animation must be pictures of one size; scale them first"));
    }
    Ok(size)
}

/// What an encoder says, which is about sizes that no file of its kind can hold.
pub fn unwritable(error: impl std::fmt::Display) -> Error {
    Error::bad_input(format!("the animation cannot be written: {error}"))
}
