//! Tokens that must be refused: one list, run against a verifier of every kind of key. Where the
//! fault is in header or claims the signature is genuine, so that nothing else can be the reason.
#![allow(clippy::unwrap_used)]

use std::sync::LazyLock;

use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::json::encode_base64;
use super::keys::KeySet;
use super::test_keys::{ED25519, P256, P384, RSA, SHARED, TestKey, ec, ed25519, rsa, secret};
use super::token::InvalidToken::{
    Algorithm as WrongAlgorithm, Claim, ClaimMissing, ClaimsDiffer, ClaimsUnreadable, Critical,
    Encrypted, Header, NotYetValid, Shape, Signature, TooLong, UnknownKey,
};
use super::token::{InvalidToken, TokenError, Verifier};

const NOW_S: u64 = 1_800_000_000;

/// A key, another of the same kind, and the verifier of the first.
struct Bench {
    key: &'static TestKey,
    stranger: TestKey,
    verifier: Verifier,
    /// What some key of the verifier allows; a JWKS has several.
    allowed: Vec<Algorithm>,
}

impl Bench {
    fn new(key: &'static TestKey, stranger: TestKey, keys: KeySet) -> Self {
        Self {
            key,
            stranger,
            verifier: Verifier {
                keys,
                issuer: Some("https://issuer.example".into()),
                audience: Some("sightline".into()),
            },
            allowed: key.algorithms.to_vec(),
        }
    }

    fn all() -> &'static [Self] {
        static ALL: LazyLock<Vec<Bench>> = LazyLock::new(Bench::build_all);
        &ALL
    }

    fn build_all() -> Vec<Self> {
        let pem = |key: &TestKey| KeySet::from_public_pem(key.public.as_bytes()).unwrap();
        let p256 = || {
            let curve = &aws_lc_rs::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
            ec(curve, &[Algorithm::ES256], "P-256")
        };
        let p384 = || {
            let curve = &aws_lc_rs::signature::ECDSA_P384_SHA384_FIXED_SIGNING;
            ec(curve, &[Algorithm::ES384], "P-384")
        };
        let shared = KeySet::from_secret(SHARED.public.as_bytes()).unwrap();
        let other_secret = secret("another owl counts the stars, slowly");
        let set = [(&*RSA, "a"), (&*P256, "b"), (&*SHARED, "c")];
        let mut several = Self::new(&RSA, rsa(), jwks(&set));
        several.allowed = set
            .iter()
            .flat_map(|(key, _)| key.algorithms)
            .copied()
            .collect();
        vec![
            Self::new(&SHARED, other_secret, shared),
            Self::new(&RSA, rsa(), pem(&RSA)),
            Self::new(&P256, p256(), pem(&P256)),
            Self::new(&P384, p384(), pem(&P384)),
            Self::new(&ED25519, ed25519(), pem(&ED25519)),
            several,
        ]
    }

    /// Why a token is refused that another key signed with `algorithm`.
    fn foreign(&self, algorithm: Algorithm) -> InvalidToken {
        if self.allowed.contains(&algorithm) {
            Signature
        } else {
            WrongAlgorithm
        }
    }

    fn algorithm(&self) -> Algorithm {
        self.key.algorithms[0]
    }

    fn name(&self) -> String {
        format!("{:?}", self.algorithm())
    }

    fn header(&self) -> Value {
        json!({"alg": self.name(), "typ": "JWT"})
    }

    fn sign(&self, header: impl AsRef<[u8]>, payload: impl AsRef<[u8]>) -> String {
        self.key
            .sign(self.algorithm(), header.as_ref(), payload.as_ref())
    }

    /// A genuine token but for its header.
    fn with_header(&self, header: impl AsRef<[u8]>) -> String {
        self.sign(header, good_claims().to_string())
    }

    /// A genuine token but for one claim: `null` takes it out.
    fn with_claim(&self, name: &str, value: Value) -> String {
        let mut claims = good_claims();
        claims[name] = value;
        self.with_payload(claims.to_string())
    }

    /// A genuine token but for its payload.
    fn with_payload(&self, payload: impl AsRef<[u8]>) -> String {
        self.sign(self.header().to_string(), payload)
    }

    fn good(&self) -> String {
        self.with_payload(good_claims().to_string())
    }

    /// `refused` says why; anything else fails with the name of the case.
    fn check(&self, case: &str, token: &str, refused: impl Into<TokenError>) {
        let outcome = self.verifier.verify(token, NOW_S);
        assert_eq!(outcome, Err(refused.into()), "{} {case}", self.name());
    }
}

