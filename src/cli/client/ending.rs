//! What the end of a connection means for the client: the tables of the contract's section 4,
//! read from the client's side.

use std::io;
use std::time::Duration;

use rustls::{AlertDescription, CertificateError};
use serde::Deserialize;
use tungstenite::Error;
use tungstenite::error::ProtocolError;
use tungstenite::http::{HeaderMap, StatusCode};
use tungstenite::protocol::CloseFrame;

/// How a connection, or the attempt at one, ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ending {
    /// For the user, on one line.
    pub(crate) what: String,
    /// What to do now.
    pub(crate) verdict: Verdict,
}

/// What a client does after an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The server is finished with us, in peace.
    Finished,
    /// Comes back with another token, or not at all.
    NewToken,
    /// Comes back, no sooner than the server asked.
    Retry {
        /// The server's own wish.
        after: Option<Duration>,
    },
    /// Does not come back; what to do instead.
    Stop(&'static str),
}

impl Ending {
    /// Nothing was heard from the server, or the connection broke.
    pub(crate) fn lost(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            verdict: Verdict::Retry { after: None },
        }
    }

    /// The server answered the upgrade with `status` instead of 101.
    pub(crate) fn from_refusal(status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Self {
        let told = Told::parse(body);
        let after = retry_after(headers);
        let verdict = match status.as_u16() {
            401 => Verdict::NewToken,
            403 => Verdict::Stop(ADVICE_FORBIDDEN),
            408 | 425 | 429 | 500..=599 => Verdict::Retry { after },
            _ => Verdict::Stop(ADVICE_UPGRADE),
        };
        Self {
            what: format!("refused with {}{told}", status.as_u16()),
            verdict,
        }
    }

    /// The server closed an open connection.
    pub(crate) fn from_close(frame: Option<&CloseFrame>) -> Self {
        let Some(frame) = frame else {
            return Self::lost("closed without a code");
        };
        let code = u16::from(frame.code);
        let verdict = match code {
            1000 => Verdict::Finished,
            1002 | 1003 | 1007 | 1009 | 1010 => Verdict::Stop(ADVICE_PROTOCOL),
            4001 | 4002 | 4401 => Verdict::NewToken,
            4500..=4999 => Verdict::Stop(ADVICE_FORBIDDEN),
            _ => Verdict::Retry { after: None },
        };
        let reason = match frame.reason.as_str() {
            "" => String::new(),
            reason => format!(" {reason}"),
        };
        Self {
            what: format!("closed with {code}{reason}"),
            verdict,
        }
    }

    /// The handshake failed: refused, cut off, or answered by something that is no gateway.
    pub(crate) fn from_handshake(error: Error) -> Self {
        match error {
            Error::Protocol(ProtocolError::HandshakeIncomplete) => {
                Self::lost("closed before it answered the handshake")
            }
            Error::Protocol(error) => Self {
                what: format!("the handshake failed: {error}"),
                verdict: Verdict::Stop(ADVICE_UPGRADE),
            },
            error => Self::from_error(error),
        }
    }

    /// The TLS handshake failed: the gateway did not prove who it is, or is none.
    pub(crate) fn from_tls(error: &io::Error) -> Self {
        let cause = error.get_ref();
        match cause.and_then(|cause| cause.downcast_ref::<rustls::Error>()) {
            Some(cause) => Self {
                what: format!("the TLS handshake failed: {cause}"),
                verdict: tls_verdict(cause),
            },
            None => Self::lost(format!("the TLS handshake broke off: {error}")),
        }
    }

    /// Reading or writing failed.
    pub(crate) fn from_error(error: Error) -> Self {
        match error {
            Error::Http(response) => {
                let body = response.body().as_deref().unwrap_or_default();
                Self::from_refusal(response.status(), response.headers(), body)
            }
            Error::Protocol(ProtocolError::ResetWithoutClosingHandshake) => {
                Self::lost("the connection broke off")
            }
            error => Self::lost(error.to_string()),
        }
    }
}

impl From<io::Error> for Ending {
    /// The system failed us; perhaps not the next time.
    fn from(error: io::Error) -> Self {
        Self::lost(error.to_string())
    }
}

/// What stands in a certificate does not mend itself, so only what the gateway or the network may
/// have suffered in passing is tried again.
fn tls_verdict(error: &rustls::Error) -> Verdict {
    use AlertDescription as Alert;
    use CertificateError as Bad;
    match error {
        // `BadSignature` is what another authority of the same name looks like.
        rustls::Error::InvalidCertificate(Bad::UnknownIssuer | Bad::BadSignature) => {
            Verdict::Stop(ADVICE_ISSUER)
        }
        rustls::Error::InvalidCertificate(Bad::Expired | Bad::ExpiredContext { .. }) => {
            Verdict::Stop(ADVICE_EXPIRED)
        }
        rustls::Error::InvalidCertificate(Bad::NotValidYet | Bad::NotValidYetContext { .. }) => {
            Verdict::Stop(ADVICE_CLOCK)
        }
        rustls::Error::InvalidCertificate(
            Bad::NotValidForName | Bad::NotValidForNameContext { .. },
        ) => Verdict::Stop(ADVICE_NAME),
        rustls::Error::InvalidCertificate(_) => Verdict::Stop(ADVICE_CERTIFICATE),
        rustls::Error::InvalidMessage(_) => Verdict::Stop(ADVICE_PLAIN),
        rustls::Error::PeerIncompatible(_)
        | rustls::Error::AlertReceived(
            Alert::HandshakeFailure | Alert::NoApplicationProtocol | Alert::ProtocolVersion,
        ) => Verdict::Stop(ADVICE_UPGRADE),
        _ => Verdict::Retry { after: None },
    }
}

