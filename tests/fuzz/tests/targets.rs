//! Every target holds on its corpus and for a short time on mutations of it; and the driver is one
//! that finds things. `SIGHTLINE_FUZZ_SECONDS` makes it longer, `SIGHTLINE_FUZZ_SEED` repeats a run.

use std::collections::BTreeSet;
use std::fs;
use std::hint::black_box;
use std::path::PathBuf;
use std::time::Duration;

use sightline_fuzz::corpus::{self, Input};
use sightline_fuzz::{CPU_TIME_MAX, Target, driver, targets};

/// One test for each target, so that they run side by side and fail by name.
macro_rules! each_holds {
    ($($target:ident),+) => {
        $(#[test]
        fn $target() {
            check_holds(stringify!($target));
        })+

        #[test]
        fn every_target_has_its_test_and_its_corpus() {
            let all: BTreeSet<_> = targets::ALL.iter().map(|target| target.name.to_owned()).collect();
            assert_eq!(all, BTreeSet::from([$(stringify!($target).to_owned()),+]));
            let folders = fs::read_dir(corpus::folder()).expect("there is a corpus");
            let folders = folders.map(|entry| entry.expect("it can be read").file_name());
            assert_eq!(all, folders.map(|name| name.to_string_lossy().into_owned()).collect());
        }
    };
}

each_holds!(
    body, command, config, deflate, event, gzip, http, keys, query, token, websocket
);

fn check_holds(name: &str) {
    let target = Target::find(name).expect("there is such a target");
    let inputs = corpus::read(target).expect("the corpus can be read");
    assert!(!inputs.is_empty());
    let seconds = driver::number_of_variable("SIGHTLINE_FUZZ_SECONDS");
    let time = seconds.map_or(Duration::from_millis(500), Duration::from_secs);
    driver::fuzz(target, inputs, time).expect("the target holds");
}

/// Fuzzes a target made for a test, from one input.
fn fuzz(target: &Target, input: &[u8]) -> Result<(), String> {
    let (path, bytes) = (PathBuf::from("seed"), input.to_vec());
    driver::fuzz(target, vec![Input { path, bytes }], Duration::from_secs(60))
}

#[test]
fn a_broken_property_is_found_and_kept_in_a_file() {
    fn run(input: &[u8]) {
        let is_broken = input.windows(8).any(|part| part == b"needle42");
        assert!(!is_broken, "the needle");
    }
    let target = Target {
        name: "planted-needle",
        run,
        tokens: &["needle"],
        bytes_max: 100,
    };
    let told = fuzz(&target, b"in a haystack 42").expect_err("it is there to be found");
    let path = told.rsplit(' ').next().expect("the path comes last");
    assert!(
        told.contains(&format!("sightline-fuzz -- planted-needle {path}")),
        "{told}"
    );
    let input = fs::read(path).expect("the input was kept");
    assert!(driver::check(&target, &input).is_err());
}

#[test]
fn an_input_that_is_always_slow_is_found() {
    fn run(input: &[u8]) {
        // Work rather than time: on a busy machine a second may hold little of it.
        let mut count = 0_u64;
        while input == b"slow" && count < 100_000_000 {
            count = black_box(count + 1);
        }
    }
    let target = Target {
        name: "planted-slowness",
        run,
        tokens: &[],
        bytes_max: 100,
    };
    assert!(driver::check(&target, b"quick").is_ok());
    assert!(driver::check(&target, b"slow").is_err());
}

#[test]
fn an_input_that_waits_is_not_taken_for_slow() {
    fn run(_: &[u8]) {
        std::thread::sleep(2 * CPU_TIME_MAX);
    }
    let target = Target {
        name: "planted-wait",
        run,
        tokens: &[],
        bytes_max: 100,
    };
    assert!(driver::check(&target, b"").is_ok());
}

#[test]
fn the_corpus_stays_small() {
    let mut bytes = 0;
    for target in targets::ALL {
        let inputs = corpus::read(target).expect("the corpus can be read");
        assert!(
            inputs.len() <= INPUTS_MAX,
            "{}: {}",
            target.name,
            inputs.len()
        );
        bytes += inputs.iter().map(|input| input.bytes.len()).sum::<usize>();
    }
    assert!(bytes <= CORPUS_BYTES_MAX, "{bytes}");
}

/// Inputs of one target: each is run before anything is mutated.
const INPUTS_MAX: usize = 60;
/// Bytes of all inputs of all targets: they are in every clone.
const CORPUS_BYTES_MAX: usize = 200_000;
