//! Streams that cross cores: interest, order, backpressure in both directions.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::harness::{RawSocket, Server, Viewer, eventually, kind, text_frame};

#[test]
fn a_project_reaches_viewers_on_every_core() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    // Whichever core owns each of them.
    let projects: Vec<String> = (0..8).map(|n| format!("p{n}")).collect();
    let names: Vec<&str> = projects.iter().map(String::as_str).collect();
    let open = |user: &str, path: &str| {
        let target = format!("{path}?subscribe=all");
        Viewer::open(&server, &target, &server.viewer_token(user, &names))
    };
    let mut viewers = [
        open(&here, "/keen"),
        open(&there, "/keen"),
        open(&here, "/observatory"),
        open(&there, "/observatory"),
    ];
    let events: Vec<_> = (0..80)
        .map(|n| json!({"event_type": "x", "project_id": names[n % 8], "data": n}))
        .collect();
    server.publish(&json!(events));
    for viewer in &mut viewers {
        let mut seen: HashMap<String, Vec<u64>> = HashMap::new();
        for _ in 0..80 {
            let message = viewer.next();
            let stream = message["stream"].as_str().unwrap().to_string();
            seen.entry(stream)
                .or_default()
                .push(message["seq"].as_u64().unwrap());
        }
        assert_eq!(seen.len(), 8);
        assert!(
            seen.values()
                .all(|seqs| *seqs == (1..=10).collect::<Vec<_>>()),
            "{seen:?}"
        );
    }
    let stats: Value = serde_json::from_str(&server.page("/v1/stats")).unwrap();
    assert!(stats["total"]["interests"].as_u64().unwrap() > 0, "{stats}");
}

#[test]
fn interest_comes_and_goes_without_a_gap() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let tokens = [&here, &there].map(|user| server.viewer_token(user, &["p"]));
    let stop = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        let producer = scope.spawn(|| {
            let mut count = 0;
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                server.publish(&json!({"event_type": "x", "project_id": "p"}));
                count += 1;
            }
            count
        });
        for _ in 0..25 {
            for token in &tokens {
                let mut viewer = Viewer::open(&server, "/observatory", token);
                // Subscribed, unsubscribed and subscribed again: exactly what lies between.
                let confirmed = viewer.subscribe(&json!({"projectIds": ["p"]}));
                let at = |confirmed: &Value| confirmed["data"]["at"]["project/p"].as_u64().unwrap();
                let first = viewer.next();
                assert_eq!(first["seq"].as_u64().unwrap(), at(&confirmed) + 1);
                viewer.say(&json!({"type": "unsubscribe"}));
                viewer.skip_to("unsubscribed");
                let confirmed = viewer.subscribe(&json!({"projectIds": ["p"]}));
                let again = viewer.next();
                assert_eq!(again["seq"].as_u64().unwrap(), at(&confirmed) + 1);
                assert!(again["seq"].as_u64() > first["seq"].as_u64());
            }
        }
        stop.store(true, std::sync::atomic::Ordering::Release);
        assert!(producer.join().unwrap() > 0);
    });
    eventually("no interest is left", || {
        let stats: Value = serde_json::from_str(&server.page("/v1/stats")).unwrap();
        (stats["total"]["interests"] == 0).then_some(())
    });
}

