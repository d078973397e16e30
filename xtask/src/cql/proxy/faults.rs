//! Which frames meet which fault.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::cql::frame::opcode;

/// What may happen to a request and its response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The request never reaches the node; the driver hears nothing.
    DropRequest,
    /// The node executes; the driver hears nothing.
    DropResponse,
    /// The request reaches the node late, even if the driver has given up by then.
    DelayRequest,
    /// The node executes; the driver hears of it late.
    DelayResponse,
    /// The driver's connection is cut, and the request never reaches the node.
    CutBefore,
    /// The request is forwarded, then the driver's connection is cut.
    CutAfter,
    /// The driver is told of an error; the request never reaches the node.
    AnswerInstead(Answer),
    /// The node executes; the driver is told of an error when the node has answered.
    AnswerAfter(Answer),
    /// The driver is told of an error at once, and the request reaches the node late.
    AnswerBefore(Answer),
}

/// An error that a proxy tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Answer {
    /// Write timeout of type CAS: the round of agreement did not end in time.
    CasTimeout,
    /// Write timeout of type SIMPLE: agreed, and not every replica has confirmed it.
    CommitTimeout,
    /// Read timeout, which a conditional write also answers with.
    ReadTimeout,
    /// Too few replicas are alive.
    Unavailable,
    /// The coordinator has too much to do.
    Overloaded,
    /// Something broke in the server.
    ServerError,
}

impl Answer {
    /// All there are.
    pub const ALL: [Self; 6] = [
        Self::CasTimeout,
        Self::CommitTimeout,
        Self::ReadTimeout,
        Self::Unavailable,
        Self::Overloaded,
        Self::ServerError,
    ];

    /// The body of an ERROR frame, sections 4.2.1 and 9 of the protocol.
    pub(super) fn body(self) -> Vec<u8> {
        const SERIAL: u16 = 0x0008;
        const QUORUM: u16 = 0x0004;
        let mut body = Body::default();
        let of_two = |body: &mut Body, code, consistency, heard| {
            body.int(code).string("made by a proxy").short(consistency).int(heard).int(2);
        };
        match self {
            Self::CasTimeout => {
                of_two(&mut body, 0x1100, SERIAL, 1);
                body.string("CAS");
            }
            Self::CommitTimeout => {
                of_two(&mut body, 0x1100, QUORUM, 1);
                body.string("SIMPLE");
            }
            Self::ReadTimeout => {
                of_two(&mut body, 0x1200, SERIAL, 1);
                body.0.push(0); // no data
            }
            // Here the two numbers are "required" and "alive".
            Self::Unavailable => {
                body.int(0x1000).string("made by a proxy").short(QUORUM).int(2).int(1);
            }
            Self::Overloaded => {
                body.int(0x1001).string("made by a proxy");
            }
            Self::ServerError => {
                body.int(0x0000).string("made by a proxy");
            }
        }
        body.0
    }
}

/// Notations of section 3 of the protocol.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn int(&mut self, value: u32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn short(&mut self, value: u16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn string(&mut self, value: &str) -> &mut Self {
        self.short(value.len() as u16).0.extend(value.as_bytes());
        self
    }
}

impl Fault {
    /// All there are, with every answer.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let mut all = vec![
            Self::DropRequest,
            Self::DropResponse,
            Self::DelayRequest,
            Self::DelayResponse,
            Self::CutBefore,
            Self::CutAfter,
        ];
        for answer in Answer::ALL {
            all.extend([
                Self::AnswerInstead(answer),
                Self::AnswerAfter(answer),
                Self::AnswerBefore(answer),
            ]);
        }
        all
    }
}

/// Which requests faults are aimed at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Aim {
    /// Batches: the appends of the log.
    Batches,
    /// What reads and writes rows: queries, prepared or not, and batches. Drivers ask for the
    /// topology with queries, so this reaches them as well.
    Statements,
    /// Every request, those that open a connection included.
    Everything,
}

impl Aim {
    fn hits(self, opcode: u8) -> bool {
        match self {
            Self::Batches => opcode == opcode::BATCH,
            Self::Statements => {
                matches!(opcode, opcode::BATCH | opcode::EXECUTE | opcode::QUERY)
            }
            Self::Everything => true,
        }
    }
}

/// A mixture of faults.
#[derive(Clone, Debug)]
pub struct Faults {
    /// What they are aimed at.
    pub aim: Aim,
    /// Where the dice begin. The order in which requests arrive is the system's, so a seed repeats
    /// the dice and not the run.
    pub seed: u64,
    /// How likely each is, from 0 to 1 and not more than 1 together; a request meets at most one.
    pub rates: Vec<(Fault, f64)>,
    /// How late is late; drawn evenly from the range.
    pub delay: RangeInclusive<Duration>,
}

impl Faults {
    /// No fault at all.
    #[must_use]
    pub fn none() -> Self {
        Self {
            aim: Aim::Batches,
            seed: 0,
            rates: Vec::new(),
            delay: Duration::from_millis(10)..=Duration::from_secs(3),
        }
    }

    /// One fault, at this rate, for batches.
    #[must_use]
    pub fn one(fault: Fault, rate: f64) -> Self {
        Self { rates: vec![(fault, rate)], ..Self::none() }
    }

    /// Every kind of fault, together at this rate, for batches.
    #[must_use]
    pub fn every_kind(seed: u64, rate: f64) -> Self {
        let all = Fault::all();
        let each = rate / all.len() as f64;
        Self { seed, rates: all.into_iter().map(|fault| (fault, each)).collect(), ..Self::none() }
    }
}

/// How often what happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that were forwarded and answered with what the node said, in time.
    pub passed: u64,
    /// Faults. One is counted when it has happened: a lost response when the node had answered, a
    /// late request when it was sent to the node.
    pub faults: BTreeMap<Fault, u64>,
}

impl Counts {
    /// How often this fault happened.
    #[must_use]
    pub fn of(&self, fault: Fault) -> u64 {
        self.faults.get(&fault).copied().unwrap_or_default()
    }

    pub(super) fn count(&mut self, fault: Option<Fault>) {
        match fault {
            Some(fault) => *self.faults.entry(fault).or_default() += 1,
            None => self.passed += 1,
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.passed += other.passed;
        for (&fault, count) in &other.faults {
            *self.faults.entry(fault).or_default() += count;
        }
    }
}

/// Throws the dice.
pub(super) struct Judge {
    faults: Faults,
    dice: StdRng,
}

impl Judge {
    pub(super) fn new(faults: &Faults, node: u64) -> Self {
        let sum: f64 = faults.rates.iter().map(|(_, rate)| rate).sum();
        assert!(sum < 1.0 + 1e-9, "rates of faults are {sum} together, more than 1");
        // Any constant will do that makes the nodes differ.
        let seed = faults.seed.wrapping_add(node.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        Self { faults: faults.clone(), dice: StdRng::seed_from_u64(seed) }
    }

    /// The fault of a request, and how late it is if it is one that makes late.
    pub(super) fn judge(&mut self, opcode: u8) -> Option<(Fault, Duration)> {
        if self.faults.rates.is_empty() || !self.faults.aim.hits(opcode) {
            return None;
        }
        let mut drawn: f64 = self.dice.random();
        for &(fault, rate) in &self.faults.rates {
            if drawn < rate {
                return Some((fault, self.dice.random_range(self.faults.delay.clone())));
            }
            drawn -= rate;
        }
        None
    }
}
