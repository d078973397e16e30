//! An honest target is never accused, whatever happens on the way; each misbehaviour is found, and
//! counted as what it is.

use proptest::prelude::*;

use super::*;

/// A log and its readers, as a correct gateway keeps them.
struct World {
    stream: Stream,
    ledger: Ledger,
    receivers: Vec<Receiver>,
    clock: u64,
    /// Written, not stored yet.
    inbound: Vec<u32>,
    /// Counter of each number, from 1.
    log: Vec<u32>,
    /// Answers on their way: counter, number; 0: refused.
    answers: Vec<(u32, u64)>,
    /// Up to where each receiver was pushed to.
    pushed: Vec<usize>,
}

impl World {
    fn new(receivers: usize) -> Self {
        Self {
            stream: Stream::new(receivers as u32),
            ledger: Ledger::default(),
            receivers: (0..receivers).map(|_| Receiver::new()).collect(),
            clock: 0,
            inbound: Vec::new(),
            log: Vec::new(),
            answers: Vec::new(),
            pushed: vec![0; receivers],
        }
    }

    fn write(&mut self) -> u32 {
        self.clock += 1;
        let counter = self.stream.next();
        assert!(self.stream.make_room());
        let times = Times { intended: self.clock, sent: self.clock };
        self.stream.sent(times, &mut self.ledger);
        self.inbound.push(counter);
        counter
    }

    fn store(&mut self) {
        if !self.inbound.is_empty() {
            let counter = self.inbound.remove(0);
            self.log.push(counter);
            self.answers.push((counter, self.log.len() as u64));
        }
    }

    fn refuse(&mut self) {
        if !self.inbound.is_empty() {
            let counter = self.inbound.remove(0);
            self.answers.push((counter, 0));
        }
    }

    fn answer(&mut self) {
        if self.answers.is_empty() {
            return;
        }
        match self.answers.remove(0) {
            (counter, 0) => drop(self.stream.refused(counter, &mut self.ledger)),
            (counter, seq) => drop(self.stream.acked(counter, seq, &mut self.ledger)),
        }
    }

    fn push(&mut self, receiver: usize) {
        if self.pushed[receiver] < self.log.len() {
            self.pushed[receiver] += 1;
            self.deliver(receiver, self.pushed[receiver] as u64);
        }
    }

    fn deliver(&mut self, receiver: usize, seq: u64) -> Option<Arrival> {
        let counter = self.log[seq as usize - 1];
        let seen = self.receivers[receiver].pushed(seq, &mut self.ledger);
        (seen == Seen::First).then(|| self.stream.arrived(counter, seq, &mut self.ledger))
    }

    /// All that the log has beyond the position, while pushes go on.
    fn pull(&mut self, receiver: usize) {
        let from = self.receivers[receiver].position() + 1;
        let head = self.log.len() as u64;
        self.receivers[receiver].ask(head);
        for seq in from..=head {
            let seen = self.receivers[receiver].pulled(seq, &mut self.ledger);
            if seen == Seen::First {
                let counter = self.log[seq as usize - 1];
                self.stream.arrived(counter, seq, &mut self.ledger);
            }
        }
    }

    fn finish(&mut self) {
        while !self.inbound.is_empty() {
            self.store();
        }
        while !self.answers.is_empty() {
            self.answer();
        }
        for receiver in 0..self.receivers.len() {
            while self.pushed[receiver] < self.log.len() {
                self.push(receiver);
            }
        }
    }

    /// `count` messages, stored, answered and pushed to all, but for what `skip` says.
    fn exchange(&mut self, count: usize) {
        for _ in 0..count {
            self.write();
            self.store();
        }
        while !self.answers.is_empty() {
            self.answer();
        }
    }
}

#[derive(Clone, Debug)]
enum Step {
    Write,
    Store,
    Refuse,
    Answer,
    Push(usize),
    /// Pushes are left out and asked for.
    Leave(usize),
    Pull(usize),
    EndSession,
    Expire(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => Just(Step::Write),
        8 => Just(Step::Store),
        1 => Just(Step::Refuse),
        8 => Just(Step::Answer),
        12 => (0usize..3).prop_map(Step::Push),
        1 => (0usize..3).prop_map(Step::Leave),
        1 => (0usize..3).prop_map(Step::Pull),
        1 => Just(Step::EndSession),
        1 => (0u64..20).prop_map(Step::Expire),
    ]
}

