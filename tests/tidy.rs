//! What the compiler does not hold: imports go downwards only, pure modules stay pure, files stay
//! readable. Reads the sources as text, roughly: comments and strings are blanked, then paths are
//! collected, `use` trees included. The rules are data at the top; the checker is tested below.

use std::{fs, path::Path};

/// The modules of `src` in import order. A module imports from the rows above its own; those in
/// one row are neighbours and do not import each other.
const ROWS: &[&[&str]] = &[
    &["counters", "failpoint", "limits"],
    &["event"],
    &["agents", "auth", "history", "wire"],
    &["dialect"],
    &["hub"],
    &["engine", "ops"],
    &["config"],
    &["server"],
    &["cli"],
];

/// Modules that know no socket, file, clock, thread, process or randomness, but in their tests.
const PURE: &[&str] = &["agents", "auth", "dialect", "event", "hub", "wire"];

/// What a pure module does not reach for.
const IMPURE: &[&str] = &[
    "core_affinity",
    "getrandom",
    "mio",
    "signal_hook",
    "socket2",
    "std::env",
    "std::fs",
    "std::net",
    "std::os",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
];

/// Of the above, what is data only.
const HARMLESS: &[&str] = &[
    "std::net::IpAddr",
    "std::net::Ipv4Addr",
    "std::net::Ipv6Addr",
    "std::net::SocketAddr",
];

/// Lines of one file. Past it a file usually holds two nouns.
const LINES_MAX: usize = 800;

/// Words that say that a thing is not done. Written apart, or this file would break its own rule.
const UNDONE: &[&str] = &[
    concat!("TO", "DO"),
    concat!("FIX", "ME"),
    concat!("X", "XX"),
];

/// Lints that no crate here goes without.
const FORBIDDEN: &[&str] = &["unsafe_code"];

#[test]
fn every_crate_has_the_lints_of_the_workspace() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = read_manifest(root);
    let lints = &manifest["workspace"]["lints"]["rust"];
    for lint in FORBIDDEN {
        assert_eq!(lints[*lint].as_str(), Some("forbid"), "{lint}");
    }
    let members = manifest["workspace"]["members"].as_array();
    let members = members.expect("the workspace has members").iter();
    let folders = members.map(|member| root.join(member.as_str().expect("a folder")));
    for folder in folders.chain([root.to_owned()]) {
        let manifest = read_manifest(&folder);
        let inherits = manifest["lints"]
            .get("workspace")
            .and_then(|it| it.as_bool());
        assert_eq!(inherits, Some(true), "{}", folder.display());
    }
}

fn read_manifest(folder: &Path) -> toml::Value {
    let path = folder.join("Cargo.toml");
    let text = fs::read_to_string(&path).expect("a member has a manifest");
    toml::from_str(&text).expect("a manifest is TOML")
}

#[test]
fn the_sources_are_tidy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut violations = Vec::new();
    let mut files = 0;
    for folder in ["src", "tests", "benches", "loadgen"] {
        visit(&root.join(folder), &mut |path| {
            files += 1;
            let name = path.strip_prefix(root).expect("below the root");
            let text = fs::read_to_string(path).expect("a source file is text");
            violations.extend(check(&name.to_string_lossy(), &text));
        });
    }
    assert!(files > 10, "only {files} files were found");
    assert!(violations.is_empty(), "\n{}\n", violations.join("\n"));
}

/// Calls `each` with every Rust file below `folder`, where there is such a folder.
fn visit(folder: &Path, each: &mut impl FnMut(&Path)) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        if path.is_dir() {
            visit(&path, each);
        } else if path.extension().is_some_and(|end| end == "rs") {
            each(&path);
        }
    }
}

