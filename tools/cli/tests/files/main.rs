//! Files as people have them: folders of any age, pictures of any kind, and what nobody would write.

#[path = "../support/mod.rs"]
mod support;

mod folders;
mod fuzz;
mod pictures;
