//! Section 9: how long events take, as the page, the table and the report tell it.

use serde_json::{Value, json};

use crate::harness::{Ending, Server, Setup, Tail, Viewer, eventually, run, sightline, text};

const STAGES: [&str; 7] = [
    "durable", "numbered", "parsed", "queued", "routed", "total", "written",
];

/// A server on two cores that has passed `count` events on to a viewer on each, and counted it.
fn busy(setup: &Setup<'_>, count: usize) -> Server {
    let server = Server::with(setup);
    let users = server.users_on_two_cores();
    let mut viewers = users.map(|user| {
        let token = server.viewer_token(&user, &["p"]);
        Viewer::open(&server, "/keen?subscribe=all", &token)
    });
    let event = json!({"event_type": "x", "project_id": "p"});
    server.publish(&Value::Array(vec![event; count]));
    for viewer in &mut viewers {
        for _ in 0..count {
            viewer.next();
        }
    }
    eventually("the times are published", || {
        let stats = stats(&server, "/v1/stats");
        let counts = ["total", "durable"].map(|stage| stats["stagesUs"][stage]["count"].as_u64());
        (counts == [Some(2 * count as u64), Some(count as u64)]).then_some(())
    });
    server
}

fn stats(server: &Server, target: &str) -> Value {
    serde_json::from_str(&server.page(target)).unwrap()
}

fn command(server: &Server, arguments: &[&str]) -> Ending {
    let url = format!("ws://{}", server.address());
    let arguments = [arguments, &["--url", &url]].concat();
    run(server.folder.path(), &arguments)
}

#[test]
fn every_stage_is_told_for_each_core_and_for_all() {
    let server = busy(&Setup::default(), 30);
    let stats = stats(&server, "/v1/stats");
    let cores = stats["cores"].as_array().unwrap();
    assert_eq!(cores.len(), 2);
    let all = cores.iter().chain([&stats]);
    for stages in all.map(|part| &part["stagesUs"]) {
        let names = stages.as_object().unwrap().keys();
        assert!(names.eq(STAGES), "{stages}");
    }
    let count = |part: &Value, stage: &str| part["stagesUs"][stage]["count"].as_u64().unwrap();
    for stage in STAGES {
        let of_cores: u64 = cores.iter().map(|core| count(core, stage)).sum();
        assert_eq!(count(&stats, stage), of_cores, "{stage}");
    }
    // Each event has one audience, and a viewer on each core.
    for (stage, expected) in [
        ("parsed", 30),
        ("numbered", 30),
        ("queued", 60),
        ("written", 60),
    ] {
        assert_eq!(count(&stats, stage), expected, "{stage}");
    }
    for core in cores {
        assert_eq!(count(core, "queued"), 30);
        let total = &core["stagesUs"]["total"];
        let times = ["p50", "p90", "p99", "p99.9", "p99.99", "max"];
        let times = times.map(|name| total[name].as_f64().unwrap());
        assert!(times.is_sorted() && times[0] > 0.0, "{total}");
        let queued = core["stagesUs"]["queued"]["p50"].as_f64().unwrap();
        assert!(queued <= times[5], "{core}");
        assert!(core.get("histograms").is_none());
    }
    // The same names are labels.
    let metrics = server.page("/metrics");
    for stage in STAGES {
        let label = format!("sightline_stage_duration_seconds_count{{stage=\"{stage}\"}}");
        assert!(metrics.contains(&label), "{stage}");
    }
}

#[test]
fn histograms_come_whole_where_they_are_asked_for() {
    let server = busy(&Setup::default(), 3);
    let page = stats(&server, "/v1/stats?histograms=1");
    for core in page["cores"].as_array().unwrap() {
        for (stage, histogram) in core["histograms"].as_object().unwrap() {
            let encoded: latency_report::Encoded =
                serde_json::from_value(histogram.clone()).unwrap();
            let count = encoded.decode().unwrap().len();
            assert_eq!(core["stagesUs"][stage]["count"], count, "{stage}");
        }
        assert!(core["histograms"]["total"].is_string(), "{core}");
    }
    let asked = |query: &str| {
        let target = format!("/v1/stats?{query}");
        server.ask("GET", &target, &server.admin_token(), "").status
    };
    let statuses = ["histograms=0", "more=1", "histograms=2", "histograms="].map(asked);
    assert_eq!(statuses, [200, 200, 400, 400]);
}

