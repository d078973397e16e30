//! Syncs and loads: how long they take where every read is a round trip, and what they say of what
//! retention has removed.

use futures_util::FutureExt;
use skein_protocol::Seq;
use skein_protocol::server::{PullRange, Target};
use skein_protocol::wire::server_frame::Kind;
use skein_storage::{ConversationIndex, MessageLog, Page};

use super::*;

/// Every request takes two milliseconds.
struct Distant;

impl Hooks for Distant {
    fn around<'a, T: Send + 'a>(
        &'a self,
        request: BoxFuture<'a, Result<T, StoreError>>,
    ) -> BoxFuture<'a, Result<T, StoreError>> {
        Box::pin(async move {
            tokio::time::sleep(Duration::from_millis(2)).await;
            request.await
        })
    }
}

struct Nobody;

impl AppendSink for Nobody {
    fn appended(&self, _: Vec<(usize, Result<(), AppendError>)>) {}
}

fn with_ben(n: usize) -> ConversationId {
    ConversationId::one_to_one(&user("ann"), &user(&format!("ben{n}")))
}

/// A store with that many conversations of ann, each with so many messages of 100 bytes.
fn filled(conversations: usize, messages: Seq) -> Arc<MemoryStore> {
    let memory = Arc::new(MemoryStore::new());
    for n in 0..conversations {
        let (conversation, members) = (with_ben(n), vec![user("ann"), user(&format!("ben{n}"))]);
        let record = |seq| Record {
            seq,
            sender: members[1].clone(),
            device: skein_protocol::DeviceId::parse("pc").unwrap(),
            client_msg_id: skein_protocol::ClientMsgId::parse(&format!("m{seq}")).unwrap(),
            time_ms: seq,
            content_type: String::new(),
            payload: vec![b'x'; 100].into(),
        };
        let records = (1..=messages).map(record).collect();
        memory.begin(conversation, members.clone()).now_or_never().unwrap().unwrap();
        memory.submit(vec![Append { conversation, first: 1, records }], Arc::new(Nobody));
    }
    memory
}

/// All frames of an answer.
async fn answer(hub: &Hub, request: BulkRequest) -> Vec<Kind> {
    let mut kinds = Vec::new();
    let mut next = Some(Job::new(user("ann"), request));
    while let Some(job) = next {
        let page = job.next_page(hub).await;
        assert!(page.frame.len() <= 65_536 + 8, "it does not fit into the outbox");
        let mut decoder = skein_protocol::frame::Decoder::new();
        decoder.push(page.frame);
        while let Some(frame) = decoder.poll::<wire::ServerFrame>(65_536).unwrap() {
            kinds.push(frame.kind.unwrap());
        }
        next = page.rest;
    }
    kinds
}

