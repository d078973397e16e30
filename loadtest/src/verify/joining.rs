//! A receiver that joins a conversation with a history accuses no honest target either, whatever it
//! hears first: a push, the answer to a message of its own, or what it asked for.

use proptest::prelude::*;

use super::*;

/// What stands in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    /// From before the run.
    Old,
    /// Of the stream, with this counter.
    Theirs(u32),
    /// Written by the receiver.
    Own,
}

struct World {
    log: Vec<Entry>,
    stream: Stream,
    receiver: Receiver,
    ledger: Ledger,
    /// Numbers of its own whose answers are on their way.
    answers: Vec<u64>,
    /// Up to here it was pushed to.
    pushed: usize,
    /// Pushes were left out, and it has not been told yet.
    left_out: bool,
    /// An answer to a request: the next number and the last.
    answer: Option<(u64, u64)>,
}

impl World {
    fn new(history: usize) -> Self {
        Self {
            log: vec![Entry::Old; history],
            stream: Stream::new(1),
            receiver: Receiver::joining(),
            ledger: Ledger::default(),
            answers: Vec::new(),
            pushed: history,
            left_out: false,
            answer: None,
        }
    }

    fn head(&self) -> u64 {
        self.log.len() as u64
    }

    fn write(&mut self) {
        let counter = self.stream.next();
        let at = self.head();
        self.stream.sent(Times { intended: at, sent: at }, &mut self.ledger);
        self.log.push(Entry::Theirs(counter));
        self.stream.acked(counter, self.head(), &mut self.ledger);
    }

    fn write_own(&mut self) {
        self.log.push(Entry::Own);
        self.answers.push(self.head());
    }

    fn answer_own(&mut self) {
        if !self.answers.is_empty() {
            self.receiver.own(self.answers.remove(0));
        }
    }

    /// Pushes in order; before the first after some that were left out it is told of them.
    fn push(&mut self) {
        if std::mem::take(&mut self.left_out) {
            self.pull();
        }
        if let Some(entry) = self.log.get(self.pushed) {
            self.pushed += 1;
            if let Entry::Theirs(counter) = *entry {
                let seq = self.pushed as u64;
                let seen = self.receiver.pushed(seq, &mut self.ledger);
                self.saw(seen, counter, seq);
            }
        }
    }

    fn leave_out(&mut self) {
        self.left_out |= self.pushed < self.log.len();
        self.pushed = self.log.len();
    }

    /// Asks for all that it does not have; the answer comes bit by bit.
    fn pull(&mut self) {
        while self.answer.is_some() {
            self.read();
        }
        self.receiver.ask(self.head());
        self.answer = Some((self.receiver.position() + 1, self.head()));
    }

    fn read(&mut self) {
        let Some((next, last)) = self.answer else { return };
        if next > last {
            self.receiver.has_read(last);
            self.answer = None;
            return;
        }
        self.answer = Some((next + 1, last));
        match self.log[next as usize - 1] {
            Entry::Old => {}
            Entry::Own => drop(self.receiver.pulled(next, &mut self.ledger)),
            Entry::Theirs(counter) => {
                self.receiver.has_read(next - 1);
                let seen = self.receiver.pulled(next, &mut self.ledger);
                self.saw(seen, counter, next);
            }
        }
    }

    fn saw(&mut self, seen: Seen, counter: u32, seq: u64) {
        if seen == Seen::First {
            self.stream.arrived(counter, seq, &mut self.ledger);
        }
    }

    fn finish(&mut self) {
        while !self.answers.is_empty() {
            self.answer_own();
        }
        while self.pushed < self.log.len() || self.left_out {
            self.push();
        }
        self.pull();
        while self.answer.is_some() {
            self.read();
        }
    }
}

proptest! {
    #[test]
    fn an_honest_target_is_not_accused_by_who_joins(
        history in 0usize..6,
        steps in proptest::collection::vec(0u8..7, 0..60),
    ) {
        let mut world = World::new(history);
        for step in steps {
            match step {
                0 => world.write(),
                1 => world.write_own(),
                2 => world.answer_own(),
                3 => world.push(),
                4 => world.leave_out(),
                5 => world.pull(),
                _ => world.read(),
            }
        }
        world.finish();
        prop_assert_eq!(world.receiver.position(), world.head());
        world.stream.close(|_| 0, &mut world.ledger);
        let found = world.ledger.found;
        prop_assert!(found.is_clean(), "{found:?}");
        prop_assert_eq!(found.delivered, found.acked);
    }
}

/// The answer to one's own message overtakes a push: it is not the beginning.
#[test]
fn an_own_message_does_not_hide_what_was_before_it() {
    let mut ledger = Ledger::default();
    let mut receiver = Receiver::joining();
    receiver.own(105);
    assert_eq!(receiver.pushed(104, &mut ledger), Seen::First);
    assert_eq!((receiver.position(), receiver.gap()), (105, None));
    assert!(ledger.found.is_clean());
}
