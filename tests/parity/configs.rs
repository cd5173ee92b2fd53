//! Whatever a config holds, loading ends in an answer, and soon: nothing panics, nothing is allocated by its numbers.

use std::time::{Duration, Instant};

use burn::tensor::Device;
use inkbloom::{
    Result,
    pipeline::{Pipeline, Request, memory_needs},
    weights::{ModelFiles, Tensors, list_params},
};
use serde_json::{Value, json};

use crate::support::*;

/// One of each family.
const CASES: [&str; 8] = [
    "sticker_straight",
    "sd3_text",
    "flux_plain",
    "sd15_text",
    "sd15_inpaint_4",
    "sd15_lcm",
    "sdxl_text",
    "pixart_sigma",
];
const MUTANTS: usize = 80;
/// Far more than any takes, even where the machine is busy.
const SOON: Duration = Duration::from_secs(20);

/// Splitmix64: the same mutants on every machine.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % n as u64) as usize
    }

    fn pick<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }
}

fn odd_values() -> Vec<Value> {
    let numbers = [0, 1, 2, 3, 7, 1000, 1024, 1 << 14, 1 << 20, 1 << 24, 1 << 40, 1_000_000_000_000u64, u64::MAX];
    let mut values: Vec<Value> = numbers.into_iter().map(Value::from).collect();
    values.extend([json!(-1), json!(0.5), json!(-0.5), json!(1e12), json!(1e300), json!(-1e300), json!(1e-300)]);
    values.extend([Value::Null, json!(true), json!(false), json!(""), json!("linear"), json!("sample")]);
    values.extend([
        json!([]),
        json!([0]),
        json!([1 << 20]),
        json!([[1 << 20]]),
        json!([null]),
        json!({}),
        json!({"a": 1}),
    ]);
    values.extend([json!(vec![1; 40]), json!(vec![vec![2; 9]; 40]), json!([1 << 20, 1 << 20, 1 << 20, 1 << 20])]);
    values
}

/// Changes one value of a config, or several.
fn mutate(config: &mut Value, dice: &mut Dice, odd: &[Value]) {
    for _ in 0..=dice.below(3) {
        let Some(map) = config.as_object_mut().filter(|map| !map.is_empty()) else { return };
        let keys: Vec<String> = map.keys().cloned().collect();
        let key = dice.pick(&keys);
        let list = map[key].as_array().cloned().filter(|list| !list.is_empty());
        match (dice.below(4), list) {
            (0, _) => drop(map.remove(key)),
            (1, Some(mut list)) => {
                let i = dice.below(list.len());
                list[i] = dice.pick(odd).clone();
                map[key] = json!(list);
            }
            (2, Some(list)) => map[key] = json!(vec![list[0].clone(); 1 + dice.below(40)]),
            _ => map[key] = dice.pick(odd).clone(),
        }
    }
}

/// All that a config leads to before a weight is read.
fn answer(files: &ModelFiles) -> Result<()> {
    memory_needs(files)?;
    let (_, model) = list_params(&Device::flex(), |tensors: &Tensors| Pipeline::load(files, tensors))?;
    let request = |scheduler: Option<&str>, steps| Request {
        prompt: "a cat".into(),
        steps: Some(steps),
        scheduler: scheduler.map(str::to_owned),
        ..Default::default()
    };
    model.plan(&request(Some("unipc"), 5)).map(drop).or_else(|_| model.plan(&request(Some("kdpm2"), 5)).map(drop)).ok();
    model.plan(&request(None, 7)).map(drop)
}

#[test]
fn mutated_configs_end_in_an_answer() {
    let (odd, mut dice) = (odd_values(), Dice(20_261_125));
    let (mut ran, mut refused) = (0, 0);
    for case in CASES {
        let (whole, _) = load_model(&fixture("pipeline").join(case));
        answer(&whole).unwrap();
        let components: Vec<String> =
            whole.configs.keys().filter(|name| !name.starts_with("tokenizer")).cloned().collect();
        for mutant in 0..MUTANTS {
            let mut files = whole.clone();
            match dice.below(components.len() + 1) {
                0 => mutate(&mut files.model_index, &mut dice, &odd),
                i => mutate(files.configs.get_mut(&components[i - 1]).unwrap(), &mut dice, &odd),
            }
            let start = Instant::now();
            match answer(&files) {
                Ok(()) => ran += 1,
                Err(error) => {
                    assert!(!error.message.is_empty());
                    refused += 1;
                }
            }
            let took = start.elapsed();
            assert!(took < SOON, "{case}, mutant {mutant}: {took:?} for {:?}", files.configs);
        }
    }
    println!("{ran} mutants run, {refused} are refused");
    // Both happen, or the mutants are not what they should be.
    assert!(ran > 50 && refused > 50, "{ran} mutants run, {refused} are refused");
}

/// Counts that would take gigabytes, each refused by its name.
#[test]
fn absurd_counts_are_refused_by_name() {
    for (case, component, key, value) in [
        ("sd15_text", "text_encoder", "num_hidden_layers", json!(16_000_000)),
        ("pixart_sigma", "text_encoder", "num_layers", json!(16_000_000)),
        ("sticker_straight", "text_encoder", "num_hidden_layers", json!(16_000_000)),
        ("pixart_sigma", "transformer", "num_layers", json!(16_000_000)),
        ("sd15_text", "unet", "layers_per_block", json!(16_000_000)),
        ("sd15_text", "unet", "transformer_layers_per_block", json!(16_000_000)),
        ("sd15_text", "unet", "block_out_channels", json!(vec![32; 1000])),
        ("sd15_text", "unet", "in_channels", json!(1u64 << 40)),
        ("sd15_text", "vae", "layers_per_block", json!(16_000_000)),
        ("sd15_text", "vae", "latent_channels", json!(1u64 << 40)),
        ("sd15_text", "scheduler", "num_train_timesteps", json!(1_000_000_000_000u64)),
        ("sticker_straight", "scheduler", "num_train_timesteps", json!(1_000_000_000_000u64)),
    ] {
        let (mut files, _) = load_model(&fixture("pipeline").join(case));
        files.configs.get_mut(component).unwrap()[key] = value;
        let message = answer(&files).unwrap_err().message;
        assert!(message.contains(component) && message.contains(&format!("`{key}`")), "{message}");
    }
    // Each of these is possible alone; together they are named by the tensor.
    let (mut files, _) = load_model(&fixture("pipeline/sd15_text"));
    let unet = files.configs.get_mut("unet").unwrap();
    unet["layers_per_block"] = json!(1000);
    unet["transformer_layers_per_block"] = json!(1000);
    let message = answer(&files).unwrap_err().message;
    assert!(message.contains("more than 65536 tensors") && message.contains("`unet/"), "{message}");
    let (mut files, _) = load_model(&fixture("pipeline/sd15_text"));
    let unet = files.configs.get_mut("unet").unwrap();
    unet["block_out_channels"] = json!([1 << 20, 1 << 20]);
    let message = answer(&files).unwrap_err().message;
    assert!(message.contains("which no device holds") && message.contains("`unet/"), "{message}");
}
