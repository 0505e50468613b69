//! Every hard cap, with its unit. What an operator may change is in `config`; what stands here
//! holds whatever the configuration says. The asserts at the end relate the caps to one another.

/// Bytes of one HTTP request head (request line and headers).
pub const HEAD_BYTES_MAX: usize = 8 * 1024;
/// Headers of one HTTP request.
pub const HEADERS_MAX: usize = 64;
/// Milliseconds in which a request head must be complete, counted from accept or from the end of
/// the previous answer's first following byte.
pub const HEAD_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds a kept-alive HTTP connection may stay silent between requests.
pub const KEEP_ALIVE_TIMEOUT_MS: u64 = 75_000;
/// Bytes a second a request body must bring on average once `HEAD_TIMEOUT_MS` has passed.
pub const BODY_BYTES_PER_SECOND_MIN: u64 = 8 * 1024;

/// Bytes of one publish body or WebSocket publish message, after decoding.
pub const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes of one admin request body.
pub const ADMIN_BODY_BYTES_MAX: usize = 64 * 1024;
/// Bytes of one event, as published.
pub const EVENT_BYTES_MAX: usize = 1024 * 1024;
/// Levels of nesting in one event.
pub const EVENT_DEPTH_MAX: usize = 64;
/// Bytes that an envelope may add around `data`: names, ids (each at most six bytes a byte once
/// escaped), numbers.
pub const ENVELOPE_BYTES_MAX: usize = 8 * 1024;

/// Bytes of a session's id.
pub const SESSION_ID_BYTES_MAX: usize = 128;
/// Sockets beyond `limits.connections_max`, so that a full node can still say that it is full, and
/// answer its operators and HTTP publishers.
pub const SOCKETS_ASKING_MAX: usize = 1_024;
/// Bytes of all chunk extensions and trailers of one request body; they are read over.
pub const CHUNK_EXTRAS_BYTES_MAX: usize = 8 * 1024;
/// gzip members of one request body; each costs fresh inflate state.
pub const GZIP_MEMBERS_MAX: u32 = 1_024;

/// Fragments of one WebSocket message.
pub const FRAGMENTS_MAX: u32 = 64;
/// Bytes of one message to `serve --echo`: the conformance suite sends 16 MiB.
pub const ECHO_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Fragments of one message to `serve --echo`: the suite sends 4 MiB, 64 bytes at a time, and an
/// empty one behind them.
pub const ECHO_FRAGMENTS_MAX: u32 = 64 * 1024 + 1;
/// Control frames from one peer in a second before it is closed with 1008.
pub const CONTROL_FRAMES_PER_SECOND_MAX: u32 = 20;
/// Pongs that wait for one peer; past it the oldest gives way, so that the latest ping is answered.
pub const PONGS_QUEUED_MAX: usize = CONTROL_FRAMES_PER_SECOND_MAX as usize;
/// Bytes of a control frame's payload (RFC 6455 §5.5).
pub const CONTROL_BYTES_MAX: usize = 125;

/// Bytes read from one connection in one turn.
pub const READ_BYTES_PER_TURN: usize = 64 * 1024;
/// Bytes read from all connections of a core in one turn.
pub const READ_BYTES_PER_CORE_AND_TURN: usize = 4 * READ_BYTES_PER_TURN;
/// Milliseconds in which a message that was begun must go on.
pub const PARTIAL_TIMEOUT_MS: u64 = 10_000;
/// Connections read in one turn: many that end at once hold up nobody's writes.
pub const READS_PER_TURN: usize = 64;
/// The same for those who have shown no token yet: each may cost the verification of one.
pub const NEWCOMERS_PER_TURN: usize = 8;
/// Connections taken from one listener in one turn.
pub const ACCEPTS_PER_TURN: usize = 8;
/// Timers handled in one turn: the deadlines of a crowd fall together.
pub const TIMERS_PER_TURN: usize = 64;
/// Writes in one flush before the next poll.
pub const WRITES_PER_FLUSH: usize = 32;
/// Bytes in one flush before the next poll, but for the last write: viewers that catch up are sent
/// much at a time, and live events wait for it.
pub const WRITE_BYTES_PER_FLUSH: usize = 256 * 1024;
/// Slices handed to one vectored write.
pub const IOVECS_MAX: usize = 64;
/// Bytes of consecutive frames joined into one shared chunk before it is fanned out.
pub const CHUNK_BYTES_TARGET: usize = 64 * 1024;
/// Socket bytes not yet sent, above which the kernel does not report writability.
pub const NOTSENT_LOWAT_BYTES: u32 = 32 * 1024;

