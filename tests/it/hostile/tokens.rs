//! Tokens that are forged, that lead elsewhere, and that say what they must not.
//!
//! Each list is run through the server with a key of each kind, and every refusal is the same to
//! the letter; `auth::refusals` has the reasons, and more rows.

use std::net::TcpListener;

use serde_json::{Value, json};

use super::issuer::{ISSUER, Issuer, KID, base64, claims, hmac_sha256};
use super::{Neighbour, Tally, refusals, viewer_errors};
use crate::harness::{Http, Server, Setup, Viewer, check_secrecy, kind, now_s, request, text};

/// All that an answer says.
fn answer(http: &mut Http, token: &str) -> String {
    let bearer = format!("Bearer {token}");
    let headers = [("Authorization", bearer.as_str())];
    http.send(&request(
        "POST",
        "/v1/events",
        &headers,
        br#"{"event_type":"x","user_id":"neighbour"}"#,
    ));
    let answer = http.receive();
    let said = format!("{} {:?} {}", answer.status, answer.headers, answer.text());
    check_secrecy("a refusal", &said);
    said
}

/// Shows each token to the server, which must refuse them all by the same words, and a viewer's
/// connection as its new one, which must go on under the old one.
fn check_all_refused(issuer: &Issuer, tokens: &[(String, String)]) {
    // Its own checks go on while a refresh is tried as often as that is allowed.
    let rates = "limits.messages_per_second = 1000\nlimits.messages_per_minute = 1000";
    let (server, _folder) = issuer.server(&format!("{ISSUER}\n{rates}"));
    let good = issuer.good("neighbour");
    let mut neighbour = Neighbour::with_tokens(&server, "neighbour", &good, &good);
    let tally = Tally::of(&server);
    let mut viewer = Viewer::open(&server, "/observatory", &issuer.good("alice"));
    let mut http = server.http();
    let expected = answer(&mut http, "x.y.z");
    assert!(
        expected.starts_with("401 ") && expected.contains("TOKEN_INVALID"),
        "{expected}"
    );
    for (name, token) in tokens {
        assert_eq!(answer(&mut http, token), expected, "{} {name}", issuer.alg);
        let refresh = json!({"type": "refresh_token", "data": {"token": token}});
        let told = viewer.ask(&refresh);
        assert_eq!(
            text(&told["data"]["code"]),
            "TOKEN_INVALID",
            "{} {name}",
            issuer.alg
        );
    }
    tally.assert_grew(&refusals("TOKEN_INVALID"), tokens.len() as u64 + 1);
    tally.assert_grew(&viewer_errors("TOKEN_INVALID"), tokens.len() as u64);
    tally.assert_grew("events_received_total", 0);
    assert_eq!(kind(&viewer.ask(&json!({"type": "ping"}))), "pong");
    neighbour.assert_undisturbed();
}

