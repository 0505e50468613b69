#![allow(clippy::unwrap_used)]

use std::cell::Cell;
use std::collections::VecDeque;
use std::sync::atomic::AtomicU64;
use std::thread;
use std::time::Duration;

use proptest::prelude::*;

use super::*;

thread_local! {
    static INTERLEAVED: Cell<bool> = const { Cell::new(false) };
}

pub(super) fn step() {
    if INTERLEAVED.get() {
        shuttle::thread::yield_now();
    }
}

/// Counts how often it is rung.
#[derive(Clone, Default)]
struct Count(Arc<AtomicU64>);

impl Wake for Count {
    fn wake(&self) -> io::Result<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

impl Count {
    fn boxed(&self) -> Box<dyn Wake> {
        Box::new(self.clone())
    }

    fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

fn pair(capacity: usize) -> (Mesh<u32>, [Count; 2]) {
    let counts = [Count::default(), Count::default()];
    let mesh = mesh(counts.iter().map(Count::boxed).collect(), capacity);
    (mesh, counts)
}

fn taken(inbox: &mut Inbox<u32>, letters_max: usize) -> (Vec<(usize, u32)>, bool) {
    let mut letters = Vec::new();
    let has_more = inbox.drain(letters_max, |from, letter| letters.push((from, letter)));
    (letters, has_more)
}

#[test]
fn many_letters_take_one_wake_up_until_the_inbox_is_drained() {
    let (Mesh { mut cores, control }, counts) = pair(8);
    for letter in 0..3 {
        cores[0].0.try_send(1, letter).unwrap();
    }
    control.try_send(1, 9).unwrap();
    assert_eq!(counts[1].value(), 1);
    assert_eq!(cores[0].0.wakes(), 1);
    let (letters, has_more) = taken(&mut cores[1].1, 8);
    assert_eq!(letters, [(0, 0), (0, 1), (0, 2), (2, 9)]);
    assert!(!has_more);
    cores[0].0.try_send(1, 4).unwrap();
    assert_eq!(counts[1].value(), 2);
    assert_eq!(counts[0].value(), 0);
}

#[test]
fn a_drain_takes_a_share_from_each_sender_and_says_that_more_is_left() {
    let (Mesh { mut cores, control }, _) = pair(8);
    for letter in 0..3 {
        cores[0].0.try_send(1, letter).unwrap();
        cores[1].0.try_send(1, 10 + letter).unwrap();
        control.try_send(1, 20 + letter).unwrap();
    }
    let inbox = &mut cores[1].1;
    let first = vec![(0, 0), (0, 1), (1, 10), (1, 11), (2, 20), (2, 21)];
    assert_eq!(taken(inbox, 2), (first, true));
    assert_eq!(taken(inbox, 2), (vec![(1, 12), (2, 22), (0, 2)], false));
    assert_eq!(taken(inbox, 2), (vec![], false));
}

#[test]
fn a_full_queue_gives_the_letter_back_and_room_rings_the_sender() {
    let (Mesh { mut cores, control }, counts) = pair(2);
    cores[0].0.try_send(1, 1).unwrap();
    cores[0].0.try_send(1, 2).unwrap();
    assert_eq!(cores[0].0.try_send(1, 3), Err(3));
    control.try_send(1, 4).unwrap();
    assert_eq!(counts[0].value(), 0);
    taken(&mut cores[1].1, 1);
    assert_eq!(counts[0].value(), 1, "there is room for one");
    cores[0].0.try_send(1, 3).unwrap();
    taken(&mut cores[0].1, 1);
    taken(&mut cores[1].1, 1);
    assert_eq!(counts[0].value(), 1, "it waits no more");
}

proptest! {
    /// Whatever the order of sends and drains: of each pair every letter arrives once, in order.
    #[test]
    fn letters_of_a_pair_keep_their_order(
        steps in prop::collection::vec((0..3_usize, 0..2_usize, 0..4_usize), 0..200),
        capacity in 1..5_usize,
    ) {
        let (Mesh { mut cores, control }, _) = pair(capacity);
        let mut expected: Vec<VecDeque<u32>> = vec![VecDeque::new(); 6];
        let mut next = 0;
        let drain = |cores: &mut Vec<(Postbox<u32>, Inbox<u32>)>,
                         expected: &mut Vec<VecDeque<u32>>,
                         to: usize,
                         letters_max| {
            cores[to].1.drain(letters_max, |from, letter| {
                assert_eq!(expected[from * 2 + to].pop_front(), Some(letter));
            })
        };
        for (from, to, letters_max) in steps {
            if letters_max > 0 {
                drain(&mut cores, &mut expected, to, letters_max);
                continue;
            }
            let queue = &mut expected[from * 2 + to];
            let sent = match from {
                2 => control.try_send(to, next),
                _ => cores[from].0.try_send(to, next),
            };
            prop_assert_eq!(sent.is_ok(), queue.len() < capacity);
            if sent.is_ok() {
                queue.push_back(next);
            }
            next += 1;
        }
        for to in 0..2 {
            while drain(&mut cores, &mut expected, to, 1) {}
        }
        prop_assert!(expected.iter().all(VecDeque::is_empty));
    }
}

/// A core as the event loop runs it: drains its inbox, sends its `letters[0]` to the other, keeping
/// back what finds no room, and sleeps when there is nothing else to do, until it has `letters[1]`.
fn run_core(
    (mut postbox, mut inbox): (Postbox<u32>, Inbox<u32>),
    to: usize,
    letters: [u32; 2],
    letters_max: usize,
    mut sleep: impl FnMut(),
) {
    let (mut sent, mut received) = (0, 0);
    loop {
        let has_more = inbox.drain(letters_max, |from, letter| {
            assert_eq!((from, letter), (to, received));
            received += 1;
        });
        while sent < letters[0] && postbox.try_send(to, sent).is_ok() {
            sent += 1;
        }
        if [sent, received] == letters {
            return;
        }
        if !has_more {
            sleep();
        }
    }
}

/// An event counter that a sleeper waits for, like an eventfd.
struct Alarm(shuttle::sync::Mutex<bool>, shuttle::sync::Condvar);

impl Alarm {
    fn sleep(&self) {
        let mut rung = self.0.lock().unwrap();
        while !*rung {
            rung = self.1.wait(rung).unwrap();
        }
        *rung = false;
    }
}

struct Ring(Arc<Alarm>);

impl Wake for Ring {
    fn wake(&self) -> io::Result<()> {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_one();
        Ok(())
    }
}

/// Two cores send each other more letters than their queues hold. A lost wake-up leaves one asleep,
/// which shuttle reports as a deadlock.
fn exchange(letters: [u32; 2], capacity: usize) {
    INTERLEAVED.set(true);
    let alarms: [_; 2] = std::array::from_fn(|_| {
        let (mutex, condvar) = (
            shuttle::sync::Mutex::new(false),
            shuttle::sync::Condvar::new(),
        );
        Arc::new(Alarm(mutex, condvar))
    });
    let wakers = alarms
        .iter()
        .map(|alarm| Box::new(Ring(Arc::clone(alarm))) as Box<dyn Wake>);
    let mesh = mesh(wakers.collect(), capacity);
    let threads: Vec<_> = mesh
        .cores
        .into_iter()
        .zip(alarms)
        .enumerate()
        .map(|(core, (ends, alarm))| {
            shuttle::thread::spawn(move || {
                run_core(
                    ends,
                    1 - core,
                    [letters[core], letters[1 - core]],
                    1,
                    || alarm.sleep(),
                );
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn no_interleaving_loses_a_wake_up() {
    shuttle::check_random(|| exchange([3, 3], 1), 2_000);
    shuttle::check_random(|| exchange([5, 5], 2), 1_000);
    // With nothing to answer, no letter of the receiver's makes good for a ring that it owes.
    shuttle::check_random(|| exchange([3, 0], 1), 2_000);
}

#[test]
fn two_real_loops_never_sleep_on_mail() {
    const LETTERS: u32 = 50_000;
    let polls: Vec<_> = (0..2).map(|_| mio::Poll::new().unwrap()).collect();
    let wakers = polls.iter().map(|poll| {
        Box::new(mio::Waker::new(poll.registry(), mio::Token(0)).unwrap()) as Box<dyn Wake>
    });
    let mesh = mesh(wakers.collect(), 4);
    let threads: Vec<_> = mesh
        .cores
        .into_iter()
        .zip(polls)
        .enumerate()
        .map(|(core, (ends, mut poll))| {
            let mut events = mio::Events::with_capacity(4);
            thread::spawn(move || {
                run_core(ends, 1 - core, [LETTERS; 2], 3, || {
                    poll.poll(&mut events, Some(Duration::from_secs(10)))
                        .unwrap();
                    assert!(!events.is_empty(), "a wake-up was lost");
                });
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}
