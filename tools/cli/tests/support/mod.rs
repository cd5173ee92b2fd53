//! What all tests of the command line share.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/pipeline").join(name)
}

pub fn run(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_inkbloom")).args(args).output().unwrap()
}

/// An empty folder that is removed at the end of a test.
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("inkbloom-cli-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }

    /// A copy of a fixture's model.
    pub fn model(&self, fixture_name: &str) -> PathBuf {
        let to = self.0.join("model");
        copy(&fixture(fixture_name), &to);
        to
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

pub fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() { copy(&path, &target) } else { fs::copy(&path, &target).map(drop).unwrap() }
    }
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Fails with one line on stderr that holds every one of `words`, and exit code `code`.
#[track_caller]
pub fn refused(args: &[&str], code: i32, words: &[&str]) {
    let output = run(args);
    let stderr = String::from_utf8(output.stderr).unwrap();
    let line =
        stderr.lines().find(|line| line.starts_with("inkbloom: ") || line.starts_with("error: ")).unwrap_or_default();
    assert_eq!(output.status.code(), Some(code), "{stderr}");
    assert!(words.iter().all(|word| line.contains(word)), "{line:?} lacks one of {words:?}");
    assert!(!stderr.contains("panicked"), "{stderr}");
    if code == 1 {
        let last = stderr.lines().last().unwrap();
        assert_eq!(last, line, "the error is the last line");
    }
}
