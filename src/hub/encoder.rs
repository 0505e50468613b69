//! Texts become frames: the one deflate stream of a core, and when it is worth using.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::counters::CoreStats;
use crate::failpoint;
use crate::wire::deflate::Deflater;
use crate::wire::frame::{Data, encode_data, encode_deflated};

/// When and how frames are deflated, for connections that agreed on it: `compression.*`.
#[derive(Clone, Copy, Debug)]
pub struct Compression {
    /// 1 (fast) to 9 (small).
    pub level: u32,
    /// Bytes of a text below which it goes out plain.
    pub threshold_bytes: usize,
}

/// Makes frames of texts. One a core.
#[derive(Debug)]
pub struct Encoder {
    compression: Compression,
    deflater: Deflater,
    stats: Arc<CoreStats>,
    /// Working space for a text that goes into several frames.
    pub(super) scratch: Vec<u8>,
}

impl Encoder {
    /// One that counts in `stats`.
    pub fn new(compression: Compression, stats: Arc<CoreStats>) -> Self {
        Self {
            compression,
            deflater: Deflater::new(compression.level),
            stats,
            scratch: Vec::new(),
        }
    }

    /// Appends `message` as one frame: deflated where it reaches the threshold and gets smaller,
    /// else plain. Text is UTF-8. Returns whether it was deflated.
    pub fn encode_deflated(&mut self, out: &mut Vec<u8>, kind: Data, message: &[u8]) -> bool {
        let is_long = message.len() >= self.compression.threshold_bytes;
        let deflated = is_long.then(|| self.try_deflate(out, kind, message));
        let Some(payload_bytes) = deflated.flatten() else {
            encode_data(out, kind, message);
            return false;
        };
        let counters = &self.stats.counters;
        counters.frames_deflated.add(1);
        counters.deflate_bytes_before.add(message.len() as u64);
        counters.deflate_bytes_after.add(payload_bytes as u64);
        true
    }

