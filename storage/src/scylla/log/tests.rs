//! Order, patience and ends, under virtual time.

use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use skein_protocol::{ClientMsgId, DeviceId, Seq, UserId};
use tokio::sync::Semaphore;
use tokio::task::yield_now;

use super::*;
use crate::Record;

const WAIT: Duration = Duration::from_secs(2);

/// Carries out one append for each permit that the test gives, and notes their order.
struct Scripted {
    permits: Semaphore,
    places: Semaphore,
    begun: Mutex<Vec<(ConversationId, Seq)>>,
    tidied: AtomicUsize,
    refused: AtomicUsize,
}

impl Scripted {
    fn new(places: usize) -> Arc<Self> {
        Arc::new(Self {
            permits: Semaphore::new(0),
            places: Semaphore::new(places),
            begun: Mutex::default(),
            tidied: AtomicUsize::new(0),
            refused: AtomicUsize::new(0),
        })
    }

    fn begun(&self) -> Vec<(ConversationId, Seq)> {
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn finish(&self, appends: usize) {
        self.permits.add_permits(appends);
        settle().await;
    }
}

impl Writer for Scripted {
    type Rest = ();

    async fn append(&self, append: Append, deadline: Instant) -> Result<Option<()>, AppendError> {
        let place = tokio::time::timeout_at(deadline, self.places.acquire()).await;
        let Ok(Ok(_place)) = place else {
            return Err(StoreError::Unavailable("no place".into()).into());
        };
        let name = (append.conversation, append.first);
        self.begun.lock().unwrap_or_else(PoisonError::into_inner).push(name);
        if let Ok(permit) = self.permits.acquire().await {
            permit.forget();
        }
        Ok(Some(()))
    }

    async fn tidy(&self, _: ConversationId, (): ()) {
        tokio::time::sleep(WAIT).await;
        self.tidied.fetch_add(1, SeqCst);
    }

    fn refused(&self, appends: usize) {
        self.refused.fetch_add(appends, SeqCst);
    }
}

/// What was reported, in order: the append's first number and how it ended.
#[derive(Default)]
struct Reports(Mutex<Vec<(Seq, &'static str)>>);

struct Sink(Arc<Reports>, Vec<Seq>);

impl AppendSink for Sink {
    fn appended(&self, outcomes: Vec<(usize, Result<(), AppendError>)>) {
        let mut reports = self.0.0.lock().unwrap_or_else(PoisonError::into_inner);
        reports.extend(outcomes.into_iter().map(|(index, outcome)| {
            let how = match outcome {
                Ok(()) => "ok",
                Err(AppendError::Store(StoreError::Unavailable(_))) => "later",
                Err(AppendError::Store(StoreError::Stopped(_))) => "stopped",
                Err(_) => "other",
            };
            (self.1[index], how)
        }));
    }
}

impl Reports {
    fn all(&self) -> Vec<(Seq, &'static str)> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn conversation(n: u8) -> ConversationId {
    let mut id = [n; 16];
    id[0] = 1;
    ConversationId::parse(&id).unwrap_or_else(|_| panic!("an id"))
}

fn append(to: u8, seq: Seq) -> Append {
    let record = || {
        Some(Record {
            seq,
            sender: UserId::parse("alice").ok()?,
            device: DeviceId::parse("phone").ok()?,
            client_msg_id: ClientMsgId::parse("m").ok()?,
            time_ms: 0,
            content_type: String::new(),
            payload: bytes::Bytes::new(),
        })
    };
    Append { conversation: conversation(to), first: seq, records: Vec::from_iter(record()) }
}

fn submit(log: &Log<Scripted>, reports: &Arc<Reports>, group: Vec<Append>) {
    let names = group.iter().map(|append| append.first).collect();
    let sink: Arc<dyn AppendSink> = Arc::new(Sink(reports.clone(), names));
    log.submit(group, &sink);
}

/// Lets every task run until it waits.
async fn settle() {
    for _ in 0..50 {
        yield_now().await;
    }
}

fn log(writer: &Arc<Scripted>) -> (Log<Scripted>, Arc<Reports>) {
    (Log::new(writer.clone(), Handle::current(), WAIT), Arc::default())
}

#[tokio::test(start_paused = true)]
async fn one_at_a_time_in_order_of_submission() {
    let writer = Scripted::new(100);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1), append(2, 11), append(1, 2)]);
    submit(&log, &reports, vec![append(1, 3)]);
    settle().await;
    assert_eq!(writer.begun(), [(conversation(1), 1), (conversation(2), 11)]);
    writer.finish(4).await;
    let first: Vec<_> = writer.begun().into_iter().filter(|it| it.0 == conversation(1)).collect();
    assert_eq!(first, [1, 2, 3].map(|seq| (conversation(1), seq)));
    assert_eq!(reports.all().len(), 4);
    assert!(reports.all().iter().all(|(_, how)| *how == "ok"));
    // Nothing is left of a conversation that is done, and it can begin again.
    assert!(log.shared.state().waiting.is_empty());
    submit(&log, &reports, vec![append(1, 4)]);
    writer.finish(1).await;
    assert_eq!(reports.all().last(), Some(&(4, "ok")));
}

#[tokio::test(start_paused = true)]
async fn who_waits_too_long_behind_another_comes_again() {
    let writer = Scripted::new(100);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1), append(1, 2)]);
    tokio::time::sleep(WAIT / 2).await;
    submit(&log, &reports, vec![append(1, 3)]);
    tokio::time::sleep(WAIT / 2 + Duration::from_millis(1)).await;
    assert_eq!(reports.all(), [(2, "later")]);
    // The one before it is never given up, and the one behind it is never ahead of it.
    writer.finish(1).await;
    assert_eq!(reports.all(), [(2, "later"), (1, "ok")]);
    assert_eq!(writer.begun(), [(conversation(1), 1), (conversation(1), 3)]);
    writer.finish(1).await;
    assert_eq!(reports.all().last(), Some(&(3, "ok")));
    assert_eq!(writer.refused.load(SeqCst), 1);
}

