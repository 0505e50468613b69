//! Kills a gateway over and over under publishers and viewers that come back, then checks what they
//! and the event log have on record: nothing acknowledged is lost, and no gap is left unstated.
//!
//! `drive` runs the gateway (`gateway`), four publishers (`publisher`) and twenty viewers (`viewer`)
//! and leaves their records in a folder. `check` has the library judge those alone, and `report` is
//! its table. Source: the contract, sections 3 and 5.

mod drive;
mod gateway;
mod publisher;
mod report;
mod socket;
mod stage;
mod viewer;

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sightline_crash::check::check_folder;

use crate::drive::DriveArgs;

/// Kills a gateway over and over, and checks what everybody saw
#[derive(Parser)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Read the records of a run and judge them; exits with 1 where anything was violated
    Check {
        /// Where the records are
        folder: PathBuf,
    },
    /// Run a gateway and its clients, and leave records of what each of them saw
    Drive(DriveArgs),
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Check { folder } => judge(&folder),
        Command::Drive(args) => drive::drive(&args).map(|()| ExitCode::SUCCESS),
    };
    outcome.unwrap_or_else(|problem| {
        // Where standard error is gone too, the exit code has to do.
        let _ = writeln!(io::stderr(), "crash: {problem}");
        ExitCode::FAILURE
    })
}

fn judge(folder: &std::path::Path) -> Result<ExitCode, String> {
    let verdict = check_folder(folder)?;
    let mut out = io::stdout().lock();
    report::write(&verdict, &mut out).map_err(|error| format!("the table: {error}"))?;
    Ok(if verdict.violations.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}
