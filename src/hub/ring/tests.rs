use proptest::prelude::*;

use super::*;
use crate::event::Dialect;
use crate::hub::rig::{encoder, messages, seqs};
use crate::hub::streams::tests::slots;

const KEEN: Variant = Variant::plain(Dialect::Keen);
const OBSERVATORY: Variant = Variant::plain(Dialect::Observatory);
const DEFLATED: Variant = Variant::deflated(Dialect::Observatory);

/// Takes all.
const WIDE: usize = 1 << 30;

fn event(seq: u64, bytes: usize) -> Event {
    Event {
        event_type: "a".into(),
        user: Some("ada".into()),
        project: None,
        session: None,
        event_id: None,
        timestamp_ms: 0,
        data: Bytes::from(format!("\"{seq}{}\"", "x".repeat(bytes))),
        message_type: None,
        tool_name: None,
    }
}

fn maker(stream: StreamSlot, variant: Variant) -> Maker<'static> {
    Maker {
        stream,
        name: StreamName::Own,
        variant,
    }
}

// What was fanned out of these events.
fn batch(stream: StreamSlot, variants: &[Variant], events: &[(Seq, Event)]) -> Rc<FrameBatch> {
    let variants = variants.iter().copied();
    let variants = variants.fold(Variants::default(), Variants::with);
    let mut builder = BatchBuilder::default();
    for (seq, event) in events {
        let numbered = Numbered {
            stream: StreamName::Own,
            seq: *seq,
            event,
            received_ns: 1,
            numbered_ns: 2,
        };
        builder.push(variants, numbered, &mut encoder());
    }
    Rc::new(builder.finish(stream).expect("it holds frames"))
}

// The seqs that a viewer at `after` is sent; `None` where that is not held.
fn served(rings: &mut Rings, maker: Maker<'_>, after: Seq) -> Option<Vec<u64>> {
    let mut encoder = encoder();
    let (mut all, mut at) = (Vec::new(), after);
    rings.base(maker.stream).filter(|base| *base <= after)?;
    while let Some((frames, last)) = rings.frames_after(at, maker, &mut encoder) {
        let Frames::Here(batch) = frames else {
            panic!("it has the events");
        };
        let found = seqs(&messages(&batch.bytes[maker.variant.index()]));
        let metas: Vec<u64> = batch.metas.iter().map(|meta| meta.seq.0).collect();
        assert_eq!(found, metas);
        all.extend(found.into_iter().filter(|seq| *seq > at.0));
        at = last;
    }
    Some(all)
}

fn frames_made(rings: &mut Rings, maker: Maker<'_>) -> Vec<Rc<FrameBatch>> {
    let (mut all, mut at) = (Vec::new(), rings.base(maker.stream).unwrap_or_default());
    while let Some((Frames::Here(batch), last)) = rings.frames_after(at, maker, &mut encoder()) {
        all.push(batch);
        at = last;
    }
    all
}

#[test]
fn what_nobody_took_is_encoded_once_for_each_variant_that_is_asked_for() {
    let (mut rings, stream) = (Rings::new(WIDE, 1), slots(1)[0]);
    for seq in 1..=3 {
        rings.push_event(stream, Seq(seq), event(seq, 10), seq);
    }
    let once = frames_made(&mut rings, maker(stream, KEEN));
    let again = frames_made(&mut rings, maker(stream, KEEN));
    assert_eq!((once.len(), again.len()), (1, 1));
    assert!(Rc::ptr_eq(&once[0], &again[0]));
    let other = frames_made(&mut rings, maker(stream, OBSERVATORY));
    assert!(!Rc::ptr_eq(&once[0], &other[0]));
    // What comes then is not in what was made.
    rings.push_event(stream, Seq(4), event(4, 10), 4);
    for (after, expected) in [(0, vec![1, 2, 3, 4]), (2, vec![3, 4]), (4, vec![])] {
        let found = served(&mut rings, maker(stream, KEEN), Seq(after));
        assert_eq!(found, Some(expected));
    }
}

#[test]
fn what_was_fanned_out_is_what_is_sent_again() {
    let (mut rings, stream) = (Rings::new(WIDE, 1), slots(1)[0]);
    let events = vec![(Seq(1), event(1, 10)), (Seq(2), event(2, 10))];
    let live = batch(stream, &[KEEN], &events);
    rings.push_batch(stream, &live, events, 2);
    let sent = frames_made(&mut rings, maker(stream, KEEN));
    assert!(Rc::ptr_eq(&sent[0], &live));
}

