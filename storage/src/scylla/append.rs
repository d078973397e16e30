//! The append protocol: the one place that knows when a message is in the log.
//!
//! It does no I/O. [`AppendMachine`] says what to ask the cluster, takes the reply, and ends with
//! an [`Outcome`]:
//!
//! ```text
//! Commit { expect }  -> applied                      -> Appended
//!                    -> unknown                      -> the same again, until it is known
//!                    -> not applied, head >= last,
//!                       an attempt of ours unknown   -> Rows: ours? Appended : Conflict
//!                    -> not applied, no head here    -> Heads: is `first - 1` the end of the
//!                                                       partition before? Commit : Conflict
//!                    -> not applied otherwise        -> Conflict
//! ```
//!
//! Why it is safe:
//! - A partition's `head` only rises and never goes away, so of all appends that expect the same
//!   head one at most is applied, whenever a late attempt reaches a server.
//! - The first append of a partition expects no head. It is sent only after a serial read has
//!   shown an earlier partition that ends with `first - 1`. Whoever may write `first` writes it
//!   here, so that partition does not change any more, and a late attempt finds a head.
//! - An attempt with an unknown outcome is repeated with the same rows. Once a head stands where
//!   it would have gone, no attempt of ours can be applied any more, and the rows tell whether one
//!   was: they are equal to ours in every column, or somebody else's.

use std::ops::RangeInclusive;

use skein_protocol::Seq;

use super::layout::Layout;

/// What a partition's head must be for an append to be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Expect {
    /// Nothing was ever appended here.
    Empty,
    /// The last append here ended with this number.
    Head(Seq),
}

/// What to ask the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Request {
    /// One conditional batch: if the partition's head is as expected, raise it to the last number
    /// and insert all rows.
    Commit {
        /// The partition.
        bucket: u64,
        /// The condition.
        expect: Expect,
    },
    /// Heads of these partitions, read with serial consistency.
    Heads {
        /// The partitions.
        buckets: RangeInclusive<u64>,
    },
    /// The rows with the numbers of this append, read with serial consistency.
    Rows {
        /// The partition.
        bucket: u64,
    },
}

/// What came back.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Reply<R> {
    /// The batch was applied.
    Applied,
    /// The batch was not applied; the partition's head was this.
    NotApplied {
        /// `None`: nothing was ever appended there.
        head: Option<Seq>,
    },
    /// The heads that there are, in any order.
    Heads(Vec<Seq>),
    /// The rows in ascending order.
    Rows(Vec<R>),
    /// Whether a server has carried the request out, or will, is not known.
    Unknown,
    /// No server has seen the request and none ever will.
    NotSent,
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// Ask.
    Send(Request),
    /// Ask after a pause, because the cluster is in trouble.
    SendLater(Request),
    /// Nothing more.
    Done(Outcome),
}

/// How an append ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// All rows are durable at their numbers.
    Appended,
    /// None of them is or will be: the log's head is another.
    Conflict,
    /// None of them is or will be: the cluster was not reached.
    Unavailable,
}

/// One append on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AppendMachine<R> {
    layout: Layout,
    first: Seq,
    rows: Vec<R>,
    /// The reply to this is awaited.
    asked: Request,
    /// An attempt to commit may have been carried out, or may still be.
    in_doubt: bool,
}

impl<R: PartialEq> AppendMachine<R> {
    /// An append of these rows, of which the first gets the number `first`. The caller has read or
    /// written `first - 1` itself, so it may be behind the log and never ahead of it.
    pub fn new(layout: Layout, first: Seq, rows: Vec<R>) -> (Self, Step) {
        let bucket = layout.bucket(first);
        let before = first.saturating_sub(1);
        let expect = if before == 0 { Expect::Empty } else { Expect::Head(before) };
        let commit = Request::Commit { bucket, expect };
        let mut machine = Self { layout, first, rows, asked: commit, in_doubt: false };
        let opens_bucket = before > 0 && layout.bucket(before) != bucket;
        let step = if opens_bucket { machine.look_before() } else { machine.ask_again() };
        (machine, step)
    }

    /// The rows that are appended.
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// The numbers that they get.
    pub fn numbers(&self) -> RangeInclusive<Seq> {
        self.first..=self.last()
    }

    /// Whether an attempt may have been carried out without our knowing.
    pub fn is_in_doubt(&self) -> bool {
        self.in_doubt
    }

    /// Takes the reply to what was asked last.
    pub fn handle_reply(&mut self, reply: Reply<R>) -> Step {
        match (&self.asked, reply) {
            (Request::Commit { .. }, Reply::Applied) => Step::Done(Outcome::Appended),
            (Request::Commit { bucket, .. }, Reply::NotApplied { head: Some(head) }) => {
                if self.in_doubt && head >= self.last() {
                    self.ask(Request::Rows { bucket: *bucket })
                } else {
                    Step::Done(Outcome::Conflict)
                }
            }
            (Request::Commit { expect: Expect::Head(_), .. }, Reply::NotApplied { head: None }) => {
                self.look_before()
            }
            (Request::Commit { .. }, Reply::NotSent) => self.not_reached(),
            // Anything else that a commit is answered with says nothing about it.
            (Request::Commit { .. }, _) => {
                self.in_doubt = true;
                self.not_reached()
            }
            (Request::Heads { .. }, Reply::Heads(heads)) => {
                let before = self.first - 1;
                if heads.iter().max() == Some(&before) {
                    let bucket = self.layout.bucket(self.first);
                    self.ask(Request::Commit { bucket, expect: Expect::Empty })
                } else {
                    Step::Done(Outcome::Conflict)
                }
            }
            (Request::Rows { .. }, Reply::Rows(rows)) => {
                let is_ours = rows == self.rows;
                Step::Done(if is_ours { Outcome::Appended } else { Outcome::Conflict })
            }
            (Request::Heads { .. } | Request::Rows { .. }, _) => self.not_reached(),
        }
    }

