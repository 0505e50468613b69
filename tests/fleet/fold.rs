//! The trees that events lead to, worked out as the contract (section 8) says them: the events are
//! sorted by what decides between them and applied one after the other.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde_json::{Map, Value, json};

use super::scenario::PHASES;

/// The whole trees of one user, as a keen viewer is shown them, in the order of their roots'
/// sessions. The events have a timestamp in milliseconds, an `event_id` and a session.
pub fn trees(events: &[Value]) -> Vec<Value> {
    let mut events: Vec<&Value> = events.iter().collect();
    events.sort_by_key(|event| (event["timestamp"].as_i64(), event["event_id"].as_str()));
    let mut agents = Agents::new();
    for (at, event) in events.iter().enumerate() {
        apply(&mut agents, at, event);
    }
    let parents = parents(&agents);
    let roots = agents
        .keys()
        .filter(|session| !parents.contains_key(*session));
    roots.map(|root| tree(&agents, &parents, root)).collect()
}

/// The `tree_stats` of a whole tree.
pub fn stats(tree: &Value) -> Value {
    let mut by_status: BTreeMap<&str, u64> = BTreeMap::new();
    let (mut total, mut tokens, mut cost, mut commits, mut max_depth) = (0, 0, 0.0, 0, 0);
    let mut left = vec![(tree, 0)];
    while let Some((node, depth)) = left.pop() {
        total += 1;
        *by_status
            .entry(node["status"].as_str().unwrap())
            .or_default() += 1;
        max_depth = max_depth.max(depth);
        tokens += node["metrics"]["tokens_used"].as_u64().unwrap();
        cost += node["metrics"]["cost_so_far"].as_f64().unwrap();
        commits += node["metrics"]["git_commits"].as_u64().unwrap();
        let children = node["children"].as_array().unwrap();
        left.extend(children.iter().map(|child| (child, depth + 1)));
    }
    let count = |status| by_status.get(status).copied().unwrap_or(0);
    json!({
        "total": total, "active": count("spawning") + count("running"), "by_status": by_status,
        "max_depth": max_depth, "tokens_used": tokens, "cost_so_far": cost,
        "git_commits": commits,
    })
}

/// The same tree or stats, as a keen viewer is shown them, with every number as a double (`1` and
/// `1.0` are one) and without counts of statuses that nobody has.
pub fn normal(value: &Value) -> Value {
    match value {
        Value::Array(items) => items.iter().map(normal).collect(),
        Value::Number(number) => json!(number.as_f64()),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(name, value)| match name.as_str() {
                "by_status" => (name.clone(), normal(&without_zeros(value))),
                "start_time" => (
                    name.clone(),
                    value.as_i64().map_or(value.clone(), |ms| iso(ms).into()),
                ),
                _ => (name.clone(), normal(value)),
            });
            Value::Object(fields.collect())
        }
        other => other.clone(),
    }
}

fn without_zeros(counts: &Value) -> Value {
    let mut counts = counts.as_object().cloned().unwrap_or_default();
    counts.retain(|_, count| count.as_u64() != Some(0));
    Value::Object(counts)
}

type Agents = BTreeMap<String, Agent>;

/// What is known of one session.
#[derive(Default)]
struct Agent {
    claims: Vec<Claim>,
    begun_ms: Option<i64>,
    first_ms: Option<i64>,
    named_ms: Option<i64>,
    purpose: Option<Value>,
    spawn_branch: Option<Value>,
    own_branch: Option<Value>,
    succeeded: Option<bool>,
    phase: Option<Value>,
    progress: Option<Value>,
    tokens: Option<Value>,
    cost: Option<Value>,
    created: usize,
    modified: usize,
    commits: usize,
    latest_commit: Option<Value>,
    files_changed: Option<Value>,
}

/// The word of a spawn that `parent` began the agent.
#[derive(Clone)]
struct Claim {
    /// Its place among all events.
    at: usize,
    time_ms: i64,
    parent: String,
}

fn apply(agents: &mut Agents, at: usize, event: &Value) {
    let (session, data) = (event["session_id"].as_str().unwrap(), &event["data"]);
    let time_ms = event["timestamp"].as_i64().unwrap();
    if event["event_type"] == "agent_spawned" {
        let child = data["child_session"].as_str().unwrap();
        let parent = data["parent_session"].as_str().unwrap_or(session);
        let parent = parent.to_owned();
        let begun_by = agents.entry(parent.clone()).or_default();
        begun_by.named_ms.get_or_insert(time_ms);
        let agent = agents.entry(child.to_owned()).or_default();
        agent.claims.push(Claim {
            at,
            time_ms,
            parent,
        });
        agent.begun_ms = Some(time_ms);
        set(&mut agent.purpose, &data["purpose"]);
        set(&mut agent.spawn_branch, &data["git_branch"]);
        if child == session {
            return;
        }
    }
    let agent = agents.entry(session.to_owned()).or_default();
    agent.first_ms.get_or_insert(time_ms);
    match event["event_type"].as_str().unwrap() {
        "completion" => agent.succeeded = Some(data["success"] != false),
        "git_operation" => apply_git(agent, data),
        "phase_transition" => set(&mut agent.phase, &data["to_phase"]),
        "progress_update" => {
            set(&mut agent.phase, &data["phase"]);
            set(&mut agent.progress, &data["overall_progress"]);
            set(&mut agent.tokens, &data["tokens_used"]);
            set(&mut agent.cost, &data["cost_so_far"]);
        }
        "tool_execution" if data["success"] != false => {
            let files = data["files_affected"].as_array().map_or(0, Vec::len);
            let is_new = data["tool_name"] == "Write";
            *(if is_new {
                &mut agent.created
            } else {
                &mut agent.modified
            }) += files;
        }
        _ => {}
    }
}