#[test]
fn the_frames_of_many_turns_become_one_piece() {
    let (mut rings, stream) = (Rings::new(WIDE, 1), slots(1)[0]);
    for seq in 1..=100 {
        let events = vec![(Seq(seq), event(seq, 2_000))];
        let live = batch(stream, &[OBSERVATORY, DEFLATED], &events);
        rings.push_batch(stream, &live, events, seq);
    }
    let before = rings.bytes();
    for variant in [DEFLATED, OBSERVATORY, KEEN] {
        let sent = frames_made(&mut rings, maker(stream, variant));
        assert!(sent.len() < 12, "{} pieces", sent.len());
        let expected: Vec<u64> = (1..=100).collect();
        assert_eq!(
            served(&mut rings, maker(stream, variant), Seq(0)),
            Some(expected)
        );
    }
    assert!(before > 0 && rings.bytes() > 0);
    rings.remove(stream);
    assert_eq!((rings.bytes(), rings.links), (0, 0));
}

#[test]
fn another_core_has_frames_and_nothing_to_make_others_of() {
    let (mut rings, stream) = (Rings::new(WIDE, 1), slots(1)[0]);
    let live = batch(stream, &[KEEN], &[(Seq(7), event(7, 10))]);
    rings.push_batch(stream, &live, Vec::new(), 0);
    assert_eq!(rings.base(stream), Some(Seq(6)));
    assert_eq!(rings.first(stream), Some(Seq(7)));
    let found = rings.frames_after(Seq(6), maker(stream, OBSERVATORY), &mut encoder());
    assert!(matches!(found, Some((Frames::Unknown, Seq(7)))));
    assert_eq!(
        served(&mut rings, maker(stream, KEEN), Seq(6)),
        Some(vec![7])
    );
    assert_eq!(served(&mut rings, maker(stream, KEEN), Seq(5)), None);
}

#[test]
fn what_came_first_goes_first_whatever_the_stream_and_not_before_it_is_kept() {
    let (streams, mut rings) = (slots(3), Rings::new(20_000, 1));
    // A chunk of its own each, of about 6,000 bytes.
    for seq in 1..=6_u64 {
        let stream = streams[seq as usize % 3];
        let events = vec![(Seq(seq), event(seq, 5_500))];
        let live = batch(stream, &[KEEN], &events);
        rings.push_batch(stream, &live, Vec::new(), seq);
    }
    let held = |rings: &Rings| {
        let first = streams.iter().map(|stream| rings.first(*stream));
        first
            .map(|seq| seq.map_or(0, |seq| seq.0))
            .collect::<Vec<_>>()
    };
    assert_eq!(held(&rings), [3, 1, 2]);
    rings.evict(0);
    assert_eq!(held(&rings), [3, 1, 2]);
    rings.evict(2);
    assert_eq!(held(&rings), [3, 4, 5]);
    rings.evict(9);
    assert_eq!(held(&rings), [6, 4, 5]);
    assert!(rings.bytes() <= 20_000);
}

#[test]
fn what_trickles_does_not_stay_with_what_is_old() {
    let (streams, mut rings) = (slots(2), Rings::new(80_000, 1));
    for seq in 1..=100 {
        rings.push_event(streams[0], Seq(seq), event(seq, 0), seq);
        let events = vec![(Seq(seq), event(seq, 2_000))];
        rings.push_batch(
            streams[1],
            &batch(streams[1], &[KEEN], &events),
            events,
            seq,
        );
        rings.evict(seq);
    }
    let first = |stream: usize| rings.first(streams[stream]).unwrap_or_default().0;
    assert!(first(1) > 50);
    assert!(
        first(0).abs_diff(first(1)) < 10,
        "{} {}",
        first(0),
        first(1)
    );
}

#[test]
fn an_event_does_not_hold_the_message_that_it_came_in() {
    let (mut rings, stream) = (Rings::new(WIDE, 1), slots(1)[0]);
    let message = Bytes::from(vec![b'1'; 1 << 20]);
    let slice = Event {
        data: message.slice(5..6),
        ..event(1, 0)
    };
    rings.push_event(stream, Seq(1), slice, 1);
    assert!(message.is_unique());
}

#[derive(Clone, Debug)]
enum Op {
    Batch {
        count: u64,
        variants: Vec<Variant>,
        bytes: usize,
    },
    Durable,
    Event(usize),
    Evict,
    Read {
        back: u64,
        variant: Variant,
    },
}

