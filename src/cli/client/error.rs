//! Why a client command failed, and the exit code that follows.

use std::io;
use std::path::PathBuf;

use rustls::pki_types::pem;
use thiserror::Error;

use super::super::CliError;
use crate::dialect::CursorError;

/// Why a command that talks to a running gateway failed. Its text is the one line that the user is shown.
#[derive(Debug, Error)]
pub enum ClientError {
    /// `--url` is not the address of a gateway (user).
    #[error("--url {url:?}: {why}; write it as ws://HOST:PORT or wss://HOST:PORT")]
    Address {
        /// As given.
        url: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// `--ca-file` holds no certificate (user).
    #[error(
        "--ca-file {path:?}: no certificate in it; give PEM, which begins with -----BEGIN CERTIFICATE-----"
    )]
    CaEmpty {
        /// As given.
        path: PathBuf,
    },
    /// `--ca-file` cannot be read, or is not PEM (user).
    #[error("--ca-file {path:?}: {source}")]
    CaUnreadable {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// `--ca-file` holds something that is no authority's certificate (user).
    #[error("--ca-file {path:?}: {source}")]
    CaUnusable {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: rustls::Error,
    },
    /// `--ca-file` was given without TLS (user).
    #[error("--ca-file is for TLS; give a wss:// URL too, or leave it out")]
    CaWithoutTls,
    /// `--resume` or `--epoch` cannot be read (user).
    #[error(transparent)]
    Cursor(#[from] CursorError),
    /// A file could not be written (user).
    #[error("{path:?}: {source}")]
    File {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A git command failed (the repository, or the path given).
    #[error("git {command}: {message}")]
    Git {
        /// The subcommand.
        command: &'static str,
        /// What git said, on one line.
        message: String,
    },
    /// The `git` program could not be run (operator).
    #[error("cannot run the git program: {0}")]
    GitProgram(#[source] io::Error),
    /// Not everything that was read has been published; the account is the message.
    #[error("published {published}, refused {refused}, unacknowledged {unacknowledged}")]
    Incomplete {
        /// Events that were acknowledged.
        published: u64,
        /// Events that were refused for good.
        refused: u64,
        /// Events that were read and neither acknowledged nor refused.
        unacknowledged: u64,
    },
    /// Standard input could not be read.
    #[error("cannot read standard input: {0}")]
    Input(#[source] io::Error),
    /// Standard output could not be written.
    #[error("cannot write to standard output: {0}")]
    Output(#[source] io::Error),
    /// A change to a tree is not one to the tree that is here (us).
    #[error("a change of the tree {tree:?} does not fit; run it again, it begins with whole trees")]
    Patch {
        /// The session of its root.
        tree: String,
    },
    /// The gateway refused and a retry cannot help.
    #[error("{what}; {advice}")]
    Refused {
        /// What happened, with the gateway's own code.
        what: String,
        /// What to do about it.
        advice: &'static str,
    },
    /// There is no repository at the path given.
    #[error("{path:?}: {message}")]
    Repository {
        /// As given.
        path: PathBuf,
        /// What git said, on one line.
        message: String,
    },
    /// The system trusts nobody (operator).
    #[error(
        "the system's store holds no trusted certificates{}; name one with --ca-file FILE",
        because(errors)
    )]
    RootsMissing {
        /// What went wrong while looking.
        errors: Vec<rustls_native_certs::Error>,
    },
    /// The system refused a poll, a thread or a signal handler.
    #[error("cannot set up the client: {0}")]
    System(#[source] io::Error),
    /// The token holds a byte that no token has (user).
    #[error("the token holds spaces or unprintable bytes; give it as `sightline token` printed it")]
    TokenMalformed,
    /// No token was given (user).
    #[error(
        "no token: give --token-file FILE, set SIGHTLINE_TOKEN, or --token; `sightline token` mints one"
    )]
    TokenMissing,
    /// The token's file could not be read.
    #[error("--token-file {path:?}: {source}")]
    TokenUnreadable {
        /// As given.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

impl ClientError {
    /// 2 for a mistake on the command line, 1 for everything else.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Address { .. }
            | Self::CaWithoutTls
            | Self::Cursor(_)
            | Self::TokenMalformed
            | Self::TokenMissing => CliError::USAGE,
            _ => CliError::FAILED,
        }
    }
}

fn because(errors: &[rustls_native_certs::Error]) -> String {
    errors
        .first()
        .map_or_else(String::new, |error| format!(" ({error})"))
}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> Self {
        Self::new(error.exit_code(), error)
    }
}
