//! The servers that the generator can drive, and what differs between them: paths, tokens, the
//! protocol, whether they greet, whether they acknowledge. All of them take the same events.

use clap::ValueEnum;

use crate::payload::user_name;
use crate::protocol::Protocol;
use crate::token::Minter;

/// The dialect in which a Sightline viewer connects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Dialect {
    /// `/keen`: subscribed to the own stream from the start.
    Keen,
    /// `/observatory?subscribe=all`.
    Observatory,
}

/// A server's way of being connected to.
pub(crate) enum Target {
    /// NATS over WebSocket, with a subject for each user; it asks nobody for a token.
    Nats,
    /// The gateway: tokens, a greeting, one publisher for all users, acknowledgements.
    Sightline {
        /// The viewers' dialect.
        dialect: Dialect,
        /// Mints every connection's token.
        minter: Minter,
    },
    /// Any server with a topic in its URL (`/ws?topic=uN`, `/pub?topic=uN`) that passes a text
    /// message on as it is; a publisher belongs to one topic.
    Topic {
        /// Adds `&token=` where the server wants one.
        minter: Option<Minter>,
    },
}

impl Target {
    /// The name on the command line and in reports.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Sightline { .. } => "sightline",
            Self::Topic { .. } => "topic",
        }
    }

    /// What its connections speak, where nothing else is asked for.
    pub(crate) fn protocol(&self) -> Protocol {
        match self {
            Self::Nats => Protocol::Nats,
            Self::Sightline { .. } | Self::Topic { .. } => Protocol::Events,
        }
    }

    /// Path and query of a connection that gets `user`'s events.
    pub(crate) fn subscriber_path(&self, user: u32) -> String {
        let name = user_name(user);
        match self {
            Self::Nats => "/".to_owned(),
            Self::Sightline {
                dialect: Dialect::Keen,
                minter,
            } => {
                format!("/keen?token={}", minter.mint(&name, "subscribe"))
            }
            Self::Sightline {
                dialect: Dialect::Observatory,
                minter,
            } => {
                let token = minter.mint(&name, "subscribe");
                format!("/observatory?token={token}&subscribe=all")
            }
            Self::Topic {
                minter: Some(minter),
            } => {
                format!("/ws?topic={name}&token={}", minter.mint(&name, "subscribe"))
            }
            Self::Topic { minter: None } => format!("/ws?topic={name}"),
        }
    }

    /// Path and query of publisher `index` (of as many as [`Target::publishers`] says).
    pub(crate) fn publisher_path(&self, index: u32) -> String {
        let name = user_name(index);
        match self {
            Self::Nats => "/".to_owned(),
            Self::Sightline { minter, .. } => {
                format!(
                    "/v1/publish?token={}",
                    minter.mint(PUBLISHER, "publish:any")
                )
            }
            Self::Topic {
                minter: Some(minter),
            } => {
                format!("/pub?topic={name}&token={}", minter.mint(&name, "publish"))
            }
            Self::Topic { minter: None } => format!("/pub?topic={name}"),
        }
    }

    /// The token of a publisher that sends requests, where the server takes any.
    pub(crate) fn publisher_token(&self) -> Option<String> {
        match self {
            Self::Sightline { minter, .. } => Some(minter.mint(PUBLISHER, "publish:any")),
            Self::Nats | Self::Topic { .. } => None,
        }
    }

    /// How many publisher connections `users` users need; `wanted` where that is free. The
    /// events of user U go to publisher U modulo their number.
    pub(crate) fn publishers(&self, users: u32, wanted: u32) -> u32 {
        match self {
            Self::Nats | Self::Sightline { .. } => wanted.clamp(1, users),
            Self::Topic { .. } => users,
        }
    }

    /// Whether a viewer is ready only when it has got `connection_established`.
    pub(crate) fn greets(&self) -> bool {
        matches!(self, Self::Sightline { .. })
    }

    /// Whether every published message is acknowledged.
    pub(crate) fn acknowledges(&self) -> bool {
        matches!(self, Self::Sightline { .. })
    }
}

/// The `sub` of the gateway's publisher.
const PUBLISHER: &str = "loadgen";

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn minter() -> Minter {
        Minter::new(b"secret", "enterprise", Duration::from_secs(60))
    }

    fn check(target: &Target, subscriber: &str, publisher: &str, publishers: u32) {
        let (path, query) = (target.subscriber_path(3), target.publisher_path(3));
        assert!(path.starts_with(subscriber), "{path}");
        assert!(query.starts_with(publisher), "{query}");
        assert_eq!(target.publishers(100, 2), publishers);
    }

    #[test]
    fn each_target_has_its_paths() {
        let keen = Target::Sightline {
            dialect: Dialect::Keen,
            minter: minter(),
        };
        check(&keen, "/keen?token=ey", "/v1/publish?token=ey", 2);
        let observatory = Target::Sightline {
            dialect: Dialect::Observatory,
            minter: minter(),
        };
        check(
            &observatory,
            "/observatory?token=ey",
            "/v1/publish?token=ey",
            2,
        );
        assert!(observatory.subscriber_path(3).ends_with("&subscribe=all"));
        let open = Target::Topic { minter: None };
        check(&open, "/ws?topic=u000003", "/pub?topic=u000003", 100);
        let closed = Target::Topic {
            minter: Some(minter()),
        };
        check(
            &closed,
            "/ws?topic=u000003&token=ey",
            "/pub?topic=u000003&token=ey",
            100,
        );
        check(&Target::Nats, "/", "/", 2);
    }
}
