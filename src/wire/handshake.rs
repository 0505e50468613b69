//! The opening handshake: a request head becomes an upgrade, and where its token stands.
//!
//! What a token says is `auth`'s, what a query means beyond `token` and `refusals` is `dialect`'s.
//! Which extension is agreed on is `deflate`'s. Source: RFC 6455 §4, section 4 of the contract; the
//! accept key is tungstenite's.

use std::fmt;

use tungstenite::handshake::derive_accept_key;

use super::close::Refusal;
use super::deflate::{Agreement, negotiate};
use super::http::{Method, RequestHead, is_token_byte, list_elements, push_header};
use crate::event::Dialect;

/// A request to open a WebSocket, checked. Holds a token, which `Debug` does not show.
#[derive(Clone, Debug)]
pub struct Upgrade {
    /// What the connection is for.
    pub role: Role,
    /// The token, or why there is none: `TokenMissing` or `TokenInvalid`.
    pub token: Result<Token, Refusal>,
    /// Whether the client wants refusals after the origin check as a message and a close.
    pub refusals_as_close: bool,
    /// permessage-deflate, where it was offered so that it can be agreed on. Take it out to decline.
    pub deflate: Option<Agreement>,
    /// The subprotocol that the answer echoes.
    subprotocol: Option<Dialect>,
    accept_key: String,
}

/// What a server's paths lead to, as far as servers differ.
#[derive(Clone, Copy, Debug)]
pub struct Endpoints {
    /// What `/ws` and `/` speak without a subprotocol of ours.
    pub default_dialect: Dialect,
    /// Whether there is an `/echo`.
    pub has_echo: bool,
}

/// What an upgraded connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// `/echo`, where the server has it: every message comes back.
    Echo,
    /// `/v1/publish`
    Publisher,
    /// `/keen`, `/observatory`, `/ws`, `/`
    Viewer(Dialect),
}

impl Upgrade {
    /// Reads an upgrade to one of `endpoints`.
    /// Errors: [`HandshakeError`]; after it the connection ends, as a proxy in front may believe
    /// that it was upgraded.
    pub fn from_head(head: &RequestHead, endpoints: Endpoints) -> Result<Self, HandshakeError> {
        let offers = Offers::from_head(head)?;
        let (role, subprotocol) = choose_role(head.path(), &offers, endpoints)?;
        check_upgrade(head)?;
        if offers.bearer.is_some() && subprotocol.is_none() {
            return Err(HandshakeError::SubprotocolRequired);
        }
        let key = head
            .header("sec-websocket-key")
            .filter(|key| is_key(key))
            .ok_or(HandshakeError::Key)?;
        Ok(Self {
            role,
            token: Token::from_head(head),
            refusals_as_close: head
                .query_pairs()
                .any(|(name, value)| name == "refusals" && value == "close"),
            deflate: negotiate(head.header_values("sec-websocket-extensions")),
            subprotocol,
            accept_key: derive_accept_key(key.as_bytes()),
        })
    }
}

/// Whether the request asks for an upgrade to a WebSocket, well or badly.
pub fn is_upgrade(head: &RequestHead) -> bool {
    has_element(head, "upgrade", "websocket")
}

/// Appends the answer after which both sides speak frames.
pub fn write_switching_protocols(out: &mut Vec<u8>, upgrade: &Upgrade) {
    out.extend_from_slice(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n",
    );
    push_header(out, "Sec-WebSocket-Accept", &upgrade.accept_key);
    if let Some(dialect) = upgrade.subprotocol {
        push_header(out, "Sec-WebSocket-Protocol", subprotocol_name(dialect));
    }
    if let Some(agreement) = upgrade.deflate {
        push_header(out, "Sec-WebSocket-Extensions", &agreement.answer());
    }
    out.extend_from_slice(b"\r\n");
}

/// The subprotocol by which a client asks for `dialect`.
pub fn subprotocol_name(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Keen => "sightline.keen.v1",
        Dialect::Observatory => "sightline.observatory.v1",
    }
}

/// What is wrong with an upgrade. The client's doing in every case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// `Connection` does not name `Upgrade`.
    #[error("Connection must name Upgrade")]
    Connection,
    /// `Sec-WebSocket-Key` is missing or not 16 bytes in base64.
    #[error("Sec-WebSocket-Key must be 16 bytes in base64")]
    Key,
    /// An upgrade by another method, or in HTTP/1.0.
    #[error("an upgrade is a GET in HTTP/1.1")]
    Method,
    /// `Upgrade` does not name `websocket`.
    #[error("a WebSocket upgrade is required")]
    NotUpgrade,
    /// No connections are taken on this path.
    #[error("no such path")]
    Path,
    /// A list of subprotocols that is malformed, or names two tokens.
    #[error("malformed Sec-WebSocket-Protocol")]
    Subprotocol,
    /// The path speaks one dialect, the subprotocols offered ask for the other.
    #[error("the subprotocol contradicts the path")]
    SubprotocolContradiction,
    /// `bearer.T` without a subprotocol that could be echoed; browsers would fail.
    #[error("offer sightline.keen.v1 or sightline.observatory.v1 beside the token")]
    SubprotocolRequired,
    /// A version other than 13, or none.
    #[error("Sec-WebSocket-Version must be 13")]
    Version,
}

