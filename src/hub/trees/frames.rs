//! The frames of one look at a user's trees: made once for all viewers who take the same bytes.

use std::collections::HashMap;
use std::rc::Rc;

use crate::agents::{Content, NodeId, Shown, Update};
use crate::dialect::{ServerMessage, encode_message};
use crate::event::Seq;
use crate::hub::Now;
use crate::hub::encoder::Encoder;
use crate::hub::frames::Variant;
use crate::wire::frame::{Data, encode_text};

/// See the module.
#[derive(Debug)]
pub(super) struct Frames {
    now: Now,
    shared: HashMap<(NodeId, Variant, Content, Seq), Rc<[u8]>>,
    // How many were made, and bytes of them before they were deflated.
    count: u64,
    bytes: usize,
    bytes_max: usize,
}

impl Frames {
    /// None yet; about `bytes_max` bytes of them are to be made.
    pub fn new(now: Now, bytes_max: usize) -> Self {
        Self {
            now,
            shared: HashMap::new(),
            count: 0,
            bytes: 0,
            bytes_max,
        }
    }

    /// How many were made.
    pub fn made(&self) -> u64 {
        self.count
    }

    /// Bytes of these, before they were deflated.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether as many were made as may be at once.
    pub fn are_enough(&self) -> bool {
        self.bytes >= self.bytes_max
    }

    /// The frame of an `agent_tree_update` that brings a tree as it is shown. `None`: it is not among
    /// those that were made, which are enough.
    pub fn update(
        &mut self,
        shown: &Shown,
        variant: Variant,
        (content, at_seq): (Content, Seq),
        encoder: &mut Encoder,
    ) -> Option<Rc<[u8]>> {
        let key = (shown.root(), variant, content, at_seq);
        if let Some(frame) = self.shared.get(&key) {
            return Some(Rc::clone(frame));
        }
        if self.are_enough() {
            return None;
        }
        let dialect = variant.dialect();
        let mut data = Vec::new();
        let update = Update {
            dialect,
            content,
            at_seq,
        };
        shown.encode_update(&update, &mut data);
        let message = ServerMessage::AgentTreeUpdate { data: &data };
        let frame = self.frame(variant, &message, encoder);
        self.shared.insert(key, Rc::clone(&frame));
        Some(frame)
    }

    /// The frame of a message for one viewer.
    pub fn frame(
        &mut self,
        variant: Variant,
        message: &ServerMessage<'_>,
        encoder: &mut Encoder,
    ) -> Rc<[u8]> {
        let mut text = std::mem::take(&mut encoder.scratch);
        text.clear();
        encode_message(variant.dialect(), message, self.now.wall_ms, &mut text);
        self.count += 1;
        self.bytes += text.len();
        let mut frame = Vec::with_capacity(text.len() + FRAME_BYTES);
        match variant.is_deflated() {
            true => {
                encoder.encode_deflated(&mut frame, Data::Text, &text);
            }
            false => encode_text(&mut frame, &text),
        }
        encoder.scratch = text;
        frame.into()
    }
}

/// What a frame adds to its text at most.
const FRAME_BYTES: usize = 10;
