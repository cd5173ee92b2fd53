//! A GPU, opened in the same way by the browser's bindings and by native programs: through burn's wgpu, with WGSL on both.

use std::{
    future::poll_fn,
    pin::pin,
    sync::{Arc, Mutex},
};

use burn::tensor::{DType, Device, wgpu::wgpu::DeviceType};
use burn_cubecl::cubecl::dry_run::DryRun;

use crate::{Code, Error, Result, pipeline::MemoryBudget};

#[derive(Clone)]
pub struct Gpu {
    pub device: Device,
    /// As wgpu names it, which a browser tells less than it tells a page.
    pub name: String,
    /// Whether it computes on the CPU after all, where our own CPU device is far faster.
    pub software: bool,
    pub budget: MemoryBudget,
    /// Why it went away, once it has.
    lost: Arc<Mutex<Option<String>>>,
}

impl Gpu {
    /// The most powerful adapter there is, of whose memory `bytes` may be taken: wgpu does not say how much it has. It is
    /// opened once only; a second model is to share it.
    ///
    /// # Errors
    /// `unsupported` where there is no adapter, or none that can be used.
    pub async fn open(bytes: u64) -> Result<Self> {
        let none = |error| Error::new(Code::Unsupported, format!("no usable GPU was found ({error})"));
        let (device, setup) = Device::wgpu_options().init_with_setup_async().await.map_err(none)?;
        let lost: Arc<Mutex<Option<String>>> = Arc::default();
        let noted = lost.clone();
        setup.device.set_device_lost_callback(move |reason, message| {
            if let Ok(mut lost) = noted.lock() {
                *lost = Some(format!("{reason:?}: {message}"));
            }
        });
        let about = setup.adapter.get_info();
        let words = [about.name, about.driver, about.driver_info, format!("{:?}", about.backend)];
        let budget = MemoryBudget {
            bytes,
            largest_tensor: setup.device.limits().max_storage_buffer_binding_size,
            keeps_f16: device.supports_dtype(DType::F16),
        };
        Ok(Self {
            device,
            name: words.iter().filter(|word| !word.is_empty()).map(String::as_str).collect::<Vec<_>>().join(", "),
            software: about.device_type == DeviceType::Cpu,
            budget,
            lost,
        })
    }

    /// # Errors
    /// `device-lost` once it has gone away.
    pub fn check_alive(&self) -> Result<()> {
        match self.lost.lock().ok().and_then(|lost| lost.clone()) {
            Some(reason) => {
                Err(Error::new(Code::DeviceLost, format!("the GPU went away ({reason}); load the model again")))
            }
            None => Ok(()),
        }
    }
}

/// Does `work` but for what it wants a GPU to compute: each kernel is compiled, and none runs. Nothing that it reads back means
/// anything, and memory is taken only where values are uploaded or read, though in whole pages. What is done between its polls
/// is done as ever; natively, no other thread may use a GPU meanwhile, for its kernels would not run either.
pub async fn compile_only<T>(work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    poll_fn(|context| {
        let _dry_run = DryRun::new();
        work.as_mut().poll(context)
    })
    .await
}

/// The one that all tests of kernels share. They are compiled with the feature `gpu`, and fail without an adapter.
#[cfg(test)]
pub fn tested() -> &'static Device {
    static GPU: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    GPU.get_or_init(|| pollster::block_on(Gpu::open(1 << 30)).expect("the feature `gpu` is tested with one").device)
}
