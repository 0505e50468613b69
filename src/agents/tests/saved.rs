//! A forest that was saved and read again goes on as if nothing had happened.

#![allow(clippy::unwrap_used)]

use proptest::prelude::*;
use serde::Deserialize;

use super::order::all_said;
use super::*;

/// Small enough that trees go all the time.
const NARROW: Bounds = Bounds {
    nodes_max: 5,
    finished_trees_max: 1,
    finished_max_ms: 4,
};

fn text_of(forest: &Forest) -> Value {
    serde_json::to_value(forest.save()).unwrap()
}

fn restore(saved: &Value, bounds: Bounds) -> Option<Forest> {
    let saved = SavedForest::deserialize(saved).ok()?;
    Some(Forest::restore(saved, bounds, "EXPLORE", 8))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_goes_on_as_the_one_that_was_saved(
        said in all_said(80),
        cut in 0..80_usize,
        is_narrow in any::<bool>(),
    ) {
        let bounds = if is_narrow { NARROW } else { WIDE };
        let (mut rig, mut other) = (Rig::new(bounds), Rig::new(bounds));
        for (at, said) in said.iter().enumerate() {
            rig.hear_at(at as i64, said);
            if at == cut {
                other.forest = restore(&text_of(&rig.forest), bounds).unwrap();
                check_invariants(&other.forest);
                let changes = other.forest.take_changes();
                prop_assert!(changes.gone.is_empty() && changes.trees.is_empty());
                prop_assert_eq!(shown(&rig.forest), shown(&other.forest));
                prop_assert_eq!(all_stats(&rig.forest), all_stats(&other.forest));
            }
            if at <= cut {
                other.hear_nothing();
            } else {
                prop_assert_eq!(rig.forest.is_empty(), other.forest.is_empty());
                other.hear_at(at as i64, said);
            }
        }
        if said.len() > cut {
            prop_assert_eq!(text_of(&rig.forest), text_of(&other.forest));
        }
    }

    #[test]
    fn whatever_was_kept_makes_a_forest_that_holds_together(
        said in all_said(60),
        slips in proptest::collection::vec((any::<u16>(), 0..9_i64), 1..8),
    ) {
        let mut saved = text_of(&Rig::after(&said).forest);
        for (place, number) in slips {
            let mut numbers = Vec::new();
            collect_numbers(&mut saved, &mut numbers);
            let place = usize::from(place) % numbers.len();
            *numbers[place] = number.into();
        }
        if let Some(mut forest) = restore(&saved, NARROW) {
            check_invariants(&forest);
            forest.evict(i64::MAX);
            check_invariants(&forest);
            text_of(&forest);
        }
    }
}

#[test]
fn a_cycle_that_was_kept_is_left_out() {
    let mut saved = text_of(&Rig::after(&[spawn("a", "b", 1)]).forest);
    saved["nodes"][0]["claims"] = saved["nodes"][1]["claims"].clone();
    saved["nodes"][0]["claims"][0]["parent"] = json!(1);
    let forest = restore(&saved, WIDE).unwrap();
    check_invariants(&forest);
    assert_eq!(forest.parent(forest.find("b").unwrap()), forest.find("a"));
}

fn collect_numbers<'v>(value: &'v mut Value, numbers: &mut Vec<&'v mut Value>) {
    match value {
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| collect_numbers(item, numbers)),
        Value::Number(_) => numbers.push(value),
        Value::Object(fields) => {
            fields
                .values_mut()
                .for_each(|value| collect_numbers(value, numbers));
        }
        _ => {}
    }
}

#[test]
fn that_a_root_of_a_forest_that_was_read_again_is_gone_is_told() {
    let mut rig = Rig::after(&[spawn("a", "b", 1), spawn("c", "d", 1)]);
    rig.forest = restore(&text_of(&rig.forest), WIDE).unwrap();
    rig.hear(&spawn("b", "c", 2));
    let gone = GoneRoot {
        session: "c".into(),
        moved_to: Some("a".into()),
    };
    assert_eq!(rig.forest.take_changes().gone, [gone]);
}
