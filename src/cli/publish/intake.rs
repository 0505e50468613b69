//! The road from the thread that reads events to the one that delivers them: batches in a bounded
//! queue, a ring when one is there, and an account of what was taken in.

use std::io;
use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TryRecvError, sync_channel};

use compact_str::CompactString;
use mio::Waker;

use super::super::client::ClientError;
use super::window::Parcel;

/// One thing that was read.
#[derive(Debug)]
pub(crate) enum Item {
    /// An event to deliver.
    Parcel(Parcel),
    /// Something that cannot even be sent.
    Refused {
        /// As in `Parcel`.
        label: CompactString,
        /// As the gateway would have said.
        code: &'static str,
    },
}

/// What the reading thread sends.
pub(crate) enum Input {
    /// Items in the order read; never empty.
    Batch(Vec<Item>),
    /// The last word: all was read, or reading failed.
    End(Result<(), ClientError>),
}

/// What both threads see.
#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    taken: AtomicU64,
}

/// The reading thread's end.
pub(crate) struct Intake {
    batch: Vec<Item>,
    batch_bytes: usize,
    sender: SyncSender<Input>,
    shared: Arc<Shared>,
    waker: Arc<Waker>,
}

/// The delivering thread's end.
pub(crate) struct Inbox {
    receiver: Receiver<Input>,
    shared: Arc<Shared>,
}

/// Both ends; `waker` rings for the delivering thread.
pub(crate) fn intake(waker: Arc<Waker>) -> (Intake, Inbox) {
    let (sender, receiver) = sync_channel(BATCHES_MAX);
    let shared = Arc::new(Shared::default());
    let intake = Intake {
        batch: Vec::new(),
        batch_bytes: 0,
        sender,
        shared: Arc::clone(&shared),
        waker,
    };
    (intake, Inbox { receiver, shared })
}

impl Intake {
    /// Takes in an item, and passes on what has gathered when that is a batch. Blocks while the
    /// queue is full.
    pub(crate) fn put(&mut self, item: Item) {
        self.shared.taken.fetch_add(1, Ordering::Relaxed);
        if let Item::Parcel(parcel) = &item {
            self.batch_bytes += parcel.text.len();
        }
        self.batch.push(item);
        if self.batch.len() >= BATCH_ITEMS || self.batch_bytes >= BATCH_BYTES {
            self.flush();
        }
    }

    /// Passes on what has gathered. Blocks while the queue is full.
    pub(crate) fn flush(&mut self) {
        if !self.batch.is_empty() {
            let batch = mem::take(&mut self.batch);
            self.batch_bytes = 0;
            self.send(Input::Batch(batch));
        }
    }

    /// Whether to read no more.
    pub(crate) fn is_stopped(&self) -> bool {
        self.shared.stopped.load(Ordering::Relaxed)
    }

    /// Passes on what has gathered and says that nothing follows.
    pub(crate) fn end(mut self, result: Result<(), ClientError>) {
        self.flush();
        self.send(Input::End(result));
    }

    fn send(&self, input: Input) {
        // The other end is gone only when the command is over; then nobody waits for this.
        if self.sender.send(input).is_ok() {
            let _ = self.waker.wake();
        }
    }
}

impl Inbox {
    /// What has come, if anything. A reading thread that is gone without a word has failed.
    pub(crate) fn poll(&self) -> Option<Input> {
        match self.receiver.try_recv() {
            Ok(input) => Some(input),
            Err(TryRecvError::Disconnected) => {
                let error = io::Error::other("the reading thread is gone");
                Some(Input::End(Err(ClientError::System(error))))
            }
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Asks the reading thread to read no more.
    pub(crate) fn stop(&self) {
        self.shared.stopped.store(true, Ordering::Relaxed);
    }

    /// Items that the reading thread has taken in, so far.
    pub(crate) fn taken(&self) -> u64 {
        self.shared.taken.load(Ordering::Relaxed)
    }
}

const BATCHES_MAX: usize = 4;
const BATCH_ITEMS: usize = 256;
const BATCH_BYTES: usize = 256 * 1024;
