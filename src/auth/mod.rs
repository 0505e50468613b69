//! Who a peer is and what it may do: keys, tokens, grants, revocation.
//!
//! Pure: bytes and `now` come in, values go out; no file, clock, socket or randomness. The
//! `jsonwebtoken` crate reads keys and does the signatures; every rule about headers, claims and
//! time stands here, because its `decode` reads the system clock, ignores `crit`, and lets a
//! token without the required `iss` pass unless told otherwise.

mod claims;
mod grants;
mod json;
mod jwks;
mod keys;
mod mint;
mod permissions;
mod revocation;
mod revoke_request;
mod token;

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod test_keys;

pub use claims::Claims;
pub use grants::{is_admin, may_publish, may_publish_event, may_see_project, may_subscribe};
pub use keys::{KeyError, KeySet, trim_secret};
pub use mint::{MintError, MintOptions, SigningKey, mint};
pub use permissions::{Permission, Permissions, UnknownPermission};
pub use revocation::{Decision, Revocation, Revocations, RevocationsFull, Target};
pub use revoke_request::{RevokeError, RevokeRequest};
pub use token::{InvalidToken, TokenError, Verifier};
