//! The operators' pages of a gateway (contract, section 9), read by HTTP: one connection a page.

use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Response, Status};
use tungstenite::http::{HeaderMap, StatusCode};

use super::ending::{Ending, Verdict};
use super::socket::{Gateway, open_stream};
use super::stream::Stream;
use super::token::TokenSource;
use super::{Bell, ClientError, ConnectArgs};

/// Where pages are read.
pub(crate) struct Pages {
    bell: Bell,
    gateway: Gateway,
    token: Option<TokenSource>,
}

/// Why a page could not be read.
pub(crate) enum PageError {
    /// It may be there later.
    Lost(String),
    /// Trying again is pointless.
    Refused(ClientError),
}

impl From<PageError> for ClientError {
    fn from(error: PageError) -> Self {
        match error {
            PageError::Lost(what) => refused(&what, ADVICE_LOST),
            PageError::Refused(error) => error,
        }
    }
}

impl Pages {
    /// Checks the flags; connects nowhere yet.
    pub(crate) fn new(args: &ConnectArgs) -> Result<Self, ClientError> {
        let (gateway, token) = args.resolve_http()?;
        Ok(Self {
            bell: Bell::new().map_err(ClientError::System)?,
            gateway,
            token,
        })
    }

    /// The gateway's address, as given.
    pub(crate) fn url(&self) -> String {
        self.gateway.address.url("")
    }

    /// The body of the page at `path_and_query`, which begins with `/`.
    pub(crate) fn read(&mut self, path_and_query: &str) -> Result<String, PageError> {
        let token = self.token.as_ref().map(TokenSource::read).transpose();
        let token = token.map_err(PageError::Refused)?;
        let request = self.request(path_and_query, token.as_deref());
        let answer = self.exchange(request.as_bytes()).map_err(failure)?;
        let (status, body) = split(&answer).map_err(failure)?;
        if status != 200 {
            return Err(refusal(status, body));
        }
        String::from_utf8(body.to_vec()).map_err(|_| failure(Ending::lost("the page is not text")))
    }

    /// Waits, at most this long and not past a signal.
    pub(crate) fn wait(&mut self, timeout: Duration) -> Result<(), ClientError> {
        self.bell.wait(timeout).map_err(ClientError::System)
    }

    fn request(&self, path_and_query: &str, token: Option<&str>) -> String {
        let address = &self.gateway.address;
        let (target, host) = (address.target(path_and_query), address.authority());
        let agent = concat!("sightline/", env!("CARGO_PKG_VERSION"));
        let authorization = token.map_or_else(String::new, |token| {
            format!("Authorization: Bearer {token}\r\n")
        });
        format!(
            "GET {target} HTTP/1.1\r\nHost: {host}\r\nUser-Agent: {agent}\r\n\
             {authorization}Connection: close\r\n\r\n"
        )
    }

    // All that the gateway answers, to the end of the connection.
    fn exchange(&mut self, request: &[u8]) -> Result<Vec<u8>, Ending> {
        let (mut stream, deadline) = open_stream(&self.gateway, &mut self.bell)?;
        let (mut left, mut answer) = (request, Vec::new());
        while !left.is_empty() {
            let taken = self.step(deadline, &mut stream, |stream| stream.write(left))?;
            left = &left[taken..];
        }
        self.step(deadline, &mut stream, |stream| stream.flush())?;
        let mut chunk = vec![0; CHUNK_BYTES];
        loop {
            let count = self.step(deadline, &mut stream, |stream| stream.read(&mut chunk))?;
            answer.extend_from_slice(&chunk[..count]);
            if count == 0 || is_complete(&answer) {
                return Ok(answer);
            }
            if answer.len() > PAGE_BYTES_MAX {
                return Err(Ending::lost("the page does not end"));
            }
        }
    }

    // Does what may have to wait, until the deadline.
    fn step<T>(
        &mut self,
        deadline: Instant,
        stream: &mut Stream,
        mut attempt: impl FnMut(&mut Stream) -> io::Result<T>,
    ) -> Result<T, Ending> {
        loop {
            match attempt(stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                outcome => return Ok(outcome?),
            }
            if Instant::now() >= deadline {
                return Err(Ending::lost("no answer to the request"));
            }
            self.bell.wait(WAIT_STEP)?;
        }
    }
}

// The status and where the body begins and ends, once the head is there. `None`: not yet.
fn head(answer: &[u8]) -> Result<Option<(u16, usize, Option<usize>)>, httparse::Error> {
    let mut headers = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = Response::new(&mut headers);
    let Status::Complete(begins) = response.parse(answer)? else {
        return Ok(None);
    };
    let mut headers = response.headers.iter();
    let length = headers.find(|header| header.name.eq_ignore_ascii_case("content-length"));
    let length = length.and_then(|header| str::from_utf8(header.value).ok()?.trim().parse().ok());
    let ends = length.and_then(|length: usize| begins.checked_add(length));
    Ok(Some((response.code.unwrap_or_default(), begins, ends)))
}