/// `Retry-After` in seconds; its other form, a date, is not used by the gateway.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let value = headers.get("retry-after")?.to_str().ok()?;
    value.trim().parse().ok().map(Duration::from_secs)
}

/// The body of an HTTP refusal, where one came.
#[derive(Deserialize)]
struct Told {
    error: ToldError,
}

#[derive(Default, Deserialize)]
struct ToldError {
    code: String,
    message: String,
}

impl Told {
    fn parse(body: &[u8]) -> Self {
        serde_json::from_slice(body).unwrap_or(Self {
            error: ToldError::default(),
        })
    }
}

impl std::fmt::Display for Told {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let ToldError { code, message } = &self.error;
        if !code.is_empty() {
            write!(f, " {code}")?;
        }
        if !message.is_empty() {
            write!(f, " ({message})")?;
        }
        Ok(())
    }
}

const ADVICE_CERTIFICATE: &str =
    "give the gateway a server certificate that an authority issued for its name";
const ADVICE_CLOCK: &str = "set this machine's clock, or wait";
const ADVICE_EXPIRED: &str = "renew the gateway's certificate, or set this machine's clock";
const ADVICE_FORBIDDEN: &str = "this token does not permit it: check its permissions and projects";
const ADVICE_ISSUER: &str =
    "if you know who issued the gateway's certificate, name theirs with --ca-file FILE";
const ADVICE_NAME: &str = "put a name of the certificate's into --url";
const ADVICE_PLAIN: &str = "no TLS is spoken there: use ws://, or the port of wss://";
const ADVICE_PROTOCOL: &str =
    "client and gateway do not understand each other: check their versions";
const ADVICE_UPGRADE: &str =
    "check that --url is the address of a gateway, with wss:// where it has TLS";

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use Verdict::{Finished, NewToken, Retry, Stop};

    #[test]
    fn closes_mean_what_the_contract_says() {
        let again = Retry { after: None };
        let cases = [
            (1000, Finished),
            (1001, again),
            (1002, Stop(ADVICE_PROTOCOL)),
            (1003, Stop(ADVICE_PROTOCOL)),
            (1007, Stop(ADVICE_PROTOCOL)),
            (1008, again),
            (1009, Stop(ADVICE_PROTOCOL)),
            (1011, again),
            (4001, NewToken),
            (4002, NewToken),
            (4008, again),
            (4009, again),
            (4010, again),
            (4013, again),
            (4401, NewToken),
            (4429, again),
            (4499, again),
            (4500, Stop(ADVICE_FORBIDDEN)),
            (4503, Stop(ADVICE_FORBIDDEN)),
        ];
        for (code, expected) in cases {
            let frame = CloseFrame {
                code: code.into(),
                reason: "".into(),
            };
            assert_eq!(Ending::from_close(Some(&frame)).verdict, expected, "{code}");
        }
        assert_eq!(Ending::from_close(None).verdict, again);
    }

    #[test]
    fn refusals_mean_what_the_contract_says() {
        let after = Some(Duration::from_secs(3));
        let cases = [
            (401, NewToken),
            (403, Stop(ADVICE_FORBIDDEN)),
            (404, Stop(ADVICE_UPGRADE)),
            (426, Stop(ADVICE_UPGRADE)),
            (429, Retry { after }),
            (503, Retry { after }),
            (200, Stop(ADVICE_UPGRADE)),
        ];
        let mut headers = HeaderMap::new();
        headers.insert("retry-after", "3".parse().unwrap());
        for (status, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            let ending = Ending::from_refusal(status, &headers, b"");
            assert_eq!(ending.verdict, expected, "{status}");
        }
    }

    #[test]
    fn what_is_no_gateway_is_not_tried_again_and_what_fell_silent_is() {
        let again = Retry { after: None };
        let cases = [
            (ProtocolError::WrongHttpVersion, Stop(ADVICE_UPGRADE)),
            (
                ProtocolError::SecWebSocketAcceptKeyMismatch,
                Stop(ADVICE_UPGRADE),
            ),
            (ProtocolError::HandshakeIncomplete, again),
        ];
        for (error, expected) in cases {
            let ending = Ending::from_handshake(Error::Protocol(error.clone()));
            assert_eq!(ending.verdict, expected, "{error}");
        }
    }

    #[test]
    fn a_refusal_is_told_with_its_code() {
        let body = br#"{"error":{"code":"TOKEN_EXPIRED","message":"expired 3 s ago"}}"#;
        let ending = Ending::from_refusal(StatusCode::UNAUTHORIZED, &HeaderMap::new(), body);
        assert_eq!(
            ending.what,
            "refused with 401 TOKEN_EXPIRED (expired 3 s ago)"
        );
    }
}