/// Milliseconds in which a TLS handshake must be complete, counted from accept.
pub const TLS_HANDSHAKE_TIMEOUT_MS: u64 = 5_000;
/// Unfinished TLS handshakes on a node, an equal share on each core; past it the oldest gives way.
pub const TLS_HANDSHAKES_UNFINISHED_MAX: usize = 4_096;
/// Steps of TLS handshakes that a core takes in one turn. A step may cost a key exchange and a
/// signature, some 150 µs, by which the turn's writes are late; a turn itself costs little, so that
/// more steps in it would not make a storm of handshakes pass sooner.
pub const TLS_HANDSHAKE_STEPS_PER_TURN: usize = 1;
/// Bytes of a client's whole part in a TLS handshake; a first message is below 2 KiB. rustls alone
/// would hold 64 KiB for each that never ends.
pub const TLS_HANDSHAKE_BYTES_MAX: usize = 16 * 1024;
/// Bytes of one TLS record with its header: 2 KiB over the plaintext are for the cipher (RFC 5246,
/// section 6.2.3).
pub const TLS_RECORD_BYTES_MAX: usize = 5 + (16 + 2) * 1024;
/// Bytes of plaintext sealed at a time, two records: what a slow peer may hold that is its alone.
pub const TLS_SEAL_BYTES_MAX: usize = 32 * 1024;

/// Letters that one mailbox (one pair of cores) holds; a letter is one core's batch of one turn.
pub const MAILBOX_LETTERS_MAX: usize = 32;
/// Pages for operators that wait to be rendered; more are refused.
pub const PAGES_ORDERED_MAX: usize = 16;
/// Letters drained from one mailbox in one turn.
pub const LETTERS_PER_TURN: usize = 64;
/// Bytes of frames waiting for room in the mailboxes of other cores, above which the owner core
/// admits no further event.
pub const MAIL_BYTES_PENDING_MAX: usize = 16 * 1024 * 1024;

/// Rejected events that one answer lists; the rest is counted.
pub const REJECTED_ROWS_MAX: usize = 10_000;
/// Bytes of acks and nacks that wait for a publisher, above which nothing more of it is parsed.
pub const NACK_BYTES_QUEUED_MAX: usize = 1024 * 1024;
/// Milliseconds after which the first viewer of a drained server is asked to come back.
pub const RECONNECT_AFTER_MS_MIN: u64 = 500;
/// Milliseconds over which the others are spread.
pub const RECONNECT_SPREAD_MS: u64 = 4_500;

/// Milliseconds without any admission after which a publisher is refused `OVERLOADED`.
pub const ADMISSION_PATIENCE_MS: u64 = 1_000;
/// Milliseconds after which a request that waits for the event log is told that the disk takes
/// nothing, where that is so; retention has time to make room before.
pub const LOG_PATIENCE_MS: u64 = 5_000;
/// Milliseconds that a viewer's attachment waits for the owner cores of its streams.
pub const ATTACH_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds in which a closing connection must take its last bytes and answer.
pub const CLOSE_TIMEOUT_MS: u64 = 5_000;
/// Milliseconds that a slow consumer, closed with 4008, is given to read the close frame.
pub const SLOW_CLOSE_TIMEOUT_MS: u64 = 10_000;
/// Milliseconds that the oldest connections of a user at its limit have to answer a ping.
pub const GIVE_WAY_MS: u64 = 2_000;
/// The oldest connections of a user that are pinged when a new one finds the limit reached.
pub const GIVE_WAY_PINGED_MAX: usize = 16;
/// Milliseconds before `exp` at which a viewer is told `token_expiring`.
pub const TOKEN_EXPIRING_MS: u64 = 30_000;
/// Seconds of clock difference that `exp` and `nbf` forgive.
pub const TOKEN_LEEWAY_S: u64 = 5;
/// Bytes of one token.
pub const TOKEN_BYTES_MAX: usize = 8 * 1024;
/// Bytes of a token's user, session or `jti`, and of what a revocation names.
pub const TOKEN_ID_BYTES_MAX: usize = 128;
/// Bytes of one of a token's project ids. Their number is bounded by `TOKEN_BYTES_MAX`.
pub const TOKEN_PROJECT_BYTES_MAX: usize = 64;
/// Bytes that a shared secret must have at least.
pub const SECRET_BYTES_MIN: usize = 32;
/// Revocations in force at one time; past it a further one is refused, none is forgotten.
pub const REVOCATIONS_MAX: usize = 100_000;
/// Seconds that a revocation by session or `jti` holds when nothing else is asked for.
pub const REVOCATION_DEFAULT_S: u64 = 24 * 60 * 60;
/// Seconds between two sweeps of revocations that have run out.
pub const REVOCATION_SWEEP_S: u64 = 60;