/// Tokens whose algorithm, shape or signature is wrong.
fn forged(issuer: &Issuer) -> Vec<(String, String)> {
    let good = issuer.good("alice");
    let (message, signature) = good.rsplit_once('.').unwrap();
    let (header, payload) = message.split_once('.').unwrap();
    let mut tokens: Vec<(String, String)> = Vec::new();
    let mut add = |name: &str, token: String| tokens.push((name.into(), token));
    for alg in ["none", "None", "nOnE", "NONE", "none ", ""] {
        let header = base64(json!({"alg": alg, "typ": "JWT"}).to_string());
        add(alg, format!("{header}.{payload}."));
        add(alg, format!("{header}.{payload}.{signature}"));
        add(alg, issuer.with_header(&json!({"alg": alg}).to_string()));
    }
    let others = [
        "HS256", "HS384", "HS512", "RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "ES512",
        "EdDSA", "HS1", "dir", "A128KW", "RSA-OAEP",
    ];
    // A shared secret signs by any of its family, which is then what it says.
    for alg in others.into_iter().filter(|alg| *alg != issuer.alg) {
        add(alg, issuer.with_header(&json!({"alg": alg}).to_string()));
    }
    add(
        "lower case",
        issuer.with_header(&json!({"alg": issuer.alg.to_lowercase()}).to_string()),
    );
    // What everybody knows, as the secret of an HMAC.
    let public = issuer.public.clone().unwrap_or_else(|| issuer.alg.into());
    for secret in [public.as_str(), public.trim_end(), ""] {
        let header = base64(r#"{"alg":"HS256","typ":"JWT"}"#);
        let message = format!("{header}.{payload}");
        let signature = hmac_sha256(secret.as_bytes(), message.as_bytes());
        add(
            "a public key as secret",
            format!("{message}.{}", base64(signature)),
        );
    }
    if issuer.public.is_some() {
        add("another key's", issuer.stranger().good("alice"));
    }
    for (name, header) in [
        ("no alg", json!({"typ": "JWT"})),
        ("null alg", json!({"alg": null})),
        ("alg in a list", json!({"alg": [issuer.alg]})),
        (
            "crit",
            json!({"alg": issuer.alg, "crit": ["exp"], "exp": 1}),
        ),
        (
            "crit unknown",
            json!({"alg": issuer.alg, "crit": ["x"], "x": 1}),
        ),
        ("crit empty", json!({"alg": issuer.alg, "crit": []})),
        (
            "b64",
            json!({"alg": issuer.alg, "b64": false, "crit": ["b64"]}),
        ),
        ("encrypted", json!({"alg": issuer.alg, "enc": "A128GCM"})),
        ("compressed", json!({"alg": issuer.alg, "zip": "DEF"})),
        ("nested", json!({"alg": issuer.alg, "cty": "JWT"})),
    ] {
        add(name, issuer.with_header(&header.to_string()));
    }
    let alg = issuer.alg;
    add(
        "two algs",
        issuer.with_header(&format!(r#"{{"alg":"{alg}","alg":"none"}}"#)),
    );
    add(
        "two algs, escaped",
        issuer.with_header(&format!(r#"{{"alg":"{alg}","\u0061lg":"none"}}"#)),
    );
    let bob = base64(claims("bob").to_string());
    let flipped = if signature.starts_with('A') { "B" } else { "A" };
    for (name, token) in [
        ("one part", header.to_string()),
        ("two parts", message.to_string()),
        ("four parts", format!("{good}.{signature}")),
        ("five parts", format!("{header}..{payload}.{signature}.x")),
        ("dots", "..".into()),
        ("no signature", format!("{message}.")),
        ("no payload", format!("{header}..{signature}")),
        ("no header", format!(".{payload}.{signature}")),
        ("another's claims", format!("{header}.{bob}.{signature}")),
        (
            "first bit",
            format!("{message}.{flipped}{}", &signature[1..]),
        ),
        (
            "cut",
            format!("{message}.{}", &signature[..signature.len() - 4]),
        ),
        ("longer", format!("{message}.{signature}AAAA")),
        ("padded", format!("{message}.{signature}==")),
        (
            "zeros",
            format!("{message}.{}", "A".repeat(signature.len())),
        ),
        (
            "standard base64",
            format!("{message}.{}+", &signature[..signature.len() - 1]),
        ),
        (
            "of a token in a token",
            issuer.with_payload(&json!(good).to_string()),
        ),
    ] {
        add(name, token);
    }
    tokens
}

#[test]
fn a20_a_forged_token_is_refused_whatever_it_says_of_itself() {
    for issuer in Issuer::all() {
        let tokens = forged(&issuer);
        assert!(tokens.len() >= 60, "{} of {}", tokens.len(), issuer.alg);
        check_all_refused(&issuer, &tokens);
    }
}

#[test]
fn a21_a_token_leads_to_no_key_but_the_configured_ones() {
    let elsewhere = TcpListener::bind("127.0.0.1:0").unwrap();
    elsewhere.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys.json", elsewhere.local_addr().unwrap());
    let key_set = |issuer: &Issuer, folder: &std::path::Path| {
        let file = folder.join("keys.json");
        std::fs::write(&file, json!({"keys": [issuer.jwk]}).to_string()).unwrap();
        format!("auth.jwks_file = {file:?}")
    };
    for (issuer, stranger) in [
        (Issuer::rsa(), Issuer::rsa()),
        (Issuer::p256(), Issuer::p256()),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let key = key_set(&issuer, folder.path());
        let server = Server::with(&Setup {
            key: &key,
            cores: 1,
            ..Setup::default()
        });
        let named = |mut header: Value, kid: &str| {
            header["kid"] = json!(kid);
            header.to_string()
        };
        let genuine = named(issuer.header(), KID);
        let good = issuer.sign(&genuine, &claims("neighbour").to_string());
        let mut neighbour = Neighbour::with_tokens(&server, "neighbour", &good, &good);
        let tally = Tally::of(&server);
        let mut http = server.http();
        let expected = answer(&mut http, "x.y.z");
        let mut tokens = Vec::new();
        let payload = claims("alice").to_string();
        for kid in [
            "",
            "KEY-1",
            "key-1 ",
            "key-2",
            "0",
            "../../../etc/passwd",
            "/dev/null",
            "file:///dev/null",
            "key-1' OR '1'='1",
            "key-1\0",
            "key-1\n",
            "|whoami",
            "$(id)",
            "%2e%2e",
            "__proto__",
            "keys.json",
            &url,
        ] {
            tokens.push(issuer.sign(&named(issuer.header(), kid), &payload));
        }
        // Signed by a key that the token brings, or says where to find.
        for name in ["jku", "x5u", "jwk", "x5c"] {
            let brought = match name {
                "jwk" => stranger.jwk.clone(),
                "x5c" => json!([stranger.public]),
                _ => json!(url),
            };
            for kid in [KID, "stranger"] {
                let mut header = stranger.header();
                header[name] = brought.clone();
                tokens.push(stranger.sign(&named(header, kid), &payload));
            }
        }
        // Claims are not looked at before the signature: no issuer leads anywhere either.
        let mut led = claims("alice");
        led["iss"] = json!(url);
        tokens.push(stranger.sign(&genuine, &led.to_string()));
        for token in &tokens {
            assert_eq!(answer(&mut http, token), expected, "{} {token}", issuer.alg);
        }
        tally.assert_grew(&refusals("TOKEN_INVALID"), tokens.len() as u64 + 1);
        neighbour.assert_undisturbed();
    }
    let hit = elsewhere.accept().map(|(_, from)| from);
    assert!(hit.is_err(), "the server asked {hit:?} for keys");
}

#[test]
fn a22_a_claim_of_a_wrong_kind_or_time_is_refused() {
    let far = now_s() + 3_600;
    let rows: Vec<(&str, Value)> = vec![
        ("exp", json!(null)),
        ("exp", json!(far.to_string())),
        ("exp", json!(-1)),
        ("exp", json!(-0.5)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("exp", json!(far * 1_000)),
        ("exp", json!(true)),
        ("exp", json!([far])),
        ("nbf", json!("0")),
        ("nbf", json!(-1)),
        ("nbf", json!(1e300)),
        ("nbf", json!(far)),
        ("nbf", json!(now_s() + 60)),
        ("iat", json!("now")),
        ("iat", json!(-7)),
        ("sub", json!(null)),
        ("sub", json!("")),
        ("sub", json!(["alice"])),
        ("sub", json!("x".repeat(129))),
        ("iss", json!(null)),
        ("iss", json!("login/")),
        ("iss", json!("LOGIN")),
        ("iss", json!(["login"])),
        ("aud", json!(null)),
        ("aud", json!("gateway2")),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("aud", json!(["gateway", 7])),
        ("aud", json!({"gateway": true})),
        ("projectIds", json!("7")),
        ("projectIds", json!([true])),
        ("permissions", json!("admin")),
        ("permissions", json!({"admin": true})),
        ("userId", json!("bob")),
        ("sid", json!(true)),
        ("jti", json!("")),
    ];
    for issuer in [Issuer::secret(), Issuer::ed25519()] {
        let with = |(name, value): &(&str, Value)| {
            let mut claims = claims("alice");
            claims[*name] = value.clone();
            (
                format!("{name} {value}"),
                issuer.with_payload(&claims.to_string()),
            )
        };
        let mut tokens: Vec<_> = rows.iter().map(with).collect();
        let exp = far;
        let rest = format!(r#""exp":{exp},"iss":"login","aud":"gateway""#);
        for payload in [
            format!(r#"{{"sub":"alice","sub":"neighbour",{rest}}}"#),
            format!(r#"{{"sub":"alice","s\u0075b":"neighbour",{rest}}}"#),
            format!(r#"{{"sub":"alice","exp":1,{rest}}}"#),
            format!(r#"{{"sub":"alice","nbf":NaN,{rest}}}"#),
            format!(r#"{{"sub":"alice","nbf":1e999,{rest}}}"#),
            format!(r#"{{"sub":"alice",{rest}}}{{}}"#),
            format!(r#"{{"sub":"alice",{rest},"x":{}"#, "[".repeat(2_000)),
            "null".into(),
            String::new(),
        ] {
            tokens.push((payload.clone(), issuer.with_payload(&payload)));
        }
        check_all_refused(&issuer, &tokens);
        // Within the leeway, and past it.
        let (server, _folder) = issuer.server(ISSUER);
        let mut http = server.http();
        for (name, value, expected) in [
            ("exp", now_s() - 1, "200 "),
            ("exp", now_s() - 60, "401 "),
            ("nbf", now_s() + 2, "200 "),
        ] {
            let mut claims = claims("alice");
            claims[name] = json!(value);
            let said = answer(&mut http, &issuer.with_payload(&claims.to_string()));
            assert!(said.starts_with(expected), "{name}: {said}");
        }
        Tally::of(&server).assert_grew(&refusals("TOKEN_EXPIRED"), 0);
        let counted = format!("sightline_{}", refusals("TOKEN_EXPIRED"));
        assert_eq!(
            crate::harness::sample(&server.page("/metrics"), &counted),
            1.0
        );
    }
}

#[test]
fn a23_old_and_new_keys_are_good_while_both_are_listed() {
    let (mut old, mut new) = (Issuer::p256(), Issuer::ed25519());
    (old.jwk["kid"], new.jwk["kid"]) = (json!("2025"), json!("2026"));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("keys.json");
    let start = |keys: &[&Issuer]| {
        let keys: Vec<_> = keys.iter().map(|issuer| &issuer.jwk).collect();
        std::fs::write(&file, json!({"keys": keys}).to_string()).unwrap();
        let key = format!("auth.jwks_file = {file:?}");
        Server::with(&Setup {
            key: &key,
            cores: 1,
            ..Setup::default()
        })
    };
    let token = |issuer: &Issuer, kid: &Value, sub: &str| {
        let mut header = issuer.header();
        header["kid"] = kid.clone();
        issuer.sign(&header.to_string(), &claims(sub).to_string())
    };
    let (old_kid, new_kid) = (old.jwk["kid"].clone(), new.jwk["kid"].clone());
    let by_old = token(&old, &old_kid, "neighbour");
    let by_new = token(&new, &new_kid, "neighbour");
    // Each key signs for its own name only.
    let crossed = [
        token(&old, &new_kid, "neighbour"),
        token(&new, &old_kid, "neighbour"),
    ];
    for (keys, is_old_good, is_new_good) in [
        (&[&old][..], true, false),
        (&[&old, &new], true, true),
        (&[&new], false, true),
    ] {
        let server = start(keys);
        let mut http = server.http();
        let mut status = |token: &str| answer(&mut http, token)[..3].to_string();
        let expected = |is_good: bool| if is_good { "200" } else { "401" };
        for _ in 0..20 {
            assert_eq!(status(&by_old), expected(is_old_good));
            assert_eq!(status(&by_new), expected(is_new_good));
        }
        for token in &crossed {
            assert_eq!(status(token), "401");
        }
        let metrics = server.page("/metrics");
        let refused = crate::harness::sample(
            &metrics,
            &format!("sightline_{}", refusals("TOKEN_INVALID")),
        );
        let bad = usize::from(!is_old_good) + usize::from(!is_new_good);
        assert_eq!(refused as usize, 20 * bad + 2);
        drop(http);
        let good = if is_old_good { &by_old } else { &by_new };
        Neighbour::with_tokens(&server, "neighbour", good, good);
    }
}

#[test]
fn a26_a_refusal_does_not_tell_how_near_a_signature_came() {
    let issuer = Issuer::secret();
    let good = issuer.good("alice");
    let (message, signature) = good.rsplit_once('.').unwrap();
    // Each character of the signature wrong in turn, and all of them.
    let near: Vec<(String, String)> = (0..signature.len())
        .map(|at| {
            // The last character holds bits that are not part of the signature.
            let other = if signature.as_bytes()[at] == b'Q' {
                "g"
            } else {
                "Q"
            };
            let changed = format!("{}{other}{}", &signature[..at], &signature[at + 1..]);
            (format!("character {at}"), format!("{message}.{changed}"))
        })
        .collect();
    check_all_refused(&issuer, &near);
}
