//! What the behaviours share: names, messages, waiting for outcomes.

use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use tokio::sync::oneshot;

use crate::{Append, AppendError, AppendSink, CursorPair, CursorUpdate, Page, Record, Store};

/// Longest that one behaviour may take. Only a store that has lost an answer takes so long.
const PATIENCE: Duration = Duration::from_secs(240);

/// A page that nothing in the suite fills.
pub(super) const ALL: Page = Page { records: usize::MAX, bytes: usize::MAX };

/// Runs one behaviour on a runtime of its own.
///
/// # Panics
/// When the behaviour is not met, or does not end.
#[allow(clippy::expect_used)]
pub fn run(behaviour: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime for the test");
    runtime.block_on(async {
        tokio::time::timeout(PATIENCE, behaviour).await.expect("an answer never came");
    });
}

#[allow(clippy::expect_used)]
pub(super) fn user(name: &str) -> UserId {
    UserId::parse(name).expect("a name that is allowed")
}

/// The conversation with this number; ids sort as their numbers.
#[allow(clippy::expect_used)]
pub(super) fn conversation(n: u64) -> ConversationId {
    let mut id = [0; 16];
    id[0] = 1;
    id[8..].copy_from_slice(&n.to_be_bytes());
    ConversationId::parse(&id).expect("an id of a known kind")
}

/// A message whose content tells where it belongs and who wrote it there.
#[allow(clippy::expect_used)]
pub(super) fn message(conversation: ConversationId, seq: Seq, by: &str) -> Record {
    Record {
        seq,
        sender: user(by),
        device: DeviceId::parse("device-1").expect("a name that is allowed"),
        client_msg_id: ClientMsgId::parse(&format!("{by}-{seq}")).expect("an id"),
        time_ms: seq.wrapping_add(1_700_000_000_000),
        content_type: String::new(),
        payload: Bytes::from(format!("{conversation} {seq} {by}")),
    }
}

/// An append of `n` such messages.
pub(super) fn append(conversation: ConversationId, first: Seq, n: u64, by: &str) -> Append {
    let records = (first..first + n).map(|seq| message(conversation, seq, by)).collect();
    Append { conversation, first, records }
}

pub(super) type Outcome = Result<(), AppendError>;

/// Submits a group and waits for all of its outcomes.
pub(super) async fn outcomes(store: &Arc<dyn Store>, group: Vec<Append>) -> Vec<Outcome> {
    submit(store, group).await
}

/// Submits a group now; the future waits for its outcomes.
pub(super) fn submit(
    store: &Arc<dyn Store>,
    group: Vec<Append>,
) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
    let (tell, told) = oneshot::channel();
    let sink = Arc::new(Gather(Mutex::new(Gathered {
        outcomes: vec![None; group.len()],
        missing: group.len(),
        tell: Some(tell),
    })));
    store.submit(group, sink);
    async move { told.await.unwrap_or_else(|_| panic!("a sink was dropped before it was called")) }
}

/// Submits one append and waits for its outcome.
pub(super) async fn outcome(store: &Arc<dyn Store>, append: Append) -> Outcome {
    outcomes(store, vec![append]).await.remove(0)
}

/// Appends `n` messages at the end of a log that has `head`.
pub(super) async fn fill(store: &Arc<dyn Store>, to: ConversationId, head: Seq, n: u64) {
    assert_eq!(outcome(store, append(to, head + 1, n, "filler")).await, Ok(()));
}

pub(super) async fn head(store: &Arc<dyn Store>, of: ConversationId) -> Seq {
    ok(store.extent(of).await).head
}

pub(super) fn ok<T>(result: Result<T, crate::StoreError>) -> T {
    result.unwrap_or_else(|error| panic!("a store without faults failed: {error}"))
}

pub(super) fn seqs(records: &[Record]) -> Vec<Seq> {
    records.iter().map(|record| record.seq).collect()
}

pub(super) fn to(user: &UserId, at: ConversationId, delivered: Seq, read: Seq) -> CursorUpdate {
    let to = CursorPair { delivered, read };
    CursorUpdate { user: user.clone(), conversation: at, to }
}

struct Gather(Mutex<Gathered>);

struct Gathered {
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    tell: Option<oneshot::Sender<Vec<Outcome>>>,
}

impl AppendSink for Gather {
    fn appended(&self, outcomes: Vec<(usize, Outcome)>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, outcome) in outcomes {
            let before = gathered.outcomes[index].replace(outcome);
            assert_eq!(before, None, "append {index} was reported twice");
            gathered.missing -= 1;
        }
        if gathered.missing == 0
            && let Some(tell) = gathered.tell.take()
        {
            let outcomes = gathered.outcomes.iter().flatten().cloned().collect();
            let _ = tell.send(outcomes);
        }
    }
}
