//! A store that does not answer: its senders do not wait for it, and it costs no memory.

use super::*;

/// A world with one message in flight that nobody waits for any longer.
fn overdue() -> World {
    let mut world = World::new(false);
    world.step(Step::Send(0));
    world.carry_out(0, true);
    world.step(Step::Send(1));
    assert!(matches!(world.model.open[..], [Effect::Append(_)]));
    world.step(Step::Silence);
    world
}

/// The answers to one send.
fn answers(lane: &mut Lane, device_no: usize, sent: &Sent) -> Vec<Effect> {
    let mut effects = Vec::new();
    let send = Send {
        target: Target::User(user(device_no + 1)),
        client_msg_id: sent.id.clone(),
        content_type: String::new(),
        payload: Bytes::from_static(b"x"),
        after_seq: Some(sent.known_head),
    };
    lane.handle_command(conversation(), Command::Send(origin(device_no), send), 0, &mut effects);
    effects
}

#[test]
fn nothing_new_is_taken_until_the_outcome_is_known() {
    let mut world = overdue();
    let held = world.lane.waiting_bytes();
    assert_eq!(held, MESSAGE_OVERHEAD + 1, "of the one that was submitted");
    for _ in 0..100 {
        let sent = world.model.sent[1][0].clone();
        let effects = answers(&mut world.lane, 1, &sent);
        let [Effect::Refuse(_, refusal)] = &effects[..] else { panic!("{effects:?}") };
        assert_eq!(refusal.code, Code::StoreUnavailable);
        assert_eq!(world.lane.waiting_bytes(), held);
    }
    // It was the store's silence, and everything goes on by itself.
    world.carry_out(0, true);
    assert_eq!(world.model.log.len(), 1);
    world.settle();
    world.check();
}

#[test]
fn a_repeat_of_what_is_in_flight_waits_for_its_outcome() {
    let mut world = overdue();
    let sent = world.model.sent[0][0].clone();
    world.send(0, &sent, true);
    assert_eq!(world.model.unanswered.len(), 1);
    world.step(Step::Silence);
    assert!(world.model.unanswered.is_empty(), "it was refused again");
    world.send(0, &sent, true);
    world.carry_out(0, true);
    assert_eq!(world.model.sent[0][0].acked, Some(1));
    world.settle();
    world.check();
}

#[test]
fn what_nobody_waits_for_is_not_written_again_after_a_conflict() {
    let mut world = overdue();
    let sent = world.model.sent[0][0].clone();
    world.step(Step::Foreign(true));
    let written = world.head();
    world.carry_out(0, true);
    while !world.model.open.is_empty() {
        world.carry_out(0, true);
    }
    assert_eq!(world.head(), written);
    world.send(0, &sent, true);
    world.settle();
    world.check();
}

#[test]
fn cursors_wait_on_for_a_conversation_that_is_slow_to_come() {
    let mut world = World::new(false);
    world.model.members = Some(vec![user(0), user(1)]);
    world.step(Step::Foreign(false));
    world.step(Step::Send(0));
    world.step(Step::Cursor(1, 2));
    world.step(Step::Silence);
    assert_eq!(world.lane.waiting_bytes(), CURSOR_SIZE);
    world.carry_out(0, true);
    assert_eq!(world.model.raised.get(&user(1)), Some(&2));
    assert_eq!(world.lane.waiting_bytes(), 0);
}