fn jwks(keys: &[(&TestKey, &str)]) -> KeySet {
    let named = keys.iter().map(|(key, kid)| {
        let mut jwk = key.jwk.clone();
        jwk["kid"] = json!(kid);
        jwk
    });
    let set = json!({"keys": named.collect::<Vec<_>>()});
    KeySet::from_jwks(set.to_string().as_bytes()).unwrap()
}

fn good_claims() -> Value {
    json!({
        "sub": "ada", "exp": NOW_S + 60, "nbf": NOW_S, "iat": NOW_S,
        "iss": "https://issuer.example", "aud": "sightline",
    })
}

#[test]
fn the_base_of_every_case_is_itself_accepted() {
    for bench in Bench::all() {
        let claims = bench.verifier.verify(&bench.good(), NOW_S).unwrap();
        assert_eq!(claims.sub, "ada");
    }
}

#[test]
fn tokens_of_a_wrong_shape_are_refused() {
    for bench in Bench::all() {
        let good = bench.good();
        let parts: Vec<&str> = good.split('.').collect();
        let (header, payload, signature) = (parts[0], parts[1], parts[2]);
        bench.check("empty", "", TokenError::Missing);
        let cases: Vec<(&str, String, InvalidToken)> = vec![
            ("one part", header.into(), Shape),
            ("two parts", format!("{header}.{payload}"), Shape),
            ("four parts", format!("{good}.{signature}"), Shape),
            (
                "five parts, as JWE",
                format!("{header}..{payload}.{signature}.x"),
                Shape,
            ),
            ("dots only", "..".into(), Header),
            ("one dot", ".".into(), Shape),
            ("text", "not a token".into(), Shape),
            ("with its scheme", format!("Bearer {good}"), Header),
            ("blank before", format!(" {good}"), Header),
            ("line end behind", format!("{good}\n"), Signature),
            ("no header", format!(".{payload}.{signature}"), Header),
            ("no payload", format!("{header}..{signature}"), Signature),
            ("no signature", format!("{header}.{payload}."), Signature),
            (
                "padded header",
                format!("{header}=.{payload}.{signature}"),
                Header,
            ),
            (
                "not ASCII",
                format!("{header}é.{payload}.{signature}"),
                Header,
            ),
            (
                "too long",
                format!("{header}.{}.{signature}", "A".repeat(8192)),
                TooLong,
            ),
        ];
        for (case, token, why) in cases {
            bench.check(case, &token, why);
        }
    }
}

#[test]
fn forged_signatures_are_refused() {
    for bench in Bench::all() {
        let good = bench.good();
        let (message, signature) = good.rsplit_once('.').unwrap();
        let other = bench.with_claim("sub", json!("bob"));
        let (other_message, other_signature) = other.rsplit_once('.').unwrap();
        let stranger = bench.stranger.sign(
            bench.algorithm(),
            bench.header().to_string().as_bytes(),
            good_claims().to_string().as_bytes(),
        );
        let mut with_own_key = bench.header();
        with_own_key["jwk"] = bench.stranger.jwk.clone();
        with_own_key["jku"] = json!("https://attacker.example/keys");
        with_own_key["x5u"] = json!("https://attacker.example/chain");
        let brings_its_key = bench.stranger.sign(
            bench.algorithm(),
            with_own_key.to_string().as_bytes(),
            good_claims().to_string().as_bytes(),
        );
        let cut = &signature[..signature.len() - 4];
        let cases: Vec<(&str, String)> = vec![
            ("cut", format!("{message}.{cut}")),
            ("longer", format!("{message}.{signature}AAAA")),
            ("padded", format!("{message}.{signature}==")),
            (
                "zeros",
                format!("{message}.{}", "A".repeat(signature.len())),
            ),
            ("first bit", format!("{message}.{}", flip_first(signature))),
            ("another token's", format!("{message}.{other_signature}")),
            ("another's claims", format!("{other_message}.{signature}")),
            (
                "not base64",
                format!("{message}.{}", "!".repeat(signature.len())),
            ),
            ("another key's", stranger),
            ("by a key it brings itself", brings_its_key),
        ];
        for (case, token) in cases {
            bench.check(case, &token, Signature);
        }
    }
}

