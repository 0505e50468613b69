//! Python's `websockets`, at the version of the requirements file, in an environment of its own.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::is_here;

/// The script, ready for its arguments.
pub fn command() -> Option<Command> {
    static PYTHON: OnceLock<Option<PathBuf>> = OnceLock::new();
    let python = PYTHON.get_or_init(|| is_here("python3", "SIGHTLINE_IT_NO_PYTHON").then(install));
    let mut command = Command::new(python.as_ref()?);
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/python/client.py"
    ));
    Some(command)
}

/// Installs what the file names, unless that was done before; returns the interpreter.
fn install() -> PathBuf {
    let source = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/python/requirements.txt"
    );
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it-python");
    let (python, done) = (folder.join("bin/python"), folder.join("requirements.txt"));
    let wanted = fs::read(source).unwrap();
    if fs::read(&done).is_ok_and(|installed| installed == wanted) {
        return python;
    }
    let mut venv = Command::new("python3");
    super::install(
        "an environment for Python (Debian: python3-venv)",
        venv.args(["-m", "venv", "--clear"]).arg(&folder),
    );
    let mut pip = Command::new(&python);
    pip.args(["-m", "pip", "install", "--disable-pip-version-check"]);
    super::install(
        "Python's websockets",
        pip.args(["--require-hashes", "--only-binary", ":all:", "-r", source]),
    );
    fs::write(&done, wanted).unwrap();
    python
}
