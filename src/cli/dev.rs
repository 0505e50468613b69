//! `serve --dev`: a fresh secret, a temporary data folder, and commands to paste.

use std::{
    env,
    fmt::Write as _,
    io::{self, Write},
    net::SocketAddr,
    path::Path,
};

use super::CliError;
use crate::config::{Dev, Secret};

/// Draws what `--dev` brings: a secret that dies with this process, and the name of a folder under
/// the system's temporary one. Creates nothing.
/// Errors: the system gives no randomness.
pub fn fresh() -> Result<Dev, CliError> {
    let no_randomness = |error| CliError::new(CliError::FAILED, format!("no randomness: {error}"));
    let mut bytes = [0; Secret::BYTES_MIN + 4];
    getrandom::fill(&mut bytes).map_err(no_randomness)?;
    let (name, secret) = bytes.split_at(4);
    let name = name.iter().fold(String::new(), |mut name, byte| {
        let _ = write!(name, "{byte:02x}");
        name
    });
    let secret = Secret::new(secret).expect("BYTES_MIN bytes are enough");
    let data_dir = env::temp_dir().join(format!("sightline-dev-{name}"));
    Ok(Dev { secret, data_dir })
}

/// The token that the printed commands carry.
#[derive(Clone, Copy, Debug)]
pub struct DevToken {
    /// The user.
    pub sub: &'static str,
    /// The projects it may see.
    pub projects: &'static [&'static str],
    /// What it allows.
    pub permissions: &'static [&'static str],
    /// Seconds from now.
    pub ttl_s: u64,
}

/// One user, one project, everything allowed, for a day.
pub const DEV_TOKEN: DevToken = DevToken {
    sub: "dev",
    projects: &["demo"],
    permissions: &["subscribe", "publish", "publish:any", "admin"],
    ttl_s: 24 * 60 * 60,
};

/// Where the printed commands go.
#[derive(Clone, Copy, Debug)]
pub struct Endpoint {
    /// Where the gateway listens.
    pub address: SocketAddr,
    /// TLS is spoken there.
    pub is_tls: bool,
}

/// Prints commands that work when pasted, each by itself, against the gateway at `endpoint`.
/// `mint` turns the token's description into a token.
/// Errors: `out` cannot be written.
pub fn dev_banner(
    endpoint: Endpoint,
    mint: impl FnOnce(&DevToken) -> String,
    out: &mut impl Write,
) -> io::Result<()> {
    let token = mint(&DEV_TOKEN);
    let program = program();
    let user = DEV_TOKEN.sub;
    let project = DEV_TOKEN.projects.join(",");
    let address = endpoint.address;
    let (http, ws) = if endpoint.is_tls {
        (format!("https://{address}"), format!("wss://{address}"))
    } else {
        (format!("http://{address}"), format!("ws://{address}"))
    };
    let keen = javascript(&ws, "keen", "", &token);
    let observatory = javascript(&ws, "observatory", "?subscribe=all", &token);
    let event = format!(
        r#"{{"event_type":"progress_update","user_id":"{user}","session_id":"s1","data":{{"step":1}}}}"#
    );
    write!(
        out,
        "\
Sightline listens on {address} for this machine only; its key and its tokens end with it.
User {user:?}, project {project:?}, everything allowed, for a day. In another terminal:

# watch what arrives
{program} tail --all --url {ws} --token {token}

# publish the commits of the git repository that you are in, and those to come
{program} watch-git . --user {user} --project {project} --follow --url {ws} --token {token}

# watch the user's agents as trees, with that repository and its branches among them
{program} tail --tree --url {ws} --token {token}

# publish one event
curl -sS {http}/v1/events -H 'Authorization: Bearer {token}' -H 'Content-Type: application/json' -d '{event}'

# watch with node 20.10 or later, in either dialect; a browser's console on a page of this machine
# takes what stands between the single quotes
node --experimental-websocket -e '{keen}'
node --experimental-websocket -e '{observatory}'

"
    )?;
    out.flush()
}