#[test]
fn many_who_ask_at_once_are_answered_or_told_to_come_again() {
    let server = Server::start("");
    let mut asking: Vec<_> = (0..64).map(|_| server.http()).collect();
    let request = crate::harness::request("GET", "/v1/stats?histograms=1", &[], b"");
    for http in &mut asking {
        http.send(&request);
    }
    for http in &mut asking {
        let answer = http.receive();
        match answer.status {
            200 => assert!(answer.json()["cores"][1]["histograms"].is_object()),
            _ => assert_eq!(answer.refusal(), (429, "OVERLOADED".into())),
        }
    }
    // And the connections serve on.
    for http in &mut asking {
        http.send(&crate::harness::request("HEAD", "/livez", &[], b""));
        assert_eq!(http.receive_to("HEAD").status, 200);
    }
}

#[test]
fn the_table_tells_what_the_page_does() {
    let server = busy(&Setup::default(), 30);
    let ending = command(&server, &["stats"]);
    assert_eq!((ending.code, &*ending.err), (Some(0), ""));
    let rows: Vec<Vec<&str>> = ending
        .out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    let row = |name: &[&str]| {
        let found = rows.iter().find(|row| row.starts_with(name));
        found.unwrap_or_else(|| panic!("{name:?} in {}", ending.out))
    };
    assert_eq!(
        row(&["sightline", env!("CARGO_PKG_VERSION"), "at"])[3],
        format!("ws://{},", server.address())
    );
    // Frames that are no events were written too. Without a second reading there are no rates.
    let written = stats(&server, "/v1/stats")["total"]["deliveries"]["written"].to_string();
    assert_eq!(row(&["total"])[4..8], ["30", "–", &written, "–"]);
    assert!(row(&["core", "1"]).len() > 10);
    for stage in STAGES {
        row(&[stage]);
    }
    // Sixty times carry a median and no more; the highest is always known.
    let queued = row(&["queued"]);
    assert_eq!(queued[queued.len() - 7], "60", "{queued:?}");
    assert_eq!(queued[queued.len() - 4..queued.len() - 1], ["–", "–", "–"]);

    let json = command(&server, &["stats", "--json"]);
    let page: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!(page["stagesUs"]["queued"]["count"], 60);
    assert_eq!(json.out.lines().count(), 1);
}

#[test]
fn watching_shows_what_came_each_second() {
    let server = Server::start("");
    let url = format!("http://{}", server.address());
    let mut watch = sightline();
    watch.args(["stats", "--watch", "0.1", "--url", &url]);
    let mut watch = Tail::run(&mut watch);
    let mut total = || loop {
        let line = watch.next_line();
        if line.starts_with("total") && !line.contains('→') {
            let row: Vec<_> = line.split_whitespace().map(str::to_owned).collect();
            return row;
        }
    };
    assert_eq!(total()[5], "–");
    server.publish(
        &json!([{"event_type": "x", "user_id": "a"}, {"event_type": "x", "user_id": "a"}]),
    );
    let row = eventually("the events are seen", || {
        Some(total()).filter(|row| row[4] == "2")
    });
    assert_ne!(row[5], "0", "they came between two readings");
    let row = total();
    assert_eq!((&*row[4], &*row[5]), ("2", "0"), "and nothing since");
}

