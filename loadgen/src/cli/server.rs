//! The server that is driven: where it is, what it is, how its peers show who they are.

use std::io::{self, IsTerminal as _};
use std::net::{SocketAddr, ToSocketAddrs as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::{Args, ValueEnum};
use rustix::thread::{CpuSet, sched_getaffinity};

use crate::cpus::Cpus;
use crate::driver::Settings;
use crate::link::Server;
use crate::observer::Watch;
use crate::target::{Dialect, Target};
use crate::tls::{TlsClient, TlsError};
use crate::token::Minter;
use crate::upgrade::Extension;

/// Which server, and where it is watched.
#[derive(Debug, Args)]
pub(crate) struct ServerArgs {
    /// Where the server listens: `ws://HOST:PORT`, or `wss://HOST:PORT` for TLS 1.3.
    #[arg(long, default_value = "ws://127.0.0.1:4040")]
    url: String,
    /// PEM file of the certificates that a `wss://` server is trusted by.
    #[arg(long, value_name = "FILE")]
    ca_file: Option<PathBuf>,
    /// Begins every TLS session from nothing instead of resuming an earlier one.
    #[arg(long)]
    no_resumption: bool,
    /// What the server is.
    #[arg(long, value_enum, default_value_t = TargetKind::Sightline)]
    target: TargetKind,
    /// The viewers' dialect (sightline).
    #[arg(long, value_enum, default_value_t = Dialect::Keen)]
    dialect: Dialect,
    /// HS256 secret for the tokens. Required by sightline; a topic target gets tokens with it, NATS
    /// never.
    #[arg(long, conflicts_with = "secret_file")]
    secret: Option<String>,
    /// File that holds the secret; a line end after it is left out.
    #[arg(long, value_name = "FILE")]
    secret_file: Option<PathBuf>,
    /// The tokens' `subscription_tier`.
    #[arg(long, default_value = "enterprise")]
    tier: String,
    /// The server's process, to watch its CPU time and memory.
    #[arg(long, value_name = "PID")]
    pub(crate) server_pid: Option<u32>,
    /// CPUs to run on, a thread on each; choose such on which the server is not.
    #[arg(long, alias = "cpu", value_name = "CPU,…")]
    pub(crate) cpus: Option<Cpus>,
    /// Connections that are opened at a time.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..))]
    in_flight: u32,
    /// Writes the report here as JSON.
    #[arg(long, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,
    /// Microseconds to waste before each send: shows that a slow generator is found out.
    #[arg(long, default_value_t = 0, hide = true)]
    slow_generator_us: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TargetKind {
    /// NATS over WebSocket.
    Nats,
    /// The gateway.
    Sightline,
    /// Any server that fans out `/pub?topic=T` to `/ws?topic=T`.
    Topic,
}

/// Why the arguments do not make a scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UsageError {
    /// Neither `ws://host:port` nor `wss://host:port`, or the host has no address.
    #[error("--url {url}: {reason}")]
    BadUrl {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// TLS trusts nobody of itself.
    #[error("a wss:// server needs --ca-file")]
    NoCaFile,
    /// Only sightline acknowledges, and keeps what a viewer missed.
    #[error("{0} needs --target sightline")]
    NeedsSightline(&'static str),
    /// Sightline takes nobody without a token.
    #[error("--target sightline needs --secret or --secret-file")]
    NoSecret,
    /// The arrivals are to have a rate and have none.
    #[error("--arrival without a --rate")]
    NoRate,
    /// The arrivals have a rate of their own.
    #[error("--rate beside an --arrival that says the rate itself")]
    TwoRates,
    /// The secret's file cannot be read.
    #[error("--secret-file {path}: {source}")]
    SecretFile {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// TLS cannot be had.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

impl ServerArgs {
    /// The target, with its tokens.
    /// Errors: `NoSecret`, `SecretFile`.
    pub(crate) fn target(&self) -> Result<Target, UsageError> {
        let secret = self.secret()?;
        let minter = secret.map(|secret| Minter::new(&secret, &self.tier, TOKEN_LIFETIME));
        Ok(match self.target {
            TargetKind::Nats => Target::Nats,
            TargetKind::Sightline => Target::Sightline {
                dialect: self.dialect,
                minter: minter.ok_or(UsageError::NoSecret)?,
            },
            TargetKind::Topic => Target::Topic { minter },
        })
    }

    /// The target of `command`, which no other server can do.
    /// Errors: `NeedsSightline`, and those of [`ServerArgs::target`].
    pub(crate) fn sightline(&self, command: &'static str) -> Result<Target, UsageError> {
        match self.target {
            TargetKind::Sightline => self.target(),
            TargetKind::Nats | TargetKind::Topic => Err(UsageError::NeedsSightline(command)),
        }
    }

    /// How to reach and treat `target`, whose subscribers offer `extension`.
    pub(crate) fn settings(
        &self,
        target: &Target,
        extension: Extension,
    ) -> Result<Settings, UsageError> {
        Ok(Settings {
            server: self.server()?,
            extension,
            protocol: target.protocol(),
            greets: target.greets(),
            acknowledges: target.acknowledges(),
            in_flight_max: self.in_flight(),
            clock: Instant::now(),
            cpus: self.cpus().to_vec(),
            keeps_cursors: false,
            watch: self.watch(),
            stall: Duration::from_micros(self.slow_generator_us),
        })
    }

    /// How to reach the server.
    /// Errors: `BadUrl`, `NoCaFile`, `Tls`.
    pub(crate) fn server(&self) -> Result<Server, UsageError> {
        let (is_tls, host) = split(&self.url)?;
        let tls = is_tls.then(|| self.tls(host)).transpose()?;
        let (address, host) = (resolve(&self.url, host)?, host.to_owned());
        Ok(Server { address, host, tls })
    }

    fn tls(&self, host: &str) -> Result<TlsClient, UsageError> {
        let ca_file = self.ca_file.as_ref().ok_or(UsageError::NoCaFile)?;
        let sessions_max = if self.no_resumption { 0 } else { SESSIONS_MAX };
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        let name = name.trim_start_matches('[').trim_end_matches(']');
        Ok(TlsClient::new(name, ca_file, sessions_max)?)
    }

    /// The CPUs to run on; none: any.
    pub(crate) fn cpus(&self) -> &[usize] {
        self.cpus.as_ref().map_or(&[], Cpus::as_slice)
    }

    /// How the phases are looked on: from the CPUs that this process may use, but for those that
    /// measure. To be asked before the measuring thread is pinned.
    fn watch(&self) -> Watch {
        let others = || {
            let mut cpus = sched_getaffinity(None).ok()?;
            let own = self.cpus().iter().filter(|cpu| **cpu < CpuSet::MAX_CPU);
            own.for_each(|cpu| cpus.unset(*cpu));
            let is_other = !self.cpus().is_empty() && cpus.count() > 0;
            is_other.then_some(cpus)
        };
        Watch {
            cpus: others(),
            is_live: io::stderr().is_terminal(),
        }
    }

    /// Connections that may be on their way to be open at a time.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight as usize
    }

    fn secret(&self) -> Result<Option<Vec<u8>>, UsageError> {
        let Some(path) = &self.secret_file else {
            return Ok(self
                .secret
                .as_ref()
                .map(|secret| secret.clone().into_bytes()));
        };
        let text = std::fs::read(path).map_err(|source| UsageError::SecretFile {
            path: path.clone(),
            source,
        })?;
        Ok(Some(text.trim_ascii_end().to_vec()))
    }
}

const TOKEN_LIFETIME: Duration = Duration::from_secs(24 * 3600);
/// TLS sessions that are kept to be resumed.
const SESSIONS_MAX: usize = 256;

/// Whether `url` is TLS, and its host and port.
fn split(url: &str) -> Result<(bool, &str), UsageError> {
    let plain = url.strip_prefix("ws://").map(|host| (false, host));
    let tls = || url.strip_prefix("wss://").map(|host| (true, host));
    let (is_tls, host) = plain
        .or_else(tls)
        .ok_or_else(|| bad_url(url, "expected ws://host:port or wss://host:port"))?;
    Ok((is_tls, host.trim_end_matches('/')))
}

fn resolve(url: &str, host: &str) -> Result<SocketAddr, UsageError> {
    let addresses = host.to_socket_addrs();
    addresses
        .map_err(|error| bad_url(url, &error.to_string()))?
        .next()
        .ok_or_else(|| bad_url(url, "the host has no address"))
}

fn bad_url(url: &str, reason: &str) -> UsageError {
    UsageError::BadUrl {
        url: url.to_owned(),
        reason: reason.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use clap::Parser as _;

    #[derive(clap::Parser)]
    struct Alone {
        #[command(flatten)]
        server: ServerArgs,
    }

    fn server(arguments: &str) -> ServerArgs {
        let arguments = std::iter::once("loadgen").chain(arguments.split_ascii_whitespace());
        Alone::try_parse_from(arguments).unwrap().server
    }

    #[test]
    fn secret_comes_from_the_flag_or_the_file() {
        assert!(matches!(server("").target(), Err(UsageError::NoSecret)));
        assert!(server("--target topic").target().is_ok());
        for target in ["nats", "topic"] {
            let other = server(&format!("--target {target}")).sightline("ingest");
            assert!(matches!(other, Err(UsageError::NeedsSightline("ingest"))));
        }
        assert_eq!(
            server("--secret abc").secret().unwrap(),
            Some(b"abc".to_vec())
        );
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "from the file\r\n").unwrap();
        let arguments = format!("--secret-file {}", file.display());
        assert_eq!(
            server(&arguments).secret().unwrap(),
            Some(b"from the file".to_vec())
        );
        let missing = server("--secret-file /nonexistent/secret").target();
        assert!(matches!(missing, Err(UsageError::SecretFile { .. })));
    }

    #[test]
    fn url_is_resolved() {
        for (url, address) in [
            ("ws://127.0.0.1:9100/", "127.0.0.1:9100"),
            ("ws://[::1]:1", "[::1]:1"),
        ] {
            let server = server(&format!("--url {url}")).server().unwrap();
            assert_eq!(server.address.to_string(), address, "{url}");
            assert_eq!(server.host, address, "{url}");
            assert!(server.tls.is_none(), "{url}");
        }
        for url in [
            "http://127.0.0.1:1",
            "ws://127.0.0.1",
            "ws://",
            "127.0.0.1:1",
        ] {
            assert!(server(&format!("--url {url}")).server().is_err(), "{url}");
        }
    }

    #[test]
    fn tls_needs_whom_to_trust() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.pem");
        let refusal = |url: &str| {
            let arguments = format!("--url {url} --ca-file {}", file.display());
            server(&arguments)
                .server()
                .map(|_| ())
                .unwrap_err()
                .to_string()
        };
        let url = "wss://127.0.0.1:1";
        let none = server(&format!("--url {url}")).server();
        assert!(matches!(none, Err(UsageError::NoCaFile)));
        assert!(refusal(url).contains("ca.pem"), "there is no file");
        std::fs::write(&file, "no certificate").unwrap();
        assert!(refusal(url).contains("no certificate that can be"));
        let names = vec!["127.0.0.1".to_owned(), "localhost".to_owned()];
        let own = rcgen::generate_simple_self_signed(names).unwrap();
        std::fs::write(&file, own.cert.pem()).unwrap();
        for url in [url, "wss://localhost:1", "wss://[::1]:1"] {
            let arguments = format!("--url {url} --ca-file {}", file.display());
            assert!(server(&arguments).server().unwrap().tls.is_some(), "{url}");
        }
        assert!(refusal("wss://no_/name:1").contains("no name"));
    }
}
