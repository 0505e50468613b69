//! HTTP on a connection: heads become routes, tokens are read, upgrades are verified. One request at a
//! time: what is pipelined behind it waits in the spill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;

use tracing::{debug, error};

use crate::auth::{self, Claims, TokenError};
use crate::dialect::ConnectQuery;
use crate::event::{BodyKind, Strictness};
use crate::failpoint;
use crate::hub::keyed::Key;
use crate::hub::mail::Ack;
use crate::hub::publisher::Terms;
use crate::hub::{Now, refusal_of};
use crate::limits::{ADMIN_BODY_BYTES_MAX, BODY_BYTES_MAX, HEAD_TIMEOUT_MS};
use crate::wire::close::Refusal;
use crate::wire::handshake::{Token, is_upgrade};
use crate::wire::proxy::Origination;
use crate::wire::{BodyFraming, Method, Refused, RequestHead, Role, Upgrade};

use super::admin::Route;
use super::admission::{AdmissionError, Class};
use super::answer::Framing;
use super::connection::{Door, HttpState, Protocol, Purpose};
use super::event_loop::Core;
use super::handoff::{Request, Verified, Wishes};

/// Where a request comes from, as far as it concerns us.
pub(super) struct Caller {
    /// The page's origin, which the policy allows.
    pub origin: Option<Box<str>>,
}

impl Core {
    /// Bytes of a connection that speaks HTTP. Returns how many it took; 0: more are needed, or an
    /// answer comes first.
    pub(super) fn handle_http(&mut self, now: Now, key: Key, bytes: &[u8]) -> usize {
        let Some(http) = self.http(key) else { return 0 };
        match &mut http.state {
            HttpState::Waiting(_) => 0,
            // What follows a refusal is not a request: it is read and dropped until the peer ends.
            HttpState::Closing => bytes.len(),
            HttpState::Body(_) => self.handle_body_bytes(now, key, bytes),
            HttpState::Head => {
                let parsed = catch_unwind(AssertUnwindSafe(|| {
                    failpoint::panic_at("head", bytes);
                    http.parser.handle_bytes(bytes)
                }));
                let Ok(parsed) = parsed else {
                    let refused = self.handle_request_panic();
                    self.refuse(now, key, &refused, Framing::default());
                    return bytes.len();
                };
                match parsed {
                    Ok(None) => {
                        self.begin_head(now, key);
                        0
                    }
                    Ok(Some((taken, head))) => {
                        self.stats.counters.http_requests.add(1);
                        self.route(now, key, head);
                        taken
                    }
                    Err(error) => {
                        self.refuse(
                            now,
                            key,
                            &Refused::new(error.refusal(), error.to_string()),
                            Framing::default(),
                        );
                        bytes.len()
                    }
                }
            }
        }
    }

    // The first bytes of a further request start its time.
    fn begin_head(&mut self, now: Now, key: Key) {
        let Some(connection) = self.connections.find(key) else {
            return;
        };
        let Protocol::Http(http) = &connection.protocol else {
            return;
        };
        if http.deadline_ms > now.ms() + HEAD_TIMEOUT_MS {
            self.set_deadline(key, now.ms() + HEAD_TIMEOUT_MS);
        }
    }

    fn route(&mut self, now: Now, key: Key, head: RequestHead) {
        // A peer's headers are read in there before anything is changed.
        let caller = catch_unwind(AssertUnwindSafe(|| self.caller(now, key, &head)));
        let caller = match caller.unwrap_or_else(|_| Err(self.handle_request_panic())) {
            Ok(caller) => caller,
            Err(refused) => return self.refuse(now, key, &refused, Framing::default()),
        };
        let door = self
            .connections
            .find(key)
            .map_or(Door::Public, |connection| connection.door);
        let path = head.path();
        if head.method() == Method::Options && path.starts_with("/v1/") {
            return self.answer_preflight(now, key, &head, &caller);
        }
        if self.options.pages.needs_admin(path).is_some() {
            return self.answer_page(now, key, &head, &caller, door);
        }
        if door == Door::Ops {
            let refused = Refused::new(Refusal::NotFound, "no such path on ops.listen");
            return self.refuse(now, key, &refused, Framing::default());
        }
        match path {
            "/v1/events" => self.handle_post(now, key, head, &caller),
            "/" | "/keen" | "/observatory" | "/ws" | "/v1/publish" => {
                self.handle_upgrade(now, key, &head)
            }
            _ => match path.strip_prefix("/v1/admin/") {
                Some(rest) => {
                    let route = Route::of(head.method(), rest);
                    self.handle_admin(now, key, head, &caller, route);
                }
                None if is_upgrade(&head) => self.handle_upgrade(now, key, &head),
                None => {
                    let refused = Refused::new(Refusal::NotFound, "no such path");
                    self.refuse_request(now, key, head, &caller, refused);
                }
            },
        }
    }

