//! Planted bugs: appends that break one promise, to show that the tests' checkers see it.
//! Compiled into debug builds only.

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Planted {
    /// Appends are written whatever the head is.
    UnconditionalWrite,
    /// An unknown outcome counts as failure: the same records are appended again behind the head,
    /// with new numbers, and nobody looks whether they are there.
    UnknownIsFailure,
    /// An append of unknown outcome is reported as one that is durable.
    UnknownIsSuccess,
    /// After an unknown outcome, any head that reaches as far is taken for our own.
    NoCompare,
    /// Reads ask a single replica.
    PlainReads,
}

impl Planted {
    /// All of them with the names by which tests ask for them.
    pub const ALL: [(&'static str, Self); 5] = [
        ("unconditional-write", Self::UnconditionalWrite),
        ("unknown-is-failure", Self::UnknownIsFailure),
        ("unknown-is-success", Self::UnknownIsSuccess),
        ("no-compare", Self::NoCompare),
        ("plain-reads", Self::PlainReads),
    ];

    /// The bug with this name.
    pub fn parse(name: &str) -> Option<Self> {
        Self::ALL.iter().find(|(known, _)| *known == name).map(|(_, bug)| *bug)
    }
}
