//! The SDK over real connections, with a small gateway in the same process.

#![allow(clippy::unwrap_used)]

mod gateway;

use std::path::Path;
use std::time::Duration;

use gateway::{TOKEN, World, conversation};
use skein_client::{
    AckError, Builder, Client, ClientMsgId, Event, Events, SendError, Seq, Start, User,
};

/// Far above what any step takes; a test that waits this long has failed.
const PATIENCE: Duration = Duration::from_secs(60);

fn builder(world: &World, port: u16) -> Builder {
    Client::builder()
        .server(format!("127.0.0.1:{port}"))
        .server_name("localhost")
        .ca_pem(world.ca.clone())
        .token(TOKEN)
        .reconnect(Duration::from_millis(20), Duration::from_millis(200))
        .rules(|rules| rules.start = Start::Beginning)
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it takes too long")
}

/// Events up to the first that is wanted.
async fn until<T>(events: &mut Events, wanted: impl Fn(&Event) -> Option<T>) -> T {
    within(async {
        loop {
            let event = events.next().await.expect("the client has ended");
            if let Some(found) = wanted(&event) {
                return found;
            }
        }
    })
    .await
}

fn connected(event: &Event) -> Option<()> {
    matches!(event, Event::Connected { .. }).then_some(())
}

fn message(event: &Event) -> Option<(Seq, String)> {
    match event {
        Event::Message { message, .. } => Some((message.seq, message.text()?.to_owned())),
        _ => None,
    }
}

async fn texts(events: &mut Events, count: usize) -> Vec<(Seq, String)> {
    let mut texts = Vec::new();
    for _ in 0..count {
        texts.push(until(events, message).await);
    }
    texts
}

fn expected(range: std::ops::RangeInclusive<Seq>) -> Vec<(Seq, String)> {
    range.map(|seq| (seq, format!("text {seq}"))).collect()
}

#[tokio::test]
async fn a_message_is_acknowledged_and_shown_in_its_place() {
    let world = World::new();
    let gateway = world.serve(0).await;
    gateway.bob_says("text 1");
    let (client, mut events) = builder(&world, gateway.address.port()).connect().await.unwrap();
    let sent = client.send(User("bob"), "text 2").await.unwrap();
    let ack = within(sent.acked()).await.unwrap();
    assert_eq!((ack.conversation, ack.seq), (conversation(), 2));
    gateway.bob_says("text 3");
    assert_eq!(texts(&mut events, 3).await, expected(1..=3));
    events.done();
    let history = within(client.history(User("bob"), 2, 0)).await.unwrap();
    assert_eq!((history.messages.len(), history.is_end, history.head), (2, true, 3));
    let latest = within(client.latest(User("bob"), 2)).await.unwrap();
    let seqs: Vec<Seq> = latest.messages.iter().map(|message| message.seq).collect();
    assert_eq!(seqs, [3, 2]);
    within(client.close()).await;
    assert_eq!(*world.delivered.lock().unwrap(), 3, "reported before it left");
}

