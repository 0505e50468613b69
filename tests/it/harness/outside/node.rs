//! node's `ws`, at the version of the lock file.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::is_here;

/// The script, ready for its arguments.
pub fn command() -> Option<Command> {
    static MODULES: OnceLock<Option<PathBuf>> = OnceLock::new();
    let modules = MODULES.get_or_init(|| {
        let variable = "SIGHTLINE_IT_NO_NODE";
        (is_here("node", variable) && is_here("npm", variable)).then(install)
    });
    let mut command = Command::new("node");
    command.env("NODE_PATH", modules.as_ref()?);
    command.arg(concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/node/client.cjs"
    ));
    Some(command)
}

/// Installs what the lock file names, unless that was done before; returns the modules' folder.
fn install() -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/it/node");
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("it-node");
    let modules = folder.join("node_modules");
    let lock = "package-lock.json";
    let read = |path: PathBuf| fs::read(path).ok();
    if modules.join("ws").is_dir() && read(source.join(lock)) == read(folder.join(lock)) {
        return modules;
    }
    fs::create_dir_all(&folder).unwrap();
    for file in ["package.json", lock, ".npmrc"] {
        fs::copy(source.join(file), folder.join(file)).unwrap();
    }
    let mut npm = Command::new("npm");
    super::install(
        "node's ws",
        npm.args(["ci", "--ignore-scripts"]).current_dir(&folder),
    );
    modules
}
