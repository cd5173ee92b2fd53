//! The one error of the crate: a stable code for programs, a sentence for people.

use std::fmt;

/// What kind of failure this is; the same strings reach JavaScript as `InkbloomError.code`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// This device, browser or build cannot do what was asked.
    Unsupported,
    /// The request (prompt, size, steps, ...) is wrong.
    BadInput,
    /// The model's files contradict each other or use something this version does not know.
    BadModel,
    /// Bytes do not have the size or the SHA-256 that the manifest promises.
    CorruptWeights,
    OutOfMemory,
    DeviceLost,
    /// The caller cancelled.
    Aborted,
}

impl Code {
    pub fn as_str(self) -> &'static str {
        match self {
            Code::Unsupported => "unsupported",
            Code::BadInput => "bad-input",
            Code::BadModel => "bad-model",
            Code::CorruptWeights => "corrupt-weights",
            Code::OutOfMemory => "out-of-memory",
            Code::DeviceLost => "device-lost",
            Code::Aborted => "aborted",
        }
    }
}

/// A failure: its [`Code`] and one sentence that names the culprit and what would be right.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub code: Code,
    pub message: String,
}

pub type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub fn bad_input(message: impl Into<String>) -> Self {
        Self::new(Code::BadInput, message)
    }

    pub fn bad_model(message: impl Into<String>) -> Self {
        Self::new(Code::BadModel, message)
    }

    pub fn aborted() -> Self {
        Self::new(Code::Aborted, "the drawing was cancelled")
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

impl Error {
    /// A failure that the device reported while computing or reading back.
    pub fn device(error: impl fmt::Display) -> Self {
        let text = error.to_string();
        let lower = text.to_lowercase();
        if lower.contains("memory") {
            Self::new(
                Code::OutOfMemory,
                format!("the device ran out of memory; close other tabs or draw a smaller picture ({text})"),
            )
        } else {
            Self::new(Code::DeviceLost, format!("the device stopped answering; load the model again ({text})"))
        }
    }
}
