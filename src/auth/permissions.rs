//! The permissions that a token may carry.

use std::fmt;
use std::str::FromStr;

/// One thing that a token allows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Permission {
    /// Use `/v1/admin/*` and the operating pages.
    Admin,
    /// Publish to the token's own user and projects.
    Publish,
    /// Publish to any user and project.
    PublishAny,
    /// View the own stream and the token's projects.
    Subscribe,
}

impl Permission {
    /// All, in the order in which they are written.
    pub const ALL: [Self; 4] = [
        Self::Admin,
        Self::Publish,
        Self::PublishAny,
        Self::Subscribe,
    ];

    /// The name in a token.
    pub fn name(self) -> &'static str {
        match self {
            Self::Admin => "admin",
            Self::Publish => "publish",
            Self::PublishAny => "publish:any",
            Self::Subscribe => "subscribe",
        }
    }

    fn bit(self) -> u8 {
        1 << self as u8
    }
}

impl FromStr for Permission {
    type Err = UnknownPermission;

    /// Reads a name; `read` and `write` are taken as `subscribe` and `publish`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        match name {
            "admin" => Ok(Self::Admin),
            "publish" | "write" => Ok(Self::Publish),
            "publish:any" => Ok(Self::PublishAny),
            "subscribe" | "read" => Ok(Self::Subscribe),
            _ => Err(UnknownPermission),
        }
    }
}

/// A permission's name was none that exists; the operator's fault on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no such permission; use subscribe, publish, publish:any or admin")]
pub struct UnknownPermission;

/// A set of permissions.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Permissions(u8);

impl Permissions {
    /// None at all.
    pub const NONE: Self = Self(0);

    /// Whether `permission` is in the set.
    pub fn has(self, permission: Permission) -> bool {
        self.0 & permission.bit() != 0
    }

    /// Those in the set, in the order of [`Permission::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Permission> {
        Permission::ALL
            .into_iter()
            .filter(move |permission| self.has(*permission))
    }
}

impl Default for Permissions {
    /// What a token that names none has: `subscribe`.
    fn default() -> Self {
        Self::from_iter([Permission::Subscribe])
    }
}

impl FromIterator<Permission> for Permissions {
    fn from_iter<I: IntoIterator<Item = Permission>>(permissions: I) -> Self {
        let bits = permissions.into_iter().map(Permission::bit);
        Self(bits.fold(0, |set, bit| set | bit))
    }
}

impl fmt::Debug for Permissions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set()
            .entries(self.iter().map(Permission::name))
            .finish()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn every_permission_is_read_back_from_its_name() {
        for permission in Permission::ALL {
            assert_eq!(permission.name().parse(), Ok(permission));
            let alone = Permissions::from_iter([permission]);
            assert_eq!(alone.iter().collect::<Vec<_>>(), [permission]);
        }
    }

    #[test]
    fn read_and_write_are_the_older_names() {
        assert_eq!("read".parse(), Ok(Permission::Subscribe));
        assert_eq!("write".parse(), Ok(Permission::Publish));
        for unknown in ["", "Admin", "publish:", "publish:any ", "*"] {
            assert_eq!(unknown.parse::<Permission>(), Err(UnknownPermission));
        }
    }

    #[test]
    fn a_token_that_names_none_may_subscribe_only() {
        let set = Permissions::default();
        assert_eq!(set.iter().collect::<Vec<_>>(), [Permission::Subscribe]);
        assert_eq!(Permissions::NONE.iter().count(), 0);
    }
}
