//! `sightline token`: mints a token and prints it.
//!
//! The key comes from a flag, else from the configuration's secret. Time comes from the caller;
//! files are read and the `jti` is drawn here.

use std::fmt;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::Args;
use compact_str::CompactString;
use thiserror::Error;

use crate::auth::{self, KeyError, MintError, MintOptions, Permission, SigningKey};

/// The flags of `sightline token`.
#[derive(Args, Clone, Debug)]
pub struct TokenArgs {
    /// The user whom the token is for
    #[arg(long, value_name = "USER")]
    pub sub: CompactString,
    /// Tier of the user: a row of the table tiers
    #[arg(long)]
    pub tier: Option<CompactString>,
    /// Projects that it may see, with commas between them
    #[arg(long, value_name = "IDS", value_delimiter = ',')]
    pub projects: Vec<CompactString>,
    /// What it allows: subscribe, publish, publish:any, admin, with commas between them
    #[arg(
        long,
        value_name = "NAMES",
        value_delimiter = ',',
        default_value = "subscribe"
    )]
    pub permissions: Vec<Permission>,
    /// Session that it belongs to, by which it can be revoked
    #[arg(long, value_name = "ID")]
    pub session: Option<CompactString>,
    /// How long it lives: 90s, 15m, 1h, 7d
    #[arg(long, default_value = "1h")]
    pub ttl: Ttl,
    /// Issuer (iss) [default: the configured one]
    #[arg(long)]
    pub issuer: Option<String>,
    /// Audience (aud) [default: the configured one]
    #[arg(long)]
    pub audience: Option<String>,
    /// Name of the key in the gateway's JWKS
    #[arg(long)]
    pub kid: Option<String>,
    /// Secret that the gateway shares; others on this machine can see it in the process list
    #[arg(long, group = "key")]
    pub secret: Option<Secret>,
    /// File with the secret that the gateway shares
    #[arg(long, value_name = "FILE", group = "key")]
    pub secret_file: Option<PathBuf>,
    /// File with the PEM private key whose public key the gateway has
    #[arg(long, value_name = "FILE", group = "key")]
    pub private_key_file: Option<PathBuf>,
}

/// What the configuration says of tokens, for what no flag says.
#[derive(Clone, Copy, Default)]
pub struct TokenDefaults<'a> {
    /// `auth.jwt_secret`, or what its file holds.
    pub secret: Option<&'a [u8]>,
    /// `auth.issuer`.
    pub issuer: Option<&'a str>,
    /// `auth.audience`.
    pub audience: Option<&'a str>,
}

/// Mints a token issued at `now_s` (seconds since the Unix epoch) and writes it to `out`, a line.
/// Errors: [`TokenCommandError`]; nothing is written then.
pub fn run(
    args: &TokenArgs,
    defaults: TokenDefaults<'_>,
    now_s: u64,
    out: &mut impl Write,
) -> Result<(), TokenCommandError> {
    let key = signing_key(args, defaults.secret)?;
    let options = MintOptions {
        sub: args.sub.clone(),
        tier: args.tier.clone(),
        projects: args.projects.clone(),
        permissions: args.permissions.iter().copied().collect(),
        session: args.session.clone(),
        jti: Some(draw_jti()?),
        ttl_s: args.ttl.0,
        issuer: args.issuer.clone().or(defaults.issuer.map(Into::into)),
        audience: args.audience.clone().or(defaults.audience.map(Into::into)),
        kid: args.kid.clone(),
    };
    let token = auth::mint(&key, &options, now_s)?;
    writeln!(out, "{token}").map_err(TokenCommandError::Write)
}

fn signing_key(
    args: &TokenArgs,
    configured: Option<&[u8]>,
) -> Result<SigningKey, TokenCommandError> {
    if let Some(path) = &args.private_key_file {
        return SigningKey::from_private_pem(&read(path)?).map_err(|fault| in_file(path, fault));
    }
    if let Some(path) = &args.secret_file {
        let file = read(path)?;
        let secret = auth::trim_secret(&file);
        return SigningKey::from_secret(secret).map_err(|fault| in_file(path, fault));
    }
    let given = args.secret.as_ref().map(|secret| secret.0.as_bytes());
    let secret = given.or(configured).ok_or(TokenCommandError::NoKey)?;
    SigningKey::from_secret(secret).map_err(TokenCommandError::Key)
}