    // Origin and forwarded address, the same for all requests.
    fn caller(&mut self, now: Now, key: Key, head: &RequestHead) -> Result<Caller, Refused> {
        let options = &self.options;
        let Some(connection) = self.connections.find_mut(key) else {
            return Ok(Caller { origin: None });
        };
        let (mut is_secure, mut host) = (connection.transport.is_tls(), head.host());
        if let Protocol::Http(http) = &mut connection.protocol
            && let Some(address) = http.origin.address
        {
            let from =
                Origination::resolve(head, address.ip(), is_secure, &options.trusted_proxies);
            (is_secure, host) = (from.is_secure, from.host);
            if from.client != address.ip().to_canonical() {
                http.origin.forwarded = Some(from.client);
                connection
                    .ticket
                    .handle_client_ip(from.client, now.ms())
                    .map_err(not_admitted)?;
            }
        }
        let origin = head.header("origin");
        failpoint::panic_at("origin", origin.unwrap_or_default().as_bytes());
        if !options.origins.allows(origin, host, is_secure) {
            let message = "this origin may not connect: add it to origins";
            return Err(Refused::new(Refusal::OriginRefused, message));
        }
        Ok(Caller {
            origin: origin.map(Into::into),
        })
    }

    fn handle_upgrade(&mut self, now: Now, key: Key, head: &RequestHead) {
        let endpoints = self.options.endpoints;
        let upgrade = match self.guarded(|| Upgrade::from_head(head, endpoints)) {
            Err(refused) => return self.refuse_upgrade(now, key, None, &refused),
            Ok(upgrade) => upgrade,
        };
        let mut upgrade = match upgrade {
            Ok(upgrade) => upgrade,
            Err(error) => {
                let refused = Refused::new(error.refusal(), error.to_string());
                return self.refuse_upgrade(now, key, None, &refused);
            }
        };
        if !self.options.is_compression_enabled {
            upgrade.deflate = None;
        }
        match self.verify_upgrade(now, key, head, &upgrade) {
            Ok((claims, wishes)) => {
                let verified = Verified {
                    claims: Rc::new(claims),
                    token: Box::default(),
                    request: Request::Upgrade(Box::new(upgrade), Box::new(wishes)),
                };
                self.go_on(now, key, verified);
            }
            Err(refused) => self.refuse_upgrade(now, key, Some(&upgrade), &refused),
        }
    }

    fn verify_upgrade(
        &mut self,
        now: Now,
        key: Key,
        head: &RequestHead,
        upgrade: &Upgrade,
    ) -> Result<(Claims, Wishes), Refused> {
        if let Some(connection) = self.connections.find(key) {
            connection
                .ticket
                .handle_handshake(now.ms())
                .map_err(not_admitted)?;
        }
        let token = upgrade
            .token
            .as_ref()
            .map_err(|refusal| missing_token(*refusal))?;
        let claims = self
            .guarded(|| self.hub.trust().read(now, token.as_str()))?
            .map_err(bad_token)?;
        let (is_allowed, class, permission) = match upgrade.role {
            // Whoever may watch may hear itself; tiers are for viewers alone.
            Role::Echo => (auth::may_subscribe(&claims), Class::Publisher, "subscribe"),
            Role::Publisher => (auth::may_publish(&claims), Class::Publisher, "publish"),
            Role::Viewer(_) => (auth::may_subscribe(&claims), Class::Viewer, "subscribe"),
        };
        if !is_allowed {
            return Err(Refused::new(
                Refusal::Forbidden,
                format!("the token lacks permission {permission}"),
            ));
        }
        let query = self.guarded(|| {
            failpoint::panic_at("query", head.query().as_bytes());
            ConnectQuery::parse(head.query_pairs())
        })?;
        let query = query.map_err(|error| {
            let refusal = if error.code() == "INVALID_CURSOR" {
                Refusal::InvalidCursor
            } else {
                Refusal::BadRequest
            };
            Refused::new(refusal, error.to_string())
        })?;
        let strictness = match upgrade.role {
            Role::Publisher => self.guarded(|| strictness(head))??,
            Role::Echo | Role::Viewer(_) => Strictness::Lenient,
        };
        if let Some(connection) = self.connections.find_mut(key) {
            connection
                .ticket
                .handle_authenticated(class, now.ms())
                .map_err(not_admitted)?;
        }
        Ok((claims, Wishes { query, strictness }))
    }

