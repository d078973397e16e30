//! Planted bugs: a store that breaks one promise, to show that the tests' checker sees it.
//!
//! Compiled into debug builds only; the environment variable `SKEIN_PLANTED_BUG` chooses one.

use std::sync::Arc;
use std::time::Duration;

use skein_protocol::{ClientMsgId, ConversationId, Seq};
use skein_storage::{Append, AppendError, AppendSink, CursorUpdate, Page, Record, Store};

use crate::format::Mark;
use crate::hooked::{Hooked, Hooks};

/// The variable that chooses the bug.
const VARIABLE: &str = "SKEIN_PLANTED_BUG";

/// How late a message reaches the disk that was acknowledged too early.
const LATE: Duration = Duration::from_millis(150);

/// Which promise is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Appends are acknowledged before they are written.
    AckBeforeDurable,
    /// Of a batch only the first message is written, all are acknowledged.
    TornBatch,
    /// Every eighth append is acknowledged and not written.
    LostAppend,
    /// After a start, earlier messages are not recognised.
    LostDeduplication,
    /// Cursors are further than what was delivered.
    CursorAhead,
    /// Every eighth message is left out of what is read.
    HoleInRead,
    /// A payload is read back altered.
    CorruptedRead,
    /// Two neighbours change places when they are read.
    SwappedRead,
    /// Every other conversation is left out of its members' lists.
    UnlistedConversation,
}

/// Another version than this program's, as `FORMAT VERSION` in `SKEIN_PLANTED_VERSION`: stands for a
/// program that does not exist yet.
pub fn version() -> Option<Mark> {
    let text = std::env::var("SKEIN_PLANTED_VERSION").ok()?;
    let (format, skein) = text.split_once(' ')?;
    Some(Mark { format: format.parse().ok()?, skein: skein.into() })
}

/// The bug in the clustered store itself that the environment asks for.
pub fn in_scylla() -> Option<skein_storage::scylla::Planted> {
    let bug = std::env::var(VARIABLE).ok();
    let bug = bug.and_then(|name| skein_storage::scylla::Planted::parse(&name));
    if bug.is_some() {
        tracing::warn!(?bug, "this gateway is broken on purpose");
    }
    bug
}

/// The store, with the bug that the environment asks for.
pub fn wrap(store: Arc<dyn Store>) -> Arc<dyn Store> {
    let Ok(name) = std::env::var(VARIABLE) else {
        return store;
    };
    let bug = match name.as_str() {
        "ack-before-durable" => Bug::AckBeforeDurable,
        "torn-batch" => Bug::TornBatch,
        "lost-append" => Bug::LostAppend,
        "lost-deduplication" => Bug::LostDeduplication,
        "cursor-ahead" => Bug::CursorAhead,
        "hole-in-read" => Bug::HoleInRead,
        "corrupted-read" => Bug::CorruptedRead,
        "swapped-read" => Bug::SwappedRead,
        "unlisted-conversation" => Bug::UnlistedConversation,
        _ => {
            tracing::error!("{VARIABLE}={name} names no planted bug");
            std::process::exit(2);
        }
    };
    tracing::warn!(?bug, "this gateway is broken on purpose");
    Arc::new(Hooked { hooks: Broken(bug), store })
}

struct Broken(Bug);

impl Broken {
    /// The numbers that a bug hits.
    fn hits(seq: Seq) -> bool {
        seq % 8 == 5
    }

    /// What a client is shown of a log.
    fn show(&self, mut records: Vec<Record>) -> Vec<Record> {
        match self.0 {
            Bug::HoleInRead => records.retain(|record| !Self::hits(record.seq)),
            Bug::CorruptedRead => {
                for record in records.iter_mut().filter(|record| Self::hits(record.seq)) {
                    record.payload = bytes::Bytes::from_static(b"corrupted");
                }
            }
            Bug::SwappedRead => {
                for at in 1..records.len() {
                    let (first, second) = (records[at - 1].seq, records[at].seq);
                    if Self::hits(first) {
                        records.swap(at - 1, at);
                        records[at - 1].seq = first;
                        records[at].seq = second;
                    }
                }
            }
            _ => {}
        }
        records
    }

    /// What a lane learns of earlier messages.
    fn recall(&self, mut records: Vec<Record>) -> Vec<Record> {
        if self.0 == Bug::LostDeduplication {
            for record in &mut records {
                let other = format!("other-{}", record.seq);
                if let Ok(other) = ClientMsgId::parse(&other) {
                    record.client_msg_id = other;
                }
            }
        }
        records
    }
}

/// Takes outcomes that were already reported.
struct Nobody;

impl AppendSink for Nobody {
    fn appended(&self, _outcomes: Vec<(usize, Result<(), AppendError>)>) {}
}

impl Hooks for Broken {
    fn submit(&self, store: &Arc<dyn Store>, group: Vec<Append>, done: Arc<dyn AppendSink>) {
        let all_well = (0..group.len()).map(|place| (place, Ok(()))).collect();
        match self.0 {
            Bug::AckBeforeDurable => {
                let store = store.clone();
                std::thread::spawn(move || {
                    done.appended(all_well);
                    std::thread::sleep(LATE);
                    store.submit(group, Arc::new(Nobody));
                });
            }
            Bug::TornBatch => {
                let torn = group.into_iter().map(|append| Append {
                    records: append.records.into_iter().take(1).collect(),
                    ..append
                });
                store.submit(torn.collect(), done);
            }
            Bug::LostAppend => {
                let (lost, kept): (Vec<_>, Vec<_>) =
                    group.into_iter().partition(|append| Self::hits(append.first));
                if lost.is_empty() {
                    store.submit(kept, done);
                } else {
                    std::thread::spawn(move || done.appended(all_well));
                    store.submit(kept, Arc::new(Nobody));
                }
            }
            _ => store.submit(group, done),
        }
    }

    fn records(&self, records: Vec<Record>, page: Page) -> Vec<Record> {
        // Only a lane asks for such pages.
        let is_for_lane = page == crate::hub::SCAN_PAGE;
        if is_for_lane { self.recall(records) } else { self.show(records) }
    }

    fn updates(&self, mut updates: Vec<CursorUpdate>) -> Vec<CursorUpdate> {
        if self.0 == Bug::CursorAhead {
            updates.iter_mut().for_each(|update| update.to.delivered += 3);
        }
        updates
    }

    fn conversations(&self, mut listed: Vec<ConversationId>) -> Vec<ConversationId> {
        if self.0 == Bug::UnlistedConversation {
            listed.retain(|conversation| conversation.as_bytes()[15] % 2 == 0);
        }
        listed
    }
}
