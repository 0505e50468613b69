//! HTTP/1.1 and RFC 6455 without IO: bytes in, requests and messages out, and back again.
//!
//! Owns what the wire allows and which status or close code answers what it does not. Lacks
//! sockets, clocks and tokens' meaning: the engine feeds it bytes and asks `auth` about tokens.

pub mod close; // the one table of refusals and close codes
pub mod control; // what control frames carry, and how many a peer may send
pub mod deflate; // permessage-deflate: offers, and messages smaller and back
pub mod frame; // headers and whole frames, as the server writes them
pub mod handshake; // a request head becomes an upgrade
pub mod http; // request heads, bodies and answers
pub mod mask; // the client's masking key
pub mod message; // frames become messages
pub mod origin; // which pages may connect
pub mod proxy; // whom a trusted proxy speaks for
pub mod utf8; // UTF-8 across fragments

mod buffer; // growth that keeps to a bound
mod refused; // what a peer is told with a refusal

pub use close::{CloseReason, Refusal};
pub use deflate::Inflater;
pub use handshake::{Endpoints, HandshakeError, Role, Token, Upgrade};
pub use http::{BodyDecoder, BodyFraming, HeadParser, HttpError, Method, RequestHead};
pub use message::{Assembler, Incoming, Intake, WireError};
pub use origin::OriginPolicy;
pub use refused::Refused;