/// All that is untidy in one file, as `file:line: what`.
fn check(file: &str, text: &str) -> Vec<String> {
    let code = blanked(text);
    let mut found: Vec<(usize, String)> = Vec::new();
    if let Some(inside) = file.strip_prefix("src/") {
        found.extend(check_imports(inside, &code));
        found.extend(check_purity(inside, &code));
    }
    // The lint sees only what is compiled here.
    found.extend(check_word(&code, "unsafe", "`unsafe`, which is forbidden"));
    if file == "src/hub/mail.rs" {
        found.extend(check_word(&code, "Rc", "`Rc` in what leaves the thread"));
    }
    found.extend(check_lines(text, &code));
    found.sort();
    found
        .into_iter()
        .map(|(line, what)| format!("{file}:{line}: {what}"))
        .collect()
}

fn check_word(code: &str, word: &str, what: &str) -> Vec<(usize, String)> {
    let tokens = tokens(code).into_iter();
    let found = tokens.filter(|token| token.text == word);
    found.map(|token| (token.line, what.to_owned())).collect()
}

fn check_lines(text: &str, code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let words = || line.split(|c: char| !c.is_alphanumeric());
        if let Some(word) = UNDONE.iter().find(|word| words().any(|w| w == **word)) {
            found.push((at + 1, format!("{word}: do it or open an issue")));
        }
    }
    for (at, line) in code.lines().enumerate() {
        if line.contains("#[ignore]") {
            found.push((at + 1, "`#[ignore]` without a reason".into()));
        }
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        found.push((lines, format!("{lines} lines; at most {LINES_MAX}")));
    }
    found
}

fn check_imports(inside: &str, code: &str) -> Vec<(usize, String)> {
    let module = module_path(inside);
    let Some(own) = module.first().copied() else {
        return Vec::new(); // main.rs and lib.rs stand above all modules.
    };
    let Some(own_row) = row(own) else {
        return vec![(1, format!("module `{own}` has no row in tests/tidy.rs"))];
    };
    let mut found = Vec::new();
    for (line, path) in paths(code) {
        let Some(other) = root_module(&module, &path).filter(|other| *other != own) else {
            continue;
        };
        match row(other) {
            Some(other_row) if other_row > own_row => {
                found.push((line, format!("`{own}` imports upwards from `{other}`")));
            }
            Some(other_row) if other_row == own_row => {
                found.push((
                    line,
                    format!("`{own}` imports from its neighbour `{other}`"),
                ));
            }
            _ => {}
        }
    }
    found
}

fn row(module: &str) -> Option<usize> {
    ROWS.iter().position(|row| row.contains(&module))
}

/// `event/parse.rs` is `[event, parse]`, `event/mod.rs` is `[event]`, `main.rs` is `[]`.
fn module_path(inside: &str) -> Vec<&str> {
    let stem = inside.trim_end_matches(".rs");
    let parts = stem.split('/');
    parts
        .filter(|part| !["main", "lib", "mod"].contains(part))
        .collect()
}

/// The module of `src` that a path leads to, where it says so: by `crate`, or by as many `super`
/// as the file is deep (or more, in a module within the file).
fn root_module<'a>(module: &[&str], path: &[&'a str]) -> Option<&'a str> {
    let supers = path.iter().take_while(|part| **part == "super").count();
    match path.first() {
        Some(&"crate") => path.get(1).copied(),
        Some(&"super") if supers >= module.len() => path.get(supers).copied(),
        _ => None,
    }
}

fn check_purity(inside: &str, code: &str) -> Vec<(usize, String)> {
    let module = module_path(inside);
    let is_pure = module.first().is_some_and(|own| PURE.contains(own));
    let is_test = |part: &&str| *part == "tests" || part.starts_with("test_");
    if !is_pure || module.iter().any(is_test) {
        return Vec::new();
    }
    let production = without_tests(code);
    let paths = paths(&production).into_iter();
    paths
        .filter(|(_, path)| is_impure(path))
        .map(|(line, path)| (line, format!("`{}` in a pure module", path.join("::"))))
        .collect()
}

