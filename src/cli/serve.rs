//! `sightline serve`: what the gateway is started with.

use std::fs;
use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{SystemTime, UNIX_EPOCH};

use clap::Args;

use super::dev::{self, DevToken, Endpoint};
use super::{CliError, ConfigArgs};
use crate::auth::{MintOptions, SigningKey, mint};
use crate::config::{Config, KeySource, Loaded};
use crate::engine::Door;
use crate::engine::listener::ListenAddress;
use crate::server::{Listening, Server, StartError};

/// The arguments of `serve`.
#[derive(Args, Debug)]
pub struct ServeArgs {
    #[command(flatten)]
    config: ConfigArgs,
    /// Try it out: this machine only, a fresh key, temporary data; prints commands to paste
    #[arg(long)]
    pub dev: bool,
    /// Send back every message on /echo: for the conformance suite
    #[arg(long, hide = true)]
    echo: bool,
}

impl ServeArgs {
    /// The configuration, with a fresh key under `--dev`. Warnings are logged.
    /// Errors: code 78 where the configuration is wrong or names no key.
    pub fn load(&self) -> Result<Served, CliError> {
        let mut sources = self.config.sources()?;
        let dev = self.dev.then(dev::fresh).transpose()?;
        let own_folder = dev.as_ref().map(|dev| dev.data_dir.clone());
        sources.dev = dev;
        let Loaded {
            mut config,
            warnings,
            ..
        } = sources.load()?;
        config.has_echo = self.echo;
        for warning in warnings {
            tracing::warn!("{warning}");
        }
        Ok(Served {
            temporary: own_folder.filter(|folder| *folder == config.data_dir),
            config,
        })
    }
}

/// What is served.
pub struct Served {
    /// How.
    pub config: Config,
    /// The folder that goes at the end.
    pub temporary: Option<PathBuf>,
}

/// Serves until a signal asks to stop.
/// Errors: 78 where the configuration is wrong, 1 where the system refuses.
pub fn run(args: &ServeArgs) -> Result<ExitCode, CliError> {
    let Served { config, temporary } = args.load()?;
    let server = Server::start(&config)?;
    for Listening {
        address,
        door,
        is_tls,
    } in server.addresses()
    {
        tracing::info!(%address, ?door, tls = is_tls, cores = config.cores, "listening");
    }
    if args.dev {
        let tcp = server
            .addresses()
            .iter()
            .find_map(|listening| match listening.address {
                ListenAddress::Tcp(address) if listening.door != Door::Ops => Some(Endpoint {
                    address,
                    is_tls: listening.is_tls,
                }),
                _ => None,
            });
        if let Some(endpoint) = tcp {
            print_commands(&config, endpoint)?;
        }
    }
    let ended = server.run();
    if let Some(folder) = temporary {
        // Its key is gone as well: nobody could ask for what is in there.
        let _ = fs::remove_dir_all(folder);
    }
    ended.map_err(|error| CliError::new(CliError::FAILED, error))?;
    Ok(ExitCode::SUCCESS)
}

fn print_commands(config: &Config, endpoint: Endpoint) -> Result<(), CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::new(CliError::FAILED, error);
    let KeySource::Secret(secret) = &config.auth.keys else {
        return Ok(());
    };
    let key = SigningKey::from_secret(secret.as_bytes()).map_err(|error| failed(&error))?;
    let now_s = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs());
    let token = |token: &DevToken| {
        let options = MintOptions {
            projects: token
                .projects
                .iter()
                .map(|project| (*project).into())
                .collect(),
            permissions: token
                .permissions
                .iter()
                .filter_map(|name| name.parse().ok())
                .collect(),
            tier: Some("enterprise".into()),
            ttl_s: token.ttl_s,
            ..MintOptions::new(token.sub)
        };
        mint(&key, &options, now_s).unwrap_or_default()
    };
    // A reader that has closed its end of the pipe is no reason not to serve.
    let _ = dev::dev_banner(endpoint, token, &mut io::stdout());
    Ok(())
}

impl From<StartError> for CliError {
    fn from(error: StartError) -> Self {
        let code = if error.is_configuration() {
            Self::CONFIGURATION
        } else {
            Self::FAILED
        };
        Self::new(code, error)
    }
}
