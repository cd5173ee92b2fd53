//! Progress on stderr: a bar on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};

use indicatif::{ProgressBar, ProgressStyle};

/// One stage of work.
pub struct Progress {
    name: &'static str,
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(name: &'static str) -> Self {
        let bar = stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{msg:10} [{bar:30}] {pos}/{len}");
            ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())).with_message(name)
        });
        Self { name, bar }
    }

    /// `done` of `all` parts; the last one ends the stage.
    pub fn set(&self, done: usize, all: usize) {
        match &self.bar {
            Some(bar) => {
                bar.set_length(all as u64);
                bar.set_position(done as u64);
                if done == all {
                    bar.finish();
                }
            }
            // A line for each tenth is enough in a log.
            None if done == all || done * 10 / all != (done - 1) * 10 / all => eprintln!("{}: {done}/{all}", self.name),
            None => {}
        }
    }
}