/// Filters in one `subscribe`.
pub const FILTERS_PER_MESSAGE_MAX: usize = 50;
/// Values in one field of a filter.
pub const FILTER_VALUES_MAX: usize = 1_000;
/// Bytes of one value of a filter; what an event has in a filtered field beyond this matches none.
pub const FILTER_VALUE_BYTES_MAX: usize = 256;
/// Streams in one cursor.
pub const CURSOR_STREAMS_MAX: usize = 1_000;
/// A viewer's messages in one minute, dropped ones included, above which it is closed with 4429.
pub const MESSAGES_PER_MINUTE_CLOSE: usize = 1_000;
/// Bytes of a message's own `id`.
pub const MESSAGE_ID_BYTES_MAX: usize = 64;

/// Milliseconds in which a second event with the same `event_id` is a duplicate.
pub const DUPLICATE_WINDOW_MS: u64 = 10 * 60 * 1_000;
/// Streams without subscriber that a core remembers one by one; past it the longest silent are
/// forgotten and folded into the floor, above which an unknown stream starts.
pub const STREAMS_IDLE_MAX: usize = 1_000_000;

/// Bytes of recent events and frames that one core keeps in memory, for viewers that come back.
pub const RING_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Bytes in an outbox above which a viewer is sent nothing more of what it has missed.
pub const REPLAY_BYTES_IN_FLIGHT: usize = 256 * 1024;
/// The same while the outboxes of the node hold half of what they may.
pub const REPLAY_BYTES_IN_FLIGHT_CROWDED: usize = 16 * 1024;
/// Bytes of missed events that one core hands out in one turn, over all viewers: live traffic
/// waits for as long as that takes.
pub const REPLAY_BYTES_PER_TURN: usize = 32 * 1024;
/// Bytes of missed events that one viewer is handed before the next one has its turn.
pub const REPLAY_BYTES_AT_ONCE: usize = 32 * 1024;
/// Bytes of records asked of the event log at once.
pub const READ_BYTES: usize = 64 * 1024;
/// Reads of the event log that one core has under way; more wait.
pub const READS_UNDER_WAY_MAX: usize = 32;
/// Bytes of what was read that one core holds for those who want the same.
pub const READ_BYTES_HELD_MAX: usize = 16 * 1024 * 1024;
/// Reads of which it holds what they brought.
pub const READS_HELD_MAX: usize = 64;
/// Events that one `replay` brings where it does not say.
pub const REPLAY_EVENTS_USUAL: usize = 1_000;
/// Events that are looked at for one `replay`.
pub const REPLAY_LOOKED_AT_MAX: usize = 10_000;
/// `replay` messages of one viewer that wait for the one before.
pub const REPLAYS_WAITING_MAX: usize = 100;