proptest! {
    #[test]
    fn an_honest_target_is_never_accused(steps in proptest::collection::vec(step(), 0..300)) {
        let mut world = World::new(3);
        let mut answered = 0u64;
        for step in steps {
            match step {
                Step::Write => drop(world.write()),
                Step::Store => world.store(),
                Step::Refuse => world.refuse(),
                Step::Answer => {
                    answered += u64::from(world.answers.first().is_some_and(|a| a.1 != 0));
                    world.answer();
                }
                Step::Push(receiver) => world.push(receiver),
                Step::Leave(receiver) => {
                    world.pushed[receiver] = world.log.len();
                    world.pull(receiver);
                }
                Step::Pull(receiver) => world.pull(receiver),
                Step::EndSession => {
                    world.stream.expire(u64::MAX, &mut world.ledger, drop);
                    // Half of what was under way is stored, and nobody hears of it.
                    let stored = world.inbound.len() / 2;
                    (0..stored).for_each(|_| world.store());
                    world.inbound.clear();
                    world.answers.clear();
                }
                Step::Expire(age) => {
                    let before = world.clock.saturating_sub(age);
                    world.stream.expire(before, &mut world.ledger, drop);
                }
            }
        }
        answered += world.answers.iter().filter(|answer| answer.1 != 0).count() as u64;
        answered += world.inbound.len() as u64;
        world.finish();
        prop_assert_eq!((world.ledger.open_acks, world.ledger.open_deliveries), (0, 0));
        world.stream.close(|_| 0, &mut world.ledger);
        let found = world.ledger.found;
        prop_assert!(found.is_clean() && found.foreign == 0, "{found:?}");
        prop_assert_eq!(found.acked, answered);
        prop_assert_eq!(found.delivered, 3 * world.log.len() as u64);
        prop_assert!(world.stream.is_idle());
        prop_assert!(world.receivers.iter().all(|r| r.position() == world.log.len() as u64));
    }

    /// Any mixture of faults, each on messages of its own: every one is counted, none twice.
    #[test]
    fn each_fault_is_counted_as_what_it_is(
        faults in proptest::collection::vec(0u8..8, 1..60),
        receivers in 1usize..4,
    ) {
        let mut world = World::new(receivers);
        let (mut lost, mut twice, mut swapped) = (0u64, 0u64, 0u64);
        for fault in &faults {
            // A message before, two for the fault, one behind.
            let first = world.log.len() as u64 + 1;
            world.exchange(4);
            for receiver in 0..receivers {
                let order: &[u64] = match fault {
                    0 => &[0, 2, 3],
                    1 => &[0, 1, 1, 2, 3],
                    2 => &[0, 2, 1, 3],
                    _ => &[0, 1, 2, 3],
                };
                for n in order {
                    world.deliver(receiver, first + n);
                }
            }
            let all = receivers as u64;
            lost += if *fault == 0 { all } else { 0 };
            twice += if *fault == 1 { all } else { 0 };
            swapped += if *fault == 2 { all } else { 0 };
        }
        world.stream.close(|_| 0, &mut world.ledger);
        let found = world.ledger.found;
        prop_assert_eq!((found.lost, found.duplicated, found.reordered), (lost, twice, swapped));
        prop_assert_eq!(found.false_acks, 0);
        let due = 4 * faults.len() as u64 * receivers as u64;
        prop_assert_eq!(found.delivered, due - lost);
    }
}