    fn handle_post(&mut self, now: Now, key: Key, head: RequestHead, caller: &Caller) {
        if head.method() != Method::Post {
            let refused = Refused::new(Refusal::MethodNotAllowed, "events are published by POST");
            return self.refuse_request(now, key, head, caller, refused);
        }
        if self.admission.is_draining() {
            let refused = Refused::new(
                Refusal::Draining,
                "the server is shutting down: send it again in a moment",
            );
            return self.refuse_request(now, key, head, caller, refused);
        }
        match self.verify_request(now, key, &head) {
            Ok((claims, token)) if auth::may_publish(&claims) => {
                if let Some(connection) = self.connections.find_mut(key) {
                    // Requests are not seats: this cannot be refused.
                    let _ = connection
                        .ticket
                        .handle_authenticated(Class::Requests, now.ms());
                }
                let verified = Verified {
                    claims,
                    token,
                    request: Request::Post(Box::new(head)),
                };
                self.go_on(now, key, verified);
            }
            Ok(_) => {
                let refused =
                    Refused::new(Refusal::Forbidden, "the token lacks permission publish");
                self.refuse_request(now, key, head, caller, refused);
            }
            Err(refused) => self.refuse_request(now, key, head, caller, refused),
        }
    }

    /// A POST of events whose token is good, on its publisher's core: its body is collected.
    pub(super) fn begin_post(&mut self, now: Now, key: Key, head: RequestHead, claims: Rc<Claims>) {
        let asked = body_kind(&head).and_then(|kind| Ok((kind, terms(&head)?)));
        let purpose = match asked {
            Ok((kind, terms)) => Purpose::Publish {
                claims,
                kind,
                terms,
            },
            Err(refused) => Purpose::Discard(Box::new(refused)),
        };
        self.begin_body(now, key, head, purpose, BODY_BYTES_MAX);
    }

    fn handle_admin(
        &mut self,
        now: Now,
        key: Key,
        head: RequestHead,
        caller: &Caller,
        route: Result<Route, Refused>,
    ) {
        let purpose = match self.verify_request(now, key, &head) {
            Ok((claims, _)) if auth::is_admin(&claims) => route.map(Purpose::Admin),
            Ok(_) => Err(Refused::new(
                Refusal::Forbidden,
                "the token lacks permission admin",
            )),
            Err(refused) => Err(refused),
        };
        match purpose {
            Ok(purpose) => self.begin_body(now, key, head, purpose, ADMIN_BODY_BYTES_MAX),
            Err(refused) => self.refuse_request(now, key, head, caller, refused),
        }
    }

    /// Reads what a peer sent with code that touches nothing else: a panic there is counted and ends
    /// the request, and nobody else notices.
    pub(super) fn guarded<T>(&self, read: impl FnOnce() -> T) -> Result<T, Refused> {
        catch_unwind(AssertUnwindSafe(read)).map_err(|_| self.handle_request_panic())
    }

    /// A panic while reading a request: the answer to it.
    pub(super) fn handle_request_panic(&self) -> Refused {
        self.stats.counters.panics.add(1);
        error!("a panic while reading a request: it is refused");
        Refused::new(
            Refusal::Internal,
            "this request could not be read: it is our fault",
        )
    }

