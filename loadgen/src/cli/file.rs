//! Scenario files: TOML that holds what flags hold.
//!
//! A file says `scenario = "fanout"`, and every other key is the name of one of that command's
//! flags, so that there is one definition of both. It becomes the command line that it stands for.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use clap::builder::ArgAction;
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, Args, Command};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Runs a scenario file.
#[derive(Debug, Args)]
pub(crate) struct RunFile {
    /// The file.
    file: PathBuf,
    /// Flags of its scenario, which win over the file's.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    flags: Vec<OsString>,
}

/// Why a file is no scenario.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    /// It cannot be read.
    #[error("{path}: {source}")]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Something in it is wrong.
    #[error("{path}:{line}: {what}")]
    Wrong {
        /// As given.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong.
        what: String,
    },
}

impl RunFile {
    /// The arguments that the file and the flags behind it stand for, those of `program`, which
    /// has the scenarios as its commands.
    pub(super) fn arguments(&self, program: &Command) -> Result<Vec<OsString>, FileError> {
        let path = &self.file;
        let text = fs::read_to_string(path).map_err(|source| FileError::Unreadable {
            path: path.clone(),
            source,
        })?;
        let file = File { path, text: &text };
        file.arguments(program, &self.flags)
    }
}

/// A file and what it says.
struct File<'a> {
    path: &'a Path,
    text: &'a str,
}

type Entry<'a, 'b> = (
    &'a Spanned<std::borrow::Cow<'b, str>>,
    &'a Spanned<DeValue<'b>>,
);

impl File<'_> {
    fn arguments(&self, program: &Command, flags: &[OsString]) -> Result<Vec<OsString>, FileError> {
        let table = DeTable::parse(self.text).map_err(|error| {
            let at = error.span().map_or(0, |span| span.start);
            self.wrong(at, error.message().replace('\n', "; "))
        })?;
        let mut entries: Vec<Entry<'_, '_>> = table.get_ref().iter().collect();
        entries.sort_by_key(|(key, _)| key.span().start);
        let scenario = self.scenario(program, &entries)?;
        let given = names(flags);
        let mut arguments = vec![program.get_name().into(), scenario.get_name().into()];
        for (key, value) in entries {
            if key.get_ref() == SCENARIO {
                continue;
            }
            let argument = self.argument(scenario, key, value)?;
            if !is_overridden(scenario, key.get_ref(), &given) {
                arguments.extend(argument);
            }
        }
        arguments.extend(flags.iter().cloned());
        Ok(arguments)
    }

    /// The command that the file names.
    fn scenario<'a>(
        &self,
        program: &'a Command,
        entries: &[Entry<'_, '_>],
    ) -> Result<&'a Command, FileError> {
        let entry = entries.iter().find(|(key, _)| key.get_ref() == SCENARIO);
        let (_, value) = entry
            .ok_or_else(|| self.wrong(0, "it does not say which scenario it is".to_owned()))?;
        let name = value.get_ref().as_str().unwrap_or_default();
        // A scenario is what drives a server.
        let found = program
            .get_subcommands()
            .find(|command| command.get_name() == name && find(command, "url").is_some());
        found
            .ok_or_else(|| self.wrong(value.span().start, format!("there is no scenario {name:?}")))
    }

    /// The argument that `key` and `value` stand for; `None` where that is none.
    fn argument(
        &self,
        scenario: &Command,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        value: &Spanned<DeValue<'_>>,
    ) -> Result<Option<OsString>, FileError> {
        let name = key.get_ref();
        let is_switch = find(scenario, name)
            .is_some_and(|flag| matches!(flag.get_action(), ArgAction::SetTrue));
        let argument = match (is_switch, value.get_ref()) {
            (true, DeValue::Boolean(false)) => return Ok(None),
            (true, DeValue::Boolean(true)) => format!("--{name}"),
            (_, value) => match text_of(value) {
                Some(text) => format!("--{name}={text}"),
                None => {
                    let what = format!("{name} is neither text nor a number nor a list of them");
                    return Err(self.wrong(key.span().start, what));
                }
            },
        };
        self.check(scenario, key, &argument)?;
        Ok(Some(argument.into()))
    }

    /// Whether `argument` alone would do.
    fn check(
        &self,
        scenario: &Command,
        key: &Spanned<std::borrow::Cow<'_, str>>,
        argument: &str,
    ) -> Result<(), FileError> {
        let flags = scenario.get_arguments().cloned();
        let alone = Command::new("alone").args(flags.map(|flag| flag.required(false)));
        let error = match alone.try_get_matches_from(["alone", argument]) {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let (name, scenario) = (key.get_ref(), scenario.get_name());
        let what = match (error.kind(), error.get(ContextKind::SuggestedArg)) {
            (ErrorKind::UnknownArgument, Some(ContextValue::String(near))) => {
                let near = near.trim_start_matches('-');
                format!("{scenario} has no {name}; did you mean {near}?")
            }
            (ErrorKind::UnknownArgument, _) => format!("{scenario} has no {name}"),
            _ => {
                let text = error.to_string();
                let first = text.lines().next().unwrap_or_default();
                first.trim_start_matches("error: ").to_owned()
            }
        };
        Err(self.wrong(key.span().start, what))
    }

    fn wrong(&self, at: usize, what: String) -> FileError {
        let before = &self.text.as_bytes()[..at.min(self.text.len())];
        FileError::Wrong {
            path: self.path.to_owned(),
            line: 1 + memchr::memchr_iter(b'\n', before).count(),
            what,
        }
    }
}

/// The key that names the command.
const SCENARIO: &str = "scenario";