/// A viewer in one line of JavaScript, without single quotes.
fn javascript(url: &str, dialect: &str, query: &str, token: &str) -> String {
    format!(
        "ws = new WebSocket(\"{url}/{dialect}{query}\", \
         [\"sightline.{dialect}.v1\", \"bearer.{token}\"]); \
         ws.onmessage = m => console.log(m.data); ws.onclose = c => console.log(c.code, c.reason)"
    )
}

/// This program as a shell takes it: relative where it is below the working directory (as after
/// `cargo run`), else by its full path.
fn program() -> String {
    let Ok(program) = env::current_exe() else {
        return "sightline".into();
    };
    let relative = env::current_dir()
        .ok()
        .and_then(|here| program.strip_prefix(here).ok().map(Path::to_path_buf));
    shell_word(&relative.unwrap_or(program).display().to_string())
}

fn shell_word(text: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+".contains(c);
    match text.chars().all(is_plain) {
        true => text.into(),
        false => format!("'{}'", text.replace('\'', r"'\''")),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn banner(address: &str, is_tls: bool, mint: impl FnOnce(&DevToken) -> String) -> String {
        let address = address.parse().unwrap();
        let mut out = Vec::new();
        dev_banner(Endpoint { address, is_tls }, mint, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn the_banner_shows_whole_commands() {
        let mint = |token: &DevToken| format!("T.{}.{}", token.sub, token.projects[0]);
        let text = banner("127.0.0.1:4040", false, mint);
        let commands: Vec<&str> = text
            .lines()
            .filter(|line| line.contains("T.dev.demo"))
            .collect();
        assert_eq!(commands.len(), 6, "{text}");
        for (command, part) in commands.iter().zip([
            " tail --all --url ws://127.0.0.1:4040 --token T.dev.demo",
            " watch-git . --user dev --project demo --follow --url ws://127.0.0.1:4040",
            " tail --tree --url ws://127.0.0.1:4040 --token T.dev.demo",
            "http://127.0.0.1:4040/v1/events -H 'Authorization: Bearer T.dev.demo'",
            "\"ws://127.0.0.1:4040/keen\", [\"sightline.keen.v1\", \"bearer.T.dev.demo\"]",
            "\"ws://127.0.0.1:4040/observatory?subscribe=all\", [\"sightline.observatory.v1\"",
        ]) {
            assert!(command.contains(part), "{command}");
        }
        // A quote inside would end the shell's word.
        assert!(
            commands[4..]
                .iter()
                .all(|line| line.matches('\'').count() == 2)
        );
    }

    #[test]
    fn every_command_asks_for_tls_where_it_is_spoken() {
        let text = banner("127.0.0.1:1", true, |_| "T".into());
        assert_eq!(text.matches("wss://127.0.0.1:1").count(), 5, "{text}");
        assert_eq!(text.matches("https://127.0.0.1:1").count(), 1, "{text}");
        assert!(
            !text.contains(" ws://") && !text.contains("http://"),
            "{text}"
        );
    }

    #[test]
    fn the_printed_event_is_one_that_the_gateway_takes() {
        let text = banner("[::1]:1", false, |_| "T".into());
        let event = text
            .split(" -d '")
            .nth(1)
            .unwrap()
            .split('\'')
            .next()
            .unwrap();
        let event: serde_json::Value = serde_json::from_str(event).unwrap();
        assert_eq!(event["user_id"], DEV_TOKEN.sub);
    }

    #[test]
    fn each_start_draws_its_own_secret_and_folder() {
        let (one, two) = (fresh().unwrap(), fresh().unwrap());
        assert!(one.secret != two.secret && one.data_dir != two.data_dir);
        assert!(one.data_dir.starts_with(env::temp_dir()) && !one.data_dir.exists());
    }

    #[test]
    fn a_path_with_blanks_stays_one_word() {
        assert_eq!(
            shell_word("target/release/sightline"),
            "target/release/sightline"
        );
        assert_eq!(shell_word("/a b/it's"), r"'/a b/it'\''s'");
    }
}
