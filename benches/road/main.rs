//! What each step costs on the road of an event from the socket in to the sockets out: by the clock
//! (`cargo bench --bench road`), and in instructions, the figure that other work on the machine
//! does not change (`perf/check instructions`, which runs `road count NAME` under callgrind).
//!
//! One program, for each would link the whole gateway anew. Not here: what takes a disk
//! (`history`), and what agents' events lead to (`agents`, `states`).

mod case;
mod deflate;
mod encode;
mod events;
mod fanout;
mod frame;
mod mailbox;
mod parse;
mod record;

use std::process::ExitCode;

use case::Case;
use criterion::Criterion;
use tikv_jemallocator::Jemalloc;

// As the server has it.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["count", name] => return count(name),
        ["names"] => names(),
        _ => by_the_clock(),
    }
    ExitCode::SUCCESS
}

fn cases() -> Vec<Case> {
    let parts = [
        frame::cases(),
        parse::cases(),
        encode::cases(),
        fanout::cases(),
        mailbox::cases(),
        record::cases(),
        deflate::cases(),
    ];
    parts.into_iter().flatten().collect()
}

fn by_the_clock() {
    let mut criterion = Criterion::default().configure_from_args();
    for case in cases() {
        case.measure(&mut criterion);
    }
    mailbox::measure_sleeping(&mut criterion);
    criterion.final_summary();
}

#[allow(clippy::print_stdout)]
fn names() {
    for case in cases() {
        println!("{}", case.name());
    }
}

/// Prints how many things were handled while instructions were counted.
#[allow(clippy::print_stdout)]
fn count(name: &str) -> ExitCode {
    let Some(case) = cases().into_iter().find(|case| case.name() == name) else {
        return ExitCode::from(2);
    };
    println!("{}", case.count());
    ExitCode::SUCCESS
}