#[test]
fn acknowledgements_that_lie_are_found() {
    let mut world = World::new(1);
    // Of something that was never written.
    assert_eq!(world.stream.acked(0, 1, &mut world.ledger), Acked::False);
    // With another place than the receiver sees.
    let counter = world.write();
    assert!(matches!(world.stream.acked(counter, 9, &mut world.ledger), Acked::Yes(_)));
    world.store();
    world.deliver(0, 1);
    // Twice.
    let counter = world.write();
    world.store();
    world.answer();
    world.answer();
    assert_eq!(world.stream.acked(counter, 2, &mut world.ledger), Acked::False);
    // Refused, and yet delivered.
    let counter = world.write();
    world.stream.refused(counter, &mut world.ledger);
    world.store();
    world.deliver(0, 3);
    // Without a number.
    let counter = world.write();
    assert_eq!(world.stream.acked(counter, 0, &mut world.ledger), Acked::False);
    assert_eq!(world.ledger.found.false_acks, 6, "{:?}", world.ledger);
}

#[test]
fn an_acknowledged_message_that_is_never_stored_is_lost() {
    let mut world = World::new(2);
    let counter = world.write();
    world.stream.acked(counter, 1, &mut world.ledger);
    assert_eq!(world.ledger.open_deliveries, 2);
    world.stream.close(|_| 0, &mut world.ledger);
    assert_eq!((world.ledger.found.lost, world.ledger.open_deliveries), (2, 0));
}

#[test]
fn a_message_that_is_stored_twice_is_a_duplicate() {
    let mut world = World::new(1);
    world.exchange(1);
    world.push(0);
    world.log.push(0);
    world.push(0);
    assert_eq!((world.ledger.found.duplicated, world.ledger.found.delivered), (1, 1));
}

#[test]
fn numbers_against_the_order_of_writing_are_found() {
    let mut world = World::new(1);
    world.write();
    world.write();
    world.inbound.reverse();
    world.finish();
    assert_eq!(world.ledger.found.reordered, 1);
}

/// Messages that are acknowledged and not pushed, written one nanosecond after the other.
fn acknowledge(world: &mut World, count: u64) {
    for n in 0..count {
        let times = Times { intended: n, sent: n };
        world.stream.sent(times, &mut world.ledger);
        world.stream.acked(n as u32, n + 1, &mut world.ledger);
    }
}

#[test]
fn what_some_receivers_cannot_tell_of_is_unchecked() {
    let mut world = World::new(2);
    acknowledge(&mut world, 3);
    // One receiver has the first, nobody has the others; one of the two knows the log up to 2.
    world.stream.arrived(0, 1, &mut world.ledger);
    assert_eq!(world.stream.missing_to(), Some(3));
    world.stream.close(|seq| if seq <= 2 { 1 } else { 2 }, &mut world.ledger);
    let found = world.ledger.found;
    assert_eq!((found.lost, found.unchecked), (1, 4), "{found:?}");
    assert!(!found.is_clean());
}

#[test]
fn what_was_given_up_is_unchecked_if_somebody_cannot_tell() {
    for (unsure, expected) in [(0, (3, 0)), (1, (0, 3))] {
        let mut world = World::new(1);
        acknowledge(&mut world, 3);
        world.stream.give_up(2, &mut world.ledger);
        assert_eq!(world.ledger.found.lost, 2, "given up while the run goes on");
        world.stream.close(|_| unsure, &mut world.ledger);
        assert_eq!((world.ledger.found.lost, world.ledger.found.unchecked), expected);
    }
    let mut world = World::new(1);
    acknowledge(&mut world, 3);
    world.stream.give_up(3, &mut world.ledger);
    assert_eq!(world.stream.missing_to(), Some(3), "it is asked for all the same");
}

#[test]
fn a_receiver_can_tell_what_it_has_and_what_it_was_answered() {
    let mut ledger = Ledger::default();
    let mut receiver = Receiver::new();
    for seq in [1, 2, 5] {
        receiver.pushed(seq, &mut ledger);
    }
    let told = |receiver: &Receiver| (1..=9).filter(|seq| receiver.can_tell(*seq)).max();
    assert_eq!(told(&receiver), Some(2));
    receiver.ask(7);
    assert_eq!(told(&receiver), Some(2), "asking is no answer");
    receiver.answered(7);
    assert_eq!((told(&receiver), receiver.position()), (Some(7), 2));
}