fn read(path: &Path) -> Result<Vec<u8>, TokenCommandError> {
    std::fs::read(path).map_err(|error| TokenCommandError::Read {
        path: path.to_owned(),
        error,
    })
}

fn in_file(path: &Path, fault: KeyError) -> TokenCommandError {
    TokenCommandError::KeyFile {
        path: path.to_owned(),
        fault,
    }
}

/// 128 random bits as hex, so that no two tokens share a `jti`.
fn draw_jti() -> Result<CompactString, TokenCommandError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|_| TokenCommandError::NoRandomness)?;
    Ok(compact_str::format_compact!(
        "{:032x}",
        u128::from_be_bytes(bytes)
    ))
}

/// Why no token was printed, in one line that says what to do.
#[derive(Debug, Error)]
pub enum TokenCommandError {
    /// The key that a flag or the configuration gives is of no use.
    #[error("the key cannot sign: {0}")]
    Key(KeyError),
    /// The key in a file is of no use.
    #[error("{}: {fault}", path.display())]
    KeyFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: KeyError,
    },
    /// What was asked for makes no token.
    #[error(transparent)]
    Mint(#[from] MintError),
    /// Neither a flag nor the configuration has a key.
    #[error(
        "no key to sign with; give --secret-file, --private-key-file or --secret, or a --config \
         with auth.jwt_secret"
    )]
    NoKey,
    /// The system has no randomness.
    #[error("the system gave no random bytes")]
    NoRandomness,
    /// A file cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        error: io::Error,
    },
    /// The output is closed or full.
    #[error("cannot write the token: {0}")]
    Write(io::Error),
}

impl TokenCommandError {
    /// The exit code that follows: 2 usage, 78 configuration, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Mint(MintError::Signing) | Self::NoRandomness => 1,
            Self::Read { .. } | Self::Write(_) => 1,
            Self::Mint(_) => 2,
            Self::Key(_) | Self::KeyFile { .. } | Self::NoKey => 78,
        }
    }
}

/// A secret given on the command line; it does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A token's life in seconds, at least one, written as `90s`, `15m`, `1h` or `7d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ttl(pub u64);

impl FromStr for Ttl {
    type Err = BadTtl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let unit = text.char_indices().next_back().ok_or(BadTtl)?;
        let unit_s = match unit.1 {
            's' => 1,
            'm' => 60,
            'h' => 60 * 60,
            'd' => 24 * 60 * 60,
            _ => return Err(BadTtl),
        };
        let digits = &text[..unit.0];
        // `parse` alone would take a sign too.
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(BadTtl);
        }
        let count: u64 = digits.parse().map_err(|_| BadTtl)?;
        let seconds = count.checked_mul(unit_s).ok_or(BadTtl)?;
        if (1..=TTL_S_MAX).contains(&seconds) {
            Ok(Self(seconds))
        } else {
            Err(BadTtl)
        }
    }
}

/// A hundred years: what is longer is a slip of the hand.
const TTL_S_MAX: u64 = 100 * 366 * 24 * 60 * 60;

