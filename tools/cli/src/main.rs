//! `inkbloom`: generate pictures, move them, convert models to bundles, look into them, time them.

mod animate;
mod animation;
mod bench;
mod chat;
mod convert;
mod device;
mod diffusers;
mod dump;
mod files;
mod generate;
mod inspect;
mod janus;
mod locate;
mod lora;
mod picture;
mod progress;
mod sniff;
mod spiece;
mod weight_files;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "inkbloom", version, about = "Text to picture from a diffusers folder or an inkbloom bundle")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Draw a picture
    Generate(generate::Args),
    /// Move a finished picture along a path that closes; no model is needed
    Animate(animate::Args),
    /// Write a diffusers folder as a bundle for the web, or a bundle as a diffusers folder for Python
    Convert(convert::Args),
    /// Say what a model is made of
    Inspect(inspect::Args),
    /// Time drawing, part by part
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Generate(args) => generate::run(&args),
        Command::Animate(args) => animate::run(&args),
        Command::Convert(args) => convert::run(&args),
        Command::Inspect(args) => inspect::run(&args),
        Command::Bench(args) => bench::run(&args),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("inkbloom: {error}");
            ExitCode::FAILURE
        }
    }
}
