//! The ready scenarios: what each does, and what it starts from.

use std::time::Duration;

use super::Scenario;
use super::value::{CutKind, Weights};

/// A ready scenario.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Program {
    /// Idle sessions.
    Hold,
    /// One-to-one messages.
    Chat,
    /// One writer, many receivers.
    Group,
    /// All sessions come back at once.
    Storm,
    /// Offline backlog, then login.
    Sync,
    /// Sessions come and go.
    Churn,
    /// Several of these together.
    Mixed,
    /// Raises another one's load until an objective breaks.
    Ramp,
}

impl Program {
    /// All of them, in the order of documents.
    pub const ALL: [Self; 8] = [
        Self::Hold,
        Self::Chat,
        Self::Group,
        Self::Storm,
        Self::Sync,
        Self::Churn,
        Self::Mixed,
        Self::Ramp,
    ];

    /// Its name in files and on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hold => "hold",
            Self::Chat => "chat",
            Self::Group => "group",
            Self::Storm => "storm",
            Self::Sync => "sync",
            Self::Churn => "churn",
            Self::Mixed => "mixed",
            Self::Ramp => "ramp",
        }
    }

    /// The program of that name.
    pub fn find(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|program| program.name() == name)
    }

    /// What it does, in a sentence.
    pub fn about(self) -> &'static str {
        match self {
            Self::Hold => "Hold many idle sessions with their heartbeats: what does one cost?",
            Self::Chat => "Pairs of users write to each other at a rate: how fast is a message?",
            Self::Group => "Writers with many receivers each: how fast does a message reach all?",
            Self::Storm => "Cut all sessions at once: how fast are they back?",
            Self::Sync => "Log in to a backlog of messages: how fast is a device up to date?",
            Self::Churn => "Sessions come and go at a rate: what does a login cost?",
            Self::Mixed => "Several kinds of users together, slow and silent ones among them",
            Self::Ramp => {
                "Raise the load step by step until an objective breaks: where is the knee?"
            }
        }
    }

    /// Commands to try.
    pub fn examples(self) -> &'static [&'static str] {
        match self {
            Self::Hold => &[
                "skein-load hold --spawn-gateway --connections 10000 --connect-rate 2000 --for 1m",
                "skein-load hold --connections 200000 --for 2m --objective 'sessions_lost==0'",
            ],
            Self::Chat => &[
                "skein-load chat --spawn-gateway --pairs 1000 --rate 2000 --for 30s --report DIR",
                "skein-load chat --rate 1000 --objective 'p99(send_ack)<3ms'",
                "skein-load chat --pairs 64 --outstanding 16",
            ],
            Self::Group => &["skein-load group --groups 10 --receivers 30 --rate 500 --for 30s"],
            Self::Storm => &[
                "skein-load storm --spawn-gateway --connections 20000 --cut kill --for 60s",
                "skein-load storm --connections 20000 --return-over 5s",
            ],
            Self::Sync => &["skein-load sync --users 20 --backlog 10000 --login-rate 5 --for 30s"],
            Self::Churn => &["skein-load churn --connections 5000 --churn-rate 500 --for 60s"],
            Self::Mixed => {
                &["skein-load mixed --connections 20000 --weights hold=60,chat=35,churn=5 \
                 --think-time 10s --slow 2% --silent 1%"]
            }
            Self::Ramp => &[
                "skein-load ramp --spawn-gateway --pairs 500 --start 2000 --factor 1.25 \
                 --objective 'p99(send_ack)<50ms'",
                "skein-load ramp --of group --receivers 30 --start 100 --step 100",
            ],
        }
    }

    /// What a ramp that was given no objective must hold.
    pub(super) const RAMP_OBJECTIVES: [&'static str; 2] =
        ["p99(send_ack)<100ms", "error_rate(send_ack)<1%"];
}

impl Scenario {
    /// The ready scenario before anything is given.
    pub fn preset(program: Program) -> Self {
        let mut scenario = Self::bare(program);
        let load = &mut scenario.load;
        match program {
            // Memory a session is a slope: it is read at two numbers of sessions.
            Program::Hold => scenario.phases.plateau = 0.2,
            Program::Chat => {}
            Program::Group => load.rate = 100.0,
            Program::Storm => {
                load.cut = CutKind::Close;
                scenario.phases.drain = Duration::from_secs(30);
            }
            Program::Sync => {}
            Program::Churn => {}
            Program::Mixed => {
                load.think_time = Duration::from_secs(10);
                load.weights = Weights { hold: 60.0, chat: 30.0, group: 0.0, churn: 10.0 };
                load.slow = 0.02;
                load.silent = 0.01;
            }
            Program::Ramp => scenario.run.measured = Duration::from_secs(10),
        }
        scenario
    }
}
