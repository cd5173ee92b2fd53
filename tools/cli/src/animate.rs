//! `inkbloom animate`.

use std::path::PathBuf;

use inkbloom::{
    Result,
    animation::{self, Motion},
};

use crate::{animation::SaveArgs, picture};

#[derive(clap::Args)]
pub struct Args {
    /// The picture to move: PNG, JPEG or WebP
    #[arg(long, value_name = "FILE")]
    picture: PathBuf,
    /// The path that it moves along
    #[arg(long)]
    motion: Motion,
    /// How many frames, 4 to 100 [default: 16]
    #[arg(long, value_name = "N")]
    frames: Option<usize>,
    /// Frames shown in a second, 1 to 50 [default: 12.5]
    #[arg(long, value_name = "F")]
    fps: Option<f64>,
    #[command(flatten)]
    save: SaveArgs,
    /// Where the animation goes: .webp, .png (APNG) or .gif
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn run(args: &Args) -> Result<()> {
    picture::check_folder(&args.out)?;
    args.save.check(&args.out, true)?;
    let (frames, frame_ms) = animation::pace(args.frames, args.fps)?;
    let picture = picture::read(&args.picture)?;
    args.save.write(&args.out, &animation::animate(&picture, args.motion, frames, frame_ms)?)
}