#[tokio::test]
async fn a_gateway_that_comes_back_gets_what_was_not_answered_once() {
    let world = World::new();
    let gateway = world.serve(0).await;
    let port = gateway.address.port();
    let (client, mut events) = builder(&world, port).connect().await.unwrap();
    until(&mut events, connected).await;
    *world.mute.lock().unwrap() = true;
    let mut handles = Vec::new();
    for n in 1..=5 {
        handles.push(client.send(User("bob"), format!("text {n}")).await.unwrap());
    }
    // The first is in the log, its answer never came.
    within(async {
        while world.log.lock().unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    gateway.stop(123).await;
    until(&mut events, |e| matches!(e, Event::Disconnected { .. }).then_some(())).await;
    *world.mute.lock().unwrap() = false;
    let gateway = world.serve(port).await;
    until(&mut events, |e| matches!(e, Event::Reconnected { .. }).then_some(())).await;
    for (n, handle) in handles.into_iter().enumerate() {
        assert_eq!(within(handle.acked()).await.unwrap().seq, n as Seq + 1);
    }
    gateway.bob_says("text 6");
    assert_eq!(texts(&mut events, 6).await, expected(1..=6));
    assert_eq!(world.log.lock().unwrap().len(), 6);
    within(client.close()).await;
}

#[tokio::test]
async fn what_an_application_left_behind_the_next_one_sends_and_nothing_is_shown_twice() {
    let world = World::new();
    let dir = tempfile::tempdir().unwrap();
    let gateway = world.serve(0).await;
    let port = gateway.address.port();
    gateway.bob_says("text 1");
    let open = |dir: &Path| builder(&world, port).data_dir(dir).unwrap();
    let (client, mut events) = open(dir.path()).connect().await.unwrap();
    assert_eq!(texts(&mut events, 1).await, expected(1..=1));
    events.done();
    *world.mute.lock().unwrap() = true;
    let sent = client.send(User("bob"), "text 2").await.unwrap();
    within(async {
        while world.log.lock().unwrap().len() < 2 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    within(client.close()).await;
    assert_eq!(within(sent.acked()).await, Err(AckError::Closed));
    drop(events);

    *world.mute.lock().unwrap() = false;
    let (client, mut events) = open(dir.path()).connect().await.unwrap();
    assert_eq!(texts(&mut events, 1).await, expected(2..=2), "1 was dealt with");
    within(client.flush()).await;
    assert_eq!(world.log.lock().unwrap().len(), 2, "stored once");
    let held = skein_client::FileOutbox::open(dir.path());
    assert!(held.is_err(), "one process at a time");
    within(client.close()).await;
}

#[tokio::test]
async fn a_bad_token_and_a_replaced_device_do_not_come_back_by_themselves() {
    let world = World::new();
    let gateway = world.serve(0).await;
    let port = gateway.address.port();
    let (client, mut events) = builder(&world, port).token("bad").connect().await.unwrap();
    let (code, retry) = until(&mut events, ended).await;
    assert_eq!((code, retry), (Some(110), None));
    within(client.close()).await;

    let (client, mut events) = builder(&world, port).connect().await.unwrap();
    until(&mut events, connected).await;
    gateway.stop(120).await;
    let (code, retry) = until(&mut events, ended).await;
    assert_eq!((code, retry), (Some(120), None));
    let gateway = world.serve(port).await;
    client.reconnect().await;
    until(&mut events, |e| matches!(e, Event::Reconnected { .. }).then_some(())).await;
    within(client.close()).await;
    drop(gateway);
}

fn ended(event: &Event) -> Option<(Option<u64>, Option<Duration>)> {
    match event {
        Event::Disconnected { code, retry_in, .. } => Some((*code, *retry_in)),
        _ => None,
    }
}

#[tokio::test]
async fn the_same_id_twice_is_one_message_and_both_hear_of_it() {
    let world = World::new();
    let gateway = world.serve(0).await;
    let (client, events) = builder(&world, gateway.address.port()).connect().await.unwrap();
    // Nobody listens: events are discarded, and everything goes on.
    drop(events);
    let id = ClientMsgId::parse("mine").unwrap();
    let first = client.send_as(id.clone(), User("bob"), "text 1").await.unwrap();
    let second = client.send_as(id, User("bob"), "text 1").await.unwrap();
    let (first, second) = within(async { (first.acked().await, second.acked().await) }).await;
    assert_eq!((first.unwrap().seq, second.unwrap().seq), (1, 1));
    let wrong = client.send(User("a\nb"), "text").await;
    assert!(matches!(wrong, Err(SendError::Name(_))));
    within(client.close()).await;
}

#[tokio::test]
async fn an_application_that_reads_late_still_gets_everything_in_order() {
    let world = World::new();
    let gateway = world.serve(0).await;
    let (client, mut events) = builder(&world, gateway.address.port())
        .rules(|rules| rules.max_event_bytes = 20_000)
        .connect()
        .await
        .unwrap();
    for n in 1..=600 {
        gateway.bob_says(&format!("text {n}"));
    }
    assert_eq!(texts(&mut events, 600).await, expected(1..=600));
    within(client.network_changed()).await;
    gateway.bob_says("text 601");
    assert_eq!(texts(&mut events, 1).await, expected(601..=601));
    within(client.close()).await;
}