fn is_impure(path: &[&str]) -> bool {
    let joined = path.join("::");
    let within = |whole: &str| joined == whole || joined.starts_with(&format!("{whole}::"));
    // `use std::time` or `std::time::*` would hide what comes through them.
    let hides = ["std::net", "std::time"].iter().any(|module| {
        joined == *module || joined == format!("{module}::*") || joined == format!("{module}::self")
    });
    let reads_clock = path.len() > 1 && path.last() == Some(&"now");
    let is_harmless = HARMLESS.iter().any(|data| within(data));
    hides || reads_clock || (!is_harmless && IMPURE.iter().any(|whole| within(whole)))
}

/// The code with all that stands under `#[cfg(test)]` blanked. Trusts rustfmt's indentation.
fn without_tests(code: &str) -> String {
    let mut kept = String::with_capacity(code.len());
    let mut lines = code.lines();
    while let Some(line) = lines.next() {
        kept.push('\n');
        if line.trim() != "#[cfg(test)]" {
            kept.insert_str(kept.len() - 1, line);
            continue;
        }
        let end = line.replace("#[cfg(test)]", "}");
        let mut is_open = false;
        for line in lines.by_ref() {
            kept.push('\n');
            is_open |= line.ends_with('{');
            let is_attribute = line.trim().starts_with("#[");
            if line == end || (!is_open && !is_attribute && line.ends_with(';')) {
                break;
            }
        }
    }
    kept
}

/// A word or a sign, with its line from 1.
#[derive(Clone, Copy)]
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn tokens(code: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (code, 1);
    while let Some(first) = rest.chars().next() {
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        let length = if is_word(first) {
            rest.find(|c| !is_word(c)).unwrap_or(rest.len())
        } else if rest.starts_with("::") {
            2
        } else {
            first.len_utf8()
        };
        let (text, after) = rest.split_at(length);
        if !first.is_whitespace() {
            tokens.push(Token { text, line });
        }
        line += usize::from(first == '\n');
        rest = after;
    }
    tokens
}

/// Every path of two words or more, each branch of a `use` tree by itself.
fn paths(code: &str) -> Vec<(usize, Vec<&str>)> {
    let tokens = tokens(code);
    let (mut found, mut at) = (Vec::new(), 0);
    while at < tokens.len() {
        at = match is_name(tokens[at].text) {
            true => branch(&tokens, at, &[], &mut found),
            false => at + 1,
        };
    }
    found.retain(|(_, path): &(usize, Vec<&str>)| path.len() > 1);
    found
}

/// Collects the path that begins at `at`, after `prefix`. Returns where it ended.
fn branch<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let line = tokens[at].line;
    let mut path = prefix.to_vec();
    loop {
        path.push(text(at));
        at += 1;
        if text(at) != "::" {
            break;
        }
        let next = text(at + 1);
        if next == "{" {
            return branches(tokens, at + 2, &path, found);
        }
        if !is_name(next) && next != "*" {
            break;
        }
        at += 1;
    }
    found.push((line, path));
    at
}

