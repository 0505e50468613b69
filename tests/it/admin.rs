//! Section 9: what an administrator may do.

use serde_json::json;
use sightline::auth::Permission;

use crate::harness::{Publisher, Refused, Server, Token, Viewer, eventually, kind};

fn tagged(server: &Server, sub: &str, jti: &str, session: &str) -> String {
    let mut token = Token::of(sub, &[]);
    token.0.jti = Some(jti.into());
    token.0.session = Some(session.into());
    server.mint(&token)
}

/// Opens, or says why not.
fn open(server: &Server, token: &str) -> Result<(), Refused> {
    Viewer::try_open(
        server,
        "/keen",
        &[("authorization", &format!("Bearer {token}"))],
    )
    .map(drop)
}

#[test]
fn a_revocation_closes_and_refuses_on_every_core() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let admin = server.admin_token();
    let revoked = Err(Refused {
        status: 401,
        code: "TOKEN_REVOKED".into(),
    });
    // For each kind: tokens that it hits on both cores, and neighbours that it does not.
    let cases = [
        (
            "jti",
            "j1",
            [
                tagged(&server, &here, "j1", "s0"),
                tagged(&server, &there, "j1", "s9"),
            ],
        ),
        (
            "sessionId",
            "s1",
            [
                tagged(&server, &here, "j2", "s1"),
                tagged(&server, &there, "j3", "s1"),
            ],
        ),
    ];
    let others = [
        tagged(&server, &here, "other", "o"),
        tagged(&server, &there, "other", "o"),
    ];
    let mut neighbours = others.map(|token| Viewer::open(&server, "/keen", &token));
    for (name, value, tokens) in cases {
        let mut viewers = tokens
            .each_ref()
            .map(|token| Viewer::open(&server, "/observatory", token));
        let body = json!({name: value}).to_string();
        let answer = server.ask("POST", "/v1/admin/revoke", &admin, &body);
        assert_eq!(
            (answer.status, answer.json()),
            (200, json!({"closed": 2})),
            "{name}"
        );
        for (viewer, token) in viewers.iter_mut().zip(&tokens) {
            assert_eq!(viewer.until_close().1, 4002, "{name}");
            assert_eq!(open(&server, token), revoked, "{name}");
        }
        let undone = server.ask("DELETE", "/v1/admin/revoke", &admin, &body);
        assert_eq!(undone.status, 200, "{}", undone.text());
        assert_eq!(
            tokens.each_ref().map(|token| open(&server, token)),
            [Ok(()), Ok(())]
        );
    }
    for neighbour in &mut neighbours {
        assert!(neighbour.drain().is_empty());
    }
}

#[test]
fn a_revoked_user_needs_a_token_of_later() {
    let server = Server::start("");
    let admin = server.admin_token();
    let body = r#"{"userId":"alice"}"#;
    let early = server.mint(&Token(
        Token::of("alice", &[]).0,
        crate::harness::now_s() - 10,
    ));
    let mut viewer = Viewer::open(&server, "/keen", &early);
    let publish = Token::of("alice", &[]).with(&[Permission::Publish]);
    let publish = server.mint(&Token(publish.0, crate::harness::now_s() - 10));
    let mut publisher = Publisher::open(&server, &publish);
    let mut bob = Viewer::open(&server, "/keen", &server.viewer_token("bob", &[]));
    let answer = server.ask("POST", "/v1/admin/revoke", &admin, body);
    assert_eq!(answer.json(), json!({"closed": 2}));
    assert_eq!(viewer.until_close().1, 4002);
    assert_eq!(publisher.next(), Err(4002));
    let revoked = Refused {
        status: 401,
        code: "TOKEN_REVOKED".into(),
    };
    assert_eq!(open(&server, &early), Err(revoked));
    let refused = server.ask("POST", "/v1/events", &publish, "{}");
    assert_eq!(refused.refusal(), (401, "TOKEN_REVOKED".into()));
    // `iat` has whole seconds: the next one is later.
    eventually("a token of later is taken", || {
        open(&server, &server.viewer_token("alice", &[])).ok()
    });
    assert!(bob.drain().is_empty());
    server.ask("DELETE", "/v1/admin/revoke", &admin, body);
    assert_eq!(open(&server, &early), Ok(()));
}