fn flip_first(text: &str) -> String {
    let first = if text.starts_with('A') { 'B' } else { 'A' };
    format!("{first}{}", &text[1..])
}

#[test]
fn the_algorithm_is_the_keys_and_not_the_headers() {
    for bench in Bench::all() {
        let claims = good_claims().to_string();
        let of_no_key = [
            "none", "None", "nOnE", "NONE", "", "ES512", "PS256", "PS512", "HS1", "A128KW",
        ];
        for alg in of_no_key {
            let header = json!({"alg": alg}).to_string();
            bench.check(alg, &bench.with_header(&header), WrongAlgorithm);
            let unsigned = format!("{}.{}.", encode_base64(&header), encode_base64(&claims));
            bench.check(alg, &unsigned, WrongAlgorithm);
        }
        let lower = json!({"alg": bench.name().to_lowercase()}).to_string();
        bench.check("lower case", &bench.with_header(lower), WrongAlgorithm);
        for foreign in [&SHARED, &RSA, &P256, &P384, &ED25519] {
            for algorithm in foreign.algorithms {
                if bench.key.algorithms.contains(algorithm) {
                    continue;
                }
                let header = json!({"alg": format!("{algorithm:?}")}).to_string();
                let why = bench.foreign(*algorithm);
                bench.check("another's alg", &bench.with_header(&header), why);
            }
        }
    }
}

/// CVE-2015-9235: the public key, which everybody has, as the secret of an HMAC.
#[test]
fn a_public_key_is_no_secret() {
    assert!(KeySet::from_secret(RSA.public.as_bytes()).is_err());
    let claims = good_claims().to_string();
    for bench in Bench::all().iter().skip(1) {
        let public = &bench.key.public;
        for text in [public.as_str(), public.trim_end()] {
            for algorithm in SHARED.algorithms {
                let header = json!({"alg": format!("{algorithm:?}")}).to_string();
                let token = secret(text).sign(*algorithm, header.as_bytes(), claims.as_bytes());
                bench.check("public key as secret", &token, bench.foreign(*algorithm));
            }
        }
    }
}