/// Publishes from a connection whose home is `home` to all of `audiences` in turn, as fast as the
/// server reads, for `time`. Returns how many events went to each.
fn pour(server: &Server, home: &str, audiences: &[Value], time: Duration) -> u64 {
    let token = crate::harness::Token::of(home, &[]);
    let token = server.mint(&token.with(&[sightline::auth::Permission::PublishAny]));
    let mut socket = RawSocket::open(server, "/v1/publish", &token, b"");
    let mut writer = socket.writer();
    let end = Instant::now() + time;
    let pad = "y".repeat(8_000);
    let (rounds, answers) = std::thread::scope(|scope| {
        let writing = scope.spawn(move || {
            let (mut rounds, mut n) = (0, 0);
            while Instant::now() < end {
                for audience in audiences {
                    let mut event = audience.clone();
                    event["event_type"] = json!("x");
                    event["data"] = json!({"from": home, "n": n, "pad": pad});
                    writer.write_all(&text_frame(&event.to_string())).unwrap();
                    n += 1;
                }
                rounds += 1;
            }
            // An event without audience is the last: its nack says that all is read.
            writer.write_all(&text_frame("{}")).unwrap();
            rounds
        });
        let answers = loop {
            let answer: Value = serde_json::from_str(socket.next_answer().text()).unwrap();
            if kind(&answer) == "nack" {
                assert_eq!(answer["data"]["code"], "INVALID_FIELD", "{answer}");
                break answer["data"]["message"].as_u64().unwrap();
            }
        };
        (writing.join().unwrap(), answers)
    });
    assert_eq!(answers, rounds * audiences.len() as u64 + 1);
    let all_settled = format!(r#"{{"type":"ack","data":{{"through":{answers}}}}}"#);
    while socket.next_answer().text() != all_settled {}
    rounds
}

/// Reads until `ends` events of type `end` have come. Every stream's seqs are without a gap, and
/// what each publisher sent to it comes in the order of sending. Returns the events of each stream.
fn count_in_order(mut viewer: Viewer, ends: usize) -> HashMap<String, u64> {
    let mut heads: HashMap<String, u64> = HashMap::new();
    let mut numbers: HashMap<(String, String), u64> = HashMap::new();
    let mut ended = 0;
    while ended < ends {
        let message = viewer.next();
        let stream = match kind(&message) {
            "lag" | "cursor" => continue,
            _ => message["stream"].as_str().unwrap().to_string(),
        };
        if kind(&message) == "end" {
            ended += 1;
            continue;
        }
        let head = heads.entry(stream.clone()).or_default();
        *head += 1;
        assert_eq!(message["seq"], *head, "{stream}");
        let data = &message["data"];
        let n = data["n"].as_u64().unwrap();
        let before = numbers.insert((stream, data["from"].to_string()), n);
        assert!(
            before.is_none_or(|before| before < n),
            "{before:?}, then {n}"
        );
    }
    heads
}

/// Two seconds, or as many as SIGHTLINE_IT_SECONDS says.
fn pouring_time() -> Duration {
    let seconds = std::env::var("SIGHTLINE_IT_SECONDS").ok();
    Duration::from_secs(seconds.map_or(2, |text| text.parse().expect("a number of seconds")))
}

#[test]
fn two_cores_publish_into_each_other_through_small_windows() {
    let settings = "limits.ingest_bytes_in_flight_max = 8388608\n\
                    limits.publish_bytes_per_second = 1099511627776\n\
                    limits.outbox_bytes_max = 1073741824\nlimits.outbox_bytes_total = 2147483648";
    let server = Server::start(settings);
    let users = server.users_on_two_cores();
    let projects = ["p0", "p1", "p2", "p3"];
    let open = |user: &String| {
        let token = server.viewer_token(user, &projects);
        Viewer::open(&server, "/observatory?subscribe=all", &token)
    };
    let viewers = users.each_ref().map(open);
    let mut audiences = vec![json!({"user_id": users[0]}), json!({"user_id": users[1]})];
    audiences.extend(projects.map(|project| json!({"project_id": project})));
    audiences.push(json!({"user_id": "elsewhere", "project_id": "p0"}));
    let (seen, rounds) = std::thread::scope(|scope| {
        let seen = viewers.map(|viewer| scope.spawn(|| count_in_order(viewer, 5)));
        let pouring = users.each_ref().map(|home| {
            let (server, audiences) = (&server, &audiences);
            scope.spawn(move || pour(server, home, audiences, pouring_time()))
        });
        let rounds: u64 = pouring.into_iter().map(|one| one.join().unwrap()).sum();
        let end = |mut audience: Value| {
            audience["event_type"] = json!("end");
            server.publish(&audience);
        };
        audiences[..6].iter().cloned().for_each(end);
        (seen.map(|one| one.join().unwrap()), rounds)
    });
    assert!(rounds > 10, "{rounds}");
    for heads in seen {
        let mut expected: HashMap<String, u64> = projects[1..]
            .iter()
            .map(|project| (format!("project/{project}"), rounds))
            .collect();
        expected.insert("project/p0".into(), 2 * rounds);
        expected.insert("user".into(), rounds);
        assert_eq!(heads, expected);
    }
}