#[tokio::test(start_paused = true)]
async fn who_comes_while_nobody_waits_is_refused_in_time_too() {
    let writer = Scripted::new(100);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1)]);
    for n in 2..6 {
        tokio::time::sleep(WAIT * 3 / 2).await;
        submit(&log, &reports, vec![append(1, n)]);
        tokio::time::sleep(WAIT + Duration::from_millis(1)).await;
        assert_eq!(reports.all().last(), Some(&(n, "later")));
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_place_appends_come_again_and_others_go_on() {
    let writer = Scripted::new(1);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1), append(2, 11), append(3, 21)]);
    tokio::time::sleep(WAIT + Duration::from_millis(1)).await;
    assert_eq!(reports.all(), [(11, "later"), (21, "later")]);
    writer.finish(1).await;
    submit(&log, &reports, vec![append(2, 11)]);
    writer.finish(1).await;
    assert_eq!(reports.all()[2..], [(1, "ok"), (11, "ok")]);
}

#[tokio::test(start_paused = true)]
async fn closing_finishes_what_was_submitted() {
    let writer = Scripted::new(100);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1), append(1, 2), append(2, 11)]);
    log.close();
    submit(&log, &reports, vec![append(3, 21)]);
    assert_eq!(reports.all(), [(21, "stopped")]);
    let waits = tokio::time::timeout(WAIT / 2, log.idle()).await;
    assert!(waits.is_err(), "closed with appends under way");
    writer.finish(3).await;
    assert_eq!(reports.all().len(), 4, "outcomes do not wait for what appends leave");
    log.idle().await;
    assert_eq!(reports.all().len(), 4);
    assert!(reports.all()[1..].iter().all(|(_, how)| *how == "ok"));
    assert_eq!(writer.tidied.load(SeqCst), 3, "what appends leave is done before it is closed");
}

#[tokio::test(start_paused = true)]
async fn a_dropped_store_ends_its_tasks_and_tells_everybody() {
    let writer = Scripted::new(100);
    let (log, reports) = log(&writer);
    submit(&log, &reports, vec![append(1, 1), append(1, 2), append(2, 11)]);
    settle().await;
    drop(log);
    settle().await;
    let mut all = reports.all();
    all.sort_unstable();
    assert_eq!(all, [(1, "stopped"), (2, "stopped"), (11, "stopped")]);
    // No task holds it any more.
    assert_eq!(Arc::strong_count(&writer), 1);
}

#[test]
fn a_runtime_that_ends_leaves_no_append_without_an_outcome() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
    let Ok(runtime) = runtime else { panic!("no runtime") };
    let writer = Scripted::new(100);
    let reports = Arc::<Reports>::default();
    let log = Log::new(writer, runtime.handle().clone(), WAIT);
    submit(&log, &reports, vec![append(1, 1), append(1, 2)]);
    runtime.block_on(settle());
    drop(runtime);
    assert_eq!(reports.all().len(), 2);
    submit(&log, &reports, vec![append(1, 3)]);
    assert_eq!(reports.all().last(), Some(&(3, "stopped")));
}