fn variant() -> impl Strategy<Value = Variant> {
    proptest::sample::select(vec![KEEN, OBSERVATORY, DEFLATED])
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (1_u64..4, proptest::collection::vec(variant(), 1..3), 0_usize..3_000)
            .prop_map(|(count, variants, bytes)| Op::Batch { count, variants, bytes }),
        2 => Just(Op::Durable),
        5 => (0_usize..3_000).prop_map(Op::Event),
        3 => Just(Op::Evict),
        4 => (0_u64..40, variant()).prop_map(|(back, variant)| Op::Read { back, variant }),
    ]
}

proptest! {
    #[test]
    fn a_ring_serves_a_suffix_of_what_came_and_keeps_within_its_bytes(
        ops in proptest::collection::vec((op(), 0_usize..2), 1..80),
        bytes_max in 5_000_usize..60_000,
    ) {
        let streams = slots(2);
        let mut rings = Rings::new(bytes_max, 1);
        let mut heads = [0_u64; 2];
        let (mut through, mut durable) = (0, 0);
        for (op, which) in ops {
            let (stream, head) = (streams[which], &mut heads[which]);
            match op {
                Op::Batch { count, variants, bytes } => {
                    let seqs = *head + 1..=*head + count;
                    let events: Vec<(Seq, Event)> =
                        seqs.map(|seq| (Seq(seq), event(seq, bytes))).collect();
                    (*head, through) = (*head + count, through + count);
                    let live = batch(stream, &variants, &events);
                    rings.push_batch(stream, &live, events, through);
                }
                Op::Durable => durable = through,
                Op::Event(bytes) => {
                    (*head, through) = (*head + 1, through + 1);
                    rings.push_event(stream, Seq(*head), event(*head, bytes), through);
                }
                Op::Evict => {
                    rings.evict(durable);
                    prop_assert!(rings.bytes() <= bytes_max || durable < through);
                }
                Op::Read { back, variant } => {
                    let after = Seq(head.saturating_sub(back));
                    let found = served(&mut rings, maker(stream, variant), after);
                    let is_held = rings.base(stream).is_some_and(|base| base <= after);
                    let expected: Vec<u64> = (after.0 + 1..=*head).collect();
                    prop_assert_eq!(found, is_held.then_some(expected));
                }
            }
            let links = rings.rings.values().flatten();
            let bytes: usize = links.clone().map(|link| link.chunk.bytes).sum();
            prop_assert_eq!((rings.bytes, rings.links), (bytes, links.count()));
        }
        rings.evict(through);
        prop_assert!(rings.bytes() <= bytes_max);
    }
}

#[test]
fn a_user_who_is_erased_goes_with_what_came_before() {
    let mut rings = Rings::new(WIDE, 1);
    let slots = slots(3);
    let (own, mixed, other) = (slots[0], slots[1], slots[2]);
    let of = |seq, user: &str| Event {
        user: Some(user.into()),
        ..event(seq, 10)
    };
    rings.push_event(own, Seq(1), of(1, "ada"), 1);
    // A core that was sent frames knows whose they are by their metas.
    for (seq, user) in [(1, "bob"), (2, "ada"), (3, "bob")] {
        let events = [(Seq(seq), of(seq, user))];
        rings.push_batch(mixed, &batch(mixed, &[KEEN], &events), Vec::new(), 1);
    }
    rings.push_event(other, Seq(1), of(1, "bob"), 1);
    rings.forget_user("ada");
    let bases = [own, mixed, other].map(|stream| rings.base(stream));
    assert_eq!(bases, [None, Some(Seq(2)), Some(Seq(0))]);
    assert_eq!(
        served(&mut rings, maker(mixed, KEEN), Seq(2)),
        Some(vec![3])
    );
    for user in ["bob", "nobody"] {
        rings.forget_user(user);
    }
    assert_eq!((rings.bytes(), rings.links), (0, 0));
}

#[test]
fn a_long_name_counts_wherever_it_is_held() {
    let bytes_with = |session: String| {
        let mut rings = Rings::new(WIDE, 1);
        let slots = slots(2);
        let event = Event {
            session: Some(session.into()),
            ..event(1, 200)
        };
        rings.push_event(slots[0], Seq(1), event.clone(), 1);
        let unseen = rings.bytes();
        let events = vec![(Seq(1), event)];
        rings.push_batch(slots[1], &batch(slots[1], &[KEEN], &events), events, 2);
        (unseen, rings.bytes() - unseen)
    };
    let (unseen, seen) = bytes_with("s".into());
    let (unseen_long, seen_long) = bytes_with("s".repeat(101));
    assert_eq!(unseen_long - unseen, 101);
    // The event's, the one that filters look at, and the frame's own hundred more.
    assert_eq!(seen_long - seen, 2 * 101 + 100);
}
