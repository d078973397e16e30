//! What is said over a control connection. JSON, a message a frame; every frame is bounded, by
//! [`MAX_GREETING`] until both sides have shown that they know the secret, by [`MAX_MESSAGE`] after it.

use serde::{Deserialize, Serialize};

use crate::clock::Nanos;
use crate::outcome::{Outcome, Point, Snapshot, Step};
use crate::plan::Plan;
use crate::run::Stage;

/// Version of what is said. Both sides must be of the same.
pub(super) const FORM: u32 = 1;

/// Bytes of a message before the other side is known.
pub(super) const MAX_GREETING: usize = 4 << 10;

/// Bytes of any other message. The largest are the outcome of a long run (about 3 KB a second of it)
/// and a plan with a token for each user.
pub(super) const MAX_MESSAGE: usize = 256 << 20;

/// The first message of each side.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Greeting {
    /// `skein-load`.
    pub(super) product: String,
    /// Version of the program.
    pub(super) version: String,
    /// [`FORM`].
    pub(super) form: u32,
    /// Shows that the sender knows the secret; none: it has no secret.
    pub(super) proof: Option<String>,
}

/// The answer to a greeting: welcome, or why not.
pub(super) type Verdict = Result<(), String>;

/// To an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Order {
    /// What does your clock say?
    Ping(u64),
    /// Be this run's and nobody else's, until the connection ends.
    Take,
    /// To one that was taken. This is your share: get everything ready.
    Prepare(Box<Plan>),
    /// The ramp begins at this time of your clock.
    Begin(Nanos),
    /// The load begins so long after the ramp began.
    Load(Nanos),
    /// What a step of a ramp breaks; nothing: go on.
    Judged(Vec<String>),
    /// End early, in order.
    Stop,
    /// The run is not to be: give it up, and close the connection as soon as another one can be made.
    Release,
}

/// From an agent.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Answer {
    /// It says this.
    Pong(u64, Nanos),
    /// It is this run's.
    Taken,
    /// The share can be carried out: one session was logged in and out.
    Ready,
    /// It cannot be taken, or cannot carry the share out, and why.
    Refused(String),
    /// The run waits to begin this.
    Arrived(Stage),
    /// A second is complete.
    Second(Box<Point>),
    /// How it goes; also says that the agent lives.
    Now(Box<Snapshot>),
    /// A step of a ramp is over. The agent waits to be told what it breaks.
    Step(Box<Step>),
    /// The run is over.
    Over(Box<Outcome>),
    /// The generator broke.
    Broken(String),
}