#[test]
fn headers_that_cannot_be_honoured_are_refused() {
    for bench in Bench::all() {
        let alg = bench.name();
        let cases: Vec<(&str, String, InvalidToken)> = vec![
            ("no alg", r#"{"typ":"JWT"}"#.into(), Header),
            ("null alg", r#"{"alg":null}"#.into(), Header),
            ("number alg", r#"{"alg":256}"#.into(), Header),
            ("array alg", format!(r#"{{"alg":["{alg}"]}}"#), Header),
            (
                "two algs",
                format!(r#"{{"alg":"{alg}","alg":"none"}}"#),
                Header,
            ),
            (
                "two algs, escaped",
                format!(r#"{{"alg":"{alg}","\u0061lg":"none"}}"#),
                Header,
            ),
            (
                "two kids",
                format!(r#"{{"alg":"{alg}","kid":"a","kid":"b"}}"#),
                Header,
            ),
            (
                "number kid",
                format!(r#"{{"alg":"{alg}","kid":7}}"#),
                Header,
            ),
            ("array", format!(r#"["{alg}",null,null]"#), Header),
            ("string", format!(r#""{alg}""#), Header),
            ("not JSON", format!("alg={alg}"), Header),
            ("not closed", format!(r#"{{"alg":"{alg}""#), Header),
            ("more behind", format!(r#"{{"alg":"{alg}"}}{{}}"#), Header),
            ("empty", String::new(), Header),
            (
                "crit of a claim",
                format!(r#"{{"alg":"{alg}","crit":["exp"],"exp":1}}"#),
                Critical,
            ),
            (
                "crit unknown",
                format!(r#"{{"alg":"{alg}","crit":["x"],"x":1}}"#),
                Critical,
            ),
            (
                "crit empty",
                format!(r#"{{"alg":"{alg}","crit":[]}}"#),
                Critical,
            ),
            (
                "crit null",
                format!(r#"{{"alg":"{alg}","crit":null}}"#),
                Critical,
            ),
            (
                "crit no list",
                format!(r#"{{"alg":"{alg}","crit":"b64"}}"#),
                Critical,
            ),
            (
                "unencoded",
                format!(r#"{{"alg":"{alg}","b64":false,"crit":["b64"]}}"#),
                Critical,
            ),
            (
                "b64 alone",
                format!(r#"{{"alg":"{alg}","b64":false}}"#),
                Critical,
            ),
            (
                "encrypted",
                format!(r#"{{"alg":"{alg}","enc":"A128GCM"}}"#),
                Encrypted,
            ),
            (
                "compressed",
                format!(r#"{{"alg":"{alg}","zip":"DEF"}}"#),
                Encrypted,
            ),
            (
                "nested",
                format!(r#"{{"alg":"{alg}","cty":"JWT"}}"#),
                Encrypted,
            ),
            (
                "nested, lower",
                format!(r#"{{"alg":"{alg}","cty":"application/jwt"}}"#),
                Encrypted,
            ),
        ];
        for (case, header, why) in cases {
            bench.check(case, &bench.with_header(header), why);
        }
        let broken = [
            br#"{"alg":""#,
            bench.name().as_bytes(),
            b"\",\"kid\":\"\xff\"}",
        ]
        .concat();
        bench.check("not UTF-8", &bench.with_header(broken), Header);
    }
}

#[test]
fn a_kid_is_a_name_and_nothing_else() {
    let bench = Bench::all().last().unwrap();
    let kids = [
        "",
        "A",
        "a ",
        "z",
        "../../etc/passwd",
        "/dev/null",
        "a' OR '1'='1",
        "a\0",
        "0",
        "https://attacker.example/key",
        "a|whoami",
    ];
    for kid in kids {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        bench.check(kid, &bench.with_header(header), UnknownKey);
    }
    for (kid, why) in [("b", WrongAlgorithm), ("c", WrongAlgorithm)] {
        let header = json!({"alg": "RS256", "kid": kid}).to_string();
        bench.check(kid, &bench.with_header(header), why);
    }
    let header = json!({"alg": "HS256", "kid": "c"}).to_string();
    let forged = secret(&RSA.public).sign(
        Algorithm::HS256,
        header.as_bytes(),
        good_claims().to_string().as_bytes(),
    );
    bench.check(
        "a secret's kid, signed with a public key",
        &forged,
        Signature,
    );
}

#[test]
fn claims_of_a_wrong_type_or_value_are_refused() {
    let cases: Vec<(&'static str, Value)> = vec![
        ("exp", json!("1800000060")),
        ("exp", json!("never")),
        ("exp", json!(-1)),
        ("exp", json!(-0.5)),
        ("exp", json!(1e300)),
        ("exp", json!(u64::MAX)),
        ("exp", json!((NOW_S + 60) * 1000)),
        ("exp", json!(true)),
        ("exp", json!([NOW_S + 60])),
        ("exp", json!({"at": NOW_S + 60})),
        ("nbf", json!("0")),
        ("nbf", json!(-1)),
        ("nbf", json!(1e300)),
        ("nbf", json!(false)),
        ("iat", json!("now")),
        ("iat", json!(-7)),
        ("iat", json!([])),
        ("sub", json!("")),
        ("sub", json!("x".repeat(129))),
        ("sub", json!(true)),
        ("sub", json!(1.5)),
        ("sub", json!(["ada"])),
        ("sub", json!({"id": "ada"})),
        ("iss", json!("https://issuer.example/")),
        ("iss", json!("HTTPS://ISSUER.EXAMPLE")),
        ("iss", json!("")),
        ("iss", json!(42)),
        ("iss", json!(["https://issuer.example"])),
        ("aud", json!("sightline2")),
        ("aud", json!("Sightline")),
        ("aud", json!("")),
        ("aud", json!(7)),
        ("aud", json!([])),
        ("aud", json!(["other"])),
        ("aud", json!(["sightline", 7])),
        ("aud", json!({"sightline": true})),
        ("projectIds", json!("7")),
        ("projectIds", json!(7)),
        ("projectIds", json!({"0": "7"})),
        ("projectIds", json!([true])),
        ("projectIds", json!([null])),
        ("projectIds", json!([["7"]])),
        ("projectIds", json!([""])),
        ("projectIds", json!([1.5])),
        ("projectIds", json!(["p".repeat(65)])),
        ("project_ids", json!("7")),
        ("permissions", json!("publish:any")),
        ("permissions", json!({"admin": true})),
        ("permissions", json!([1])),
        ("permissions", json!([["admin"]])),
        ("subscription_tier", json!(3)),
        ("subscription_tier", json!(["team"])),
        ("sessionId", json!("")),
        ("sid", json!(true)),
        ("jti", json!("")),
        ("jti", json!("j".repeat(129))),
        ("jti", json!([])),
    ];
    for bench in Bench::all() {
        for (name, value) in &cases {
            let token = bench.with_claim(name, value.clone());
            bench.check(&format!("{name} {value}"), &token, Claim(name));
        }
        for name in ["sub", "exp", "iss", "aud"] {
            let token = bench.with_claim(name, Value::Null);
            bench.check(&format!("{name} missing"), &token, ClaimMissing(name));
        }
    }
}

#[test]
fn two_names_of_one_claim_must_agree() {
    for bench in Bench::all() {
        let pairs = [
            ("sub", "ada", "userId", "bob"),
            ("sessionId", "one", "sid", "two"),
        ];
        for (name, value, other, other_value) in pairs {
            let mut claims = good_claims();
            claims[name] = json!(value);
            claims[other] = json!(other_value);
            let token = bench.with_payload(claims.to_string());
            bench.check(name, &token, ClaimsDiffer(name, other));
        }
        let mut claims = good_claims();
        claims["projectIds"] = json!([1]);
        claims["project_ids"] = json!([1, 2]);
        let token = bench.with_payload(claims.to_string());
        bench.check(
            "projects",
            &token,
            ClaimsDiffer("projectIds", "project_ids"),
        );
    }
}

#[test]
fn payloads_that_two_readers_could_read_differently_are_refused() {
    let exp = NOW_S + 60;
    let rest = format!(r#""exp":{exp},"iss":"https://issuer.example","aud":"sightline""#);
    let cases: Vec<(&str, String)> = vec![
        ("two subs", format!(r#"{{"sub":"ada","sub":"bob",{rest}}}"#)),
        (
            "two equal subs",
            format!(r#"{{"sub":"ada","sub":"ada",{rest}}}"#),
        ),
        (
            "two subs, escaped",
            format!(r#"{{"sub":"ada","s\u0075b":"bob",{rest}}}"#),
        ),
        (
            "two userIds",
            format!(r#"{{"userId":"ada","userId":"bob",{rest}}}"#),
        ),
        ("two exps", format!(r#"{{"sub":"ada","exp":1,{rest}}}"#)),
        (
            "two audiences",
            format!(r#"{{"sub":"ada","aud":"x",{rest}}}"#),
        ),
        (
            "two permissions",
            format!(r#"{{"sub":"ada","permissions":[],"permissions":["admin"],{rest}}}"#),
        ),
        (
            "two projects",
            format!(r#"{{"sub":"ada","project_ids":[],"project_ids":[1],{rest}}}"#),
        ),
        ("NaN", format!(r#"{{"sub":"ada","nbf":NaN,{rest}}}"#)),
        ("more behind", format!(r#"{{"sub":"ada",{rest}}}{{}}"#)),
        ("not closed", format!(r#"{{"sub":"ada",{rest}"#)),
        ("comma at the end", format!(r#"{{"sub":"ada",{rest},}}"#)),
        (
            "lone surrogate",
            format!(r#"{{"\ud800":1,"sub":"ada",{rest}}}"#),
        ),
        ("by position", format!(r#"["ada",null,{exp}]"#)),
        ("a string", r#""ada""#.into()),
        ("null", "null".into()),
        ("empty", String::new()),
        (
            "too deep",
            format!(r#"{{"sub":"ada",{rest},"x":{}"#, "[".repeat(3000)),
        ),
    ];
    for bench in Bench::all() {
        for (case, payload) in &cases {
            bench.check(case, &bench.with_payload(payload), ClaimsUnreadable);
        }
        let infinite = format!(r#"{{"sub":"ada","nbf":1e999,{rest}}}"#);
        bench.check("infinite", &bench.with_payload(infinite), Claim("nbf"));
        let not_utf8 = [b"{\"sub\":\"\xff\",", rest.as_bytes(), b"}"].concat();
        bench.check("not UTF-8", &bench.with_payload(not_utf8), ClaimsUnreadable);
    }
}

#[test]
fn times_hold_to_the_second_with_five_of_leeway() {
    for bench in Bench::all() {
        let ok = |name, value| {
            let token = bench.with_claim(name, value);
            let outcome = bench.verifier.verify(&token, NOW_S);
            assert!(outcome.is_ok(), "{name} {token} {outcome:?}");
        };
        ok("exp", json!(NOW_S - 4));
        ok("exp", json!((NOW_S - 4) as f64 + 0.9));
        ok("nbf", json!(NOW_S + 5));
        ok("nbf", Value::Null);
        ok("iat", json!(NOW_S + 3600));
        for (name, value) in [("exp", NOW_S - 5), ("exp", 0), ("exp", 1)] {
            let token = bench.with_claim(name, json!(value));
            bench.check("expired", &token, TokenError::Expired);
        }
        let token = bench.with_claim("exp", json!((NOW_S - 5) as f64 + 0.9));
        bench.check("expired by a fraction", &token, TokenError::Expired);
        for value in [NOW_S + 6, NOW_S + 86_400] {
            let token = bench.with_claim("nbf", json!(value));
            bench.check("not yet", &token, NotYetValid);
        }
    }
}

/// A client is told to fetch a new token only where that would help.
#[test]
fn an_expired_token_with_another_fault_is_invalid() {
    for bench in Bench::all() {
        let mut claims = good_claims();
        claims["exp"] = json!(NOW_S - 100);
        claims["aud"] = json!("other");
        let token = bench.with_payload(claims.to_string());
        bench.check("expired and foreign", &token, Claim("aud"));
        let (message, signature) = token.rsplit_once('.').unwrap();
        let forged = format!("{message}.{}", flip_first(signature));
        bench.check("expired and forged", &forged, Signature);
    }
}

#[test]
fn a_refusal_tells_a_peer_no_more_than_its_code() {
    let reasons = [
        Shape,
        Signature,
        Claim("exp"),
        ClaimMissing("aud"),
        UnknownKey,
    ];
    for reason in reasons {
        let error = TokenError::from(reason);
        assert_eq!(error.code(), "TOKEN_INVALID");
        assert_eq!(error.message(), "the token is not valid");
        assert!(error.to_string().len() > error.message().len());
    }
}
