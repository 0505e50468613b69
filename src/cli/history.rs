//! `sightline history`: what the event log holds, whether it is whole, and all of it as lines of
//! JSON. Reads only, on a running server's directory too; but for `erase` and `new-epoch`, which
//! write and want the log for themselves.

mod erase;
pub mod export;
mod stats;
mod verify;

use std::{
    io::{self, BufWriter, Write},
    path::PathBuf,
    process::ExitCode,
};

use clap::{Args, Subcommand};

use super::CliError;
use crate::{
    config::Sources,
    event::{Epoch, LogIdentity},
    history::{
        inspect::Inspection,
        log::{self, EpochRule, Log, OpenError, OpenOptions},
        storage::{DiskStorage, Storage},
        writer::WriterOptions,
    },
};

/// Look into the event log
#[derive(Args, Debug)]
pub struct HistoryArgs {
    /// The configuration file; without it ./sightline.toml, where that exists
    #[arg(long, value_name = "FILE", global = true)]
    config: Option<PathBuf>,
    /// Where the event log lives
    #[arg(long, value_name = "FOLDER", global = true)]
    data_dir: Option<String>,
    #[command(subcommand)]
    command: HistoryCommand,
}

#[derive(Debug, Subcommand)]
enum HistoryCommand {
    /// Take all events of a user off the disk
    Erase(erase::EraseArgs),
    /// Print the events, one JSON object a line, in the order of the log
    Export(export::ExportArgs),
    /// Begin a new life of a log that was put back from a copy: every cursor is reset
    NewEpoch,
    /// Print what the log holds
    Stats,
    /// Read every byte and name what is damaged; exits with 1 where anything is
    Verify,
}

/// Does what is asked for. Errors: code 78 where the configuration is wrong, 1 where the log cannot
/// be read or the output cannot be written.
pub fn run(args: HistoryArgs) -> Result<ExitCode, CliError> {
    let mut sources = Sources::of_process(args.config.as_deref())?;
    if let Some(folder) = args.data_dir {
        let flag = ("--data-dir".to_owned(), "data_dir".to_owned(), folder);
        sources.flags.push(flag);
    }
    let folder = sources.data_dir()?;
    if !folder.is_dir() {
        let message = format!("{}: there is no log", folder.display());
        return Err(CliError::new(CliError::FAILED, message));
    }
    let storage = DiskStorage::existing(&folder);
    let mut out = BufWriter::new(io::stdout().lock());
    let done = match args.command {
        HistoryCommand::Erase(args) => erase::run(&args, &storage, &mut out),
        HistoryCommand::Export(args) => export::run(&args, &inspect(storage)?, &mut out),
        HistoryCommand::NewEpoch => begin_epoch(&storage, &mut out),
        HistoryCommand::Stats => stats::run(&inspect(storage)?, &mut out),
        HistoryCommand::Verify => verify::run(&inspect(storage)?, &mut out),
    };
    match done.and_then(|code| Ok(out.flush().map(|()| code)?)) {
        Ok(code) => Ok(code),
        // Whoever reads has read enough.
        Err(HistoryError::Io(error)) if error.kind() == io::ErrorKind::BrokenPipe => {
            Ok(ExitCode::SUCCESS)
        }
        Err(error) => Err(CliError::new(CliError::FAILED, error)),
    }
}

/// Why a command did not do its work.
#[derive(Debug, thiserror::Error)]
pub enum HistoryError {
    /// A gateway has the log, and can erase by itself.
    #[error(
        "a gateway has the log open; let it erase: \
         POST /v1/admin/erase {}", serde_json::json!({ "userId": user })
    )]
    InUse {
        /// Whose events are to go.
        user: String,
    },
    /// The log cannot be read, or the output cannot be written.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The log cannot be opened.
    #[error("{0}")]
    Open(#[from] OpenError),
}

type Outcome = Result<ExitCode, HistoryError>;

fn inspect(storage: DiskStorage) -> Result<Inspection<DiskStorage>, CliError> {
    Inspection::new(storage).map_err(|error| CliError::new(CliError::FAILED, error))
}

fn begin_epoch<S: Storage>(storage: &S, out: &mut impl Write) -> Outcome {
    let log = open(storage, EpochRule::Renew)?;
    let epoch = log.catalog.epoch();
    log.writer.close()?;
    writeln!(out, "{epoch}")?;
    Ok(ExitCode::SUCCESS)
}

/// Opens the log as a gateway would. Errors: of the log.
fn open<S: Storage>(storage: &S, epoch: EpochRule) -> Result<Log<S>, HistoryError> {
    let random = || getrandom::u64().map_err(io::Error::other);
    let fresh = LogIdentity {
        epoch: Epoch(random()? as u32),
        secret: [random()?, random()?],
    };
    let options = OpenOptions {
        writer: WriterOptions::default(),
        fresh,
        epoch,
    };
    Ok(log::open(storage, options)?)
}

#[cfg(test)]
mod tests;