    // The token of a request that is no upgrade; the previous request's is not verified again.
    pub(super) fn verify_request(
        &mut self,
        now: Now,
        key: Key,
        head: &RequestHead,
    ) -> Result<(Rc<Claims>, Box<str>), Refused> {
        let token = self
            .guarded(|| Token::from_head(head))?
            .map_err(missing_token)?;
        let known = self
            .http(key)
            .and_then(|http| http.known.clone())
            .filter(|(text, _)| **text == *token.as_str());
        let claims = match known {
            Some((_, claims)) => self.hub.trust().check(now, &claims).map(|()| claims),
            None => self
                .guarded(|| self.hub.trust().read(now, token.as_str()))?
                .map(Rc::new),
        };
        Ok((claims.map_err(bad_token)?, token.as_str().into()))
    }

    // Refuses a request that may have a body: it is read first, so that the connection is kept.
    fn refuse_request(
        &mut self,
        now: Now,
        key: Key,
        head: RequestHead,
        caller: &Caller,
        refused: Refused,
    ) {
        if head.framing() == BodyFraming::None {
            let framing = Framing::of(&head, caller.origin.as_deref());
            return self.refuse(now, key, &refused, framing);
        }
        self.begin_body(
            now,
            key,
            head,
            Purpose::Discard(Box::new(refused)),
            BODY_BYTES_MAX,
        );
    }
}

fn body_kind(head: &RequestHead) -> Result<BodyKind, Refused> {
    let media_type = head.header("content-type").unwrap_or("application/json");
    let essence = media_type.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(BodyKind::Json)
    } else if essence.eq_ignore_ascii_case("application/x-ndjson") {
        Ok(BodyKind::Ndjson)
    } else {
        let message = "Content-Type is neither application/json (an event, or an array of them) nor application/x-ndjson (one a line)";
        Err(Refused::new(Refusal::UnsupportedMediaType, message))
    }
}

fn terms(head: &RequestHead) -> Result<Terms, Refused> {
    Ok(Terms {
        ack: ack(head)?,
        strictness: strictness(head)?,
    })
}

// What the answer waits for.
fn ack(head: &RequestHead) -> Result<Ack, Refused> {
    asked(
        head,
        "ack",
        [("durable", Ack::Durable), ("received", Ack::Received)],
    )
}

// What becomes of known types' events of another shape.
fn strictness(head: &RequestHead) -> Result<Strictness, Refused> {
    asked(
        head,
        "strict",
        [("0", Strictness::Lenient), ("1", Strictness::Strict)],
    )
}

// Which of two words the query has; the first where it has none. The last one counts.
fn asked<T: Copy>(head: &RequestHead, name: &str, words: [(&str, T); 2]) -> Result<T, Refused> {
    let mut values = head.query_pairs().filter(|(key, _)| key == name);
    values.try_fold(words[0].1, |_, (_, value)| {
        let word = words.iter().find(|(word, _)| *word == value);
        word.map(|(_, meaning)| *meaning).ok_or_else(|| {
            let [(one, _), (other, _)] = words;
            let message = format!("{name} is neither {one} nor {other}");
            Refused::new(Refusal::BadRequest, message)
        })
    })
}

fn missing_token(refusal: Refusal) -> Refused {
    let message = match refusal {
        Refusal::TokenMissing => {
            "no token was given: send Authorization: Bearer, subprotocol bearer.T, or ?token="
        }
        _ => "the token is not valid",
    };
    Refused::new(refusal, message)
}

fn bad_token(error: TokenError) -> Refused {
    debug!(%error, "refused a token");
    Refused::new(refusal_of(error), error.message())
}

pub(super) fn not_admitted(error: AdmissionError) -> Refused {
    let (refusal, retry_after_s) = match error {
        AdmissionError::Draining => (Refusal::Draining, 5),
        AdmissionError::IpLimit => (Refusal::IpLimit, 5),
        AdmissionError::NodeFull => (Refusal::NodeFull, 5),
        AdmissionError::RateLimited { retry_after_ms } => {
            (Refusal::RateLimited, retry_after_ms.div_ceil(1_000))
        }
    };
    Refused {
        refusal,
        message: error.to_string().into(),
        retry_after_s: Some(retry_after_s),
    }
}
