//! `inkbloom generate`.

use std::{
    collections::hash_map::RandomState,
    hash::{BuildHasher, Hasher},
    path::{Path, PathBuf},
};

use inkbloom::{
    Error, Result,
    autoregress::Logits,
    pipeline::{Event, Generated, MOTION, Pipeline, Request, Stage},
    values::read,
    weights::Tensors,
};

use crate::{
    animation::SaveArgs,
    device::DeviceChoice,
    dump::{self, Dump},
    files,
    lora::LoraArgs,
    picture,
    progress::Progress,
};

#[derive(clap::Args)]
pub struct Args {
    /// A diffusers folder or a bundle
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// The folder of a motion adapter (AnimateDiff), which makes animations of what a diffusers folder draws: see --frames
    #[arg(long, value_name = "DIR")]
    motion_adapter: Option<PathBuf>,
    #[command(flatten)]
    loras: LoraArgs,
    #[command(flatten)]
    request: Request,
    /// The same seed gives the same picture; picture i of a count has the seed + i; -1 is a new one each time
    #[arg(long, value_name = "N", default_value = "0", allow_hyphen_values = true, value_parser = parse_seed)]
    seed: Seed,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Start from this picture: PNG, JPEG or WebP, of any size; the prompt may then be ""
    #[arg(long, value_name = "FILE")]
    init: Option<PathBuf>,
    /// Draw anew only where this picture, laid over --init, is white; or where it is clear, or marked on a clear ground
    #[arg(long, value_name = "FILE", requires = "init")]
    mask: Option<PathBuf>,
    /// Make do with N MiB: weights kept as f16, text encoders freed once the prompt is read, decoding in tiles
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    memory: Option<u64>,
    /// Start from the tensor `noise` of this file; draw the codes `tokens` of it, or by its noise `gumbel.N` of draw N
    #[arg(long, value_name = "FILE.safetensors")]
    noise: Option<PathBuf>,
    /// Write every intermediate number to this file
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    #[command(flatten)]
    save: SaveArgs,
    /// Where the picture goes: .png, .jpg or .webp; an animation: .webp, .png (APNG) or .gif; with a count, numbered
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

#[derive(Clone, Copy)]
struct Seed {
    value: u64,
    /// Nobody knows it yet.
    new: bool,
}

fn parse_seed(text: &str) -> std::result::Result<Seed, String> {
    if text == "-1" {
        // Keys of the standard library's hashes are random. 32 bits are what any program can be told again.
        return Ok(Seed { value: RandomState::new().build_hasher().finish() >> 32, new: true });
    }
    let known = |value| Seed { value, new: false };
    text.parse().map(known).map_err(|_| {
        format!("\"{text}\" is not a seed; give a whole number from 0 to {}, or -1 for a new one", u64::MAX)
    })
}

fn parse_size(text: &str) -> std::result::Result<(usize, usize), String> {
    let wrong = || format!("\"{text}\" is not a size; write WIDTHxHEIGHT, for example 128x128");
    let (width, height) = text.split_once('x').ok_or_else(wrong)?;
    Ok((width.parse().map_err(|_| wrong())?, height.parse().map_err(|_| wrong())?))
}

pub fn run(args: &Args) -> Result<()> {
    for path in std::iter::once(&args.out).chain(&args.dump) {
        picture::check_folder(path)?;
    }
    let moves = args.request.motion.is_some() || args.request.frames.is_some_and(|frames| frames > 1);
    args.save.check(&args.out, moves)?;
    let mut request = args.request.clone();
    request.seed = args.seed.value;
    (request.width, request.height) = args.size.unzip();
    request.init = args.init.as_deref().map(picture::read).transpose()?;
    request.mask = args.mask.as_deref().map(picture::read).transpose()?;
    if let Some(path) = &args.noise {
        let given = dump::read(path)?;
        request.noise = given.noise;
        request.tokens = given.tokens;
        request.gumbel = given.gumbel;
    }
    if args.seed.new {
        eprintln!("note: the seed is {}", args.seed.value);
    }
    let mut model = files::open(&args.model)?;
    if let Some(adapter) = &args.motion_adapter {
        let files::Model::Folder(folder) = &mut model else {
            return Err(Error::bad_input(
                "--motion-adapter goes with a diffusers folder; a bundle takes it by convert --from BUNDLE --motion-adapter DIR",
            ));
        };
        folder.add(MOTION, "diffusers", adapter)?;
    }
    args.loras.add_to(&mut model)?;
    model.notes().iter().for_each(|note| eprintln!("note: {note}"));
    let device = args.device.open()?;
    if cfg!(feature = "gpu") {
        eprintln!("note: drawing on {}", device.name);
    }
    let memory = device.plan(model.files(), args.memory)?;
    let loading = Progress::new("loading");
    let (files, tensors) =
        model.load(Tensors::kept_as(&device.device, memory.kept), |done, all| loading.set(done, all))?;
    let mut model = Pipeline::load(&files, &tensors)?.with_memory(memory);
    fit(&model, &mut request)?;

    let drawing = Progress::new("drawing");
    let mut dump = args.dump.as_ref().map(|_| Dump::default());
    let generated = pollster::block_on(model.generate(&request, async |event| {
        match &event {
            Event::Step { image, count, step, steps, .. } => drawing.set(image * steps + step, count * steps),
            // Pictures are drawn side by side, or one after the other.
            Event::Tokens { row, rows, .. } => drawing.set(*row, *rows),
            _ => {}
        }
        match &mut dump {
            // One picture is what another implementation is compared with.
            Some(dump) => note(dump, event).await,
            None => Ok(()),
        }
    }))?;
    finish(args, &generated, dump)
}

/// Writes what was drawn.
fn finish(args: &Args, generated: &Generated, dump: Option<Dump>) -> Result<()> {
    for (i, (seed, score)) in generated.seeds.iter().zip(&generated.scores).enumerate() {
        eprintln!("{}: seed {seed}, score {score:.3}", numbered(&args.out, i, generated.images.len()).display());
    }
    for warning in &generated.warnings {
        eprintln!("note: {warning}");
    }
    let count = generated.images.len();
    for (i, image) in generated.images.iter().enumerate() {
        let out = numbered(&args.out, i, count);
        match generated.animations.get(i) {
            Some(animation) => args.save.write(&out, animation)?,
            None => picture::write(&out, image)?,
        }
    }
    match (&args.dump, dump) {
        (Some(path), Some(dump)) => dump.write(path),
        _ => Ok(()),
    }
}

/// Makes init picture and mask as large as the picture is to be, or as the nearest that the model can do.
fn fit(model: &Pipeline, request: &mut Request) -> Result<()> {
    let Some(init) = &request.init else { return Ok(()) };
    let (width, height) = (request.width.unwrap_or(init.width), request.height.unwrap_or(init.height));
    let size = model.drawable_size(width, height);
    // A size that was asked for and cannot be drawn is refused by the model itself.
    if (request.width.is_some() || request.height.is_some()) && size != [width, height] {
        return Ok(());
    }
    let own = [init.width, init.height];
    let fitted = if own == size { None } else { Some(picture::cover(init, size, true)?) };
    if let Some(mask) = &mut request.mask {
        if [mask.width, mask.height] != own {
            *mask = picture::stretch(mask, own)?;
        }
        if fitted.is_some() {
            *mask = picture::cover(mask, size, false)?;
        }
    }
    if let Some(fitted) = fitted {
        let [[w, h], [width, height]] = [own, size];
        eprintln!("note: the init picture of {w} x {h} is scaled to cover {width} x {height}, and cut to that");
        request.init = Some(fitted);
    }
    Ok(())
}

/// Notes what `--dump` promises, of the first picture.
async fn note(dump: &mut Dump, event: Event<'_>) -> Result<()> {
    match event {
        Event::Text { tokens, embedding } => {
            for (name, tokens) in ["input_ids", "input_ids_2", "input_ids_3"].into_iter().zip(tokens) {
                dump.i64(name.to_owned(), &[1, tokens.ids.len()], &tokens.ids);
            }
            if let Some(pooled) = &embedding.pooled {
                dump.f32("pooled_embedding".to_owned(), &pooled.dims(), &read(pooled.clone()).await?);
            }
            let shape = embedding.hidden.dims();
            dump.f32("text_embedding".to_owned(), &shape, &read(embedding.hidden.clone()).await?);
        }
        Event::Start { image: 0, noise, x_t } => {
            dump.f32("noise".to_owned(), &noise.dims(), &read(noise.clone()).await?);
            dump.f32("latent.0".to_owned(), &x_t.dims(), &read(x_t.clone()).await?);
        }
        Event::Step { image: 0, step, x_t, .. } => {
            dump.f32(format!("latent.{step}"), &x_t.dims(), &read(x_t.clone()).await?);
        }
        Event::Tokens { image: 0, stage, row, rows, tokens, logits, .. } => {
            for Logits { draw, values } in logits {
                dump.f32(format!("logits.{draw}"), &[values.len()], values);
            }
            if row == rows {
                let name = if stage == Stage::Layout { "tokens.coarse" } else { "tokens.fine" };
                let second = tokens.residual.iter().chain(std::iter::repeat(&0));
                let pairs = tokens.codes.iter().zip(second).flat_map(|(a, b)| [*a, *b].map(i64::from));
                dump.i64(name.to_owned(), &[tokens.codes.len(), 2], &pairs.collect::<Vec<_>>());
            }
        }
        Event::Candidate { image, score, .. } => dump.f32(format!("score.{image}"), &[1], &[score]),
        Event::Decoded { image: 0, pixels, .. } => {
            dump.f32_rows("image".to_owned(), &pixels.dims(), &read(pixels.clone()).await?);
        }
        _ => {}
    }
    Ok(())
}

/// `cat.png` for one picture; `cat-0.png`, `cat-1.png`, ... for several, also where the ending is not said.
fn numbered(path: &Path, i: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let ending = path.extension().filter(|ending| !ending.is_empty()).map(|ending| ending.to_string_lossy());
    path.with_file_name(format!("{stem}-{i}.{}", ending.as_deref().unwrap_or("png")))
}
