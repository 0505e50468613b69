//! The driver that needs nothing but stable Rust: the corpus first, then mutations of it until the
//! time is over. It knows nothing of coverage; what it finds is written to a file.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, panic};

use fastrand::Rng;

use crate::Target;
use crate::corpus::Input;
use crate::mutate::Mutator;
use crate::pieces::rng_of;

/// Runs `target` on `inputs`, then on mutations of them for `time`, from `SIGHTLINE_FUZZ_SEED` or a
/// seed that it draws; tells the seed and how many inputs there were.
/// Errors: the first input that breaks a property, as a file and the command that runs it again.
pub fn fuzz(target: &Target, inputs: Vec<Input>, time: Duration) -> Result<(), String> {
    let begun = Instant::now();
    let seed = number_of_variable("SIGHTLINE_FUZZ_SEED").unwrap_or_else(|| fastrand::u64(..));
    eprintln!("fuzzing {} with SIGHTLINE_FUZZ_SEED={seed}", target.name);
    let mut count = inputs.len();
    for input in &inputs {
        check(target, &input.bytes)
            .map_err(|problem| format!("{}: {problem}", input.path.display()))?;
    }
    let others = inputs.into_iter().map(|input| input.bytes).collect();
    let mutator = Mutator::new(target.tokens, others);
    let mut rng = Rng::with_seed(seed);
    while begun.elapsed() < time {
        let mut input = mutator.pick(&mut rng).to_vec();
        mutator.mutate(&mut input, target.bytes_max, &mut rng);
        check(target, &input)?;
        count += 1;
    }
    eprintln!("{}: {count} inputs in {:.1?}", target.name, begun.elapsed());
    Ok(())
}

/// Runs one input. Errors: it breaks a property, or takes too long; it is then in a file.
pub fn check(target: &Target, input: &[u8]) -> Result<(), String> {
    // What the panic said is on standard error by then.
    panic::catch_unwind(|| target.check(input)).map_err(|_| keep(target, input))
}

/// The value of an environment variable, where it is a number.
pub fn number_of_variable(name: &str) -> Option<u64> {
    env::var(name).ok()?.parse().ok()
}

/// Where what was found in a target is kept.
pub fn found_folder(target: &Target) -> PathBuf {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = package.ancestors().nth(2).unwrap_or(package);
    root.join("target/fuzz").join(target.name)
}

/// Writes an input to a file and says how to run it again.
fn keep(target: &Target, input: &[u8]) -> String {
    let (name, folder) = (target.name, found_folder(target));
    let path = folder.join(format!("found-{:016x}", rng_of(input).get_seed()));
    let written = fs::create_dir_all(&folder).and_then(|()| fs::write(&path, input));
    let path = path.display();
    match written {
        Ok(()) => {
            format!("{name} fails; again by: cargo run -p sightline-fuzz -- {name} {path}")
        }
        Err(error) => format!("{name} fails, and {path} cannot be written: {error}"),
    }
}