/// States of streams that a core keeps; past it those that nobody needs are let go of.
pub const STATES_MAX: usize = 20_000;
/// Agents, conversations and, 32 as one of these, counts of activity in all of them, likewise.
pub const STATE_ENTRIES_MAX: usize = 200_000;
/// States that a core loads at one time; more wait.
pub const STATES_LOADING_MAX: usize = 16;
/// The same, whatever for, above which none is loaded that nobody waits for: because its stream is
/// followed, or something happened in it. When all come back after a restart, whoever waits for a state
/// finds a place.
pub const STATES_LOADING_UNHURRIED_MAX: usize = 4;
const _: () = assert!(STATES_LOADING_UNHURRIED_MAX < STATES_LOADING_MAX);
/// Bytes of records asked of the event log at once for a state.
pub const STATE_READ_BYTES: usize = 64 * 1024;
/// Events that a core takes into states in one turn while it loads them: about a millisecond.
pub const STATE_EVENTS_PER_TURN: usize = 512;
/// Milliseconds until the event log is asked again for what it could not give.
pub const STATE_READ_RETRY_MS: u64 = 500;
/// Milliseconds between two of these, where it could not give many.
pub const STATE_READ_SPACING_MS: u64 = STATE_READ_RETRY_MS / STATES_LOADING_MAX as u64;
/// Events of one stream that are noted while its state is loaded; past it they are read as well.
pub const STATE_TAIL_EVENTS_MAX: usize = 2_048;
/// Bytes of these.
pub const STATE_TAIL_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of events that wait for the state of one stream, above which its publishers do.
pub const HELD_PER_STATE_BYTES_MAX: usize = 1024 * 1024;
/// Bytes of events that wait for states on one core, above which all publishers do.
pub const STATE_HELD_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of events after which a state is written down, unless it takes more itself.
pub const STATE_SNAPSHOT_BYTES_MIN: usize = 256 * 1024;
/// Bytes of events that are rather read again than written down in a state that is let go of.
pub const STATE_REREAD_BYTES: usize = 32 * 1024;

/// Bytes that the server may add to an event's `data`: a copy of the producer's resource limits is
/// part of it.
pub const ENRICHMENT_BYTES_MAX: usize = EVENT_BYTES_MAX;
/// Bytes of an agent's path in its tree, as JSON; a longer one is not added to its event. A producer
/// with a long chain of agents would have the log keep a multiple of what it sends.
pub const TREE_PATH_BYTES_MAX: usize = 64 * 1024;
const _: () = assert!(TREE_PATH_BYTES_MAX + 1024 <= ENRICHMENT_BYTES_MAX);

/// Conversations of one stream that are remembered.
pub const CONVERSATIONS_MAX: usize = 4_096;
/// Bytes of a conversation's id; events with a longer one are nobody's conversation.
pub const CONVERSATION_ID_BYTES_MAX: usize = 256;
/// Sessions of one stream whose uses of tools are remembered until a conversation is known of them.
pub const TOOL_SESSIONS_WAITING_MAX: usize = 256;
/// Conversations in one answer.
pub const CONVERSATIONS_PER_ANSWER_MAX: usize = 1_000;
/// Conversations in one answer where the question does not say.
pub const CONVERSATIONS_USUAL: usize = 100;

/// Questions of one viewer about conversations and projects that are not answered.
pub const QUESTIONS_PER_VIEWER_MAX: u8 = 8;
/// Questions that one core has not answered for others or itself.
pub const QUESTIONS_OPEN_MAX: usize = 1_024;
/// Milliseconds that a viewer waits for an answer: streams may have to be read from the log.
pub const QUESTION_TIMEOUT_MS: u64 = 30_000;
/// Ends of conversations that a core infers in one turn.
pub const SILENCES_PER_TURN: usize = 64;

/// Bytes of records that the event log counts at once for one question.
pub const COUNT_READ_BYTES: usize = 1024 * 1024;
/// Questions for which one core has the event log count at one time; more wait, in turns.
pub const COUNTS_UNDER_WAY_MAX: usize = 2;
/// Milliseconds of a project's past that are counted in memory.
pub const ACTIVITY_MS: i64 = 24 * 60 * 60 * 1_000;
/// Milliseconds by which an event's time may be ahead and still be counted in memory.
pub const ACTIVITY_AHEAD_MS: i64 = 60 * 60 * 1_000;
/// Types within that time that are counted one by one; the rest is counted together.
pub const ACTIVITY_TYPES_MAX: usize = 64;
/// Counts of one stream that are kept to the millisecond, and as many to the minute.
pub const ACTIVITY_CELLS_MAX: usize = 8 * 1024;
/// Parts of a time range in which activity is told.
pub const ACTIVITY_BUCKETS: usize = 60;

