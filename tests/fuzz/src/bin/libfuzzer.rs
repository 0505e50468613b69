//! The driver that coverage guides: libFuzzer with the target that `SIGHTLINE_FUZZ_TARGET` names.
//! Half of its mutations are ours. Built and run by `tests/fuzz/run`.

#![no_main]

use std::env;
use std::sync::LazyLock;

use fastrand::Rng;
use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use sightline_fuzz::mutate::Mutator;
use sightline_fuzz::{Target, corpus};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = env::var("SIGHTLINE_FUZZ_TARGET").unwrap_or_default();
    Target::find(&name).expect("SIGHTLINE_FUZZ_TARGET names a target")
});

static MUTATOR: LazyLock<Mutator> = LazyLock::new(|| {
    let inputs = corpus::read(&TARGET).expect("the corpus is there");
    Mutator::new(
        TARGET.tokens,
        inputs.into_iter().map(|input| input.bytes).collect(),
    )
});

fuzz_target!(|input: &[u8]| TARGET.check(input));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    let max_size = max_size.min(TARGET.bytes_max);
    let size = size.min(max_size);
    let mut rng = Rng::with_seed(seed.into());
    if rng.bool() {
        return fuzzer_mutate(data, size, max_size);
    }
    let mut input = data[..size].to_vec();
    MUTATOR.mutate(&mut input, max_size, &mut rng);
    data[..input.len()].copy_from_slice(&input);
    input.len()
});
