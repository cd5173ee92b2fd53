//! `--device`.

use burn::tensor::{DType, Device};
use clap::ValueEnum;
use inkbloom::{
    Result,
    pipeline::{MemoryBudget, MemoryPlan, memory_needs},
    weights::ModelFiles,
};

#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub enum DeviceChoice {
    /// A GPU, if this build can use one and there is one; else the CPU
    Auto,
    Cpu,
    /// In builds with the feature `gpu`
    Gpu,
}

/// A device and what to tell people about it.
pub struct Chosen {
    pub device: Device,
    pub name: String,
    pub is_gpu: bool,
    /// A GPU's interface, but computed by the CPU, and slower than the CPU device does it.
    software: bool,
    budget: MemoryBudget,
}

impl DeviceChoice {
    /// # Errors
    /// `unsupported` where a GPU is asked for and not to be had.
    pub fn open(self) -> Result<Chosen> {
        match self {
            Self::Cpu => Ok(cpu()),
            Self::Gpu => gpu(),
            Self::Auto => Ok(gpu().ok().filter(|gpu| !gpu.software).unwrap_or_else(cpu)),
        }
    }
}

impl Chosen {
    /// How a model lives on it, taking all that it has, or `mib` MiB.
    pub fn plan(&self, files: &ModelFiles, mib: Option<u64>) -> Result<MemoryPlan> {
        let bytes = mib.map_or(self.budget.bytes, |mib| mib << 20);
        Ok(MemoryPlan::new(&memory_needs(files)?, MemoryBudget { bytes, ..self.budget }))
    }
}

fn cpu() -> Chosen {
    let device = Device::flex();
    let budget = MemoryBudget { keeps_f16: device.supports_dtype(DType::F16), ..Default::default() };
    Chosen { device, name: "CPU".to_owned(), is_gpu: false, software: false, budget }
}

#[cfg(feature = "gpu")]
fn gpu() -> Result<Chosen> {
    let gpu = pollster::block_on(inkbloom::gpu::Gpu::open(u64::MAX))?;
    Ok(Chosen { device: gpu.device, name: gpu.name, is_gpu: true, software: gpu.software, budget: gpu.budget })
}

#[cfg(not(feature = "gpu"))]
fn gpu() -> Result<Chosen> {
    Err(inkbloom::Error::new(
        inkbloom::Code::Unsupported,
        "this build of the command line draws on the CPU; use --device cpu, or build it with --features gpu",
    ))
}
