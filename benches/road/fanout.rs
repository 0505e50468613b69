//! A hub's part of a delivery: events of one publisher are parsed, numbered, encoded, put into the
//! outbox of each viewer and taken out as the engine does after a write. All that is missing of a
//! delivery is the socket.

use std::collections::HashMap;
use std::hint::black_box;
use std::io::IoSlice;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use sightline::agents::{self, StateOptions};
use sightline::auth::{Claims, KeySet, Permission, Permissions, Revocations, Verifier};
use sightline::dialect::{ConnectQuery, SubscribeScope};
use sightline::event::{Dialect, Epoch, LogIdentity, Partition, RecordCodec, Seq, Strictness};
use sightline::hub::frames::Variant;
use sightline::hub::keyed::Key;
use sightline::hub::outbox::Outbox;
use sightline::hub::peers::Arrival;
use sightline::hub::{
    Bounds, Compression, Deliver, Hub, Limits, LogProgress, LogStatus, Now, Options, Trust,
    ViewerRequest, Work,
};
use sightline::limits::IOVECS_MAX;

use crate::case::{Case, Run};

/// Events of a turn in which a busy publisher's socket is read: frames that are written together.
const BUSY: usize = 32;

pub fn cases() -> Vec<Case> {
    let crowd = |viewers: usize| {
        let name = format!("1 user x {viewers}");
        Case::of_things("fanout", name, viewers, move || run(1, viewers, 1))
    };
    let mut cases: Vec<Case> = [1, 100, 1_000, 10_000].map(crowd).into();
    cases.push(Case::of_things("fanout", "1000 users x 1", 1, || {
        run(1_000, 1, 1)
    }));
    let name = format!("1 user x 100, {BUSY} events a turn");
    cases.push(Case::of_things("fanout", name, 100 * BUSY, || {
        run(1, 100, BUSY)
    }));
    cases
}

/// A turn in which so many events come, for one user after the other, each with so many viewers.
fn run(users: usize, viewers: usize, events: usize) -> Run {
    let mut node = Node::new();
    let names: Vec<String> = (0..users).map(|n| format!("user-{n}")).collect();
    for name in &names {
        (0..viewers).for_each(|_| node.connect(name));
    }
    node.turn();
    let texts: Vec<Bytes> = names.iter().map(|name| event(name)).collect();
    let mut turn = 0;
    Box::new(move || {
        for _ in 0..events {
            node.publish(texts[turn % texts.len()].clone());
            turn += 1;
        }
        let frames = node.turn();
        assert_eq!(frames, (viewers * events) as u64, "each gets each");
    })
}

/// An event of a user alone, without id, which makes a frame of 415 bytes or so: as loadgen
/// publishes.
fn event(user: &str) -> Bytes {
    let pad = "x".repeat(260);
    let text = format!(
        r#"{{"event_type":"tool_execution","user_id":"{user}","session_id":"s-{user}","timestamp":1795341600250,"data":{{"pad":"{pad}"}}}}"#
    );
    Bytes::from(text)
}

/// A hub, and what the engine would be around it. Its log has everything at once.
struct Node {
    hub: Hub,
    publisher: Key,
    now: Now,
    connections: u64,
    appended: u64,
}

impl Node {
    fn new() -> Self {
        let mut hub = Hub::new(options(), trust(), Arc::default()).with_bounds(BOUNDS);
        hub.handle_log_progress(START, progress(0));
        let publisher = hub.handle_publisher(START, arrival(0, PUBLISHER), Strictness::Lenient);
        Self {
            hub,
            publisher: publisher.expect("there is room"),
            now: START,
            connections: 0,
            appended: 0,
        }
    }

    fn connect(&mut self, user: &str) {
        self.connections += 1;
        let request = ViewerRequest {
            arrival: arrival(self.connections, user),
            variant: Variant::plain(Dialect::Keen),
            query: ConnectQuery {
                subscribe: SubscribeScope::All,
                ..ConnectQuery::default()
            },
        };
        let admitted = self.hub.handle_viewer(self.now, request);
        assert!(matches!(admitted, Some(Ok(_))), "there is room");
    }

    fn publish(&mut self, text: Bytes) {
        let hub = &mut self.hub;
        let publisher = hub.handle_publisher_message(self.now, self.publisher, text);
        let publisher = publisher.expect("it is connected");
        assert_eq!(hub.work(self.now, publisher), Work::Idle, "there is room");
    }