#[tokio::test(start_paused = true)]
async fn a_login_does_not_wait_for_one_read_after_the_other() {
    const CONVERSATIONS: usize = 500;
    let store = filled(CONVERSATIONS, 5);
    let hub = hub(Arc::new(Hooked { hooks: Distant, store }), Vec::new());
    let start = tokio::time::Instant::now();
    let heads: Vec<wire::Head> = answer(&hub, BulkRequest::Heads(Vec::new()))
        .await
        .into_iter()
        .flat_map(|kind| match kind {
            Kind::HeadsPage(page) => page.heads,
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(heads.len(), CONVERSATIONS);
    // 500 times four reads, one after the other, would be 4 s.
    assert!(start.elapsed() < Duration::from_millis(200), "{:?}", start.elapsed());

    let start = tokio::time::Instant::now();
    let ranges = heads.iter().map(|head| PullRange {
        target: Target::Conversation(ConversationId::parse(&head.conversation).unwrap()),
        from: 1,
        to: Seq::MAX,
        backward: false,
        limit: u32::MAX,
    });
    let pages = answer(&hub, BulkRequest::Pull(ranges.collect())).await;
    let mut told = Vec::new();
    for kind in pages {
        let Kind::PullPage(page) = kind else { panic!("{kind:?}") };
        assert_eq!((page.is_end, page.messages.len()), (true, 5));
        told.push(page.range);
    }
    assert!(told.iter().copied().eq(0..CONVERSATIONS as u32), "in the order of the request");
    assert!(start.elapsed() < Duration::from_millis(400), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn long_ranges_come_whole_and_in_order() {
    let store = filled(6, 500);
    let hub = hub(Arc::new(Hooked { hooks: Distant, store }), Vec::new());
    let range = |n: usize, from, to, backward| PullRange {
        target: Target::User(user(&format!("ben{n}"))),
        from,
        to,
        backward,
        limit: u32::MAX,
    };
    let ranges = vec![
        range(0, 1, 3, false),
        range(1, 1, Seq::MAX, false),
        range(2, 490, Seq::MAX, false),
        range(3, 1, 400, true),
        range(4, 600, Seq::MAX, false),
        range(5, 1, Seq::MAX, false),
    ];
    let mut told: Vec<Vec<Seq>> = vec![Vec::new(); ranges.len()];
    let mut last = 0;
    for kind in answer(&hub, BulkRequest::Pull(ranges)).await {
        let Kind::PullPage(page) = kind else { panic!("{kind:?}") };
        assert!(page.range == last || page.range == last + 1, "out of order");
        last = page.range;
        told[last as usize].extend(page.messages.iter().map(|message| message.seq));
    }
    let all = |range: std::ops::RangeInclusive<Seq>| range.collect::<Vec<Seq>>();
    let backward = (1..=400).rev().collect();
    let expected = [all(1..=3), all(1..=500), all(490..=500), backward, vec![], all(1..=500)];
    assert_eq!(told, expected);
}

#[tokio::test(start_paused = true)]
async fn a_conversation_is_read_in_two_rounds() {
    let store = filled(1, 5);
    let distant = Hooked { hooks: Distant, store };
    let conversation = with_ben(0);
    let start = tokio::time::Instant::now();
    let load = Load { conversation, begin: None, tail: 3 };
    let loaded = read_conversation(&distant, load).await.unwrap().unwrap();
    assert_eq!((loaded.extent.head, loaded.tail.len(), loaded.cursors.len()), (5, 3, 2));
    assert_eq!(start.elapsed(), Duration::from_millis(4));
}

/// Ann's whole conversation with ben, forward.
async fn whole(hub: &Hub) -> wire::PullPage {
    let range = PullRange {
        target: Target::User(user("ben0")),
        from: 1,
        to: Seq::MAX,
        backward: false,
        limit: u32::MAX,
    };
    let mut pages = answer(hub, BulkRequest::Pull(vec![range])).await;
    let Some(Kind::PullPage(page)) = pages.pop() else { panic!("{pages:?}") };
    assert!(pages.is_empty() && page.is_end);
    page
}

fn numbers(page: &wire::PullPage) -> Vec<Seq> {
    page.messages.iter().map(|message| message.seq).collect()
}

#[tokio::test]
async fn a_sync_says_from_where_on_there_is_something() {
    let store = filled(1, 5);
    let hub = hub(store.clone(), Vec::new());
    for (expired, left) in [(0, vec![1, 2, 3, 4, 5]), (2, vec![3, 4, 5]), (5, vec![])] {
        store.expire(with_ben(0), expired);
        let page = whole(&hub).await;
        assert_eq!((page.first_seq, page.head, numbers(&page)), (expired + 1, 5, left));
        let heads = answer(&hub, BulkRequest::Heads(Vec::new())).await;
        let [Kind::HeadsPage(page)] = &heads[..] else { panic!("{heads:?}") };
        assert_eq!((page.heads[0].first_seq, page.heads[0].seq), (expired + 1, 5));
    }
    // Numbers go on behind what is gone.
    let load = Load { conversation: with_ben(0), begin: None, tail: 3 };
    let loaded = read_conversation(&*store, load).await.unwrap().unwrap();
    assert_eq!((loaded.extent.first, loaded.extent.head, loaded.tail.len()), (6, 5, 0));
}

/// Leaves these numbers out, as if they had expired after the extent was read.
struct Holes(std::ops::RangeInclusive<Seq>);

impl Hooks for Holes {
    fn records(&self, mut records: Vec<Record>, _: Page) -> Vec<Record> {
        records.retain(|record| !self.0.contains(&record.seq));
        records
    }
}

#[tokio::test]
async fn what_is_missing_in_between_is_given_up() {
    for (hole, first, left) in
        [(1..=2, 3, vec![3, 4, 5]), (2..=3, 4, vec![1, 4, 5]), (1..=5, 6, vec![])]
    {
        let holes = Hooked { hooks: Holes(hole), store: filled(1, 5) };
        let hub = hub(Arc::new(holes), Vec::new());
        let page = whole(&hub).await;
        assert_eq!((page.first_seq, numbers(&page)), (first, left));
    }
}

#[tokio::test]
async fn a_tail_begins_behind_the_last_hole_and_ends_at_the_head() {
    let load = || Load { conversation: with_ben(0), begin: None, tail: 9 };
    let holes = |hole| Hooked { hooks: Holes(hole), store: filled(1, 5) };
    for (hole, left) in [(9..=9, 5), (1..=1, 4), (2..=3, 2), (1..=5, 0)] {
        let loaded = read_conversation(&holes(hole), load()).await.unwrap().unwrap();
        assert_eq!(loaded.tail.len(), left);
    }
    let cut = read_conversation(&holes(5..=5), load()).await;
    assert!(matches!(cut, Err(StoreError::Damaged(_))), "{cut:?}");
}
