//! What waits in a lane is bounded, and makes room.

use super::*;

/// A message of 1,000 bytes to somebody.
pub(super) fn large(device_no: usize, to: &str, retry: Option<Seq>) -> (ConversationId, Command) {
    let peer = UserId::parse(to).unwrap();
    let origin = origin(device_no);
    let conversation = ConversationId::one_to_one(&origin.user, &peer);
    let send = Send {
        target: Target::User(peer),
        client_msg_id: ClientMsgId::parse("large").unwrap(),
        content_type: String::new(),
        payload: Bytes::from_static(&[b'x'; 1_000]),
        after_seq: retry,
    };
    (conversation, Command::Send(origin, send))
}

#[test]
fn bytes_are_bounded_whatever_the_messages_wait_for() {
    let fits = 5;
    let mut lane = World::lane();
    lane.config.max_bytes = fits * (1_000 + MESSAGE_OVERHEAD);
    lane.config.max_loading = 100;
    let mut effects = Vec::new();
    for n in 0..20 {
        // One conversation that is asked for again and again, and others.
        let to = if n % 2 == 0 { "same".to_owned() } else { format!("user{n}") };
        let (conversation, command) = large(0, &to, None);
        lane.handle_command(conversation, command, 0, &mut effects);
        assert!(lane.waiting_bytes() <= lane.config.max_bytes);
    }
    let refused = effects.iter().filter(|effect| matches!(effect, Effect::Refuse(..))).count();
    assert_eq!(refused, 20 - fits);

    // Behind a scan likewise.
    let mut world = World::new(false);
    late_repeat().into_iter().for_each(|step| world.step(step));
    world.lane.config.max_bytes = world.lane.waiting_bytes() + fits * (1_000 + MESSAGE_OVERHEAD);
    for _ in 0..20 {
        world.command(large(0, "bob", None).1);
        assert!(world.lane.waiting_bytes() <= world.lane.config.max_bytes);
    }
    world.settle();
    assert_eq!(world.lane.waiting_bytes(), 0);
}

#[test]
fn strange_cursors_leave_room_for_conversations_that_begin() {
    let mut lane = World::lane();
    let mut effects = Vec::new();
    for n in 0..20 {
        let mut id = [n; 16];
        id[0] = 1;
        let strange = ConversationId::parse(&id).unwrap();
        let cursor = Command::Cursor(origin(0), CursorKind::Read, Seq::MAX);
        lane.handle_command(strange, cursor, 0, &mut effects);
    }
    assert_eq!(effects.len(), lane.config.max_loading / 2);
    effects.clear();
    let (conversation, command) = large(0, "friend", None);
    lane.handle_command(conversation, command, 0, &mut effects);
    assert!(matches!(effects[..], [Effect::Load(_)]), "{effects:?}");
}

#[test]
fn cursors_that_wait_for_a_conversation_are_counted_and_leave_room_for_messages() {
    let mut lane = World::lane();
    lane.config.max_bytes = 8 * (1_000 + MESSAGE_OVERHEAD);
    lane.config.max_waiting = 1_000;
    let mut effects = Vec::new();
    let (conversation, command) = large(0, "friend", None);
    lane.handle_command(conversation, command.clone(), 0, &mut effects);
    for seq in 0..1_000 {
        let cursor = Command::Cursor(origin(0), CursorKind::Read, seq);
        lane.handle_command(conversation, cursor, 0, &mut effects);
    }
    let Some(Slot::Loading { queue, .. }) = lane.slots.get(&conversation) else {
        panic!("not loading")
    };
    assert!(queue.len() * size_of::<Command>() <= lane.config.max_bytes / 2, "{}", queue.len());
    lane.handle_command(conversation, command, 0, &mut effects);
    assert!(matches!(effects[..], [Effect::Load(_)]), "a message was refused: {effects:?}");
    lane.handle_loaded(conversation, Ok(None), 0, &mut effects);
    lane.handle_loaded(conversation, Err(StoreError::Unavailable("".into())), 0, &mut effects);
    assert_eq!(lane.waiting_bytes(), 0);
}

#[test]
fn what_was_loaded_is_not_forgotten_before_its_commands() {
    let mut lane = World::lane();
    let mut effects = Vec::new();
    // Room for one conversation, and each has something in flight.
    for (n, to) in ["one", "two", "three"].into_iter().enumerate() {
        let (conversation, command) = large(0, to, None);
        lane.handle_command(conversation, command, 0, &mut effects);
        let loaded = Loaded {
            members: vec![user(0), UserId::parse(to).unwrap()],
            extent: Extent { first: 1, head: 0 },
            tail: Vec::new(),
            cursors: vec![CursorPair::default(); 2],
        };
        lane.handle_loaded(conversation, Ok(Some(loaded)), 0, &mut effects);
        let count = |wanted: fn(&Effect) -> bool| effects.iter().filter(|e| wanted(e)).count();
        assert_eq!(count(|e| matches!(e, Effect::Load(_))), n + 1, "loaded again");
        assert_eq!(count(|e| matches!(e, Effect::Append(_))), n + 1);
    }
}
