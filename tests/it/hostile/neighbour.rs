//! One who does nothing wrong, on the core where somebody else does.

use serde_json::json;
use sightline::auth::Permission;

use crate::harness::{Publisher, Server, Token, Viewer, kind, request};

/// A viewer, and the producer of its events, who were there before the trouble began.
pub struct Neighbour<'s> {
    server: &'s Server,
    user: String,
    viewer: Viewer,
    publisher: Publisher,
    published: u64,
}

impl<'s> Neighbour<'s> {
    /// On the only core of `server`.
    pub fn watch(server: &'s Server) -> Self {
        Self::of(server, "neighbour")
    }

    /// On the core that owns `user`.
    pub fn of(server: &'s Server, user: &str) -> Self {
        let publisher = server.mint(&Token::of(user, &[]).with(&[Permission::PublishAny]));
        Self::with_tokens(server, user, &server.viewer_token(user, &[]), &publisher)
    }

    /// The same, where tokens are not signed with the harness's secret.
    pub fn with_tokens(server: &'s Server, user: &str, viewer: &str, publisher: &str) -> Self {
        Self {
            server,
            user: user.into(),
            viewer: Viewer::open(server, "/observatory?subscribe=all", viewer),
            publisher: Publisher::open(server, publisher),
            published: 0,
        }
    }

    /// Whoever is in is served: an event that is published comes next, in order and once, and a
    /// ping is answered.
    pub fn assert_served(&mut self) {
        self.published += 1;
        let (user, n) = (&self.user, self.published);
        let event = json!({"event_type": "beside", "user_id": user, "data": {"n": n}});
        self.publisher.say(&event);
        assert_eq!(self.publisher.settle(n), [] as [serde_json::Value; 0]);
        let mut message = self.viewer.next();
        while kind(&message) == "cursor" {
            message = self.viewer.next();
        }
        assert_eq!(kind(&message), "beside", "{message}");
        assert_eq!(
            (&message["seq"], &message["data"]["n"]),
            (&json!(n), &json!(n))
        );
        let mut more = self.viewer.drain();
        more.retain(|message| kind(message) != "cursor");
        assert_eq!(more, [] as [serde_json::Value; 0]);
    }

    /// The same, and who comes now is let in.
    pub fn assert_undisturbed(&mut self) {
        self.assert_served();
        let mut http = self.server.http();
        http.send(&request("GET", "/livez", &[], b""));
        assert_eq!(http.receive().status, 200);
    }
}
