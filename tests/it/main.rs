//! The real binary over real sockets, with clients that are not our code: tungstenite's, a
//! page's, node's, Python's, curl's, and frames and requests written by hand. One file for each part
//! of the contract.

#![allow(clippy::unwrap_used, missing_docs)]

mod harness;

mod admin;
mod agents;
mod certificates;
mod clients;
mod command_line;
mod commands;
mod compression;
mod cores;
mod crowds;
mod curl;
mod cuts;
mod drain;
mod echo;
mod envelopes;
mod faults;
mod handshake;
mod history;
mod hostile;
mod keys;
mod known_types;
mod lifetime;
mod operating;
mod origins;
mod patience;
mod publish_http;
mod publish_socket;
mod raw_table;
mod requests;
mod slow;
mod statistics;
mod talks;
mod tls;
mod tls_peers;
mod trees;
mod trust;
mod violations;
