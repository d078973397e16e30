use std::time::{Duration, Instant};

use serde_json::json;
use skein_protocol::Code;
use skein_protocol::wire::server_frame;
use tempfile::tempdir;

use crate::api::Api;
use crate::support::process::Gateway;
use crate::support::raw::Raw;
use crate::{login, options};

/// 40 sessions are told to go over two seconds: each fifth of the time takes about a fifth of them.
#[tokio::test]
async fn a_drain_sends_sessions_away_one_after_the_other() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options());
    let api = Api::of(&gateway);
    let mut sessions = Vec::new();
    for n in 0..40 {
        sessions.push(login(&gateway, &format!("user-{n}"), "phone").await);
    }
    let wish = json!({ "over": "2s", "reconnect_delay": "10s" });
    let began = Instant::now();
    assert_eq!(api.post("/v1/drain", wish)["draining"], true);
    let told = sessions.into_iter().map(|mut session| {
        tokio::spawn(async move {
            loop {
                if let Ok(server_frame::Kind::GoAway(notice)) = session.next().await {
                    return (began.elapsed(), notice, session);
                }
            }
        })
    });
    let (mut times, mut kept) = (Vec::new(), Vec::new());
    for told in told.collect::<Vec<_>>() {
        let (time, notice, session) = told.await.unwrap();
        assert_eq!(notice.code, Code::GoingAway.number());
        assert!(notice.reconnect_delay_ms < 10_000);
        times.push(time);
        kept.push(session);
    }
    times.sort_unstable();
    for (index, time) in times.iter().enumerate() {
        let share = Duration::from_secs(2) * index as u32 / 40;
        // Late by what a busy machine takes; early by no more than evenness allows.
        assert!(*time + Duration::from_millis(500) > share, "{index} at {time:?}: {times:?}");
    }
    assert!(times[39] > Duration::from_millis(1500), "{times:?}");
    let state = api.get("/v1/drain");
    assert_eq!((&state["told"], &state["sessions"]), (&json!(40), &json!(40)));

    // Nobody comes in, whoever is here is served until it goes, and then it is taken back.
    let mut late = Raw::connect(gateway.address, dir.path()).await;
    late.hello(&gateway.token("late"), "phone").await;
    assert_eq!(late.closed().await, u64::from(Code::GoingAway.number()));
    kept[0].message("user-1", "m1", "still here").await;
    kept[0].ack().await;
    assert_eq!(api.delete("/v1/drain")["draining"], false);
    login(&gateway, "late", "phone").await;
}

#[tokio::test]
async fn a_drain_that_is_taken_back_sends_nobody_else_away() {
    let dir = tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &options().env("SKEIN_LOG", "info"));
    let api = Api::of(&gateway);
    let mut sessions = Vec::new();
    for n in 0..10 {
        sessions.push(login(&gateway, &format!("user-{n}"), "phone").await);
    }
    api.post("/v1/drain", json!({ "over": "1h" }));
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(api.delete("/v1/drain")["draining"], false);
    let told = api.get("/v1/drain")["told"].clone();
    assert_eq!(told, 0, "there is no drain: {told}");
    // All at once, then.
    let state = api.post("/v1/drain", json!({}));
    assert_eq!(state["draining"], true);
    for session in &mut sessions {
        let away = |kind| matches!(kind, server_frame::Kind::GoAway(_)).then_some(());
        session.wait_for(away).await.unwrap();
    }
    for wrong in [json!({ "over": "2h" }), json!({ "over": "1" }), json!({ "ovr": "1s" })] {
        assert_eq!(api.call("POST", "/v1/drain", Some(&wrong)).0, 400, "{wrong}");
    }
    // A stop that was asked for is not taken back.
    gateway.ask_to_stop();
    crate::until("stopping", || gateway.log().contains("draining sessions=")).await;
    assert_eq!(api.delete("/v1/drain")["draining"], true);
    assert_eq!(gateway.log().matches("logins are accepted again").count(), 1);
    assert!(gateway.log().contains("logins are still refused: the gateway is stopping"));
    assert!(sessions.remove(0).closed().await > 0);
}