#[test]
fn a_connection_or_a_user_is_disconnected_and_may_return() {
    let server = Server::start("");
    let [here, there] = server.users_on_two_cores();
    let admin = server.admin_token();
    let token = server.viewer_token(&here, &[]);
    let mut first = Viewer::open(&server, "/keen", &token);
    let mut second = Viewer::open(&server, "/keen", &token);
    let mut other = Viewer::open(&server, "/keen", &server.viewer_token(&there, &[]));
    let disconnect = |body: serde_json::Value| {
        let answer = server.ask("POST", "/v1/admin/disconnect", &admin, &body.to_string());
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()["closed"].clone()
    };
    assert_eq!(
        disconnect(json!({"connectionId": first.greeting()["connectionId"]})),
        1
    );
    first.until_close();
    assert!(second.drain().is_empty());
    assert_eq!(disconnect(json!({"userId": here})), 1);
    second.until_close();
    assert_eq!(disconnect(json!({"userId": "nobody"})), 0);
    assert_eq!(open(&server, &token), Ok(()));
    assert!(other.drain().is_empty());
}

#[test]
fn connections_are_listed() {
    let server = Server::start("");
    let token = server.viewer_token("alice", &["p"]);
    let viewer = Viewer::open(&server, "/observatory?subscribe=all", &token);
    let publisher = Publisher::open(&server, &server.publisher_token());
    let rows = server.connections();
    assert_eq!(rows.len(), 2);
    let row = rows.iter().find(|row| row["userId"] == "alice").unwrap();
    assert_eq!(row["connectionId"], viewer.greeting()["connectionId"]);
    assert_eq!(
        (&row["role"], &row["subscriptions"]),
        (&json!("observatory"), &json!(1))
    );
    assert!(
        row["remote"].as_str().unwrap().starts_with("127.0.0.1:"),
        "{row}"
    );
    assert!(
        row["connectedAt"].is_i64() && row["framesWritten"].is_u64(),
        "{row}"
    );
    drop((viewer, publisher));
}

#[test]
fn only_administrators_administer() {
    let server = Server::start("");
    let admin = server.admin_token();
    let others = [Permission::Subscribe, Permission::PublishAny];
    let other = server.mint(&Token::of("alice", &[]).with(&others));
    for (method, path, body) in [
        ("POST", "revoke", r#"{"jti":"x"}"#),
        ("DELETE", "revoke", r#"{"jti":"x"}"#),
        ("POST", "disconnect", r#"{"userId":"x"}"#),
        ("GET", "connections", ""),
    ] {
        let target = format!("/v1/admin/{path}");
        let refusal = |token: &str| server.ask(method, &target, token, body).refusal();
        assert_eq!(
            refusal(&other),
            (403, "FORBIDDEN".into()),
            "{method} {path}"
        );
        assert_eq!(refusal("x").1, "TOKEN_INVALID", "{method} {path}");
        assert_eq!(
            server.ask(method, &target, &admin, body).status,
            200,
            "{method} {path}"
        );
    }
    let refusal = |method: &str, path: &str, body: &str| {
        server
            .ask(method, &format!("/v1/admin/{path}"), &admin, body)
            .refusal()
    };
    assert_eq!(
        refusal("GET", "revoke", ""),
        (405, "METHOD_NOT_ALLOWED".into())
    );
    assert_eq!(refusal("POST", "nothing", ""), (404, "NOT_FOUND".into()));
    for body in [
        "",
        "[]",
        "{}",
        r#"{"jti":true}"#,
        r#"{"jti":"a","userId":"b"}"#,
        r#"{"jti":""}"#,
    ] {
        assert_eq!(refusal("POST", "revoke", body).0, 400, "{body}");
    }
    for body in ["", "{}", r#"{"userId":"a","connectionId":"b"}"#] {
        assert_eq!(refusal("POST", "disconnect", body).0, 400, "{body}");
    }
    assert_eq!(refusal("POST", "revoke", &" ".repeat(70_000)).0, 413);
}

#[test]
fn a_revocation_ends_when_it_was_said_to() {
    let server = Server::start("");
    let admin = server.admin_token();
    let token = tagged(&server, "alice", "j1", "s");
    let until = (crate::harness::now_s() + 1) * 1_000;
    let body = json!({"jti": "j1", "expiresAt": until}).to_string();
    let answer = server.ask("POST", "/v1/admin/revoke", &admin, &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("it ends", || open(&server, &token).ok());
    let mut viewer = Viewer::open(&server, "/keen", &token);
    assert_eq!(kind(&viewer.ask(&json!({"type": "ping"}))), "pong");
}
