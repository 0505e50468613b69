//! What the agents publish: a root, three levels below it, 200 sessions in all.
//!
//! The root gives areas to leads, these give tasks to agents, and these give steps to others. Each
//! goes through phases, uses tools, commits on a branch of its own, says how far it is, and ends,
//! or fails, or is still at work. Merges meet conflicts. `disputes` are the claims that a tree
//! must decide on: agents that change hands, a task that its own step claims to have begun.
//!
//! Every event has an `event_id` and they differ, so the trees are the same in whatever order the
//! events arrive; some share their millisecond. Costs are multiples of 1/64 and progress of 1/8,
//! so that sums and comparisons are exact.

use fastrand::Rng;
use serde_json::{Value, json};

/// Sessions in the tree.
pub const AGENTS: usize = 1 + AREAS + AREAS * TASKS + STEPS;
/// The session above all others. Nobody announced it.
pub const ROOT: &str = "vision";
/// As configured by default.
pub const PHASES: [&str; 5] = ["EXPLORE", "PLAN", "EXECUTE", "VERIFY", "COMPLETE"];

/// All that is published, for `user`, in the order in which it happened. The same at each call.
pub fn events(user: &str) -> Vec<Value> {
    let mut story = Story {
        user: user.to_owned(),
        events: Vec::new(),
        rng: Rng::with_seed(5),
    };
    let agents = agents(&mut story.rng);
    for agent in &agents {
        story.tell(agent);
    }
    story.tell_disputes();
    story
        .events
        .sort_by_key(|event| event["timestamp"].as_i64());
    story.events
}

const AREAS: usize = 6;
/// Of each area.
const TASKS: usize = 5;
/// Of all tasks together: as good as the same number for each.
const STEPS: usize = 163;
/// 2025-11-22T10:00:00Z.
const BEGIN_MS: i64 = 1_763_805_600_000;

struct Agent {
    session: String,
    parent: Option<String>,
    branch: String,
    purpose: String,
    depth: usize,
    begin_ms: i64,
    fate: Fate,
}

#[derive(Clone, Copy, PartialEq)]
enum Fate {
    Completes,
    Fails,
    /// Was begun, and nothing was heard of it since.
    IsAwaited,
    IsAtWork,
}

fn agents(rng: &mut Rng) -> Vec<Agent> {
    let mut agents = vec![Agent {
        session: ROOT.to_owned(),
        parent: None,
        branch: "main".to_owned(),
        purpose: String::new(),
        depth: 0,
        begin_ms: BEGIN_MS,
        fate: Fate::IsAtWork,
    }];
    for area in 0..AREAS {
        let lead = child(&agents[0], &format!("area-{area}"), Fate::IsAtWork, rng);
        agents.push(lead);
    }
    for task in 0..AREAS * TASKS {
        let parent = &agents[1 + task / TASKS];
        let fate = [Fate::IsAtWork, Fate::Completes][usize::from(task % 3 > 0)];
        let name = format!("{}/task-{}", parent.session, task % TASKS);
        agents.push(child(parent, &name, fate, rng));
    }
    for step in 0..STEPS {
        let parent = &agents[1 + AREAS + step % (AREAS * TASKS)];
        let name = format!("{}/step-{}", parent.session, step / (AREAS * TASKS));
        let fate = fate(rng);
        agents.push(child(parent, &name, fate, rng));
    }
    agents
}

fn child(parent: &Agent, name: &str, fate: Fate, rng: &mut Rng) -> Agent {
    Agent {
        session: name.to_owned(),
        parent: Some(parent.session.clone()),
        branch: format!("agent/{name}"),
        purpose: format!("work on {name}"),
        depth: parent.depth + 1,
        // Few milliseconds to choose from: siblings begin at the same one.
        begin_ms: parent.begin_ms + 1_000 * rng.i64(1..8),
        fate,
    }
}

fn fate(rng: &mut Rng) -> Fate {
    match rng.u8(0..100) {
        0..8 => Fate::Fails,
        8..14 => Fate::IsAwaited,
        14..24 => Fate::IsAtWork,
        _ => Fate::Completes,
    }
}

struct Story {
    user: String,
    events: Vec<Value>,
    rng: Rng,
}

