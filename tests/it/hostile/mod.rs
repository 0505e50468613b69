//! Peers that mean harm: the rows of an attack table, each as tests that bear its number. A test
//! says what becomes of the attacker, which counter tells an operator, and that a [`Neighbour`] on
//! the same core, who was there before, is served in order meanwhile and afterwards.
//!
//! | row | attack | tests | counters |
//! |---|---|---|---|
//! | A1 | a request of two lengths | `http::a1_…`; `requests::what_two_servers_could_read_differently_is_refused` | `refusals_total{BAD_REQUEST}` |
//! | A2 | bare line ends, folded lines, two hosts | `http::a2_…`; the same table | `refusals_total{BAD_REQUEST}` |
//! | A3 | a request behind a refused upgrade | `handshake::a3_…` | `refusals_total{UPGRADE_REQUIRED, BAD_REQUEST}` |
//! | A4 | header bombs, a byte at a time | `http::a4_…`; in the library `a4_no_byte_of_a_head_is_searched_twice` | `refusals_total{HEAD_TOO_LARGE}` |
//! | A5 | silence, dribbled heads and bodies, too many sockets | `http::a5_and_a11_…`, `http::a5_sockets_…`, `http::a5_who_…` | `http_timeouts_total{request, head, body}`, `refusals_total{REQUEST_TIMEOUT, IP_LIMIT, NODE_FULL}` |
//! | A6 | a frame with the upgrade | `handshake::a6_…`; `requests::an_upgrade_and_its_first_frame_may_be_cut_anywhere` | `viewer_messages_total`, `handshakes_total` |
//! | A7 | pages of other origins | `handshake::a7_…`; `origins` | `refusals_total{ORIGIN_REFUSED}` |
//! | A8 | tokens in logs, pages and panics | `logs::a8_…` (2), and each test: the harness looks through all that is logged, answered and printed | `refusals_total{TOKEN_…}` |
//! | A9 | keys that are none | `handshake::a9_…`; extensions belong to compression | `refusals_total{BAD_REQUEST}` |
//! | A10 | lengths that no frame has | `frames::a10_…`; `violations` | `closes_total{protocol_error, too_big}` |
//! | A11 | big frames, only announced | `http::a5_and_a11_…` | `closes_total{too_big, policy_violation}` |
//! | A12 | fragments without end | `frames::a12_…` | `closes_total{policy_violation}` |
//! | A13 | floods of pings, pongs, goodbyes | `frames::a13_…` | `closes_total{policy_violation, normal}` |
//! | A14 | floods of messages and filters | `floods::a14_…` (2); `crowds` | `viewer_messages_dropped_total`, `viewer_errors_total{RATE_LIMIT_EXCEEDED, TOO_MANY_SUBSCRIPTIONS}`, `closes_total{rate_exceeded}` |
//! | A15 | JSON bombs and oddities | `events::a15_…` (2) | `events_refused_total{INVALID_JSON, …}`, `viewer_errors_total{INVALID_MESSAGE, INVALID_FILTERS}` |
//! | A16 | what is not UTF-8 | `frames::a16_…` | `closes_total{invalid_payload, unsupported}`, `events_refused_total{INVALID_JSON}` |
//! | A20 | forged algorithms and signatures | `tokens::a20_…`; in the library `auth::refusals` | `refusals_total{TOKEN_INVALID}`, `viewer_errors_total{TOKEN_INVALID}` |
//! | A21 | tokens that lead to keys elsewhere | `tokens::a21_…`; `auth::refusals`, `keys` | `refusals_total{TOKEN_INVALID}` |
//! | A22 | claims of a wrong kind or time | `tokens::a22_…`; `auth::refusals`, `keys` | `refusals_total{TOKEN_INVALID, TOKEN_EXPIRED}` |
//! | A23 | keys that change | `tokens::a23_…` | `refusals_total{TOKEN_INVALID}` |
//! | A24 | events in another's name | `isolation::a24_…` | `events_refused_total{FORBIDDEN_AUDIENCE, RESERVED_TYPE}` |
//! | A25 | guessing at what others have | `isolation::a25_…` (2) | `viewer_errors_total{INVALID_FILTERS}`, `events_refused_total{FORBIDDEN_AUDIENCE}`, `refusals_total{FORBIDDEN, NOT_FOUND}` |
//! | A26 | guessing a signature by pieces | `tokens::a26_…` | `refusals_total{TOKEN_INVALID}` |
//! | A27 | peers that do not read, or are gone | `resources::a27_…` (2); `slow::a27_…` | `http_timeouts_total{end}`, `closes_total{no_sign_of_life, slow_consumer}`, `slow_closes_total` |
//! | A29 | no descriptors left | `resources::a29_…` | `accept_paused_total`, `accept_errors_total` |
//! | A30 | a core that is held up | `resources::faults::a30_…` | `stalls_total` |
//! | A31 | names that meet on one core | `resources::a31_…`; in the library `a31_ids_mined_against_one_seed_are_spread_by_another` | `/v1/stats`: each core's connections |
//! | A32 | one user that all is about | `floods::a32_…` | `events_accepted_total`, `slow_closes_total` |
//! | A33 | lines of an attacker's making | `logs::a33_…`; in the library `cli::logging`; the harness reads each line of each log | none: what is refused counts as above |
//! | A34 | a series for each name | `logs::a34_…` | the number of series |
//! | A39 | a panic over what one peer sent | `resources::faults::a39_…` (3) | `panics_total`, `closes_total{internal}`, `refusals_total{INTERNAL}` |
//!
//! A17 to A19 belong to compression, A28, A38 and the rest of A5 to TLS. A30 and A39 need the feature
//! `failpoints`.

mod events;
mod floods;
mod frames;
mod handshake;
mod http;
mod isolation;
mod issuer;
mod logs;
mod neighbour;
mod resources;
mod tally;
mod tokens;

use crate::harness::{Server, Setup};

use neighbour::Neighbour;
use tally::{Tally, closes, events_refused, refusals, timeouts, viewer_errors};

/// A server of one core, which whoever does harm shares with its neighbour.
fn on_one_core(settings: &str) -> Server {
    Server::with(&Setup {
        settings,
        cores: 1,
        ..Setup::default()
    })
}
