//! Tokens by the other kinds of key, and what a configured issuer and audience ask for.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::Engine;
use base64::prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD};
use serde_json::json;
use sightline::auth::{MintOptions, SigningKey, mint};

use crate::harness::{Refused, Server, Setup, Token, Viewer, now_s};

fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64_STANDARD.encode(der);
    format!("-----BEGIN {label}-----\n{text}\n-----END {label}-----\n")
}

fn open(server: &Server, token: &str) -> Result<(), Refused> {
    Viewer::try_open(
        server,
        "/keen",
        &[("authorization", &format!("Bearer {token}"))],
    )
    .map(drop)
}

fn refused(code: &str) -> Result<(), Refused> {
    Err(Refused {
        status: 401,
        code: code.into(),
    })
}

#[test]
fn tokens_are_verified_by_a_public_key_or_a_key_set() {
    let pair = Ed25519KeyPair::generate().unwrap();
    let private = pem("PRIVATE KEY", pair.to_pkcs8().unwrap().as_ref());
    let public = pair.public_key();
    let public_pem = pem("PUBLIC KEY", public.as_der().unwrap().as_ref());
    let x = BASE64_URL_SAFE_NO_PAD.encode(public.as_ref());
    let key =
        json!({"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "k1", "x": x});
    let jwks = json!({"keys": [key]}).to_string();
    let signing = SigningKey::from_private_pem(private.as_bytes()).unwrap();
    for (name, content) in [("public_key_file", &public_pem), ("jwks_file", &jwks)] {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        std::fs::write(&file, content).unwrap();
        let server = Server::with(&Setup {
            key: &format!("auth.{name} = {file:?}"),
            ..Setup::default()
        });
        let token = |kid: Option<&str>| {
            let options = MintOptions {
                kid: kid.map(Into::into),
                ..MintOptions::new("alice")
            };
            let token = mint(&signing, &options, now_s()).unwrap();
            server.watch_for(&token);
            token
        };
        assert_eq!(open(&server, &token(Some("k1"))), Ok(()), "{name}");
        // Signed with what everybody knows, by the algorithm of a shared secret.
        let forged = SigningKey::from_secret(x.as_bytes()).unwrap();
        let forged = mint(&forged, &MintOptions::new("alice"), now_s()).unwrap();
        assert_eq!(open(&server, &forged), refused("TOKEN_INVALID"), "{name}");
        let shared = server.viewer_token("alice", &[]);
        assert_eq!(open(&server, &shared), refused("TOKEN_INVALID"), "{name}");
        let other = token(Some("k2"));
        let expected = if name == "jwks_file" {
            refused("TOKEN_INVALID")
        } else {
            Ok(())
        };
        assert_eq!(open(&server, &other), expected, "{name}");
    }
}

#[test]
fn a_configured_issuer_and_audience_are_required() {
    let server = Server::start("auth.issuer = \"login\"\nauth.audience = \"gateway\"");
    let check = |issuer: Option<&str>, audience: Option<&str>, is_good: bool| {
        let mut token = Token::of("alice", &[]);
        token.0.issuer = issuer.map(Into::into);
        token.0.audience = audience.map(Into::into);
        let found = open(&server, &server.mint(&token));
        let expected = if is_good {
            Ok(())
        } else {
            refused("TOKEN_INVALID")
        };
        assert_eq!(found, expected, "{issuer:?} {audience:?}");
    };
    check(Some("login"), Some("gateway"), true);
    check(None, Some("gateway"), false);
    check(Some("login"), None, false);
    check(Some("other"), Some("gateway"), false);
    check(Some("login"), Some("other"), false);
}
