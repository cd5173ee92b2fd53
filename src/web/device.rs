//! Which device draws: WebGPU through burn-wgpu, or the CPU through burn's `flex`.

use std::cell::RefCell;

use burn::tensor::Device;
use js_sys::{Function, Promise, Reflect};
use serde::Serialize;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;

use crate::{Code, Error, Result, gpu::Gpu, pipeline::MemoryBudget};

/// What the CPU device may take: WebAssembly's heap ends at 4 GiB, and shards and pictures want a part of it.
const CPU_BYTES: u64 = 3 << 30;
/// What a GPU may take where the browser does not say how much memory the machine has.
const GPU_BYTES: u64 = 2 << 30;

/// A device and what to tell people about it.
#[derive(Clone)]
pub struct ChosenDevice {
    pub device: Device,
    pub info: DeviceInfo,
    /// What is taken of its memory where nothing else is said.
    pub budget: MemoryBudget,
    gpu: Option<Gpu>,
}

#[derive(Clone, Serialize)]
pub struct DeviceInfo {
    /// `"gpu"` or `"cpu"`.
    pub kind: &'static str,
    pub name: String,
    /// Why it is not the one that was hoped for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

impl ChosenDevice {
    pub fn is_gpu(&self) -> bool {
        self.gpu.is_some()
    }

    /// # Errors
    /// `device-lost` once the GPU has gone away.
    pub fn check_alive(&self) -> Result<()> {
        self.gpu.as_ref().map_or(Ok(()), Gpu::check_alive)
    }
}

thread_local! {
    /// burn's runtime is initialised once per worker; a second model shares it.
    static GPU: RefCell<Option<ChosenDevice>> = const { RefCell::new(None) };
}

/// `"auto"` tries WebGPU on real hardware and then the CPU, and says so in the note; `"gpu"` and `"cpu"` are taken at their word.
///
/// # Errors
/// `bad-input` for another word; `unsupported` where `"gpu"` is not to be had.
pub async fn choose(wish: &str) -> Result<ChosenDevice> {
    match wish {
        "cpu" => Ok(cpu(None)),
        "gpu" => gpu(false).await,
        "auto" => Ok(match gpu(true).await {
            Ok(device) => device,
            Err(error) => cpu(Some(format!("{}; drawing on the CPU instead", error.message))),
        }),
        other => {
            Err(Error::bad_input(format!("the device \"{other}\" is not known; give \"auto\", \"gpu\" or \"cpu\"")))
        }
    }
}

fn cpu(note: Option<String>) -> ChosenDevice {
    let info = DeviceInfo { kind: "cpu", name: "CPU (WebAssembly SIMD)".to_owned(), note };
    let budget = MemoryBudget { bytes: CPU_BYTES, largest_tensor: CPU_BYTES, keeps_f16: true };
    ChosenDevice { device: Device::flex(), info, budget, gpu: None }
}

/// `only_hardware` refuses an adapter that computes on the CPU after all, where our own CPU device is far faster.
async fn gpu(only_hardware: bool) -> Result<ChosenDevice> {
    if let Some(device) = GPU.with_borrow(Clone::clone) {
        device.check_alive()?;
        return Ok(device);
    }
    let unsupported = |message: String| Error::new(Code::Unsupported, message);
    let (name, software) = adapter().await.map_err(unsupported)?;
    if only_hardware && software {
        return Err(unsupported(format!("WebGPU offers only a software adapter ({name})")));
    }
    let gpu = Gpu::open(half_of_device_memory().unwrap_or(GPU_BYTES)).await?;
    let info = DeviceInfo { kind: "gpu", name, note: None };
    let chosen = ChosenDevice { device: gpu.device.clone(), info, budget: gpu.budget, gpu: Some(gpu) };
    GPU.set(Some(chosen.clone()));
    Ok(chosen)
}

/// Half of what `navigator.deviceMemory` says, in bytes: page and system want the rest, and many GPUs have no other memory.
fn half_of_device_memory() -> Option<u64> {
    let navigator = Reflect::get(&js_sys::global(), &"navigator".into()).ok()?;
    let gib = Reflect::get(&navigator, &"deviceMemory".into()).ok()?.as_f64()?;
    Some((gib / 2.0 * f64::from(1 << 30)) as u64)
}

/// Asks the browser itself for an adapter: it names the GPU better than wgpu does, and a plain "no" is
/// better than a failed initialisation. Gives the name and whether the adapter is a software one.
///
/// # Errors
/// Why there is no WebGPU, in words.
async fn adapter() -> std::result::Result<(String, bool), String> {
    let global: JsValue = js_sys::global().into();
    let get = |object: &JsValue, key: &str| Reflect::get(object, &key.into()).unwrap_or(JsValue::UNDEFINED);
    let gpu = get(&get(&global, "navigator"), "gpu");
    let Ok(request) = get(&gpu, "requestAdapter").dyn_into::<Function>() else {
        return Err("this browser has no WebGPU here (it needs a recent version, and https or localhost)".to_owned());
    };
    let adapter = match request.call0(&gpu) {
        Ok(promise) => JsFuture::from(Promise::resolve(&promise)).await,
        Err(error) => Err(error),
    };
    let adapter = adapter.unwrap_or(JsValue::NULL);
    if adapter.is_null() || adapter.is_undefined() {
        return Err("WebGPU is there, but the browser offers no GPU (it may be blocked or switched off)".to_owned());
    }
    let info = get(&adapter, "info");
    let words: Vec<String> = ["vendor", "architecture", "description"]
        .iter()
        .filter_map(|key| get(&info, key).as_string())
        .filter(|word| !word.is_empty())
        .collect();
    let software = get(&info, "isFallbackAdapter").is_truthy() || words.iter().any(|word| word == "swiftshader");
    let name = if words.is_empty() { "GPU".to_owned() } else { words.join(" ") };
    Ok((name, software))
}