impl Story {
    fn tell(&mut self, agent: &Agent) {
        if let Some(parent) = &agent.parent {
            self.tell_spawn(agent, parent);
        }
        if agent.fate == Fate::IsAwaited {
            return;
        }
        let mut at_ms = agent.begin_ms;
        let is_over = matches!(agent.fate, Fate::Completes | Fate::Fails);
        let phases = if is_over { 4 } else { self.rng.usize(1..4) };
        for phase in 0..phases {
            at_ms += 1_000 * self.rng.i64(1..30);
            self.tell_phase(agent, phase, at_ms);
        }
        if is_over {
            self.tell_end(agent, at_ms + 500);
        }
    }

    /// By the parent, as a rule; the child may say so too, or the root on behalf of both.
    fn tell_spawn(&mut self, agent: &Agent, parent: &str) {
        let speaker = match self.rng.u8(0..8) {
            0 => agent.session.as_str(),
            1 => ROOT,
            _ => parent,
        };
        let mut data = json!({
            "parent_session": parent,
            "child_session": agent.session,
            "git_branch": agent.branch,
            "purpose": agent.purpose,
            "sub_vision": format!("{}, and nothing else", agent.purpose),
            "estimated_duration": 60_000,
            "resource_limits": {"tokens": 50_000},
            "agent_depth": agent.depth,
            "spawn_reason": "the work falls apart well",
        });
        if speaker == parent && self.rng.bool() {
            data.as_object_mut().unwrap().remove("parent_session");
        }
        self.push("agent_spawned", speaker, agent.begin_ms, &data);
    }

    /// One phase of work, and the step to the next.
    fn tell_phase(&mut self, agent: &Agent, phase: usize, at_ms: i64) {
        let session = &agent.session;
        match PHASES[phase] {
            "EXPLORE" => self.tell_tool(session, "Read", true, at_ms),
            "PLAN" => self.tell_progress(agent, phase, at_ms),
            "EXECUTE" => self.tell_execution(agent, phase, at_ms),
            _ => {
                self.tell_tool(session, "Bash", true, at_ms);
                self.tell_progress(agent, phase, at_ms + 1);
            }
        }
        let transition = json!({
            "from_phase": PHASES[phase],
            "to_phase": PHASES[phase + 1],
            "summary": format!("{} is done", PHASES[phase]),
            "confidence": 0.5,
        });
        // The same millisecond as what came before, now and then: the ids decide.
        let later = self.rng.i64(0..3);
        self.push("phase_transition", session, at_ms + later, &transition);
    }

    fn tell_execution(&mut self, agent: &Agent, phase: usize, at_ms: i64) {
        let session = &agent.session;
        self.tell_git(agent, &json!({"operation_type": "branch_created"}), at_ms);
        self.tell_tool(session, "Write", true, at_ms + 20);
        let succeeds = self.rng.u8(0..4) > 0;
        self.tell_tool(session, "Edit", succeeds, at_ms + 40);
        for commit in 0..self.rng.i64(0..3) {
            self.tell_commit(agent, at_ms + 60 + commit);
        }
        if self.rng.u8(0..6) == 0 {
            self.tell_conflict(agent, at_ms + 80);
        }
        if self.rng.u8(0..10) == 0 {
            let data = json!({"code": "TIMEOUT", "message": "the tool took too long"});
            self.push("error", session, at_ms + 90, &data);
        }
        self.tell_progress(agent, phase, at_ms + 100);
    }

    fn tell_commit(&mut self, agent: &Agent, at_ms: i64) {
        let count = self.rng.usize(1..5);
        let files: Vec<String> = (0..count).map(|at| format!("src/part_{at}.rs")).collect();
        let data = json!({
            "operation_type": "commit",
            "commit_hash": format!("{:016x}", self.rng.u64(..)),
            "commit_message": format!("part: {}\n\nAs the task says.", agent.purpose),
            "files_changed": files,
            "lines_added": 10 * count,
            "lines_deleted": count,
            "merge_conflicts": false,
        });
        self.tell_git(agent, &data, at_ms);
    }

    /// A merge that meets conflicts, and succeeds once they are settled.
    fn tell_conflict(&mut self, agent: &Agent, at_ms: i64) {
        let files = json!(["src/part_0.rs", "src/shared.rs"]);
        let refused = json!({"operation_type": "merge", "files_changed": files,
            "merge_conflicts": true, "success": false});
        self.tell_git(agent, &refused, at_ms);
        let settled = json!({"operation_type": "merge", "files_changed": files,
            "merge_conflicts": false});
        self.tell_git(agent, &settled, at_ms + 4);
    }