fn is_complete(answer: &[u8]) -> bool {
    match head(answer) {
        Ok(Some((_, _, ends))) => ends.is_some_and(|ends| answer.len() >= ends),
        Ok(None) => false,
        Err(_) => true,
    }
}

fn split(answer: &[u8]) -> Result<(u16, &[u8]), Ending> {
    let no_gateway = |what: String| Ending {
        what,
        verdict: Verdict::Stop(ADVICE_GATEWAY),
    };
    match head(answer) {
        Err(error) => Err(no_gateway(format!("the answer is no HTTP: {error}"))),
        Ok(Some((status, begins, ends))) if ends.is_none_or(|ends| answer.len() >= ends) => {
            Ok((status, &answer[begins..ends.unwrap_or(answer.len())]))
        }
        Ok(_) => Err(Ending::lost("the connection broke off")),
    }
}

fn refusal(status: u16, body: &[u8]) -> PageError {
    let code = StatusCode::from_u16(status).unwrap_or_default();
    let ending = Ending::from_refusal(code, &HeaderMap::new(), body);
    let advice = match status {
        401 | 403 => ADVICE_ADMIN,
        404 => ADVICE_GATEWAY,
        _ => return failure(ending),
    };
    PageError::Refused(refused(&ending.what, advice))
}

fn failure(ending: Ending) -> PageError {
    match ending.verdict {
        Verdict::Stop(advice) => PageError::Refused(refused(&ending.what, advice)),
        Verdict::Finished | Verdict::NewToken | Verdict::Retry { .. } => {
            PageError::Lost(ending.what)
        }
    }
}

fn refused(what: &str, advice: &'static str) -> ClientError {
    let what = super::printable(what).into_owned();
    ClientError::Refused { what, advice }
}

const ADVICE_ADMIN: &str = "this page takes a token with permission admin: \
     `sightline token --sub NAME --permissions admin` mints one, --token-file FILE gives it";
const ADVICE_GATEWAY: &str =
    "check that --url is the address of a gateway, with wss:// or https:// where it has TLS";
const ADVICE_LOST: &str = "check that a gateway runs there, or name another with --url";
const CHUNK_BYTES: usize = 64 * 1024;
const HEADERS_MAX: usize = 32;
const PAGE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// The longest single wait inside a deadline.
const WAIT_STEP: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use tempfile::tempdir;

    use super::super::test_certificates::{Authority, Issue};
    use super::super::test_server::{TestServer, within};
    use super::*;

    fn read(args: ConnectArgs) -> Result<String, ClientError> {
        within(move || Ok(Pages::new(&args)?.read("/v1/stats?histograms=1")?))
    }

    #[test]
    fn a_page_comes_plain_and_by_tls() {
        let body = "x".repeat(300_000);
        let page = body.clone();
        let (url, server) = TestServer::start(move |server| server.refuse("200 OK", &page));
        assert_eq!(
            read(ConnectArgs::for_test(url.replace("ws:", "http:"))).unwrap(),
            body
        );
        server.join().unwrap();

        let (authority, folder) = (Authority::new("ours"), tempdir().unwrap());
        let config = authority.server_config(&Issue::default());
        let page = body.clone();
        let (url, server) =
            TestServer::start_tls(config, move |server| server.refuse("200 OK", &page));
        let args = ConnectArgs::for_test(url.replace("wss:", "https:"));
        assert_eq!(
            read(args.trusting(authority.write(folder.path()))).unwrap(),
            body
        );
        server.join().unwrap();
    }

    #[test]
    fn a_refusal_says_what_helps() {
        let check = |status: &'static str, body: &'static str, expected: &[&str]| {
            let (url, server) = TestServer::start(move |server| server.refuse(status, body));
            let error = read(ConnectArgs::for_test(url)).unwrap_err();
            let text = error.to_string();
            assert!(expected.iter().all(|part| text.contains(part)), "{text}");
            assert_eq!(error.exit_code(), 1, "{text}");
            server.join().unwrap();
        };
        let body = r#"{"error":{"code":"FORBIDDEN","message":"the token lacks permission admin"}}"#;
        check(
            "403 Forbidden",
            body,
            &["403 FORBIDDEN", "lacks", "--permissions admin"],
        );
        check("401 Unauthorized", "", &["401", "--permissions admin"]);
        check("404 Not Found", "", &["404", "--url"]);
        check("503 Service Unavailable", "", &["503", "--url"]);
    }

    #[test]
    fn nobody_there_is_said_with_the_address() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("ws://{}", listener.local_addr().unwrap());
        drop(listener);
        let text = read(ConnectArgs::for_test(url.clone()))
            .unwrap_err()
            .to_string();
        assert!(text.contains(&url) && text.contains("--url"), "{text}");
    }

    #[test]
    fn what_is_cut_off_is_no_page() {
        let check = |answer: &str, is_page: bool| {
            assert_eq!(split(answer.as_bytes()).is_ok(), is_page, "{answer}");
        };
        check("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true);
        check("HTTP/1.1 200 OK\r\n\r\nto the end", true);
        check("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nok", false);
        check("HTTP/1.1 200 OK\r\nConte", false);
        check("SSH-2.0-OpenSSH", false);
        check("", false);
    }
}
