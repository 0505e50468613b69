//! What a crash test of the gateway is made of but for the crashes: who takes part (`cast`), what a
//! viewer (`viewing`) and a publisher (`publishing`) do and write down (`records`), and the checker
//! that judges these records and knows nothing of the gateway's code: `check` is the account of
//! publishers and log, `check::walk` what one viewer went through. No socket, clock or thread.
//! Source: the contract, sections 3 and 5.

pub mod cast;
pub mod check;
pub mod publishing;
pub mod records;
pub mod viewing;