impl HandshakeError {
    /// The answer.
    pub fn refusal(self) -> Refusal {
        match self {
            Self::Path => Refusal::NotFound,
            Self::SubprotocolRequired => Refusal::SubprotocolRequired,
            Self::Version => Refusal::UpgradeRequired,
            Self::Connection
            | Self::Key
            | Self::Method
            | Self::NotUpgrade
            | Self::Subprotocol
            | Self::SubprotocolContradiction => Refusal::BadRequest,
        }
    }
}

/// A bearer token as it was sent, not yet verified. Never shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Box<str>);

impl Token {
    /// The token of a request, from the first carrier that has one: `Authorization: Bearer T`,
    /// subprotocol `bearer.T`, `?token=T`.
    /// Errors: `TokenMissing` where no carrier has one; `TokenInvalid` where `Authorization` is
    /// malformed, or of another scheme and no other carrier has one.
    pub fn from_head(head: &RequestHead) -> Result<Self, Refusal> {
        let authorization = head.header("authorization");
        if let Some(credentials) = authorization.and_then(bearer_credentials) {
            return Self::parse(credentials).ok_or(Refusal::TokenInvalid);
        }
        if let Some(token) = protocols(head).find_map(|name| name.strip_prefix(BEARER_PREFIX)) {
            return Self::parse(token).ok_or(Refusal::TokenInvalid);
        }
        if let Some((_, token)) = head
            .query_pairs()
            .find(|(name, token)| name == "token" && !token.is_empty())
        {
            return Self::parse(&token).ok_or(Refusal::TokenInvalid);
        }
        // Another scheme may be a proxy's own; it counts only where nothing else was sent.
        Err(if authorization.is_some() {
            Refusal::TokenInvalid
        } else {
            Refusal::TokenMissing
        })
    }

    /// The token's text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes what can be a token at all: visible ASCII, as RFC 6750 §2.1 has it.
    fn parse(text: &str) -> Option<Self> {
        let is_token = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_token.then(|| Self(text.into()))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// What the client offers in `Sec-WebSocket-Protocol`.
struct Offers<'a> {
    /// Ours, in the client's order.
    dialects: Vec<Dialect>,
    bearer: Option<&'a str>,
}

impl<'a> Offers<'a> {
    fn from_head(head: &'a RequestHead) -> Result<Self, HandshakeError> {
        let mut offers = Self {
            dialects: Vec::new(),
            bearer: None,
        };
        for name in protocols(head) {
            if !name.bytes().all(is_token_byte) {
                return Err(HandshakeError::Subprotocol);
            }
            offers.dialects.extend(
                Dialect::ALL
                    .into_iter()
                    .find(|d| subprotocol_name(*d) == name),
            );
            if let Some(token) = name.strip_prefix(BEARER_PREFIX)
                && offers.bearer.replace(token).is_some()
            {
                return Err(HandshakeError::Subprotocol);
            }
        }
        Ok(offers)
    }
}

/// The role by path and offers, and the dialect whose subprotocol is echoed.
fn choose_role(
    path: &str,
    offers: &Offers<'_>,
    endpoints: Endpoints,
) -> Result<(Role, Option<Dialect>), HandshakeError> {
    let first = offers.dialects.first().copied();
    let fixed = match path {
        "/" | "/ws" => {
            let dialect = first.unwrap_or(endpoints.default_dialect);
            return Ok((Role::Viewer(dialect), first));
        }
        "/echo" if endpoints.has_echo => return Ok((Role::Echo, first)),
        "/keen" => Dialect::Keen,
        "/observatory" => Dialect::Observatory,
        "/v1/publish" => return Ok((Role::Publisher, first)),
        _ => return Err(HandshakeError::Path),
    };
    if first.is_some() && !offers.dialects.contains(&fixed) {
        return Err(HandshakeError::SubprotocolContradiction);
    }
    Ok((Role::Viewer(fixed), first.map(|_| fixed)))
}

/// Source: RFC 6455 §4.2.1.
fn check_upgrade(head: &RequestHead) -> Result<(), HandshakeError> {
    if !is_upgrade(head) {
        return Err(HandshakeError::NotUpgrade);
    }
    if head.method() != Method::Get || head.is_http_1_0() {
        return Err(HandshakeError::Method);
    }
    if !has_element(head, "connection", "upgrade") {
        return Err(HandshakeError::Connection);
    }
    if head.header("sec-websocket-version") != Some("13") {
        return Err(HandshakeError::Version);
    }
    Ok(())
}

fn has_element(head: &RequestHead, name: &str, element: &str) -> bool {
    list_elements(head.header_values(name)).any(|found| found.eq_ignore_ascii_case(element))
}

fn protocols(head: &RequestHead) -> impl Iterator<Item = &str> {
    list_elements(head.header_values("sec-websocket-protocol"))
}

/// What follows the scheme `Bearer`, whatever its case; `None` for another scheme.
fn bearer_credentials(authorization: &str) -> Option<&str> {
    let (scheme, credentials) = authorization.split_once(' ').unwrap_or((authorization, ""));
    scheme
        .eq_ignore_ascii_case("bearer")
        .then(|| credentials.trim_start_matches(' '))
}

/// Whether `key` is base64 of 16 bytes: 22 digits and their padding.
fn is_key(key: &str) -> bool {
    let is_digit = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'+' || byte == b'/';
    let digits = key.strip_suffix("==");
    digits.is_some_and(|digits| digits.len() == 22 && digits.bytes().all(is_digit))
}

const BEARER_PREFIX: &str = "bearer.";

#[cfg(test)]
mod tests;
