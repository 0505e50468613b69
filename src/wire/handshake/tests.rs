#![allow(clippy::unwrap_used)]

use super::*;
use crate::wire::http::parse_head;

const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";

/// A good upgrade to `target` with `headers` (each with its CRLF) added.
fn request(target: &str, headers: &str) -> String {
    format!(
        "GET {target} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\
         Connection: keep-alive, Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {KEY}\r\n{headers}\r\n"
    )
}

fn head(request: &str) -> RequestHead {
    parse_head(request.as_bytes()).unwrap().unwrap().1
}

const ENDPOINTS: Endpoints = Endpoints {
    default_dialect: Dialect::Observatory,
    has_echo: false,
};

fn upgrade(request: &str) -> Result<Upgrade, HandshakeError> {
    Upgrade::from_head(&head(request), ENDPOINTS)
}

fn answer(upgrade: &Upgrade) -> String {
    let mut out = Vec::new();
    write_switching_protocols(&mut out, upgrade);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_answer_is_that_of_the_rfc() {
    let upgrade = upgrade(&request("/keen", "")).unwrap();
    assert_eq!(
        answer(&upgrade),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
    );
}

#[test]
fn there_is_an_echo_only_where_the_server_has_it() {
    let head = head(&request("/echo", ""));
    let check = |has_echo: bool, expected: Result<Role, HandshakeError>| {
        let endpoints = Endpoints {
            has_echo,
            ..ENDPOINTS
        };
        let found = Upgrade::from_head(&head, endpoints);
        assert_eq!(found.map(|upgrade| upgrade.role), expected);
    };
    check(true, Ok(Role::Echo));
    check(false, Err(HandshakeError::Path));
}

#[test]
fn path_and_subprotocol_choose_the_dialect() {
    let check =
        |path: &str, offered: &str, expected: Result<(Role, Option<&str>), HandshakeError>| {
            let headers = match offered {
                "" => String::new(),
                _ => format!("Sec-WebSocket-Protocol: {offered}\r\n"),
            };
            let found = upgrade(&request(path, &headers));
            let echoed = |upgrade: &Upgrade| upgrade.subprotocol.map(subprotocol_name);
            let found = found.map(|upgrade| (upgrade.role, echoed(&upgrade)));
            assert_eq!(found, expected, "{path} {offered}");
        };
    let (keen, observatory) = (
        Role::Viewer(Dialect::Keen),
        Role::Viewer(Dialect::Observatory),
    );
    let (keen_v1, observatory_v1) = ("sightline.keen.v1", "sightline.observatory.v1");
    check("/keen", "", Ok((keen, None)));
    check("/observatory?token=x", "", Ok((observatory, None)));
    check("/ws", "", Ok((observatory, None)));
    check("/", "", Ok((observatory, None)));
    check("/", "chat", Ok((observatory, None)));
    check("/ws", keen_v1, Ok((keen, Some(keen_v1))));
    check(
        "/",
        "chat, sightline.observatory.v1,",
        Ok((observatory, Some(observatory_v1))),
    );
    check(
        "/ws",
        "sightline.keen.v1, sightline.observatory.v1",
        Ok((keen, Some(keen_v1))),
    );
    check(
        "/observatory",
        "sightline.keen.v1, sightline.observatory.v1",
        Ok((observatory, Some(observatory_v1))),
    );
    check(
        "/keen",
        observatory_v1,
        Err(HandshakeError::SubprotocolContradiction),
    );
    check(
        "/observatory",
        keen_v1,
        Err(HandshakeError::SubprotocolContradiction),
    );
    check("/keen", "a b", Err(HandshakeError::Subprotocol));
    check(
        "/keen",
        "bearer.T",
        Err(HandshakeError::SubprotocolRequired),
    );
    check(
        "/keen",
        "bearer.T, chat",
        Err(HandshakeError::SubprotocolRequired),
    );
    check(
        "/keen",
        "bearer.T, bearer.U, sightline.keen.v1",
        Err(HandshakeError::Subprotocol),
    );
    check(
        "/ws",
        "bearer.T, sightline.keen.v1",
        Ok((keen, Some(keen_v1))),
    );
    check("/v1/publish", "", Ok((Role::Publisher, None)));
    check(
        "/v1/publish",
        "bearer.T",
        Err(HandshakeError::SubprotocolRequired),
    );
    check(
        "/v1/publish",
        "bearer.T,sightline.keen.v1",
        Ok((Role::Publisher, Some(keen_v1))),
    );
    check("/keen/", "", Err(HandshakeError::Path));
}

#[test]
fn malformed_upgrades_are_refused() {
    let check = |from: &str, to: &str, error: HandshakeError, status: u16| {
        let good = request("/keen", "");
        assert!(good.contains(from));
        let found = upgrade(&good.replace(from, to)).unwrap_err();
        assert_eq!((found, found.refusal().status()), (error, status), "{to}");
    };
    check(
        "Upgrade: websocket\r\n",
        "",
        HandshakeError::NotUpgrade,
        400,
    );
    check(
        "Upgrade: websocket",
        "Upgrade: h2c",
        HandshakeError::NotUpgrade,
        400,
    );
    check("GET", "POST", HandshakeError::Method, 400);
    check("HTTP/1.1", "HTTP/1.0", HandshakeError::Method, 400);
    check(
        "keep-alive, Upgrade",
        "keep-alive",
        HandshakeError::Connection,
        400,
    );
    check("Version: 13", "Version: 8", HandshakeError::Version, 426);
    check(
        "Version: 13",
        "Version: 13, 8",
        HandshakeError::Version,
        426,
    );
    check(
        "Sec-WebSocket-Version: 13\r\n",
        "",
        HandshakeError::Version,
        426,
    );
    check("Sec-WebSocket-Key", "X-Key", HandshakeError::Key, 400);
    for key in [
        "",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25jZQ===",
        "dGhlIHNhbXBsZSBub25jZ==",
        "dGhlIHNhbXBsZSBub25jZQQ==",
        "dGhlIHNhbXBsZSBub25j!Q==",
        "dGhlIHNhbXBsZSBub25jZTEy",
    ] {
        check(KEY, key, HandshakeError::Key, 400);
    }
    check("/keen", "/nowhere", HandshakeError::Path, 404);
}

#[test]
fn an_extension_is_answered_where_it_was_offered_and_not_declined() {
    let check = |headers: &str, expected: bool| {
        let mut upgrade = upgrade(&request("/keen", headers)).unwrap();
        let answered = "Sec-WebSocket-Extensions: permessage-deflate; \
                        server_no_context_takeover; client_no_context_takeover\r\n";
        assert_eq!(answer(&upgrade).contains(answered), expected, "{headers}");
        upgrade.deflate = None;
        assert!(!answer(&upgrade).contains("Extensions"), "{headers}");
    };
    check("", false);
    check("Sec-WebSocket-Extensions: permessage-deflate\r\n", true);
    check(
        "Sec-WebSocket-Extensions: x\r\nsec-websocket-extensions: permessage-deflate\r\n",
        true,
    );
    let offers = [
        "permessage-deflate; server_max_window_bits=7",
        "x; y=\"abc\", ,;",
    ];
    for offer in offers
        .map(String::from)
        .into_iter()
        .chain(["a,".repeat(500)])
    {
        check(&format!("Sec-WebSocket-Extensions: {offer}\r\n"), false);
    }
}

#[test]
fn the_first_carrier_that_has_a_token_counts() {
    let check = |target: &str, headers: &str, expected: Result<&str, Refusal>| {
        let found = upgrade(&request(target, headers)).unwrap().token;
        assert_eq!(
            found.as_ref().map(Token::as_str).map_err(|r| *r),
            expected,
            "{target} {headers}"
        );
    };
    let protocol = "Sec-WebSocket-Protocol: bearer.P, sightline.keen.v1\r\n";
    check("/keen", "", Err(Refusal::TokenMissing));
    check("/keen?token=", "", Err(Refusal::TokenMissing));
    check("/keen?a=b&token=Q", "", Ok("Q"));
    check("/keen?token=a%2Eb", "", Ok("a.b"));
    check("/keen?token=a%20b", "", Err(Refusal::TokenInvalid));
    check("/keen?token=Q", protocol, Ok("P"));
    check(
        "/keen?token=Q",
        &format!("Authorization: Bearer A\r\n{protocol}"),
        Ok("A"),
    );
    check("/keen", "Authorization: bearer   A\r\n", Ok("A"));
    check(
        "/keen",
        "Authorization: Bearer\r\n",
        Err(Refusal::TokenInvalid),
    );
    check(
        "/keen",
        "Authorization: Bearer a b\r\n",
        Err(Refusal::TokenInvalid),
    );
    check(
        "/keen",
        "Authorization: Basic abc\r\n",
        Err(Refusal::TokenInvalid),
    );
    check("/keen?token=Q", "Authorization: Basic abc\r\n", Ok("Q"));
    check(
        "/keen?token=Q",
        "Authorization: Bearer \r\n",
        Err(Refusal::TokenInvalid),
    );
    let bearer_alone = "Sec-WebSocket-Protocol: bearer., sightline.keen.v1\r\n";
    check("/keen", bearer_alone, Err(Refusal::TokenInvalid));
}

#[test]
fn the_token_is_neither_echoed_nor_shown() {
    let headers = "Sec-WebSocket-Protocol: bearer.SECRET, sightline.keen.v1\r\n";
    let request = request("/keen?token=SECRET", headers);
    let upgrade = upgrade(&request).unwrap();
    assert!(answer(&upgrade).contains("Sec-WebSocket-Protocol: sightline.keen.v1\r\n"));
    for shown in [
        answer(&upgrade),
        format!("{upgrade:?}"),
        format!("{:?}", head(&request)),
    ] {
        assert!(!shown.contains("SECRET"), "{shown}");
    }
}

#[test]
fn refusals_as_close_is_asked_for_by_the_query() {
    let check = |target: &str, expected: bool| {
        assert_eq!(
            upgrade(&request(target, "")).unwrap().refusals_as_close,
            expected,
            "{target}"
        );
    };
    check("/keen", false);
    check("/keen?refusals=close", true);
    check("/keen?refusals=http", false);
    check("/keen?token=x&refusals=clos%65", true);
}

#[test]
fn an_upgrade_can_cross_to_another_thread() {
    fn is_send<T: Send + 'static>() {}
    is_send::<Upgrade>();
    is_send::<RequestHead>();
}