/// Collects all branches up to the closing brace.
fn branches<'a>(
    tokens: &[Token<'a>],
    mut at: usize,
    prefix: &[&'a str],
    found: &mut Vec<(usize, Vec<&'a str>)>,
) -> usize {
    while let Some(token) = tokens.get(at) {
        match token.text {
            "}" => return at + 1,
            "," => at += 1,
            // The new name, which leads nowhere.
            "as" => at += 2,
            _ => at = branch(tokens, at, prefix, found),
        }
    }
    at
}

fn is_name(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphabetic() || c == '_')
}

/// The text with comments and the insides of strings and characters blanked, line by line as long
/// as before.
fn blanked(text: &str) -> String {
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while !rest.is_empty() {
        let (length, is_code) = piece(rest, &code);
        let (piece, after) = rest.split_at(length);
        if is_code {
            code.push_str(piece);
        } else {
            code.extend(piece.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        }
        rest = after;
    }
    code
}

/// The bytes of the next comment, string, character or single sign, and whether it is code.
fn piece(rest: &str, before: &str) -> (usize, bool) {
    let after_word = before.ends_with(|c: char| c.is_alphanumeric() || c == '_');
    let hashes = rest[1.min(first_bytes(rest))..]
        .bytes()
        .take_while(|b| *b == b'#')
        .count();
    if rest.starts_with("//") {
        (rest.find('\n').unwrap_or(rest.len()), false)
    } else if rest.starts_with("/*") {
        (block_comment(rest), false)
    } else if rest.starts_with('"') {
        (quoted(rest), false)
    } else if !after_word && rest.starts_with('r') && rest[1 + hashes..].starts_with('"') {
        let end = format!("\"{}", "#".repeat(hashes));
        let body = 2 + hashes;
        let closing = rest[body..].find(&end).map(|at| body + at + end.len());
        (closing.unwrap_or(rest.len()), false)
    } else if let Some(length) = character(rest) {
        (length, false)
    } else {
        (first_bytes(rest), true)
    }
}

fn first_bytes(text: &str) -> usize {
    text.chars().next().map_or(0, char::len_utf8)
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        if rest[at..].starts_with("/*") {
            depth += 1;
            at += 2;
        } else if rest[at..].starts_with("*/") {
            depth -= 1;
            at += 2;
        } else {
            at += first_bytes(&rest[at..]);
        }
        if depth == 0 {
            break;
        }
    }
    at
}

fn quoted(rest: &str) -> usize {
    let mut is_escaped = false;
    for (at, character) in rest.char_indices().skip(1) {
        match character {
            _ if is_escaped => is_escaped = false,
            '\\' => is_escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// The bytes of a character literal; `None` for a lifetime and for anything else.
fn character(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    if let Some(escaped) = inner.strip_prefix('\\') {
        let after = 2 + first_bytes(escaped);
        return rest[after..].find('\'').map(|at| after + at + 1);
    }
    let length = first_bytes(inner);
    inner[length..].starts_with('\'').then_some(length + 2)
}

/// Asserts what is found in `text`, as (line, part of what is said).
#[track_caller]
fn expect(file: &str, text: &str, expected: &[(usize, &str)]) {
    let found = check(file, text);
    assert_eq!(found.len(), expected.len(), "{found:#?}");
    for (what, (line, part)) in found.iter().zip(expected) {
        assert!(what.starts_with(&format!("{file}:{line}: ")), "{what}");
        assert!(what.contains(part), "{what}");
    }
}

#[test]
fn an_upward_import_is_found() {
    let up = "`event` imports upwards from `hub`";
    expect("src/event/parse.rs", "use crate::hub::Hub;", &[(1, up)]);
    expect(
        "src/event/parse.rs",
        "\nfn f() { crate::hub::g() }",
        &[(2, up)],
    );
    expect("src/event/mod.rs", "use super::hub;", &[(1, up)]);
    expect(
        "src/event/parse.rs",
        "use super::super::hub::Hub;",
        &[(1, up)],
    );
    let tree = "use crate::{\n    event::Seq,\n    limits::A,\n    hub::{mail::Letter, Hub},\n};";
    expect("src/event/parse.rs", tree, &[(4, up), (4, up)]);
    expect(
        "src/wire/mod.rs",
        "pub use crate::hub::*;",
        &[(1, "`wire`")],
    );
    expect("src/cli/mod.rs", "use crate::{server, config, hub};", &[]);
    expect("src/event/parse.rs", "use super::{filter, hub};", &[]);
    expect("src/main.rs", "fn main() { crate::cli::main() }", &[]);
}

#[test]
fn a_sideways_import_is_found() {
    let aside = "`wire` imports from its neighbour `auth`";
    expect(
        "src/wire/http.rs",
        "use crate::{auth as a, event};",
        &[(1, aside)],
    );
    expect(
        "src/ops/mod.rs",
        "use crate::engine::X;",
        &[(1, "neighbour `engine`")],
    );
    expect("src/wire/http.rs", "use crate::wire::close::Code;", &[]);
}

#[test]
fn a_module_without_a_row_is_found() {
    expect("src/extra.rs", "", &[(1, "`extra` has no row")]);
}

#[test]
fn comments_and_strings_are_not_imports() {
    let text = r####"
// crate::hub
/// [`crate::hub`]
/* crate::hub /* crate::hub */ crate::hub */
const A: &str = "crate::hub \" crate::hub";
const B: &str = r#"crate::hub " crate::hub"#;
const C: [char; 3] = ['"', '\'', '\u{22}'];
fn f<'a>(x: &'a str) -> &'a str { x } // crate::hub
use crate::hub;
"####;
    expect("src/event/parse.rs", text, &[(9, "hub")]);
}

#[test]
fn an_impure_path_in_a_pure_module_is_found() {
    let check = |line: &str, is_impure: bool| {
        let said = [(1, "in a pure module")];
        let said: &[_] = if is_impure { &said } else { &[] };
        expect("src/hub/outbox.rs", line, said);
    };
    check("use std::time::Instant;", true);
    check(
        "use std::{collections::HashMap, time::{Duration, SystemTime}};",
        true,
    );
    check("use std::time;", true);
    check("use std::net::{self, IpAddr};", true);
    check("fn f() { std::thread::yield_now() }", true);
    check("use std::net::TcpStream;", true);
    check("use std::fs;", true);
    check("fn f() { getrandom::fill(b) }", true);
    check("fn f() { jiff::Timestamp::now() }", true);
    check("use std::net::{IpAddr, SocketAddr};", false);
    check("use std::time::Duration;", false);
    check("fn f(now: u64) { now + 1 }", false);
    expect("src/engine/flush.rs", "use std::time::Instant;", &[]);
}

#[test]
fn tests_of_a_pure_module_may_be_impure() {
    let text = "\
use a::b;
#[cfg(test)]
mod tests {
    use std::fs;
    fn f() {
    }
}
#[cfg(test)]
use std::fs;
#[cfg(test)]
#[path = \"x\"]
mod more;
use std::thread;
";
    expect("src/hub/outbox.rs", text, &[(13, "std::thread")]);
    expect("src/hub/tests.rs", "use std::fs;", &[]);
}

#[test]
fn rc_in_mail_is_found() {
    let text = "struct Src;\n// Rc\ntype A = std::rc::Rc<u8>;";
    expect("src/hub/mail.rs", text, &[(3, "`Rc`")]);
    expect("src/hub/outbox.rs", text, &[]);
}

#[test]
fn unsafe_code_is_found_wherever_it_stands() {
    let text = "// unsafe\nlet x = \"unsafe\";\n#![forbid(unsafe_code)]\nunsafe { f() }";
    for file in ["src/hub/mod.rs", "loadgen/src/main.rs", "tests/x.rs"] {
        expect(file, text, &[(4, "`unsafe`")]);
    }
}

#[test]
fn what_is_not_done_is_found() {
    let undone = format!("// {}: later", UNDONE[0]);
    expect("loadgen/src/main.rs", &undone, &[(1, UNDONE[0])]);
    expect(
        "tests/x.rs",
        "#[test]\n#[ignore]\nfn f() {}",
        &[(2, "ignore")],
    );
    expect("tests/x.rs", "#[ignore = \"needs a disk\"]\nfn f() {}", &[]);
    expect("tests/x.rs", &"\n".repeat(LINES_MAX), &[]);
    expect(
        "tests/x.rs",
        &"\n".repeat(LINES_MAX + 1),
        &[(801, "801 lines")],
    );
}
