//! The committed inputs: seeds made from test vectors, and whatever was once found.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::Target;

/// One committed input.
pub struct Input {
    /// Its file; the name says what it is.
    pub path: PathBuf,
    /// The input.
    pub bytes: Vec<u8>,
}

/// The folder that has one folder for each target.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus")
}

/// All inputs of a target, by name.
/// Errors: the folder or a file cannot be read.
pub fn read(target: &Target) -> io::Result<Vec<Input>> {
    let mut inputs = Vec::new();
    for entry in fs::read_dir(folder().join(target.name))? {
        let path = entry?.path();
        let bytes = fs::read(&path)?;
        inputs.push(Input { path, bytes });
    }
    inputs.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(inputs)
}