    // Appends the deflated frame and returns the bytes of its payload; `None` where it would not be
    // smaller. Whatever producers send goes through a library here: should it panic, the frame goes
    // out plain, the stream is made anew, and nobody notices.
    fn try_deflate(&mut self, out: &mut Vec<u8>, kind: Data, message: &[u8]) -> Option<usize> {
        let deflater = &mut self.deflater;
        let deflated = catch_unwind(AssertUnwindSafe(|| {
            failpoint::panic_at("deflate", message);
            let payload = deflater.deflate(message)?;
            encode_deflated(out, kind, payload);
            Some(payload.len())
        }));
        deflated.unwrap_or_else(|_| {
            self.stats.counters.panics.add(1);
            self.deflater = Deflater::new(self.compression.level);
            None
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use crate::event::{Dialect, StreamKind};
    use crate::hub::Bounds;
    use crate::hub::frames::Variant;
    use crate::hub::rig::{Client, Rig, event, messages, seqs};

    const PLAIN: Variant = Variant::plain(Dialect::Observatory);
    const DEFLATED: Variant = Variant::deflated(Dialect::Observatory);

    /// More than the rig's threshold of 1,000 bytes.
    const LONG: usize = 4_000;

    fn crowd_rig(cores: usize) -> Rig {
        Rig::with(cores, Bounds::default(), |options| {
            options.tiers.insert("individual".into(), 2_000);
        })
    }

    /// Frames deflated, and the bytes before and after, over all cores.
    fn counted(rig: &Rig) -> (u64, u64, u64) {
        rig.stats
            .iter()
            .fold((0, 0, 0), |(frames, before, after), stats| {
                let counters = &stats.counters;
                (
                    frames + counters.frames_deflated.value(),
                    before + counters.deflate_bytes_before.value(),
                    after + counters.deflate_bytes_after.value(),
                )
            })
    }

    /// The first bytes of the events' frames that wait for a client, and their seqs.
    fn events(rig: &mut Rig, client: Client) -> (Vec<u8>, Vec<u64>) {
        let (mut firsts, mut found) = (Vec::new(), Vec::new());
        for (first, message) in frames(&rig.write(client, usize::MAX)) {
            if message["seq"].is_u64() {
                firsts.push(first);
                found.push(message);
            }
        }
        (firsts, seqs(&found))
    }

    fn frames(bytes: &[u8]) -> Vec<(u8, Value)> {
        let start = bytes.windows(4).position(|four| four == b"\r\n\r\n");
        let mut rest = &bytes[start.map_or(0, |at| at + 4)..];
        let mut found = Vec::new();
        while !rest.is_empty() {
            let length = match rest[1] {
                126 => 4 + usize::from(u16::from_be_bytes([rest[2], rest[3]])),
                short => 2 + usize::from(short),
            };
            found.push((rest[0], messages(&rest[..length]).remove(0)));
            rest = &rest[length..];
        }
        found
    }

    #[test]
    fn a_thousand_subscribers_cost_one_compression() {
        let mut rig = crowd_rig(1);
        let publisher = rig.publisher(0);
        let viewers: Vec<Client> = (0..1_000)
            .map(|_| rig.viewer_of("ada", &["7"], DEFLATED))
            .collect();
        let plain = rig.viewer_of("bob", &["7"], PLAIN);
        rig.turn();
        let before = counted(&rig).0;
        rig.publish(publisher, &event(None, Some("7"), LONG));
        rig.turn();
        let (after, text_bytes, payload_bytes) = counted(&rig);
        assert_eq!(after - before, 1);
        assert!(
            payload_bytes < text_bytes / 4,
            "{payload_bytes} of {text_bytes}"
        );
        for viewer in viewers {
            assert_eq!(events(&mut rig, viewer), (vec![0xc1], vec![1]));
        }
        assert_eq!(events(&mut rig, plain), (vec![0x81], vec![1]));
        rig.read(publisher);
        rig.check_balance();
    }

    #[test]
    fn nothing_is_deflated_for_those_who_did_not_agree() {
        let mut rig = crowd_rig(1);
        let publisher = rig.publisher(0);
        let viewer = rig.viewer_of("ada", &["7"], PLAIN);
        rig.publish(publisher, &event(None, Some("7"), LONG));
        rig.turn();
        assert_eq!(events(&mut rig, viewer), (vec![0x81], vec![1]));
        assert_eq!(counted(&rig), (0, 0, 0));
    }

    #[test]
    fn a_turn_of_events_large_and_small_is_cut_right_for_everybody() {
        let mut rig = crowd_rig(1);
        let publisher = rig.publisher(0);
        let [all, own, picky, plain] = [
            rig.viewer_of("bob", &["7"], DEFLATED),
            rig.viewer_of("ada", &["7"], DEFLATED),
            rig.viewer_of("cy", &["7"], DEFLATED),
            rig.viewer_of("dan", &["7"], PLAIN),
        ];
        rig.say(picky, &json!({"type": "unsubscribe"}));
        let filters = json!({"eventTypes": ["wanted"]});
        rig.say(
            picky,
            &json!({"type": "subscribe", "data": {"filters": filters}}),
        );
        for viewer in [all, own, picky, plain] {
            rig.turn();
            rig.read(viewer);
        }
        let before = counted(&rig).0;
        let events_of_turn = [
            event(None, Some("7"), 10),
            event(None, Some("7"), LONG),
            event(Some("ada"), Some("7"), LONG + 1),
            event(None, Some("7"), 20),
            event(None, Some("7"), LONG + 2).replace("progress_update", "wanted"),
        ];
        rig.publish(publisher, &format!("[{}]", events_of_turn.join(",")));
        rig.turn();
        // Three long frames of the project, one of the user's own stream.
        assert_eq!(counted(&rig).0 - before, 4);
        let (small, large) = (0x81, 0xc1);
        let whole = vec![small, large, large, small, large];
        assert_eq!(events(&mut rig, all), (whole, vec![1, 2, 3, 4, 5]));
        assert_eq!(events(&mut rig, picky), (vec![large], vec![5]));
        assert_eq!(
            events(&mut rig, plain),
            (vec![small; 5], vec![1, 2, 3, 4, 5])
        );
        let (mut firsts, mut seqs) = events(&mut rig, own);
        firsts.sort_unstable();
        seqs.sort_unstable();
        assert_eq!(firsts, [small, small, large, large, large]);
        assert_eq!(seqs, [1, 1, 2, 4, 5], "her own is on her own stream alone");
        rig.read(publisher);
        rig.check_balance();
    }

    #[test]
    fn deflated_frames_are_accounted_for_however_they_are_written() {
        let mut rig = crowd_rig(1);
        let publisher = rig.publisher(0);
        let viewer = rig.viewer_of("ada", &["7"], DEFLATED);
        rig.turn();
        rig.read(viewer);
        for pad in [5, LONG, 6, LONG, LONG] {
            rig.publish(publisher, &event(None, Some("7"), pad));
        }
        rig.turn();
        let mut bytes = Vec::new();
        for piece in 1..20 {
            bytes.extend(rig.write(viewer, piece));
            rig.hub().handle_ping(viewer.key, b"");
        }
        bytes.extend(rig.write(viewer, usize::MAX));
        let found = messages(&bytes);
        assert_eq!(seqs(&found), [1, 2, 3, 4, 5]);
        rig.read(publisher);
        rig.check_balance();
    }

    #[test]
    fn a_core_gets_the_encodings_that_its_viewers_take() {
        let mut rig = crowd_rig(2);
        let project = rig.id_on(1, StreamKind::Project);
        let users = [0, 1].map(|core| rig.id_on(core, StreamKind::User));
        let publisher = rig.publisher(1);
        let deflated = users
            .each_ref()
            .map(|user| rig.viewer_of(user, &[&project], DEFLATED));
        let plain = rig.viewer_of(&users[0], &[&project], PLAIN);
        rig.settle();
        for client in [deflated[0], deflated[1], plain] {
            rig.read(client);
        }
        let before = counted(&rig).0;
        for pad in [1, LONG] {
            rig.publish(publisher, &event(None, Some(&project), pad));
        }
        rig.settle();
        assert_eq!(
            counted(&rig).0 - before,
            1,
            "where the project lives, and there alone"
        );
        for viewer in deflated {
            assert_eq!(events(&mut rig, viewer), (vec![0x81, 0xc1], vec![1, 2]));
        }
        assert_eq!(events(&mut rig, plain), (vec![0x81, 0x81], vec![1, 2]));
    }

    #[test]
    fn long_messages_of_the_server_are_deflated_too() {
        let mut rig = crowd_rig(1);
        let viewers = [PLAIN, DEFLATED].map(|variant| rig.viewer_of("ada", &[], variant));
        let types: Vec<String> = (100..200).map(|n| format!("type_number_{n}")).collect();
        let subscribe = json!({"type": "subscribe", "data": {"filters": {"eventTypes": types}}});
        for (viewer, expected) in viewers.into_iter().zip([0x81, 0xc1]) {
            rig.write(viewer, usize::MAX);
            for said in [&subscribe, &json!({"type": "ping"})] {
                rig.say(viewer, said);
            }
            let found = frames(&rig.write(viewer, usize::MAX));
            let firsts: Vec<u8> = found.iter().map(|(first, _)| *first).collect();
            assert_eq!(firsts, [expected, 0x81]);
            assert_eq!(found[0].1["data"]["filters"]["eventTypes"], json!(types));
        }
        rig.check_balance();
    }
}
