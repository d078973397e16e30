//! Random operations against a model that is simple enough to be right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};
use skein_protocol::{ConversationId, Seq, UserId};

use super::support::*;
use super::{Factory, Reopen};
use crate::{AppendError, CursorPair, Direction, Page, Record, Store};

/// Rounds in an ordinary run, each with a seed of its own; `SKEIN_CONFORMANCE_ROUNDS` asks for
/// another number, `SKEIN_CONFORMANCE_SEED` sets the first seed.
const ROUNDS: u64 = 4;

const STEPS: usize = 120;
const CONVERSATIONS: u64 = 5;
const USERS: [&str; 3] = ["ann", "anna", "bo"];

/// Appends, reads, cursors, beginnings, closings and kills in random order do as the model does.
pub async fn random_operations_match_the_model(factory: &dyn Factory) {
    let first = env("SKEIN_CONFORMANCE_SEED").unwrap_or(0);
    for seed in first..first + env("SKEIN_CONFORMANCE_ROUNDS").unwrap_or(ROUNDS) {
        let _announce = Announce(seed);
        let mut instance = factory.create().await;
        let mut model = Model::new(seed);
        for _ in 0..STEPS {
            match model.random.random_range(0..100) {
                0..35 => model.append(&instance.store()).await,
                35..55 => model.read(&instance.store()).await,
                55..70 => model.advance(&instance.store()).await,
                70..80 => model.begin(&instance.store()).await,
                80..95 => model.compare(&instance.store()).await,
                95..97 => {
                    instance.reopen(Reopen::Closed).await;
                    model.compare(&instance.store()).await;
                }
                _ => {
                    instance.reopen(Reopen::Killed).await;
                    model.forget_cursors(&instance.store()).await;
                    model.compare(&instance.store()).await;
                }
            }
        }
    }
}

/// Tells the seed when a step fails.
struct Announce(u64);

impl Drop for Announce {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("failed with SKEIN_CONFORMANCE_SEED={}", self.0);
        }
    }
}

fn env(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

struct Model {
    random: StdRng,
    logs: BTreeMap<ConversationId, Vec<Record>>,
    members: BTreeMap<ConversationId, Vec<UserId>>,
    cursors: BTreeMap<(UserId, ConversationId), CursorPair>,
    /// All values that a register has had: a kill may bring back any of them.
    history: BTreeMap<(UserId, ConversationId), BTreeSet<(Seq, Seq)>>,
    written: u64,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            random: StdRng::seed_from_u64(seed),
            logs: BTreeMap::new(),
            members: BTreeMap::new(),
            cursors: BTreeMap::new(),
            history: BTreeMap::new(),
            written: 0,
        }
    }

    fn any_conversation(&mut self) -> ConversationId {
        conversation(self.random.random_range(0..CONVERSATIONS))
    }

    fn any_user(&mut self) -> UserId {
        user(USERS[self.random.random_range(0..USERS.len())])
    }

    fn head(&self, c: ConversationId) -> Seq {
        self.logs.get(&c).map_or(0, |log| log.len() as Seq)
    }

    /// A group of appends, most of them at the right number.
    async fn append(&mut self, store: &Arc<dyn Store>) {
        let (mut group, mut want) = (Vec::new(), Vec::new());
        for _ in 0..self.random.random_range(1..5) {
            let c = self.any_conversation();
            let head = self.head(c);
            let first = if self.random.random_bool(0.8) {
                head + 1
            } else {
                self.random.random_range(1..=head + 3)
            };
            self.written += 1;
            let by = format!("writer-{}", self.written);
            let append = append(c, first, self.random.random_range(1..6), &by);
            if first == head + 1 {
                self.logs.entry(c).or_default().extend(append.records.iter().cloned());
                want.push(Ok(()));
            } else {
                want.push(Err(AppendError::Conflict { head }));
            }
            group.push(append);
        }
        assert_eq!(outcomes(store, group).await, want);
    }

    async fn read(&mut self, store: &Arc<dyn Store>) {
        let c = self.any_conversation();
        let head = self.head(c);
        let (from, to) =
            (self.random.random_range(0..head + 3), self.random.random_range(0..head + 3));
        let page = Page {
            records: self.random.random_range(1..10),
            bytes: self.random.random_range(1..1000),
        };
        for direction in [Direction::Forward, Direction::Backward] {
            let read = ok(store.read(c, from..=to, direction, page).await);
            assert_eq!(read, self.page(c, from, to, direction, page), "{from}..={to} {page:?}");
        }
    }

    fn page(
        &self,
        c: ConversationId,
        from: Seq,
        to: Seq,
        direction: Direction,
        page: Page,
    ) -> Vec<Record> {
        let log = self.logs.get(&c).cloned().unwrap_or_default();
        let mut inside: Vec<Record> =
            log.into_iter().filter(|record| (from..=to).contains(&record.seq)).collect();
        if direction == Direction::Backward {
            inside.reverse();
        }
        let mut bytes = 0;
        let fits = |record: &Record| {
            let fits = bytes < page.bytes;
            bytes += record.payload.len();
            fits
        };
        inside.into_iter().take_while(fits).take(page.records).collect()
    }

    async fn advance(&mut self, store: &Arc<dyn Store>) {
        let mut updates = Vec::new();
        for _ in 0..self.random.random_range(1..4) {
            let (who, c) = (self.any_user(), self.any_conversation());
            let (delivered, read) =
                (self.random.random_range(0..50), self.random.random_range(0..50));
            updates.push(to(&who, c, delivered, read));
            let pair = self.cursors.entry((who.clone(), c)).or_default();
            pair.delivered = pair.delivered.max(delivered);
            pair.read = pair.read.max(read);
            self.history.entry((who, c)).or_default().insert((pair.delivered, pair.read));
        }
        ok(store.advance(updates).await);
    }

    async fn begin(&mut self, store: &Arc<dyn Store>) {
        let c = self.any_conversation();
        let members = vec![self.any_user(), self.any_user()];
        ok(store.begin(c, members.clone()).await);
        self.members.entry(c).or_insert(members);
    }

    /// After a kill, registers may stand at any value that they had.
    async fn forget_cursors(&mut self, store: &Arc<dyn Store>) {
        for ((who, c), pair) in &mut self.cursors {
            let now = ok(store.cursors(who.clone(), *c).await);
            let values = &self.history[&(who.clone(), *c)];
            let known = now == CursorPair::default() || values.contains(&(now.delivered, now.read));
            assert!(known, "{now:?} was never a value of {who} in {c}");
            assert!(now.delivered <= pair.delivered && now.read <= pair.read);
            *pair = now;
        }
    }

    /// Everything small at once.
    async fn compare(&mut self, store: &Arc<dyn Store>) {
        for n in 0..CONVERSATIONS {
            let c = conversation(n);
            let extent = ok(store.extent(c).await);
            assert_eq!((extent.first, extent.head), (1, self.head(c)));
            assert_eq!(ok(store.members(c).await), self.members.get(&c).cloned());
            for name in USERS {
                let want = self.cursors.get(&(user(name), c)).copied().unwrap_or_default();
                assert_eq!(ok(store.cursors(user(name), c).await), want);
            }
        }
        for name in USERS.map(user) {
            let has = |(_, members): &(&ConversationId, &Vec<UserId>)| members.contains(&name);
            let want: Vec<_> = self.members.iter().filter(has).map(|(c, _)| *c).collect();
            assert_eq!(ok(store.conversations(name.clone(), None, 100).await), want);
        }
    }
}
