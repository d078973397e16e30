//! What tests of this backend share: names, messages, waiting for outcomes, looking at a log.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use skein_protocol::{ClientMsgId, ConversationId, DeviceId, Seq, UserId};
use skein_storage::{
    Append, AppendError, AppendSink, Direction, Extent, MessageLog, Page, Record, StoreError,
};
use tokio::sync::oneshot;

pub const ALL: Page = Page { records: usize::MAX, bytes: usize::MAX };

pub type Outcome = Result<(), AppendError>;

pub fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}

pub fn conversation(n: u64) -> ConversationId {
    let mut id = [0; 16];
    id[0] = 1;
    id[8..].copy_from_slice(&n.to_be_bytes());
    ConversationId::parse(&id).unwrap()
}

pub fn now_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64
}

pub fn message(seq: Seq, by: &str, time_ms: u64) -> Record {
    Record {
        seq,
        sender: user(by),
        device: DeviceId::parse("device-1").unwrap(),
        client_msg_id: ClientMsgId::parse(&format!("{by}-{seq}")).unwrap(),
        time_ms,
        content_type: String::new(),
        payload: Bytes::from(format!("{seq} by {by}")),
    }
}

/// An append of `n` messages of this moment.
pub fn append(to: ConversationId, first: Seq, n: u64, by: &str) -> Append {
    append_at(to, first, n, by, now_ms())
}

pub fn append_at(to: ConversationId, first: Seq, n: u64, by: &str, time_ms: u64) -> Append {
    let records = (first..first + n).map(|seq| message(seq, by, time_ms)).collect();
    Append { conversation: to, first, records }
}

/// Submits a group now; the future waits for all outcomes.
pub fn submit(
    store: &impl MessageLog,
    group: Vec<Append>,
) -> impl Future<Output = Vec<Outcome>> + Send + 'static {
    let (tell, told) = oneshot::channel();
    let left = group.len();
    let gathered = Gathered { outcomes: vec![None; left], left, tell: Some(tell) };
    store.submit(group, Arc::new(Gather(Mutex::new(gathered))));
    async move { told.await.expect("every append has an outcome") }
}

pub async fn outcome(store: &impl MessageLog, append: Append) -> Outcome {
    submit(store, vec![append]).await.remove(0)
}

/// Appends `n` messages behind `head`, in pieces of at most `piece`; gives them back.
pub async fn fill(
    store: &impl MessageLog,
    to: ConversationId,
    head: Seq,
    n: u64,
    piece: u64,
) -> Vec<Record> {
    let mut records = Vec::new();
    while (records.len() as u64) < n {
        let done = records.len() as u64;
        let append = append(to, head + done + 1, piece.min(n - done), "filler");
        records.extend(append.records.iter().cloned());
        assert_eq!(outcome(store, append).await, Ok(()));
    }
    records
}

pub async fn extent(store: &impl MessageLog, of: ConversationId) -> (Seq, Seq) {
    let Extent { first, head } = store.extent(of).await.unwrap();
    (first, head)
}

/// All that can be read, forward; and it is the same backward.
pub async fn whole(store: &impl MessageLog, of: ConversationId) -> Vec<Record> {
    let up = store.read(of, 0..=u64::MAX, Direction::Forward, ALL).await.unwrap();
    let mut down = store.read(of, 0..=u64::MAX, Direction::Backward, ALL).await.unwrap();
    down.reverse();
    assert_eq!(up, down, "forward and backward differ");
    up
}

pub fn seqs(records: &[Record]) -> Vec<Seq> {
    records.iter().map(|record| record.seq).collect()
}

/// Asks until it is so. The servers tell time for themselves, in whole seconds.
pub async fn until<F: Future<Output = bool>>(what: &str, is_so: impl Fn() -> F) {
    let patience = Duration::from_secs(60);
    let begun = tokio::time::Instant::now();
    while !is_so().await {
        assert!(begun.elapsed() < patience, "still not so: {what}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

pub fn is_unavailable(outcome: &Outcome) -> bool {
    matches!(outcome, Err(AppendError::Store(StoreError::Unavailable(_))))
}

struct Gather(Mutex<Gathered>);

struct Gathered {
    outcomes: Vec<Option<Outcome>>,
    left: usize,
    tell: Option<oneshot::Sender<Vec<Outcome>>>,
}

impl AppendSink for Gather {
    fn appended(&self, outcomes: Vec<(usize, Outcome)>) {
        let mut gathered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, outcome) in outcomes {
            assert_eq!(gathered.outcomes[index].replace(outcome), None, "reported twice");
            gathered.left -= 1;
        }
        if gathered.left == 0
            && let Some(tell) = gathered.tell.take()
        {
            let _ = tell.send(gathered.outcomes.iter().flatten().cloned().collect());
        }
    }
}