/// Bytes of one message about trees of agents.
pub const TREE_MESSAGE_BYTES_MAX: usize = 256 * 1024;
/// Bytes of the trees in it: its envelope, its roll-ups and the sessions that it names come beside
/// them.
pub const TREE_BYTES_MAX: usize = TREE_MESSAGE_BYTES_MAX - 8 * 1024;
/// Levels below the topmost node that a tree shows. Each is two of JSON, and with those of a message
/// around it and of a node's own members all are within 127: serde_json reads no more.
pub const TREE_DEPTH_SHOWN_MAX: usize = 60;
/// Bytes of the sessions, as JSON, that are remembered as updated last in a tree.
pub const TREE_UPDATED_BYTES_MAX: usize = 4 * 1024;
/// Bytes, beside as many as the tree has, of the way to its present state that is kept for patches.
pub const TREE_LOG_BYTES_MIN: usize = 8 * 1024;
/// Milliseconds between two messages about one tree to one viewer, and between two looks at what has
/// changed in a user's trees.
pub const TREE_INTERVAL_MS: u64 = 100;
/// Bytes of trees, and of messages about them, that one core makes in one turn: live traffic waits for
/// as long as that takes. One more tree or message may go past it.
pub const TREE_BYTES_PER_TURN: usize = 512 * 1024;
/// `get_agent_tree` messages of one viewer that wait to be answered.
pub const TREE_QUESTIONS_WAITING_MAX: usize = 100;

/// Bytes of one record of the event log: enrichment may double an event.
pub const RECORD_BYTES_MAX: usize = 4 * 1024 * 1024;
const _: () =
    assert!(RECORD_BYTES_MAX >= EVENT_BYTES_MAX + ENRICHMENT_BYTES_MAX + ENVELOPE_BYTES_MAX);
/// Bytes of a snapshot that one record holds; a larger one is cut.
pub const SNAPSHOT_PART_BYTES: usize = 1024 * 1024;
const _: () = assert!(RECORD_BYTES_MAX >= SNAPSHOT_PART_BYTES + ENVELOPE_BYTES_MAX);

/// Bytes of one segment of the event log.
pub const SEGMENT_BYTES: u64 = 64 * 1024 * 1024;
/// Nanoseconds between two commits of the event log while there is much to write.
pub const COMMIT_INTERVAL_NS: u64 = 1_000_000;
/// Nanoseconds between two commits while few records come and nobody but their publishers waits.
pub const COMMIT_INTERVAL_SPARSE_NS: u64 = 6_000_000;
/// Records that are worth a commit without waiting for more.
pub const COMMIT_RECORDS_TARGET: usize = 16;
/// Bytes that are committed without waiting for the interval.
pub const COMMIT_BYTES_TARGET: usize = 256 * 1024;
/// Bytes of one commit, unless a single batch has more.
pub const COMMIT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Nanoseconds of silence after which the log marks the last commit as kept, so that damage to it
/// can be told from a write that never finished.
pub const MARK_DELAY_NS: u64 = 1_000_000_000;
/// Bytes between two records of a stream that are read along rather than left out.
pub const READ_GAP_BYTES: u32 = 16 * 1024;
/// Bytes of the event log read at once, unless a single record has more.
pub const READ_RUN_BYTES: u32 = 1024 * 1024;
/// Segments whose files are kept open for reading.
pub const SEGMENT_FILES_MAX: usize = 64;
/// Damaged places of the event log that are looked at one by one when a viewer resumes.
pub const DAMAGED_PLACES_MAX: usize = 100;
/// Bytes of events that a turn hands to delivery once the log keeps them.
pub const HELD_BYTES_PER_TURN: usize = 1024 * 1024;
/// Receipts and events of one core that wait for the log, above which it numbers nothing more.
pub const LOG_WAITING_MAX: usize = 256 * 1024;
/// Closed segments without an index on disk, at which the chores are done though cores ask: what is
/// known of a segment stays in memory until then.
pub const SEGMENTS_UNSEALED_MAX: usize = 2;
/// Bytes of a segment that one step of a chore reads.
pub const CHORE_BYTES: u64 = 1024 * 1024;
/// Bytes of zeros that are written and synced at once where room is filled: a commit that comes
/// meanwhile waits for them.
pub const FILL_BYTES: u64 = 256 * 1024;
/// Damaged records of the event log that are remembered one by one.
pub const DAMAGED_NAMED_MAX: usize = 10_000;
/// Nanoseconds after which the log is synced also where nobody waits for it.
pub const SYNC_DELAY_NS: u64 = 1_000_000_000;
/// Nanoseconds until a failed write of the event log is tried again.
pub const WRITE_RETRY_NS: u64 = 500_000_000;
/// Seqs that the event log reserves ahead of the highest that was given.
pub const SEQS_RESERVED: u64 = 1024 * 1024;

