//! `sightline check-config`: says whether `serve` would take this configuration, and what would be
//! in effect. Standard output is TOML that can be used as a file again, once the secret is put
//! back; warnings go to standard error.

use std::{
    io::{self, Write},
    process::ExitCode,
};

use clap::Args;

use super::{CliError, ConfigArgs};
use crate::{config::Loaded, server};

/// The arguments of `check-config`.
#[derive(Args, Debug)]
pub struct CheckConfigArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

/// Checks the configuration and prints what is in effect.
/// Errors: code 78 where it is wrong, 1 where `out` cannot be written.
pub fn run(args: &CheckConfigArgs, out: &mut impl Write) -> Result<ExitCode, CliError> {
    let sources = args.config.sources()?;
    let file = sources
        .file
        .as_ref()
        .map(|(path, _)| path.display().to_string());
    let loaded = sources.load()?;
    server::check(&loaded.config)?;
    for warning in &loaded.warnings {
        // A closed standard error does not make the configuration wrong.
        let _ = writeln!(io::stderr(), "warning: {warning}");
    }
    match print(&loaded, file.as_deref().unwrap_or("no file"), out) {
        // Whoever reads has read enough.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let message = format!("cannot write to standard output: {error}");
            Err(CliError::new(CliError::FAILED, message))
        }
        _ => Ok(ExitCode::SUCCESS),
    }
}

fn print(loaded: &Loaded, file: &str, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "# OK: {file}")?;
    for line in &loaded.effective {
        writeln!(out, "{line}")?;
    }
    out.flush()
}
