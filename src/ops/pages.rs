//! Which pages there are, who may see them, and the two that say nothing but yes or no.

use super::Answer;

/// A page for operators, all for GET and HEAD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Page {
    /// `/health`
    Health,
    /// `/livez`
    Livez,
    /// `/metrics`
    Metrics,
    /// `/readyz`
    Readyz,
    /// `/v1/stats`
    Stats,
}

impl Page {
    /// The page at a path (without query), if one is there.
    pub fn from_path(path: &str) -> Option<Self> {
        match path {
            "/health" => Some(Self::Health),
            "/livez" => Some(Self::Livez),
            "/metrics" => Some(Self::Metrics),
            "/readyz" => Some(Self::Readyz),
            "/v1/stats" => Some(Self::Stats),
            _ => None,
        }
    }

    /// Whether a request that came through `door` must bring a token with permission `admin`.
    pub fn needs_admin(self, door: Door) -> bool {
        door == Door::Public && !matches!(self, Self::Livez | Self::Readyz)
    }
}

/// Through which listener a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Door {
    /// One of `listen` that only this machine reaches.
    Local,
    /// `ops.listen`: the operator's own.
    Ops,
    /// One of `listen` that others reach.
    Public,
}

/// `/livez`: the process answers.
pub fn livez() -> Answer {
    Answer::text(200, "ok\n")
}

/// `/readyz`: new connections are welcome; 503 while draining.
pub fn readyz(is_draining: bool) -> Answer {
    if is_draining {
        Answer::text(503, "draining\n")
    } else {
        Answer::text(200, "ok\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_public_door_asks_for_admin_and_not_for_liveness() {
        let check = |path: &str, expected: [bool; 3]| {
            let page = Page::from_path(path).expect("a page");
            let needs = [Door::Local, Door::Ops, Door::Public].map(|door| page.needs_admin(door));
            assert_eq!(needs, expected, "{path}");
        };
        check("/livez", [false, false, false]);
        check("/readyz", [false, false, false]);
        check("/health", [false, false, true]);
        check("/metrics", [false, false, true]);
        check("/v1/stats", [false, false, true]);
        for path in ["", "/", "/livez/", "/Metrics", "/v1/events"] {
            assert_eq!(Page::from_path(path), None, "{path}");
        }
    }

    #[test]
    fn readiness_ends_with_the_drain() {
        assert_eq!(readyz(false).status, 200);
        assert_eq!(readyz(true).status, 503);
        assert_eq!(livez().status, 200);
    }
}