/// Bytes of the longest frame: an event with all that enrichment adds.
pub const FRAME_BYTES_MAX: usize = EVENT_BYTES_MAX + ENRICHMENT_BYTES_MAX + ENVELOPE_BYTES_MAX;
/// The smallest `limits.outbox_bytes_max` that a configuration may ask for, in bytes: the longest
/// frame, and about an event on top of it.
pub const OUTBOX_BYTES_MIN: usize = 3 * 1024 * 1024;
const _: () = assert!(OUTBOX_BYTES_MIN >= FRAME_BYTES_MAX + EVENT_BYTES_MAX / 2);
/// Bytes of an agent's purpose that are kept and shown.
pub const AGENT_PURPOSE_BYTES_MAX: usize = 1024;
/// Bytes of any other text of an agent that are kept and shown.
pub const AGENT_TEXT_BYTES_MAX: usize = 256;
/// Changed files of an agent that are kept and shown.
pub const AGENT_FILES_MAX: usize = 32;
/// Bytes of their paths.
pub const AGENT_FILES_BYTES_MAX: usize = 2 * 1024;
/// Claims on one agent, of spawns that name its parent, that are remembered, the latest: what one
/// counts for when a later one is refused.
pub const AGENT_CLAIMS_MAX: usize = 4;
/// Refused claims on one user's agents that are remembered, should they become possible. Each is
/// looked at anew when an agent gets another parent.
pub const AGENT_CLAIMS_REFUSED_MAX: usize = 32;

const _: () = assert!(BODY_BYTES_MAX >= EVENT_BYTES_MAX);
// A core that stands still has ordered few enough pages for its mailbox, and holds up nobody else's.
const _: () = assert!(2 * PAGES_ORDERED_MAX <= MAILBOX_LETTERS_MAX);
const _: () = assert!(SEGMENT_BYTES >= 2 * RECORD_BYTES_MAX as u64 && SEGMENT_BYTES < 1 << 31);
// What was read waits for its reader, however many read at once.
const _: () = assert!(READ_BYTES_HELD_MAX >= READS_UNDER_WAY_MAX * READ_BYTES);
const _: () = assert!(READS_HELD_MAX >= READS_UNDER_WAY_MAX);
const _: () = assert!(REPLAY_BYTES_IN_FLIGHT <= OUTBOX_BYTES_MIN / 4);
const _: () = assert!(COMMIT_INTERVAL_SPARSE_NS >= COMMIT_INTERVAL_NS);
// Nor does the largest one that was missed, on top of those, close a viewer.
const _: () = assert!(REPLAY_BYTES_IN_FLIGHT + FRAME_BYTES_MAX < OUTBOX_BYTES_MIN);
const _: () = assert!(COMMIT_BYTES_MAX >= COMMIT_BYTES_TARGET as u64);
const _: () = assert!(MAIL_BYTES_PENDING_MAX >= 2 * CHUNK_BYTES_TARGET + FRAME_BYTES_MAX);
// A single file is always shown.
const _: () = assert!(AGENT_FILES_BYTES_MAX >= AGENT_TEXT_BYTES_MAX);
const _: () = assert!(LOG_PATIENCE_MS > ADMISSION_PATIENCE_MS);
// A message about trees finds room in an outbox that is low.
const _: () = assert!(TREE_MESSAGE_BYTES_MAX + REPLAY_BYTES_IN_FLIGHT / 2 < OUTBOX_BYTES_MIN);
const _: () = assert!(TREE_BYTES_PER_TURN >= TREE_MESSAGE_BYTES_MAX);
// A head may still be on its way when the handshake has used up its time.
const _: () = assert!(TLS_HANDSHAKE_TIMEOUT_MS < HEAD_TIMEOUT_MS);
// The root's session and the one touched last are named, and a list; an escape takes six bytes.
const _: () = assert!(
    TREE_BYTES_MAX + TREE_UPDATED_BYTES_MAX + 2 * 6 * SESSION_ID_BYTES_MAX + 1024
        <= TREE_MESSAGE_BYTES_MAX
);
// The topmost node is the fifth in a patch of the whole tree, and a node's lists are two within it.
const _: () = assert!(5 + 2 * TREE_DEPTH_SHOWN_MAX + 2 <= 127);
