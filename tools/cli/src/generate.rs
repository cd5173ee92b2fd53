//! `inkbloom generate`.

use std::path::{Path, PathBuf};

use burn::tensor::{DType, Device};
use clap::ValueEnum;
use inkbloom::{
    Code, Error, Result,
    pipeline::{Event, MemoryBudget, MemoryPlan, Pipeline, Request, memory_needs},
    values::read,
    weights::Tensors,
};

use crate::{
    dump::{self, Dump},
    files, png,
    progress::Progress,
};

#[derive(clap::Args)]
pub struct Args {
    /// A diffusers folder or a bundle
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    request: Request,
    /// In pixels [default: the model's]
    #[arg(long, value_name = "WxH", value_parser = parse_size)]
    size: Option<(usize, usize)>,
    /// Start from this picture
    #[arg(long, value_name = "FILE.png")]
    init: Option<PathBuf>,
    /// Draw anew only where this picture, of the size of --init, is white
    #[arg(long, value_name = "FILE.png", requires = "init")]
    mask: Option<PathBuf>,
    /// Make do with N MiB: weights kept as f16, text encoders freed once the prompt is read, decoding in tiles
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..=1 << 40))]
    memory: Option<u64>,
    /// Start from the tensor `noise` of this file
    #[arg(long, value_name = "FILE.safetensors")]
    noise: Option<PathBuf>,
    /// Write every intermediate number to this file
    #[arg(long, value_name = "FILE.safetensors")]
    dump: Option<PathBuf>,
    #[arg(long, value_enum, default_value_t = DeviceChoice::Auto)]
    device: DeviceChoice,
    /// Where the picture goes
    #[arg(long, value_name = "FILE.png")]
    out: PathBuf,
}

#[derive(Clone, Copy, PartialEq, ValueEnum)]
enum DeviceChoice {
    /// The best there is: in this build, the CPU
    Auto,
    Cpu,
    Gpu,
}

fn parse_size(text: &str) -> std::result::Result<(usize, usize), String> {
    let wrong = || format!("\"{text}\" is not a size; write WIDTHxHEIGHT, for example 128x128");
    let (width, height) = text.split_once('x').ok_or_else(wrong)?;
    Ok((width.parse().map_err(|_| wrong())?, height.parse().map_err(|_| wrong())?))
}

pub fn run(args: &Args) -> Result<()> {
    if args.device == DeviceChoice::Gpu {
        return Err(Error::new(
            Code::Unsupported,
            "this build of the command line draws on the CPU; use --device cpu, or the page for the GPU",
        ));
    }
    if !args.out.parent().is_none_or(|folder| folder.as_os_str().is_empty() || folder.is_dir()) {
        return Err(Error::bad_input(format!("the folder of {} does not exist; make it first", args.out.display())));
    }
    let mut request = args.request.clone();
    (request.width, request.height) = args.size.unzip();
    request.init = args.init.as_deref().map(png::read).transpose()?;
    request.mask = args.mask.as_deref().map(png::read).transpose()?;
    request.noise = args.noise.as_deref().map(|path| dump::read_f32(path, "noise")).transpose()?;
    let model = files::open(&args.model)?;
    let device = Device::flex();
    let memory = match args.memory {
        None => MemoryPlan::default(),
        Some(mib) => {
            let budget =
                MemoryBudget { bytes: mib << 20, keeps_f16: device.supports_dtype(DType::F16), ..Default::default() };
            MemoryPlan::new(&memory_needs(model.files())?, budget)
        }
    };
    let loading = Progress::new("loading");
    let (files, tensors) = model.load(Tensors::kept_as(&device, memory.kept), |done, all| loading.set(done, all))?;
    let mut model = Pipeline::load(&files, &tensors)?.with_memory(memory);

    let drawing = Progress::new("drawing");
    let mut dump = args.dump.as_ref().map(|_| Dump::default());
    let generated = pollster::block_on(model.generate(&request, async |event| {
        if let Event::Step { image, count, step, steps, .. } = &event {
            drawing.set(image * steps + step, count * steps);
        }
        match &mut dump {
            // One picture is what another implementation is compared with.
            Some(dump) => note(dump, event).await,
            None => Ok(()),
        }
    }))?;
    for warning in &generated.warnings {
        eprintln!("note: {warning}");
    }
    let count = generated.images.len();
    for (i, image) in generated.images.iter().enumerate() {
        png::write(&numbered(&args.out, i, count), image)?;
    }
    match (&args.dump, dump) {
        (Some(path), Some(dump)) => dump.write(path),
        _ => Ok(()),
    }
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
        Event::Decoded { image: 0, pixels } => {
            dump.f32("image".to_owned(), &pixels.dims(), &read(pixels.clone()).await?);
        }
        _ => {}
    }
    Ok(())
}

/// `cat.png` for one picture; `cat-0.png`, `cat-1.png`, ... for several.
fn numbered(path: &Path, i: usize, count: usize) -> PathBuf {
    if count == 1 {
        return path.to_owned();
    }
    let stem = path.file_stem().unwrap_or_default().to_string_lossy();
    let extension = path.extension().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!("{stem}-{i}.{extension}"))
}