    fn tell_git(&mut self, agent: &Agent, operation: &Value, at_ms: i64) {
        let mut data = json!({"branch": agent.branch, "success": true, "duration_ms": 35});
        let fields = data.as_object_mut().unwrap();
        fields.extend(operation.as_object().unwrap().clone());
        self.push("git_operation", &agent.session, at_ms, &data);
    }

    fn tell_tool(&mut self, session: &str, tool: &str, success: bool, at_ms: i64) {
        let files = match tool {
            "Write" => json!(["src/new.rs", "tests/new.rs"]),
            "Edit" => json!(["src/part_0.rs"]),
            _ => json!([]),
        };
        let data = json!({
            "tool_name": tool,
            "execution_time_ms": 120,
            "success": success,
            "parameters_summary": {"files": files.as_array().map(Vec::len)},
            "result_summary": "",
            "files_affected": files,
        });
        self.push("tool_execution", session, at_ms, &data);
    }

    /// Tokens and money only ever rise; not every update says both.
    fn tell_progress(&mut self, agent: &Agent, phase: usize, at_ms: i64) {
        let share = phase + self.rng.usize(0..2);
        let mut data = json!({
            "phase": PHASES[phase],
            "phase_progress": 0.5,
            "overall_progress": share as f64 / 8.0,
            "current_action": "thinking",
            "tokens_used": 4_000 * (phase + 1) + self.rng.usize(0..4_000),
            "cost_so_far": (8 * (phase + 1) + self.rng.usize(0..8)) as f64 / 64.0,
            "active_agents": 1,
        });
        if self.rng.u8(0..5) == 0 {
            data.as_object_mut().unwrap().remove("cost_so_far");
        }
        self.push("progress_update", &agent.session, at_ms, &data);
    }

    /// What an agent says after its end changes its figures, not that it has ended.
    fn tell_end(&mut self, agent: &Agent, at_ms: i64) {
        let success = agent.fate == Fate::Completes;
        let session = &agent.session;
        if self.rng.u8(0..12) == 0 {
            let first = json!({"success": !success});
            self.push("completion", session, at_ms - 100, &first);
        }
        self.push("completion", session, at_ms, &json!({"success": success}));
        if self.rng.u8(0..6) == 0 {
            self.tell_progress(agent, 4, at_ms + 300);
        }
    }

    fn tell_disputes(&mut self) {
        let late_ms = BEGIN_MS + 400_000;
        // Steps that change hands, each to the task of the next area.
        for area in 0..AREAS {
            let child = format!("area-{area}/task-1/step-2");
            let parent = format!("area-{}/task-3", (area + 1) % AREAS);
            let data = json!({"parent_session": parent, "child_session": child,
                "git_branch": format!("agent/{child}-again"), "purpose": "to be done elsewhere"});
            self.push("agent_spawned", &parent, late_ms, &data);
        }
        // Claims that were wrong and put right before any of this.
        for area in 0..3 {
            let data = json!({"parent_session": format!("area-{area}/task-4"),
                "child_session": format!("area-{area}/task-0/step-0"), "purpose": "a mistake"});
            self.push("agent_spawned", ROOT, BEGIN_MS - 10, &data);
        }
        // Nobody is below itself, at once or by way of others.
        let circles = [
            ("area-0/task-2", "area-0/task-2/step-1"),
            ("area-1", "area-1/task-0/step-3"),
            (ROOT, "area-2/task-2"),
            ("area-3/task-0", "area-3/task-0"),
        ];
        for (child, parent) in circles {
            let data = json!({"parent_session": parent, "child_session": child});
            self.push("agent_spawned", parent, late_ms + 5_000, &data);
        }
        // Two that are said to be below each other, until their leads say it right.
        let (one, other) = ("area-4/task-2", "area-5/task-2");
        let claims = [
            (one, other),
            (other, one),
            (one, "area-4"),
            (other, "area-5"),
        ];
        for (place, (child, parent)) in (0..).zip(claims) {
            let data = json!({"parent_session": parent, "child_session": child});
            self.push("agent_spawned", ROOT, late_ms + 6_000 + place, &data);
        }
    }

    fn push(&mut self, event_type: &str, session: &str, at_ms: i64, data: &Value) {
        let event_id = format!("e-{:05}", self.events.len());
        self.events.push(json!({
            "event_type": event_type, "event_id": event_id, "user_id": self.user,
            "session_id": session, "timestamp": at_ms, "data": data,
        }));
    }
}
