//! What an event costs that touches a tree of agents, by how large the tree is: it should make no
//! difference. The agents take turns, so that a large tree is as cold as it would be. `apply` is the
//! fold alone; `apply and take` also collects the changes, as is done for those who look; `apply and
//! patch` goes on until an update with the patch is written. What is done for the whole of what is
//! shown of a tree stands beside it: `first cut`, and `full tree` for those who take no patches.

use std::hint::black_box;

use compact_str::{CompactString, format_compact};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use sightline::agents::{Bounds, Content, Forest, Sent, Shown, Stamp, Update};
use sightline::event::{Dialect, KnownType, Parser, Seq};

/// A tree in which each agent has begun eight others, and events for its agents in turn.
struct Tree {
    forest: Forest,
    sessions: Vec<CompactString>,
    parser: Parser,
    stamp: Stamp,
}

impl Tree {
    fn of(nodes: usize) -> Self {
        let bounds = Bounds {
            nodes_max: nodes,
            finished_trees_max: 1_000,
            finished_max_ms: 86_400_000,
        };
        let session = |n| format_compact!("0f8e3c1a-7b52-4c6e-9a51-{n:012}");
        let mut tree = Self {
            forest: Forest::new(bounds, "EXPLORE", 7),
            sessions: (0..nodes).map(session).collect(),
            parser: Parser::new(),
            stamp: Stamp {
                timestamp_ms: 1_763_805_600_000,
                event_id: None,
                seq: Seq::default(),
            },
        };
        for child in 1..nodes {
            let data = format!(r#"{{"child_session":"{}"}}"#, tree.sessions[child]);
            tree.hear(KnownType::AgentSpawned, (child - 1) / 8, &data);
        }
        tree
    }

    fn hear(&mut self, event_type: KnownType, session: usize, data: &str) {
        self.stamp.seq = self.stamp.seq.next();
        self.stamp.timestamp_ms += 1;
        let (forest, stamp) = (&mut self.forest, &self.stamp);
        let session = self.sessions[session].as_str();
        self.parser
            .with_known(event_type, data.as_bytes(), |known| {
                forest.apply(known, Some(session), stamp, stamp.timestamp_ms)
            });
    }

    fn shown(&self) -> Shown {
        let root = self.forest.find(&self.sessions[0]);
        let shown = root.and_then(|root| Shown::new(&self.forest, root, self.stamp.seq));
        shown.expect("the first session has begun all others")
    }

    fn follow(&mut self, shown: &mut Shown) {
        for changes in self.forest.take_changes().trees {
            shown.apply(&self.forest, &changes, self.stamp.seq);
        }
    }

    fn update(&self, content: Content) -> Update {
        Update {
            dialect: Dialect::Keen,
            content,
            at_seq: self.stamp.seq,
        }
    }
}

/// Agents that take turns where updates are looked at: of a large tree those that are shown, for an
/// update about another one holds less.
const SHOWN: usize = 300;

const PROGRESS: &str = r#"{"phase":"EXECUTE","phase_progress":0.5,"overall_progress":42.5,"current_action":"thinking","tokens_used":123456,"cost_so_far":1.25,"active_agents":3}"#;

fn one_event(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("agents");
    for nodes in [10, 10_000] {
        let mut tree = Tree::of(nodes);
        let mut turn = (0..nodes).cycle();
        group.bench_function(BenchmarkId::new("apply", nodes), |bencher| {
            bencher.iter(|| {
                tree.hear(
                    KnownType::ProgressUpdate,
                    turn.next().unwrap_or(0),
                    PROGRESS,
                )
            });
        });
        group.bench_function(BenchmarkId::new("apply and take", nodes), |bencher| {
            bencher.iter(|| {
                tree.hear(
                    KnownType::ProgressUpdate,
                    turn.next().unwrap_or(0),
                    PROGRESS,
                );
                black_box(tree.forest.take_changes())
            });
        });
    }
    group.finish();
}

fn one_update(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("agents");
    for nodes in [10, 10_000] {
        let mut tree = Tree::of(nodes);
        tree.forest.take_changes();
        let mut shown = tree.shown();
        let mut turn = (0..nodes.min(SHOWN)).cycle();
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("apply and patch", nodes), |bencher| {
            bencher.iter(|| {
                let base = Sent {
                    version: shown.version(),
                    at_seq: shown.at_seq(),
                };
                // Other than the last time, or nothing would have to be patched.
                let tokens = tree.stamp.seq.0;
                let data = format!(
                    r#"{{"phase":"EXECUTE","overall_progress":{tokens},"tokens_used":{tokens}}}"#
                );
                tree.hear(KnownType::ProgressUpdate, turn.next().unwrap_or(0), &data);
                tree.follow(&mut shown);
                out.clear();
                shown.encode_update(&tree.update(Content::Patch { base }), black_box(&mut out));
            });
        });
    }
    group.finish();
}

fn whole_tree(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("agents");
    for nodes in [10, 10_000] {
        let tree = Tree::of(nodes);
        let shown = tree.shown();
        let update = tree.update(Content::FullTree { since: None });
        let mut out = Vec::new();
        group.bench_function(BenchmarkId::new("first cut", nodes), |bencher| {
            bencher.iter(|| black_box(tree.shown()));
        });
        group.bench_function(BenchmarkId::new("full tree", nodes), |bencher| {
            bencher.iter(|| {
                out.clear();
                shown.encode_update(&update, black_box(&mut out));
            });
        });
    }
    group.finish();
}

criterion_group!(benches, one_event, one_update, whole_tree);
criterion_main!(benches);
