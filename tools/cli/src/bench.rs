//! `inkbloom bench`.

use std::{path::PathBuf, time::Instant};

use inkbloom::{
    Error, Result,
    pipeline::{Event, Pipeline, Request, Search, Stage, Way},
    values::read,
    weights::Tensors,
};
use serde_json::{Value, json};

use crate::{
    device::{Chosen, DeviceChoice},
    files,
};

#[derive(Clone, clap::Args)]
pub struct Args {
    /// A diffusers folder or a bundle
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[arg(long, default_value = "3d emoji of a red apple")]
    prompt: String,
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "N")]
    width: Option<usize>,
    #[arg(long, value_name = "N")]
    height: Option<usize>,
    /// How many pictures make a round
    #[arg(long, value_name = "N")]
    count: Option<usize>,
    /// How to draw, where the model has several ways [default: diffusion]
    #[arg(long)]
    way: Option<Way>,
    /// Draw N pictures and choose the best
    #[arg(long, value_name = "N")]
    candidates: Option<usize>,
    /// How candidates are searched
    #[arg(long, requires = "candidates")]
    search: Option<Search>,
    /// How many times it is drawn, after the first time
    #[arg(long, value_name = "N", default_value_t = 9, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Numbers for programs
    #[arg(long)]
    json: bool,
}

/// Milliseconds of a round: reading the prompt, small pictures as codes, large ones, all steps, scoring and decoding.
type Round = [f64; 5];
const PARTS: [&str; 5] = ["text", "layout", "detail", "denoise", "decode"];

pub fn run(args: &Args) -> Result<()> {
    let began = Instant::now();
    let chosen = args.device.open()?;
    let opened = milliseconds(began);
    let model = files::open(&args.model)?;
    let memory = chosen.plan(model.files(), None)?;
    let (files, tensors) = model.load(Tensors::kept_as(&chosen.device, memory.kept), |_, _| ())?;
    let mut model = Pipeline::load(&files, &tensors)?.with_memory(memory);
    chosen.device.sync().map_err(Error::device)?;
    let load = milliseconds(began) - opened;
    let Args { prompt, steps, width, height, count, way, candidates, search, .. } = args.clone();
    let request = Request { prompt, steps, width, height, count, way, candidates, search, ..Default::default() };
    let first = round(&mut model, &request)?;
    let rounds: Vec<Round> = (0..args.rounds).map(|_| round(&mut model, &request)).collect::<Result<_>>()?;
    let whole = unwatched(&mut model, &request, args, &chosen)?;

    let all = |round: &Round| round.iter().sum::<f64>();
    let names = PARTS.into_iter().chain(["total"]);
    let first = names.clone().zip(first.into_iter().chain([all(&first)]));
    let total = rounds.iter().map(all).collect::<Vec<f64>>();
    let mut parts: Vec<Vec<f64>> = (0..PARTS.len()).map(|i| rounds.iter().map(|round| round[i]).collect()).collect();
    parts.push(total);
    let spreads = names.chain(["picture"]).zip(parts.into_iter().chain(whole).map(spread));
    if args.json {
        let first: serde_json::Map<String, Value> = first.map(|(name, time)| (name.to_owned(), json!(time))).collect();
        let medians: serde_json::Map<String, Value> =
            spreads.map(|(name, [least, median, most])| (name.to_owned(), json!([least, median, most]))).collect();
        let numbers = json!({
            "device": chosen.name,
            "open_ms": opened,
            "load_ms": load,
            "first_ms": first,
            "least_median_most_ms": medians,
            "peak_bytes": peak_bytes(),
        });
        println!("{numbers}");
        return Ok(());
    }
    println!("device   {}", chosen.name);
    println!("opening  {opened:.0} ms");
    println!("loading  {load:.0} ms");
    let first: Vec<f64> = first.map(|(_, time)| time).collect();
    for (i, (name, [least, median, most])) in spreads.enumerate() {
        let cold = first.get(i).map(|time| format!("; {time:.1} ms the first time")).unwrap_or_default();
        println!("{name:8} {median:.1} ms ({least:.1} to {most:.1}){cold}");
    }
    if let Some(bytes) = peak_bytes() {
        println!("peak     {} MiB", bytes >> 20);
    }
    Ok(())
}

/// On a GPU, the times of whole pictures while nobody looks at their parts, for which it would be waited.
fn unwatched(model: &mut Pipeline, request: &Request, args: &Args, chosen: &Chosen) -> Result<Option<Vec<f64>>> {
    if !chosen.is_gpu {
        return Ok(None);
    }
    let mut draw = || {
        let began = Instant::now();
        pollster::block_on(model.generate(request, async |_| Ok(())))?;
        Ok(milliseconds(began))
    };
    (0..args.rounds).map(|_| draw()).collect::<Result<_>>().map(Some)
}

/// Draws the request once. The numbers are read where a part ends, so that a device has to have computed it by then.
fn round(model: &mut Pipeline, request: &Request) -> Result<Round> {
    let mut times = Round::default();
    let mut since = Instant::now();
    let mut lap = |part: usize| {
        times[part] += milliseconds(since);
        since = Instant::now();
    };
    pollster::block_on(model.generate(request, async |event| {
        match event {
            Event::Text { embedding, .. } => {
                read(embedding.hidden.clone()).await?;
                lap(0);
            }
            // Codes are drawn here, so their logits are known.
            Event::Tokens { stage, .. } => lap(if stage == Stage::Layout { 1 } else { 2 }),
            Event::Step { step, steps, x_t, .. } if step == steps => {
                read(x_t.clone()).await?;
                lap(3);
            }
            Event::Candidate { .. } => lap(4),
            Event::Decoded { pixels, .. } => {
                read(pixels.clone()).await?;
                lap(4);
            }
            _ => {}
        }
        Ok::<(), Error>(())
    }))?;
    Ok(times)
}

fn milliseconds(since: Instant) -> f64 {
    since.elapsed().as_secs_f64() * 1000.0
}

/// Least, median and most.
fn spread(mut times: Vec<f64>) -> [f64; 3] {
    times.sort_by(f64::total_cmp);
    [times[0], times[times.len() / 2], times[times.len() - 1]]
}

/// The most memory that this process has had, where the system says so.
fn peak_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    line.split_whitespace().next()?.parse::<u64>().ok().map(|kib| kib * 1024)
}