    /// The steps of the engine's turn that follow the reading. Returns how many frames of events
    /// viewers were sent.
    fn turn(&mut self) -> u64 {
        self.now.monotonic_ns += 1_000_000;
        self.now.wall_ms += 1;
        self.hub.handle_turn_end(self.now, 0);
        while let Some(append) = self.hub.poll_append(self.now) {
            self.appended = append.through;
            black_box(append);
        }
        assert_eq!(self.hub.poll_read(), None, "nothing was missed");
        // As the log would in the turn after: the publisher is told.
        self.hub
            .handle_log_progress(self.now, progress(self.appended));
        while self.hub.peers_mut().poll_deadline().is_some() {}
        self.write()
    }

    fn write(&mut self) -> u64 {
        let mut frames = 0;
        while let Some(key) = self.hub.peers_mut().poll_dirty() {
            let peer = self.hub.peers().find(key).expect("it is connected");
            let bytes = offered(peer.outbox());
            self.hub
                .peers_mut()
                .handle_written(self.now, key, bytes, |batch| {
                    frames += batch.metas.len() as u64;
                });
        }
        frames
    }
}

/// The bytes that a write would be given.
fn offered(outbox: &Outbox) -> usize {
    if let Some(bytes) = outbox.only_piece() {
        return black_box(bytes).len();
    }
    let mut slices = [IoSlice::new(&[]); IOVECS_MAX];
    let filled = outbox.io_slices(&mut slices);
    black_box(&slices[..filled])
        .iter()
        .map(|slice| slice.len())
        .sum()
}

const PUBLISHER: &str = "producer";

const START: Now = Now {
    monotonic_ns: 1_000_000_000,
    wall_ms: 1_795_341_600_000,
};

/// A ring that is full after few events, so that each displaces one as on a node that has run for
/// long.
const BOUNDS: Bounds = Bounds {
    ring_bytes_max: 32 * 1024,
    ..Bounds::USUAL
};

fn progress(through: u64) -> LogProgress {
    LogProgress {
        written: through,
        durable: through,
        status: LogStatus::Writing,
        reserve: Seq::MAX,
    }
}

fn arrival(id: u64, user: &str) -> Arrival {
    let permissions = [
        Permission::PublishAny,
        Permission::Publish,
        Permission::Subscribe,
    ];
    let claims = Claims {
        sub: user.into(),
        exp_s: u64::from(u32::MAX),
        iat_s: None,
        tier: None,
        projects: [].into(),
        permissions: Permissions::from_iter(permissions),
        session: None,
        jti: None,
    };
    Arrival {
        connection: Key::from_u64(id),
        claims: Rc::new(claims),
        id,
        remote: None,
        response: b"HTTP/1.1 101 Switching Protocols\r\n\r\n".to_vec(),
    }
}

fn trust() -> Trust {
    let keys = KeySet::from_secret(b"a secret of the benches, and long enough");
    let verifier = Verifier {
        keys: keys.expect("it is long enough"),
        issuer: None,
        audience: None,
    };
    Trust {
        verifier: Arc::new(verifier),
        revocations: Revocations::default(),
    }
}

fn options() -> Options {
    let identity = LogIdentity {
        epoch: Epoch(1),
        secret: [2, 3],
    };
    Options {
        core: 0,
        partition: Partition::new(1, 7),
        codec: RecordCodec::new(identity),
        start: Seq(0),
        deliver: Deliver::Eager,
        seed: 7,
        limits: LIMITS,
        tiers: HashMap::from([("individual".into(), usize::MAX)]),
        compression: Compression {
            level: 1,
            threshold_bytes: 1_024,
        },
        heartbeat_interval_ms: 30_000,
        heartbeat_grace_ms: 5_000,
        conversation_silence_ms: 60_000,
        states: StateOptions {
            phases: ["EXPLORE", "PLAN"].map(String::from).into(),
            bounds: agents::Bounds {
                nodes_max: 1_000,
                finished_trees_max: 100,
                finished_max_ms: 24 * 60 * 60 * 1_000,
            },
            seed: 7,
        },
    }
}

/// What nobody here comes near to.
const LIMITS: Limits = Limits {
    messages_per_minute: 100,
    messages_per_second: 20,
    message_bytes_max: 16_384,
    subscriptions_max: 3,
    outbox_bytes_max: 1 << 24,
    outbox_bytes_total: 1 << 32,
    publish_bytes_per_second: 1 << 40,
    ingest_bytes_in_flight_max: 1 << 30,
    dedup_ids_max: 1_000,
};
