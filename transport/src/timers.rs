//! Deadlines of all connections: one entry each, in an indexed heap.
//!
//! A QUIC connection moves its deadline with nearly every packet, mostly to a later time. So an
//! entry is moved at once only to an earlier time; a later one is taken note of by the owner and
//! found when the old time comes up: the owner looks at its real deadline and [sets](Timers::set)
//! it. There is never more than one entry a connection, whatever a peer does.

use std::time::Instant;

/// Not in the heap.
const ABSENT: u32 = u32::MAX;

/// Deadlines by key; keys are small dense numbers.
#[derive(Default)]
pub(crate) struct Timers {
    heap: Vec<(Instant, u32)>,
    /// Where each key stands in the heap.
    position: Vec<u32>,
}

impl Timers {
    /// Makes sure that `key` comes up at `at` or before.
    pub(crate) fn set(&mut self, key: u32, at: Instant) {
        if self.position.len() <= key as usize {
            self.position.resize(key as usize + 1, ABSENT);
        }
        let position = self.position[key as usize];
        if position == ABSENT {
            self.heap.push((at, key));
            self.position[key as usize] = self.heap.len() as u32 - 1;
            self.up(self.heap.len() - 1);
        } else if at < self.heap[position as usize].0 {
            self.heap[position as usize].0 = at;
            self.up(position as usize);
        }
    }

    /// Forgets `key`.
    pub(crate) fn remove(&mut self, key: u32) {
        match self.position.get(key as usize) {
            Some(&position) if position != ABSENT => self.remove_at(position as usize),
            _ => {}
        }
    }

    /// When the next key comes up.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.heap.first().map(|entry| entry.0)
    }

    /// Takes one key whose time is `now` or before.
    pub(crate) fn pop_due(&mut self, now: Instant) -> Option<u32> {
        let &(at, key) = self.heap.first()?;
        if at > now {
            return None;
        }
        self.remove_at(0);
        Some(key)
    }

    fn remove_at(&mut self, position: usize) {
        let (_, key) = self.heap.swap_remove(position);
        self.position[key as usize] = ABSENT;
        if let Some(&(_, moved)) = self.heap.get(position) {
            self.position[moved as usize] = position as u32;
            self.up(position);
            self.down(self.position[moved as usize] as usize);
        }
        // A burst of connections should not hold its table for ever.
        if self.heap.capacity() > 1024 && self.heap.len() * 4 < self.heap.capacity() {
            self.heap.shrink_to(self.heap.len() * 2);
        }
    }

    fn up(&mut self, mut at: usize) {
        while at > 0 {
            let parent = (at - 1) / 2;
            if self.heap[parent].0 <= self.heap[at].0 {
                break;
            }
            self.swap(parent, at);
            at = parent;
        }
    }

    fn down(&mut self, mut at: usize) {
        loop {
            let (left, right) = (2 * at + 1, 2 * at + 2);
            let mut least = at;
            for child in [left, right] {
                if child < self.heap.len() && self.heap[child].0 < self.heap[least].0 {
                    least = child;
                }
            }
            if least == at {
                return;
            }
            self.swap(least, at);
            at = least;
        }
    }

    fn swap(&mut self, a: usize, b: usize) {
        self.heap.swap(a, b);
        self.position[self.heap[a].1 as usize] = a as u32;
        self.position[self.heap[b].1 as usize] = b as u32;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rand::{RngExt, SeedableRng, rngs::StdRng};

    use super::*;

    #[test]
    fn later_is_lazy_and_earlier_is_at_once() {
        let start = Instant::now();
        let ms = |n| start + Duration::from_millis(n);
        let mut timers = Timers::default();
        timers.set(7, ms(50));
        timers.set(7, ms(90));
        assert_eq!(timers.next(), Some(ms(50)));
        timers.set(7, ms(10));
        assert_eq!(timers.next(), Some(ms(10)));
        assert_eq!(timers.pop_due(ms(9)), None);
        assert_eq!(timers.pop_due(ms(10)), Some(7));
        assert_eq!(timers.next(), None);
    }

    #[test]
    fn agrees_with_a_plain_table() {
        let start = Instant::now();
        for seed in 0..20 {
            let mut rng = StdRng::seed_from_u64(seed);
            let mut timers = Timers::default();
            let mut model = std::collections::BTreeMap::<u32, Instant>::new();
            for _ in 0..2000 {
                let key = rng.random_range(0..50u32);
                match rng.random_range(0..4) {
                    0 => {
                        timers.remove(key);
                        model.remove(&key);
                    }
                    1 => {
                        let now = start + Duration::from_millis(rng.random_range(0..1000));
                        let earliest = model.values().min().copied();
                        assert_eq!(timers.next(), earliest, "seed {seed}");
                        let popped = timers.pop_due(now);
                        assert_eq!(popped.is_some(), earliest.is_some_and(|at| at <= now));
                        if let Some(key) = popped {
                            assert_eq!(model.remove(&key), earliest, "seed {seed}");
                        }
                    }
                    _ => {
                        let at = start + Duration::from_millis(rng.random_range(0..1000));
                        timers.set(key, at);
                        let slot = model.entry(key).or_insert(at);
                        *slot = (*slot).min(at);
                    }
                }
                assert_eq!(timers.heap.len(), model.len());
            }
        }
    }
}
