//! `sightline tail`: prints what a viewer gets, through reconnections, and states every loss; with
//! `--tree`, draws the user's agents instead.

mod envelope;
mod feed;
mod notices;
mod plan;
mod position;
mod tree;
mod viewing;

use std::io::{self, BufWriter, IsTerminal, Write};

use clap::{Args, ValueEnum};

use super::client::{Client, ClientError, ConnectArgs, Stop, say};
use crate::event::Dialect;
use plan::Plan;
use position::Position;
use viewing::{Format, Viewing};

/// Print the events that a viewer with this token gets
///
/// One JSON envelope a line; on a terminal, a readable feed. Reconnects and resumes; what was
/// lost on the way is said on standard error. With --tree, the agents at work instead of events.
#[derive(Args, Clone, Debug)]
pub struct TailArgs {
    #[command(flatten)]
    connect: ConnectArgs,
    /// The shape of the messages
    #[arg(long, value_enum, default_value_t = Shape::Keen)]
    dialect: Shape,
    /// Only these sessions
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    sessions: Vec<String>,
    /// Only these projects' events, the token's own among them
    #[arg(long, value_name = "ID,…", value_delimiter = ',')]
    projects: Vec<String>,
    /// Only events of these types, of the own stream and of every project allowed
    #[arg(long, value_name = "TYPE,…", value_delimiter = ',')]
    types: Vec<String>,
    /// The own stream and every project allowed (always so in the observatory dialect)
    #[arg(long)]
    all: bool,
    /// Where to go on: a seq of the own stream, or user=SEQ,project/ID=SEQ; 0 is the beginning
    #[arg(long, value_name = "CURSOR")]
    resume: Option<String>,
    /// The epoch that the cursor belongs to
    #[arg(long, value_name = "EPOCH", requires = "resume")]
    epoch: Option<String>,
    /// Print the server's own messages too
    #[arg(long)]
    messages: bool,
    /// Draw the trees of agents, with --sessions those that these are in; on a terminal, in place
    #[arg(long, conflicts_with_all = [
        "all", "dialect", "epoch", "messages", "projects", "resume", "types",
    ])]
    tree: bool,
}

/// `--dialect`.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum Shape {
    Keen,
    Observatory,
}

impl From<Shape> for Dialect {
    fn from(shape: Shape) -> Self {
        match shape {
            Shape::Keen => Self::Keen,
            Shape::Observatory => Self::Observatory,
        }
    }
}

/// Prints until a signal, until the reader of standard output is gone, or until the gateway has
/// finished with us; all three are success. Errors: `Refused`, `Cursor`, `Output`, with `--tree`
/// `Patch`, and those of `Client`.
pub fn run(args: &TailArgs) -> Result<(), ClientError> {
    let stop = Stop::on_signals().map_err(ClientError::System)?;
    if args.tree {
        return tree::run(args, stop);
    }
    let stdout = io::stdout();
    let format = if stdout.is_terminal() {
        Format::feed()
    } else {
        Format::Lines
    };
    view(args, stop, format, BufWriter::new(stdout.lock()))
}

fn view(args: &TailArgs, stop: Stop, format: Format, out: impl Write) -> Result<(), ClientError> {
    let position = Position::parse(args.epoch.as_deref(), args.resume.as_deref())?;
    let plan = Plan {
        dialect: args.dialect.into(),
        all: args.all,
        messages: args.messages,
        projects: args.projects.clone(),
        sessions: args.sessions.clone(),
        types: args.types.clone(),
    };
    let mut client = Client::new(&args.connect, stop)?;
    let mut viewing = Viewing::new(plan, position, format, out);
    match client.run(&mut viewing) {
        Err(ClientError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        ended => {
            if let Some(flags) = viewing.position().flags() {
                say(&format!("to go on from here: {flags}"));
            }
            ended
        }
    }
}

#[cfg(test)]
mod tests;