#[test]
fn what_comes_after_it_was_given_up_is_not_lost() {
    let mut world = World::new(1);
    world.exchange(3);
    world.stream.give_up(2, &mut world.ledger);
    assert_eq!(world.ledger.found.lost, 1);
    world.finish();
    world.stream.close(|_| 0, &mut world.ledger);
    assert_eq!((world.ledger.found.lost, world.ledger.found.delivered), (0, 3));
    assert!(world.ledger.found.is_clean());
}

#[test]
fn answers_that_come_too_late_are_no_lies() {
    let mut world = World::new(1);
    world.write();
    world.store();
    let mut expired = Vec::new();
    world.stream.expire(u64::MAX, &mut world.ledger, |times| expired.push(times));
    world.stream.expire(u64::MAX, &mut world.ledger, |times| expired.push(times));
    assert_eq!(expired, [Times { intended: 1, sent: 1 }]);
    world.stream.give_up(u64::MAX, &mut world.ledger);
    assert_eq!(world.stream.acked(0, 1, &mut world.ledger), Acked::TooLate);
    assert_eq!(world.ledger.found.false_acks, 0);
}

#[test]
fn memory_is_bounded_and_given_back() {
    let mut world = World::new(1);
    for _ in 0..stream::MAX_WINDOW {
        world.write();
    }
    assert!(!world.stream.make_room(), "what waits for an answer is never forgotten");
    world.stream.expire(u64::MAX, &mut world.ledger, drop);
    assert!(world.stream.make_room(), "what nothing is demanded of makes room");
    let mut receiver = Receiver::new();
    for n in 1..1000 {
        receiver.pushed(3 * n, &mut world.ledger);
    }
    assert_eq!(receiver.gap(), Some((1, 2997)), "up to what was seen and not kept");
    assert_eq!(receiver.pushed(999, &mut world.ledger), Seen::Untracked);
    assert_eq!(receiver.pushed(u64::MAX, &mut world.ledger), Seen::Untracked);
    for seq in 1..=3000 {
        receiver.pulled(seq, &mut world.ledger);
    }
    assert_eq!((receiver.position(), receiver.gap()), (3000, None));
    assert!(std::mem::size_of::<Receiver>() <= 64);
    assert!(std::mem::size_of::<Stream>() <= 64);
}

#[test]
fn what_the_log_does_not_have_is_not_waited_for() {
    let mut ledger = Ledger::default();
    let mut receiver = Receiver::new();
    for seq in [1, 4, 5, 9] {
        receiver.pushed(seq, &mut ledger);
    }
    assert_eq!(receiver.gap(), Some((2, 8)));
    // The log has neither 2 nor 3.
    receiver.has_read(3);
    assert_eq!((receiver.position(), receiver.gap()), (5, Some((6, 8))));
    receiver.has_read(2);
    receiver.has_read(u64::MAX);
    assert_eq!(receiver.position(), 5, "backwards, and beyond every log");
    receiver.has_read(8);
    assert_eq!((receiver.position(), receiver.gap()), (9, None));
}

#[test]
fn an_acknowledgement_that_lies_about_its_place_is_one_lie() {
    let mut world = World::new(3);
    // Acknowledged far away, seen at 1 by all; the next ones are in order.
    let counter = world.write();
    world.stream.acked(counter, 1000, &mut world.ledger);
    world.inbound.clear();
    world.log.push(counter);
    (0..3).for_each(|receiver| world.push(receiver));
    world.exchange(2);
    world.finish();
    let found = world.ledger.found;
    assert_eq!((found.false_acks, found.reordered, found.lost), (1, 0, 0), "{found:?}");
}

#[test]
fn an_older_conversation_is_joined_where_it_stands() {
    let mut ledger = Ledger::default();
    let mut receiver = Receiver::joining();
    assert_eq!(receiver.pushed(500, &mut ledger), Seen::First);
    assert_eq!((receiver.position(), receiver.gap()), (500, None));
    let mut receiver = Receiver::new();
    receiver.begins_at(41);
    assert_eq!(receiver.position(), 40);
}
