//! Fuzzes one target, or runs it on given inputs, with nothing but stable Rust.
//!
//! `sightline-fuzz TARGET` mutates the corpus for `SIGHTLINE_FUZZ_SECONDS` (30) from
//! `SIGHTLINE_FUZZ_SEED` (drawn and told where it is not set);
//! `sightline-fuzz TARGET FILE…` runs these files, each of them an input.

use std::process::ExitCode;
use std::time::Duration;
use std::{env, fs};

use sightline_fuzz::{Target, corpus, driver, targets};

fn main() -> ExitCode {
    let mut arguments = env::args().skip(1);
    let Some(target) = arguments.next().and_then(|name| Target::find(&name)) else {
        let names: Vec<&str> = targets::ALL.iter().map(|target| target.name).collect();
        eprintln!(
            "usage: sightline-fuzz TARGET [FILE...]; targets: {}",
            names.join(", ")
        );
        return ExitCode::from(2);
    };
    let files: Vec<String> = arguments.collect();
    let outcome = if files.is_empty() {
        fuzz(target)
    } else {
        files.iter().try_for_each(|file| run(target, file))
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            eprintln!("{problem}");
            ExitCode::FAILURE
        }
    }
}

fn fuzz(target: &Target) -> Result<(), String> {
    let seconds = driver::number_of_variable("SIGHTLINE_FUZZ_SECONDS").unwrap_or(30);
    let inputs = corpus::read(target).map_err(|error| format!("{}: {error}", target.name))?;
    driver::fuzz(target, inputs, Duration::from_secs(seconds))
}

fn run(target: &Target, file: &str) -> Result<(), String> {
    let input = fs::read(file).map_err(|error| format!("{file}: {error}"))?;
    driver::check(target, &input)
}
