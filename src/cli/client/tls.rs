//! TLS towards the gateway: whom to trust, and by which name. The rules are rustls'; there is no
//! way to go without them.

use std::io;
use std::path::Path;
use std::sync::Arc;

use mio::net::TcpStream;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::ClientError;
use super::address::Address;
use super::stream::TlsStream;

/// What every connection to one gateway begins with. A connection after the first resumes the TLS
/// session of an earlier one.
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    name: ServerName<'static>,
}

impl Tls {
    /// Trusts the authorities in `ca_file` (PEM) and nobody else, or those of the system. Errors:
    /// `Address` for a host that no certificate can name, `Ca…`, `RootsMissing`.
    pub(super) fn new(address: &Address, ca_file: Option<&Path>) -> Result<Self, ClientError> {
        let name = ServerName::try_from(address.host.clone());
        let name = name.map_err(|_| ClientError::Address {
            url: address.url(""),
            why: "not a host name",
        })?;
        let roots = ca_file.map_or_else(system_roots, roots_of)?;
        Ok(Self {
            config: Arc::new(config(roots)),
            name,
        })
    }

    /// A connection over `socket`, before its handshake.
    pub(super) fn stream(&self, socket: TcpStream) -> io::Result<TlsStream> {
        let connection = ClientConnection::new(Arc::clone(&self.config), self.name.clone());
        Ok(TlsStream::new(
            connection.map_err(io::Error::other)?,
            socket,
        ))
    }
}

fn config(roots: RootCertStore) -> ClientConfig {
    // Named, not the process's default: whichever library sets one must not decide for us.
    let provider = Arc::new(aws_lc_rs::default_provider());
    let mut config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("aws-lc-rs has the ciphers of TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

/// Systems hold old certificates that rustls cannot read beside the many that it can, so only an
/// empty store is an error.
fn system_roots() -> Result<RootCertStore, ClientError> {
    let found = rustls_native_certs::load_native_certs();
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    if roots.is_empty() {
        let errors = found.errors;
        return Err(ClientError::RootsMissing { errors });
    }
    Ok(roots)
}

fn roots_of(path: &Path) -> Result<RootCertStore, ClientError> {
    let path = path.to_owned();
    let certificates = match read_certificates(&path) {
        Ok(certificates) => certificates,
        Err(source) => return Err(ClientError::CaUnreadable { path, source }),
    };
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        if let Err(source) = roots.add(certificate) {
            return Err(ClientError::CaUnusable { path, source });
        }
    }
    if roots.is_empty() {
        return Err(ClientError::CaEmpty { path });
    }
    Ok(roots)
}

fn read_certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, pem::Error> {
    CertificateDer::pem_file_iter(path)?.collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs;
    use std::net::TcpListener;
    use std::thread;

    use tempfile::tempdir;

    use super::super::Bell;
    use super::super::ending::{Ending, Verdict};
    use super::super::socket::{Gateway, Socket};
    use super::super::test_certificates::{Authority, Issue};
    use super::super::test_server::{TestServer, within};
    use super::*;

    fn gateway(url: &str, ca_file: &Path) -> Result<Gateway, ClientError> {
        let address = Address::parse(url)?;
        let tls = Some(Tls::new(&address, Some(ca_file))?);
        Ok(Gateway { address, tls })
    }

    /// How an attempt at `url` ends that trusts `authority`.
    fn attempt(url: &str, authority: &Authority) -> Ending {
        let folder = tempdir().unwrap();
        let gateway = gateway(url, &authority.write(folder.path())).unwrap();
        within(move || {
            let mut bell = Bell::new().unwrap();
            Socket::open(&gateway, "/keen", "token", &mut bell)
                .err()
                .unwrap()
        })
    }

    #[track_caller]
    fn check_refused(ending: &Ending, what: &str, advice: &str) {
        let Verdict::Stop(told) = ending.verdict else {
            panic!("tried again: {ending:?}");
        };
        assert!(ending.what.contains(what), "{what}: {ending:?}");
        assert!(told.contains(advice), "{advice}: {ending:?}");
    }

    #[test]
    fn a_certificate_that_proves_nothing_is_refused_with_what_to_do() {
        let (ours, other) = (Authority::new("ours"), Authority::new("other"));
        let namesake = Authority::new("ours");
        let good = Issue::default();
        let expired = Issue {
            is_expired: true,
            ..good
        };
        let named = Issue {
            name: "gate.example",
            ..good
        };
        let cases = [
            (&other, good, "UnknownIssuer", "--ca-file"),
            (&namesake, good, "BadSignature", "--ca-file"),
            (&ours, expired, "expired", "renew"),
            (&ours, named, "not valid for name", "--url"),
        ];
        for (issuer, issue, what, advice) in cases {
            let config = issuer.server_config(&issue);
            let (url, server) = TestServer::start_tls(config, TestServer::fail_handshake);
            check_refused(&attempt(&url, &ours), what, advice);
            server.join().unwrap();
        }
    }

    #[test]
    fn what_speaks_no_tls_is_not_tried_again() {
        let (url, server) = TestServer::start(|server| server.answer_anything("400 Bad Request"));
        let url = url.replace("ws:", "wss:");
        check_refused(&attempt(&url, &Authority::new("ours")), "TLS", "ws://");
        server.join().unwrap();
    }

    #[test]
    fn what_falls_silent_is_tried_again() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("wss://{}", listener.local_addr().unwrap());
        let server = thread::spawn(move || drop(listener.accept().unwrap()));
        let ending = attempt(&url, &Authority::new("ours"));
        assert!(
            matches!(ending.verdict, Verdict::Retry { .. }),
            "{ending:?}"
        );
        server.join().unwrap();
    }

    #[test]
    fn a_ca_file_that_is_none_is_told_from_one_that_is_missing() {
        let folder = tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let check = |expected: &str| {
            let error = gateway("wss://127.0.0.1:9", &path).err().unwrap();
            let text = error.to_string();
            assert!(text.contains("ca.pem") && text.contains(expected), "{text}");
            assert_eq!(error.exit_code(), 1, "{text}");
        };
        check("No such file");
        fs::write(&path, "").unwrap();
        check("no certificate");
        fs::write(&path, "-----BEGIN CERTIFICATE-----\n#\n").unwrap();
        check("");
        let pem = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        fs::write(&path, pem).unwrap();
        check("certificate");
    }

    #[test]
    fn a_host_that_no_certificate_can_name_is_a_mistake() {
        let error = gateway("wss://a..b", Path::new("ca.pem")).err().unwrap();
        assert_eq!(error.exit_code(), 2, "{error}");
    }
}
