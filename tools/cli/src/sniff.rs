//! What a file is that is not what its name says.

use std::{fs::File, io::Read, path::Path};

use inkbloom::{Error, Result};

/// How to come by safetensors where there is only PyTorch's own format.
pub const TO_SAFETENSORS: &str = "in Python, `DiffusionPipeline.from_pretrained(\"FOLDER\", use_safetensors=False).save_pretrained(\"NEW_FOLDER\")` of diffusers writes safetensors";

/// So many bytes at a file's start say what it is.
const LOOKED_AT: u64 = 512;

/// What a file should be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    Text,
    Bytes,
}

/// `error`, or a better one where the start of the file at `path` shows what it really is.
fn explain(path: &Path, expected: Expected, error: Error) -> Error {
    let mut start = Vec::new();
    let read = File::open(path).and_then(|file| file.take(LOOKED_AT).read_to_end(&mut start));
    match read.ok().and_then(|_| what(&start, expected)) {
        Some((what, advice)) => Error::bad_model(format!("{} is {what}; {advice}", path.display())),
        None => error,
    }
}

/// What `read` makes of the file at `path`.
///
/// # Errors
/// Those of `read`, or better ones where the start of the file shows what it really is.
pub fn explained<T>(path: &Path, expected: Expected, read: impl FnOnce() -> Result<T>) -> Result<T> {
    read().map_err(|error| explain(path, expected, error))
}

/// What `start` is the beginning of, and what to do; `None` where it is nothing known, or what is expected.
fn what(start: &[u8], expected: Expected) -> Option<(String, String)> {
    let text = String::from_utf8_lossy(start);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let again = "fetch it again, with `hf download` (a model behind a licence wants it accepted, and `hf auth login`)";
    let unpack = "unpack it and give the folder";
    let (what, advice) = if start.is_empty() {
        ("empty", again)
    } else if text.starts_with("version https://git-lfs") {
        (
            "a Git LFS pointer, not the file that it stands for",
            "fetch that with `git lfs pull`, or all with `hf download`",
        )
    } else if text.starts_with("<<<<<<<") || text.contains("\n<<<<<<< ") {
        ("left in the middle of a Git merge", "take one side between its lines of <<<<<<<, ======= and >>>>>>>")
    } else if text.starts_with('<') {
        ("a web page, or another server's answer in its place", again)
    } else if start.starts_with(b"PK\x03\x04") || (start[0] == 0x80 && (2..=5).contains(start.get(1)?)) {
        return Some(("a PyTorch pickle under this name".to_owned(), format!("name it .bin; {TO_SAFETENSORS}")));
    } else if start.starts_with(b"GGUF") {
        ("a GGUF file", "fetch the safetensors of the model")
    } else if start.starts_with(b"\x89HDF") {
        ("an HDF5 file, as TensorFlow writes them", "fetch the safetensors of the model")
    } else if start.starts_with(b"\x1f\x8b") || start.starts_with(b"7z\xbc\xaf") || start.starts_with(b"Rar!") {
        ("an archive", unpack)
    } else if expected == Expected::Bytes
        && start.get(8) != Some(&b'{')
        && text.bytes().all(|byte| (b' '..0x7f).contains(&byte) || b"\r\n\t".contains(&byte))
    {
        let line: String = text.lines().next().unwrap_or_default().chars().take(60).collect();
        return Some((format!("a text that begins \"{line}\""), again.to_owned()));
    } else {
        return None;
    };
    Some((what.to_owned(), advice.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::{Expected, what};

    #[test]
    fn starts_of_files_are_known() {
        for (start, words) in [
            (&b""[..], "empty"),
            (b"version https://git-lfs.github.com/spec/v1\noid sha256:", "LFS pointer"),
            (b"<!doctype html>\n<title>", "web page"),
            (b"\xef\xbb\xbf  <html>", "web page"),
            (b"<?xml version=\"1.0\"?><Error><Code>AccessDenied", "web page"),
            (b"{\n<<<<<<< HEAD\n", "Git merge"),
            (b"PK\x03\x04\x00\x00\x08\x08", "pickle"),
            (b"\x80\x02}q\x00", "pickle"),
            (b"GGUF\x03\x00", "GGUF"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"\x1f\x8b\x08", "archive"),
            (b"Entry not found", "begins \"Entry not found\""),
            (b"{\"error\":\"Access to model x is restricted\"}", "begins \"{\"error\""),
        ] {
            let (found, _) = what(start, Expected::Bytes).unwrap();
            assert!(found.contains(words), "{found:?} for {words}");
        }
        // A header of safetensors, whole or not, is none of them, nor are bytes without a meaning.
        assert_eq!(what(b"\x40\x00\x00\x00\x00\x00\x00\x00{\"a\":{\"dtype\":\"F32\"", Expected::Bytes), None);
        assert_eq!(what(b"\x01\x02\x03", Expected::Bytes), None);
        assert_eq!(what(b"{\"num_layers\": }", Expected::Text), None);
    }
}