    fn last(&self) -> Seq {
        self.first + self.rows.len().saturating_sub(1) as Seq
    }

    /// This append opens its partition if the one before ends where it begins.
    fn look_before(&mut self) -> Step {
        let bucket = self.layout.bucket(self.first);
        let from = *self.layout.buckets_of(self.first - 1).start();
        if from == bucket {
            // No row of another partition reaches this far: the caller is ahead of the log.
            return Step::Done(Outcome::Conflict);
        }
        self.ask(Request::Heads { buckets: from..=bucket - 1 })
    }

    fn ask(&mut self, request: Request) -> Step {
        self.asked = request;
        self.ask_again()
    }

    fn ask_again(&self) -> Step {
        Step::Send(self.asked.clone())
    }

    /// What was asked has no answer. While an attempt is in doubt there is no giving up.
    fn not_reached(&self) -> Step {
        if self.in_doubt {
            Step::SendLater(self.asked.clone())
        } else {
            Step::Done(Outcome::Unavailable)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LAYOUT: Layout = Layout::new(8, 4);

    fn commit(bucket: u64, expect: Expect) -> Request {
        Request::Commit { bucket, expect }
    }

    #[test]
    fn a_known_answer_ends_it() {
        let (mut append, step) = AppendMachine::new(LAYOUT, 1, vec!['a']);
        assert_eq!(step, Step::Send(commit(0, Expect::Empty)));
        assert_eq!(append.handle_reply(Reply::Applied), Step::Done(Outcome::Appended));

        let (mut append, step) = AppendMachine::new(LAYOUT, 5, vec!['a']);
        assert_eq!(step, Step::Send(commit(0, Expect::Head(4))));
        let reply = Reply::NotApplied { head: Some(6) };
        assert_eq!(append.handle_reply(reply), Step::Done(Outcome::Conflict));
    }

    #[test]
    fn doubt_is_never_given_up() {
        let (mut append, _) = AppendMachine::new(LAYOUT, 5, vec!['a', 'b']);
        let again = Step::SendLater(commit(0, Expect::Head(4)));
        assert_eq!(append.handle_reply(Reply::Unknown), again);
        assert_eq!(append.handle_reply(Reply::NotSent), again);
        assert_eq!(append.handle_reply(Reply::Unknown), again);
        let taken = Reply::NotApplied { head: Some(9) };
        assert_eq!(append.handle_reply(taken), Step::Send(Request::Rows { bucket: 0 }));
        let unread = append.handle_reply(Reply::NotSent);
        assert_eq!(unread, Step::SendLater(Request::Rows { bucket: 0 }));
        let mut other = append.clone();
        let ours = append.handle_reply(Reply::Rows(vec!['a', 'b']));
        assert_eq!(ours, Step::Done(Outcome::Appended));
        let theirs = other.handle_reply(Reply::Rows(vec!['a', 'c']));
        assert_eq!(theirs, Step::Done(Outcome::Conflict));
    }

    #[test]
    fn what_was_never_sent_is_given_up() {
        let (mut append, _) = AppendMachine::new(LAYOUT, 5, vec!['a']);
        assert_eq!(append.handle_reply(Reply::NotSent), Step::Done(Outcome::Unavailable));
    }

    #[test]
    fn a_partition_is_opened_behind_the_end_of_the_one_before() {
        // 9 is the first number of the second bucket.
        let (mut append, step) = AppendMachine::new(LAYOUT, 9, vec!['a']);
        assert_eq!(step, Step::Send(Request::Heads { buckets: 0..=0 }));
        let step = append.handle_reply(Reply::Heads(vec![8]));
        assert_eq!(step, Step::Send(commit(1, Expect::Empty)));

        // 11 may be the first row there, when an append that began in the first bucket ended
        // with 10.
        let (mut append, step) = AppendMachine::new(LAYOUT, 11, vec!['a']);
        assert_eq!(step, Step::Send(commit(1, Expect::Head(10))));
        let step = append.handle_reply(Reply::NotApplied { head: None });
        assert_eq!(step, Step::Send(Request::Heads { buckets: 0..=0 }));
        let mut ahead = append.clone();
        let step = append.handle_reply(Reply::Heads(vec![10]));
        assert_eq!(step, Step::Send(commit(1, Expect::Empty)));
        let step = ahead.handle_reply(Reply::Heads(vec![7]));
        assert_eq!(step, Step::Done(Outcome::Conflict));
    }

    #[test]
    fn a_caller_ahead_of_the_log_is_refused() {
        let (mut append, step) = AppendMachine::new(LAYOUT, 16, vec!['a']);
        assert_eq!(step, Step::Send(commit(1, Expect::Head(15))));
        let step = append.handle_reply(Reply::NotApplied { head: None });
        assert_eq!(step, Step::Done(Outcome::Conflict));
    }
}
