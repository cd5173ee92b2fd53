//! Folders with one thing wrong, at random but always the same: each must end in an answer, within bounds of memory and
//! time. `INKBLOOM_FUZZ=5000` tries more of them than every run does.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use serde_json::{Value, json};

use crate::support::*;

const ROUNDS: u64 = 48;
/// A tiny model's run stays far below; what is absurd would not.
const KIB: u64 = 4 << 20;
const SECONDS: u64 = 120;

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % n.max(1)
    }

    fn pick<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[self.below(list.len())]
    }
}

fn bounded(args: &[&str]) -> Output {
    let script = format!("ulimit -v {KIB}; exec timeout {SECONDS} \"$0\" \"$@\"");
    Command::new("sh").args(["-c", &script, env!("CARGO_BIN_EXE_inkbloom")]).args(args).output().unwrap()
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { all.extend(files(&path)) } else { all.push(path) }
    }
    all.sort();
    all
}

/// A place in `value`, going down at random.
fn place<'a>(value: &'a mut Value, random: &mut Random) -> &'a mut Value {
    let inside = match &*value {
        Value::Array(list) => list.len(),
        Value::Object(map) => map.len(),
        _ => 0,
    };
    if inside == 0 || random.below(8) == 0 {
        return value;
    }
    let i = random.below(inside);
    match value {
        Value::Array(list) => place(&mut list[i], random),
        Value::Object(map) => place(map.values_mut().nth(i).unwrap(), random),
        value => value,
    }
}

/// Does one thing to a model's folder; says what.
fn mutate(folder: &Path, random: &mut Random) -> String {
    let all = files(folder);
    let path = random.pick(&all);
    let json: Option<Value> = fs::read(path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let said = match random.below(if json.is_some() { 24 } else { 6 }) {
        0 => {
            fs::remove_file(path).unwrap();
            "removed".to_owned()
        }
        1 => {
            let bytes = fs::read(path).unwrap();
            let end = random.below(bytes.len());
            fs::write(path, &bytes[..end]).unwrap();
            format!("cut at {end}")
        }
        2 | 3 => {
            // A byte of the header, where there is one.
            let mut bytes = fs::read(path).unwrap();
            let at = random.below(bytes.len().min(2000));
            let byte = random.below(256) as u8;
            bytes[at] = byte;
            fs::write(path, bytes).unwrap();
            format!("byte {at} became {byte}")
        }
        4 => {
            let other = random.pick(&all);
            fs::copy(other, path).unwrap_or_default();
            format!("became {}", other.display())
        }
        5 => {
            fs::rename(path, path.with_extension("fp16.safetensors")).unwrap();
            "renamed".to_owned()
        }
        _ => {
            let mut value = json.unwrap_or_default();
            let absurd = [
                json!(null),
                json!(0),
                json!(1),
                json!(-1),
                json!(3),
                json!(1000),
                json!(1u64 << 24),
                json!(16_000_000),
                json!(1u64 << 53),
                json!(u64::MAX),
                json!(1e308),
                json!(-0.5),
                json!(true),
                json!(""),
                json!("x"),
                json!([]),
                json!([1u64 << 24, 1u64 << 24]),
                json!([1, 2, 3, 4]),
                json!({}),
                json!({"content": "x", "id": 1u64 << 53}),
            ];
            let new = random.pick(&absurd).clone();
            let old = place(&mut value, random);
            let said = format!("{} became {new}", old.to_string().chars().take(60).collect::<String>());
            *old = new;
            fs::write(path, value.to_string()).unwrap();
            said
        }
    };
    format!("{}: {said}", path.strip_prefix(folder).unwrap().display())
}

#[test]
fn every_folder_ends_in_an_answer() {
    let rounds = env::var("INKBLOOM_FUZZ").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let scratch = Scratch::new("fuzz");
    let old = scratch.0.join("old");
    copy(&fixture("sd15_text"), &old);
    crate::folders::old_tokenizer(&old.join("tokenizer"));
    fs::write(old.join("tokenizer/added_tokens.json"), json!({"<sks>": 1279}).to_string()).unwrap();
    let spiece = scratch.0.join("spiece");
    copy(&fixture("pixart_alpha"), &spiece);
    fs::remove_file(spiece.join("tokenizer/tokenizer.json")).unwrap();
    fs::copy(fixture("../prompt/spiece/spiece.model"), spiece.join("tokenizer/spiece.model")).unwrap();
    let bundle = scratch.0.join("bundle");
    assert!(run(&["convert", "--from", text(&fixture("sticker_tiny")), "--to", text(&bundle)]).status.success());
    let models = [fixture("sd15_text"), fixture("sdxl_text"), fixture("sticker_tiny"), old, spiece, bundle];
    let (model, out) = (scratch.0.join("model"), scratch.path("x.png"));
    let mut refused = 0;
    for round in 0..rounds {
        let mut random = Random(0x9e37_79b9_7f4a_7c15 ^ (round + 1).wrapping_mul(0x2545_f491_4f6c_dd1d));
        let from = &models[round as usize % models.len()];
        let _ = fs::remove_dir_all(&model);
        copy(from, &model);
        let mut said = mutate(&model, &mut random);
        if random.below(4) == 0 {
            said += &format!("; {}", mutate(&model, &mut random));
        }
        let generate = ["generate", "--model", text(&model), "--prompt", "a cat", "--steps", "1", "--size", "32x32"];
        for args in [&["inspect", text(&model)][..], &[&generate[..], &["--out", &out]].concat()] {
            let output = bounded(args);
            let stderr = String::from_utf8_lossy(&output.stderr);
            let answered = matches!(output.status.code(), Some(0..=2)) && !stderr.contains("panicked");
            assert!(answered, "round {round}, {}, {said}: {} {:?}\n{stderr}", args[0], from.display(), output.status);
            refused += usize::from(output.status.code() == Some(1));
        }
    }
    assert!(refused > rounds as usize / 4, "most of it is noticed");
}