fn find<'a>(scenario: &'a Command, name: &str) -> Option<&'a Arg> {
    let mut flags = scenario.get_arguments();
    flags.find(|flag| flag.get_long() == Some(name))
}

/// The names of `flags`, where they begin with two dashes.
fn names(flags: &[OsString]) -> BTreeSet<&str> {
    let flags = flags.iter().filter_map(|flag| OsStr::to_str(flag));
    flags
        .filter_map(|flag| flag.strip_prefix("--"))
        .map(|flag| flag.split_once('=').map_or(flag, |(name, _)| name))
        .collect()
}

/// Whether a flag among `given` is `name`, or cannot stand beside it.
fn is_overridden(scenario: &Command, name: &str, given: &BTreeSet<&str>) -> bool {
    let conflict = |one: &Arg, other: &Arg| {
        let mut conflicts = scenario.get_arg_conflicts_with(one).into_iter();
        conflicts.any(|conflicting| conflicting.get_id() == other.get_id())
    };
    given.contains(name)
        || find(scenario, name).is_some_and(|own| {
            let given = given.iter().filter_map(|name| find(scenario, name));
            given
                .into_iter()
                .any(|flag| conflict(own, flag) || conflict(flag, own))
        })
}

/// A value as it is written behind a flag; `None` of a date, a table, or a list of lists.
fn text_of(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Array(items) => {
            let items = items.iter().map(|item| scalar(item.get_ref()));
            Some(items.collect::<Option<Vec<_>>>()?.join(","))
        }
        value => scalar(value),
    }
}

fn scalar(value: &DeValue<'_>) -> Option<String> {
    match value {
        DeValue::Boolean(flag) => Some(flag.to_string()),
        DeValue::Float(number) => Some(number.as_str().to_owned()),
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix());
            number.ok().map(|number| number.to_string())
        }
        DeValue::String(text) => Some(text.to_string()),
        DeValue::Array(_) | DeValue::Datetime(_) | DeValue::Table(_) => None,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;
    use crate::cli::Cli;
    use clap::CommandFactory as _;
    use proptest::prelude::*;

    fn arguments(text: &str, flags: &str) -> Result<String, FileError> {
        let path = Path::new("some.toml");
        let flags: Vec<_> = flags.split_ascii_whitespace().map(OsString::from).collect();
        let arguments = File { path, text }.arguments(&Cli::command(), &flags)?;
        let arguments: Vec<_> = arguments
            .iter()
            .map(|word| word.to_str().unwrap())
            .collect();
        Ok(arguments.join(" "))
    }

    #[test]
    fn keys_are_flags_in_the_order_of_the_file() {
        let text = "rate = 20.5\nscenario = \"fanout\"\n# so many\nconnections = 1_000\n\
                    compress = true\nno-resumption = false\ndialect = \"keen\"\n\
                    slo = [\"p99<1ms\", \"lost==0\"]\n";
        assert_eq!(
            arguments(text, "").unwrap(),
            "loadgen fanout --rate=20.5 --connections=1000 --compress --dialect=keen \
             --slo=p99<1ms,lost==0"
        );
    }

    #[test]
    fn flags_win_over_the_file_and_over_what_they_conflict_with() {
        let text = "scenario = \"fanout\"\nrate = 20\nframe-bytes = 500\n";
        for (flags, expected) in [
            ("--rate 3", "loadgen fanout --frame-bytes=500 --rate 3"),
            ("--rate=3", "loadgen fanout --frame-bytes=500 --rate=3"),
            (
                "--payload-bytes 9",
                "loadgen fanout --rate=20 --payload-bytes 9",
            ),
            (
                "--report out",
                "loadgen fanout --rate=20 --frame-bytes=500 --report out",
            ),
        ] {
            assert_eq!(arguments(text, flags).unwrap(), expected);
        }
    }

    #[test]
    fn whatever_is_wrong_is_told_with_its_line() {
        for (text, expected) in [
            (
                "rate = 1",
                "some.toml:1: it does not say which scenario it is",
            ),
            (
                "\nscenario = \"x\"",
                "some.toml:2: there is no scenario \"x\"",
            ),
            ("scenario = 7", "some.toml:1: there is no scenario \"\""),
            (
                "scenario = \"run\"",
                "some.toml:1: there is no scenario \"run\"",
            ),
            (
                "scenario = \"compare\"",
                "some.toml:1: there is no scenario \"compare\"",
            ),
            (
                "scenario = \"fanout\"\n\nconections = 7",
                "some.toml:3: fanout has no conections; did you mean connections?",
            ),
            (
                "scenario = \"fanout\"\nzzz = 7",
                "some.toml:2: fanout has no zzz",
            ),
            (
                "scenario = \"fanout\"\nrate = \"x\"",
                "some.toml:2: invalid value 'x' for '--rate <RATE>': expected a number above 0",
            ),
            (
                "scenario = \"fanout\"\ncompress = 1",
                "some.toml:2: unexpected value '1' for '--compress' found; no more were expected",
            ),
            (
                "scenario = \"fanout\"\nrate = {}",
                "some.toml:2: rate is neither text nor a number nor a list of them",
            ),
        ] {
            assert_eq!(arguments(text, "").unwrap_err().to_string(), expected);
        }
        let broken = arguments("scenario = \"fanout\"\nrate = ", "").unwrap_err();
        assert!(broken.to_string().starts_with("some.toml:2: "), "{broken}");
    }

    proptest! {
        #[test]
        fn arbitrary_text_never_panics(text in "(scenario = \"fanout\"\n)?.{0,60}(\n.{0,30})?") {
            let _ = arguments(&text, "--rate 3");
        }
    }
}