fn apply_git(agent: &mut Agent, data: &Value) {
    set(&mut agent.own_branch, &data["branch"]);
    set(&mut agent.files_changed, &data["files_changed"]);
    if data["operation_type"] == "commit" && data["success"] != false {
        agent.commits += 1;
        set(&mut agent.latest_commit, &data["commit_hash"]);
    }
}

fn set(field: &mut Option<Value>, value: &Value) {
    if !value.is_null() {
        *field = Some(value.clone());
    }
}

/// The claim that makes each one a child: its latest. Where these go in a circle, the latest claim
/// of the circle is refused, and all is looked at again.
fn parents(agents: &Agents) -> BTreeMap<String, Claim> {
    let mut refused = BTreeSet::new();
    loop {
        let mut latest: BTreeMap<String, Claim> = BTreeMap::new();
        for (session, agent) in agents {
            let mut claims = agent.claims.iter().rev();
            if let Some(claim) = claims.find(|claim| !refused.contains(&claim.at)) {
                latest.insert(session.clone(), claim.clone());
            }
        }
        let worst = latest
            .keys()
            .find_map(|from| worst_of_circle(&latest, from));
        match worst {
            Some(at) => refused.insert(at),
            None => return latest,
        };
    }
}

/// The latest claim on the way up from `from`, where that way leads back to it.
fn worst_of_circle(latest: &BTreeMap<String, Claim>, from: &str) -> Option<usize> {
    let (mut session, mut worst) = (from, 0);
    for _ in 0..=latest.len() {
        let claim = latest.get(session)?;
        (session, worst) = (&claim.parent, worst.max(claim.at));
        if session == from {
            return Some(worst);
        }
    }
    None
}

fn tree(agents: &Agents, parents: &BTreeMap<String, Claim>, session: &str) -> Value {
    let below = parents.iter().filter(|(_, claim)| claim.parent == session);
    let mut children: Vec<_> = below.map(|(child, claim)| (claim.time_ms, child)).collect();
    children.sort();
    let children: Vec<Value> = children
        .into_iter()
        .map(|(_, child)| tree(agents, parents, child))
        .collect();
    let mut node = node(&agents[session]);
    let parent = parents.get(session).map(|claim| &claim.parent);
    node.insert("session_id".into(), session.into());
    node.insert("parent_session".into(), json!(parent));
    let purpose = match parent {
        Some(_) => "",
        None => "root",
    };
    let purpose = agents[session]
        .purpose
        .clone()
        .unwrap_or_else(|| purpose.into());
    node.insert("purpose".into(), purpose);
    node.insert("children".into(), children.into());
    Value::Object(node)
}

fn node(agent: &Agent) -> Map<String, Value> {
    let main = || Some("main".into());
    let zero = |field: &Option<Value>| field.clone().unwrap_or_else(|| 0.into());
    let (spawn, own) = (&agent.spawn_branch, &agent.own_branch);
    let status = match (agent.succeeded, agent.first_ms) {
        (Some(true), _) => "completed",
        (Some(false), _) => "failed",
        (None, Some(_)) => "running",
        (None, None) => "spawning",
    };
    let start_ms = agent
        .begun_ms
        .or(agent.first_ms)
        .or(agent.named_ms)
        .unwrap();
    let node = json!({
        "git_branch": spawn.clone().or_else(|| own.clone()).or_else(main),
        "status": status,
        "current_phase": agent.phase.clone().unwrap_or_else(|| PHASES[0].into()),
        "progress": zero(&agent.progress),
        "metrics": {
            "start_time": iso(start_ms),
            "tokens_used": zero(&agent.tokens),
            "cost_so_far": zero(&agent.cost),
            "files_created": agent.created,
            "files_modified": agent.modified,
            "git_commits": agent.commits,
        },
        "git_info": {
            "branch": own.clone().or_else(|| spawn.clone()).or_else(main),
            "latest_commit": agent.latest_commit,
            "commits_count": agent.commits,
            "files_changed": agent.files_changed.clone().unwrap_or_else(|| json!([])),
        },
    });
    match node {
        Value::Object(node) => node,
        _ => unreachable!("it is written as an object"),
    }
}

fn iso(ms: i64) -> String {
    let time = Timestamp::from_millisecond(ms).unwrap();
    time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
