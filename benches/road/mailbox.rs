//! What a letter between cores costs: in a busy mailbox, where no wake-up is needed, and to a core
//! that sleeps and answers, which takes a wake-up each way.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use criterion::Criterion;
use mio::{Events, Poll, Token, Waker};
use sightline::engine::mailbox::{self, Inbox, Postbox, Wake};
use sightline::limits::{LETTERS_PER_TURN, MAILBOX_LETTERS_MAX};

use crate::case::{Case, Run};

struct Awake;

impl Wake for Awake {
    fn wake(&self) -> io::Result<()> {
        Ok(())
    }
}

/// A letter as large as a few pointers, as those of the engine are.
type Letter = [u64; 4];

pub fn cases() -> Vec<Case> {
    let busy = |count: usize| {
        let name = format!("busy, {count} letters a turn");
        Case::of_things("mailbox", name, count, move || send_and_drain(count))
    };
    [1, MAILBOX_LETTERS_MAX].map(busy).into()
}

fn send_and_drain(count: usize) -> Run {
    let wakers: Vec<Box<dyn Wake>> = vec![Box::new(Awake), Box::new(Awake)];
    let mesh = mailbox::mesh::<Letter>(wakers, MAILBOX_LETTERS_MAX);
    let mut cores = mesh.cores.into_iter();
    let (Some((mut postbox, _)), Some((_, mut inbox))) = (cores.next(), cores.next()) else {
        unreachable!("two wakers make two cores");
    };
    Box::new(move || {
        for n in 0..count as u64 {
            let sent = postbox.try_send(1, [n; 4]);
            assert!(sent.is_ok(), "there is room");
        }
        inbox.drain(LETTERS_PER_TURN, |_, letter| {
            std::hint::black_box(letter);
        });
    })
}

/// One end of a mailbox with the poll that it sleeps in.
struct Core {
    poll: Poll,
    events: Events,
    postbox: Postbox<Letter>,
    inbox: Inbox<Letter>,
}

impl Core {
    /// Sleeps until mail comes; answers how many letters came.
    fn turn(&mut self) -> io::Result<usize> {
        self.poll.poll(&mut self.events, None)?;
        let mut count = 0;
        self.inbox.drain(LETTERS_PER_TURN, |_, _| count += 1);
        Ok(count)
    }
}

fn cores() -> io::Result<Vec<Core>> {
    let polls = [Poll::new()?, Poll::new()?];
    let wakers = polls.iter().map(|poll| {
        Waker::new(poll.registry(), Token(0)).map(|waker| Box::new(waker) as Box<dyn Wake>)
    });
    let mesh = mailbox::mesh(wakers.collect::<io::Result<_>>()?, MAILBOX_LETTERS_MAX);
    let ends = mesh.cores.into_iter().zip(polls);
    let core = |((postbox, inbox), poll)| Core {
        poll,
        events: Events::with_capacity(8),
        postbox,
        inbox,
    };
    Ok(ends.map(core).collect())
}

/// Sends every letter back until told to stop.
fn spawn_echo(mut core: Core, is_stopped: Arc<AtomicBool>) -> JoinHandle<io::Result<()>> {
    thread::spawn(move || {
        while !is_stopped.load(Ordering::Relaxed) {
            for _ in 0..core.turn()? {
                let _ = core.postbox.try_send(0, [0; 4]);
            }
        }
        Ok(())
    })
}

/// Two threads and the kernel: of no use to one who counts instructions.
pub fn measure_sleeping(c: &mut Criterion) {
    let mut cores = cores().expect("the system has two polls");
    let is_stopped = Arc::new(AtomicBool::new(false));
    let echo = cores
        .pop()
        .map(|core| spawn_echo(core, Arc::clone(&is_stopped)));
    let core = &mut cores[0];
    c.bench_function("mailbox/there and back to a sleeping core", |b| {
        b.iter(|| {
            let _ = core.postbox.try_send(1, [0; 4]);
            while core.turn().expect("poll") == 0 {}
        });
    });
    is_stopped.store(true, Ordering::Relaxed);
    let _ = core.postbox.try_send(1, [0; 4]);
    let ended = echo.map(JoinHandle::join);
    assert!(matches!(ended, Some(Ok(Ok(())))), "the echo failed");
}