/// The life of a token is written wrongly.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write a number and a unit, as in 90s, 15m, 1h or 7d; at most a hundred years")]
pub struct BadTtl;

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use clap::Parser;

    use super::*;
    use crate::auth::{Claims, KeySet, Permissions, Verifier};

    const NOW_S: u64 = 1_800_000_000;
    const SECRET: &str = "an owl counts the stars, slowly, twice";

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        args: TokenArgs,
    }

    fn parse(flags: &[&str]) -> Result<TokenArgs, clap::Error> {
        let words = ["token"].iter().chain(flags);
        Command::try_parse_from(words).map(|command| command.args)
    }

    fn output(flags: &[&str], defaults: TokenDefaults<'_>) -> Result<String, TokenCommandError> {
        let mut out = Vec::new();
        run(&parse(flags).unwrap(), defaults, NOW_S, &mut out)?;
        Ok(String::from_utf8(out).unwrap())
    }

    fn verify(line: &str, issuer: Option<&str>) -> Claims {
        let verifier = Verifier {
            keys: KeySet::from_secret(SECRET.as_bytes()).unwrap(),
            issuer: issuer.map(Into::into),
            audience: None,
        };
        let token = line.strip_suffix('\n').unwrap();
        verifier.verify(token, NOW_S).unwrap()
    }

    #[test]
    fn a_token_says_what_the_flags_say() {
        let line = output(
            &[
                "--sub",
                "ada",
                "--tier",
                "team",
                "--projects",
                "1,2",
                "--permissions",
                "publish,read",
                "--session",
                "s",
                "--ttl",
                "15m",
                "--secret",
                SECRET,
            ],
            TokenDefaults::default(),
        );
        let claims = verify(&line.unwrap(), None);
        assert_eq!(
            (claims.sub.as_str(), claims.tier.as_deref()),
            ("ada", Some("team"))
        );
        assert_eq!((claims.iat_s, claims.exp_s), (Some(NOW_S), NOW_S + 900));
        assert_eq!(*claims.projects, ["1", "2"]);
        assert_eq!(claims.session.as_deref(), Some("s"));
        assert_eq!(claims.jti.unwrap().len(), 32);
        let both = [Permission::Publish, Permission::Subscribe];
        assert_eq!(claims.permissions, both.into_iter().collect());
    }

    #[test]
    fn the_configuration_fills_what_no_flag_says() {
        let defaults = TokenDefaults {
            secret: Some(SECRET.as_bytes()),
            issuer: Some("here"),
            audience: None,
        };
        let claims = verify(&output(&["--sub", "ada"], defaults).unwrap(), Some("here"));
        assert_eq!(claims.permissions, Permissions::default());
        assert_eq!(claims.exp_s, NOW_S + 3600);
        let flags = ["--sub", "ada", "--issuer", "there"];
        verify(&output(&flags, defaults).unwrap(), Some("there"));
    }

    #[test]
    fn a_secret_file_is_read_without_its_line_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        std::fs::write(&path, format!("{SECRET}\n")).unwrap();
        let flags = ["--sub", "ada", "--secret-file", path.to_str().unwrap()];
        let line = output(&flags, TokenDefaults::default()).unwrap();
        assert_eq!(verify(&line, None).sub, "ada");
    }

    #[test]
    fn what_is_missing_or_wrong_is_one_line_and_its_exit_code() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        std::fs::write(&path, SECRET).unwrap();
        let path = path.to_str().unwrap();
        let long = "x".repeat(129);
        let table: [(&[&str], u8, &str); 6] = [
            (&["--sub", "ada"], 78, "no key to sign with"),
            (
                &["--sub", "ada", "--secret", "short"],
                78,
                "5 bytes and needs at least 32",
            ),
            (
                &["--sub", "ada", "--secret-file", "/nowhere/at/all"],
                1,
                "/nowhere/at/all",
            ),
            (
                &["--sub", "ada", "--private-key-file", path],
                78,
                "not a PEM file",
            ),
            (&["--sub", "", "--secret", SECRET], 2, "1 to 128 bytes"),
            (&["--sub", &long, "--secret", SECRET], 2, "1 to 128 bytes"),
        ];
        for (flags, exit_code, words) in table {
            let error = output(flags, TokenDefaults::default()).unwrap_err();
            let text = error.to_string();
            assert_eq!(error.exit_code(), exit_code, "{text}");
            assert!(text.contains(words) && !text.contains('\n'), "{text}");
        }
    }

    #[test]
    fn wrong_flags_are_usage_errors() {
        let table: [&[&str]; 5] = [
            &[],
            &["--sub", "ada", "--permissions", "fly"],
            &["--sub", "ada", "--ttl", "1"],
            &["--sub", "ada", "--secret", "a", "--secret-file", "b"],
            &[
                "--sub",
                "ada",
                "--secret-file",
                "a",
                "--private-key-file",
                "b",
            ],
        ];
        for flags in table {
            assert_eq!(parse(flags).unwrap_err().exit_code(), 2, "{flags:?}");
        }
    }

    #[test]
    fn a_secret_does_not_print() {
        let args = parse(&["--sub", "ada", "--secret", SECRET]).unwrap();
        assert!(!format!("{args:?}").contains("owl"));
    }

    #[test]
    fn lives_are_read() {
        let table = [
            ("90s", 90),
            ("15m", 900),
            ("1h", 3600),
            ("7d", 604_800),
            ("001s", 1),
        ];
        for (text, seconds) in table {
            assert_eq!(text.parse(), Ok(Ttl(seconds)), "{text}");
        }
        let wrong = [
            "",
            "s",
            "1",
            "0s",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1w",
            "1hh",
            "1é",
            "366000d",
            "99999999999999999999s",
            "18446744073709551615d",
        ];
        for text in wrong {
            assert_eq!(text.parse::<Ttl>(), Err(BadTtl), "{text}");
        }
    }
}