#[test]
fn who_may_not_look_is_told_what_it_takes() {
    let server = Server::with(&Setup {
        listen: &["0.0.0.0:0"],
        tls: true,
        ..Setup::default()
    });
    let folder = server.folder.path();
    let port = server.address().rsplit(':').next().unwrap();
    let url = format!("https://127.0.0.1:{port}");
    let ca = server.ca_file();
    let ca = ca.to_str().unwrap();
    let ask = |command: &str, token: Option<&str>| {
        let mut arguments = vec![command, "--url", &url, "--ca-file", ca];
        if let Some(token) = token {
            let file = folder.join("token");
            std::fs::write(file, token).unwrap();
            arguments.extend(["--token-file", "token"]);
        }
        run(folder, &arguments)
    };
    let viewer = server.viewer_token("alice", &[]);
    for command in ["stats", "report"] {
        for (token, code) in [(None, "TOKEN_MISSING"), (Some(&*viewer), "FORBIDDEN")] {
            let ending = ask(command, token);
            assert_eq!(ending.code, Some(1), "{}", ending.err);
            let says = |part: &str| assert!(ending.err.contains(part), "{part}: {}", ending.err);
            says(code);
            says("--permissions admin");
        }
        let ending = ask(command, Some(&server.admin_token()));
        assert_eq!(ending.code, Some(0), "{}", ending.err);
    }
    let nobody = run(folder, &["stats", "--url", "ws://127.0.0.1:1"]);
    assert_eq!(nobody.code, Some(1));
    assert!(
        nobody.err.contains("127.0.0.1:1") && nobody.err.contains("--url"),
        "{}",
        nobody.err
    );
    let usage = run(folder, &["stats", "--url", "ftp://127.0.0.1"]);
    assert_eq!(usage.code, Some(2), "{}", usage.err);
}

#[test]
fn a_report_is_one_page_that_asks_for_nothing() {
    let server = busy(&Setup::default(), 1_000);
    let ending = command(&server, &["report", "-o", "latency.html"]);
    assert_eq!(ending.code, Some(0), "{}", ending.err);
    assert!(ending.err.contains("latency.html") && ending.out.is_empty());
    let document = std::fs::read_to_string(server.folder.path().join("latency.html")).unwrap();
    check_document(&document);
    for stage in STAGES {
        assert!(
            document.contains(&format!("<th scope=\"row\">{stage}</th>")),
            "{stage}"
        );
    }
    let drawings = between(&document, "id=\"drawings\">", "</script>");
    let drawings: Value = serde_json::from_str(drawings).unwrap();
    let names = |at: usize| {
        let lines = drawings[at]["lines"].as_array().unwrap().iter();
        lines
            .map(|line| text(&line["name"]).to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names(0).len(), STAGES.len(), "{:?}", names(0));
    assert_eq!(names(1), ["core 0", "core 1"]);
    let total = drawings[0]["lines"].as_array().unwrap().last().unwrap();
    let points = total["y"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|y| y.is_number());
    assert!(
        points.count() > 24,
        "a thousand times and more make a curve: {total}"
    );
    assert!(document.contains(server.address()));

    let piped = command(&server, &["report", "-o", "-"]);
    assert!(piped.out.starts_with("<!DOCTYPE html>"));
    let nowhere = command(&server, &["report", "-o", "no/such/folder.html"]);
    assert_eq!(nowhere.code, Some(1));
    assert!(nowhere.err.contains("folder.html"), "{}", nowhere.err);
}

/// That every element is closed in order, and nothing from outside is asked for.
fn check_document(document: &str) {
    assert!(document.starts_with("<!DOCTYPE html>"));
    for request in ["src=", "href=", "url(", "@import", "http-equiv=\"refresh\""] {
        assert!(!document.contains(request), "{request}");
    }
    assert!(document.contains("content=\"default-src 'none'; "));
    let (mut open, mut rest) = (Vec::new(), &document["<!DOCTYPE html>".len()..]);
    while let Some(at) = rest.find('<') {
        let tag = &rest[at + 1..at + rest[at..].find('>').unwrap()];
        rest = &rest[at + 1 + tag.len() + 1..];
        let name = tag.split_whitespace().next().unwrap();
        if let Some(name) = name.strip_prefix('/') {
            assert_eq!(open.pop(), Some(name), "{tag}");
        } else if name != "meta" {
            open.push(name);
        }
        if let "script" | "style" = name {
            rest = &rest[rest.find(&format!("</{name}")).unwrap()..];
        }
    }
    assert!(open.is_empty(), "{open:?}");
}

fn between<'a>(text: &'a str, start: &str, end: &str) -> &'a str {
    let text = &text[text.find(start).unwrap() + start.len()..];
    &text[..text.find(end).unwrap()]
}
