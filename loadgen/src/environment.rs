//! Where a measurement was made: the machine, the generator, the server.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::proc::{Process, kernel_release};

/// Where and by whom. What cannot be known is left out.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Environment {
    /// When the command began, RFC 3339.
    pub(crate) started: String,
    /// The model of the first CPU.
    pub(crate) cpu_model: Option<String>,
    /// CPUs of the machine.
    pub(crate) cpus: usize,
    /// The kernel's release.
    pub(crate) kernel: Option<String>,
    /// What sets the first CPU's frequency.
    pub(crate) governor: Option<String>,
    /// File descriptors that the generator may open, softly and at most.
    pub(crate) descriptors: [u64; 2],
    /// The generator's binary.
    pub(crate) generator: Build,
    /// The server.
    pub(crate) server: ServerFacts,
}

/// Which build of a program.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Build {
    /// Its version.
    pub(crate) version: Option<String>,
    /// The commit it was built from.
    pub(crate) commit: Option<String>,
}

/// What is known of the server.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ServerFacts {
    /// Where it listens.
    pub(crate) address: String,
    /// Whether it shares the generator's machine.
    pub(crate) is_colocated: bool,
    /// Its binary, where it tells.
    #[serde(flatten)]
    pub(crate) build: Build,
    /// The digest of its configuration, where it tells.
    pub(crate) config_digest: Option<String>,
}

impl Environment {
    /// Looks around. `address` is where the server listens, who is asked for its version unless it
    /// `is_tls`.
    pub(crate) fn look(address: SocketAddr, is_tls: bool, server: Option<Process>) -> Self {
        let governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor";
        let limits = rlimit::Resource::NOFILE.get().unwrap_or_default();
        let told = (!is_tls)
            .then(|| ask(address))
            .flatten()
            .unwrap_or_default();
        Self {
            started: Timestamp::now().to_string(),
            cpu_model: fs::read_to_string("/proc/cpuinfo")
                .ok()
                .and_then(|text| cpu_model(&text)),
            cpus: core_affinity::get_core_ids()
                .map_or(0, |cores| cores.len())
                .max(online_cpus()),
            kernel: kernel_release(),
            governor: fs::read_to_string(governor)
                .ok()
                .map(|text| text.trim().to_owned()),
            descriptors: limits.into(),
            generator: Build {
                version: Some(env!("CARGO_PKG_VERSION").to_owned()),
                commit: option_env!("SOURCE_COMMIT").map(ToOwned::to_owned),
            },
            server: ServerFacts {
                address: address.to_string(),
                is_colocated: address.ip().is_loopback() || server.is_some(),
                build: Build {
                    version: told.version,
                    commit: told.commit,
                },
                config_digest: told.config_digest,
            },
        }
    }
}

/// What a server says about itself; others say nothing of it.
#[derive(Debug, Default, Deserialize)]
struct Told {
    version: Option<String>,
    commit: Option<String>,
    #[serde(alias = "configDigest")]
    config_digest: Option<String>,
}

/// Asks for `/v1/stats`; `None` where there is no answer that says anything.
fn ask(address: SocketAddr) -> Option<Told> {
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE).ok()?;
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let request = format!("GET /v1/stats HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = Vec::new();
    stream
        .take(ANSWER_BYTES_MAX)
        .read_to_end(&mut answer)
        .ok()?;
    let body = answer.windows(4).position(|end| end == b"\r\n\r\n")? + 4;
    serde_json::from_slice(&answer[body..]).ok()
}

fn cpu_model(cpuinfo: &str) -> Option<String> {
    let line = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn online_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

const PATIENCE: Duration = Duration::from_secs(1);
const ANSWER_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use std::net::TcpListener;

    fn asked(answer: &'static str) -> Option<Told> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 512];
            let _ = stream.read(&mut request).unwrap();
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let told = ask(address);
        server.join().unwrap();
        told
    }

    #[test]
    fn server_tells_its_version_or_nothing() {
        let told = asked("HTTP/1.1 200 OK\r\n\r\n{\"version\":\"1.2.3\",\"total\":{}}").unwrap();
        assert_eq!(
            (told.version.as_deref(), told.commit),
            (Some("1.2.3"), None)
        );
        for answer in [
            "",
            "HTTP/1.1 404 Not Found\r\n\r\n",
            "HTTP/1.1 200 OK\r\n\r\n<html>",
        ] {
            assert!(asked(answer).is_none(), "{answer:?}");
        }
    }

    #[test]
    fn model_is_that_of_the_first_cpu() {
        let text = "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nprocessor\t: 1\n";
        assert_eq!(cpu_model(text).as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(cpu_model("processor : 0"), None);
    }
}
