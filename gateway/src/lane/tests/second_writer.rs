//! What another gateway may have written meanwhile, and what retention has removed.

use super::*;

/// A first attempt of alice's to bob, whose device knew this head.
fn first_attempt(after_seq: Option<Seq>) -> Command {
    let send = Send {
        target: Target::User(user(1)),
        client_msg_id: ClientMsgId::parse("first").unwrap(),
        content_type: String::new(),
        payload: Bytes::from_static(b"x"),
        after_seq,
    };
    Command::Send(origin(0), send)
}

#[test]
fn a_first_attempt_is_looked_for_from_the_head_its_client_knew() {
    // The log ends at 5 when it is loaded, and nothing of it is in the window.
    let cases = [(Some(2), Some(3)), (Some(5), None), (None, None)];
    for ((known, from), waits) in cases.into_iter().flat_map(|case| [(case, true), (case, false)]) {
        let (mut lane, mut effects) = (World::lane(), Vec::new());
        if waits {
            // It came first, and its client may have said it again elsewhere since.
            lane.handle_command(conversation(), first_attempt(known), 0, &mut effects);
            effects.clear();
            lane.handle_loaded(conversation(), Ok(Some(cursors::up_to_five())), 0, &mut effects);
        } else {
            // It lay somewhere for so long that the conversation is in memory by now.
            lane = cursors::read_up_to_three();
            lane.handle_command(conversation(), first_attempt(known), 0, &mut effects);
        }
        match (&effects[..], from) {
            ([Effect::Scan(scan)], Some(from)) => assert_eq!((scan.from, scan.to), (from, 5)),
            ([Effect::Append(append)], None) => assert_eq!(append.first, 6),
            _ => panic!("{known:?}: {effects:?}"),
        }
    }
}

#[test]
fn what_waits_behind_a_scan_is_looked_for_too_when_somebody_else_has_written() {
    let mut lane = cursors::read_up_to_three();
    let mut effects = Vec::new();
    // Bob's message is on its way when alice's device repeats one, and says another behind it.
    let bob = Command::Send(origin(1), sent_by_bob());
    lane.handle_command(conversation(), bob, 0, &mut effects);
    let (_, repeat) = bounds::large(0, user(1).as_str(), Some(0));
    lane.handle_command(conversation(), repeat, 0, &mut effects);
    lane.handle_command(conversation(), first_attempt(None), 0, &mut effects);
    assert!(matches!(effects[..], [Effect::Append(_), Effect::Scan(_)]), "{effects:?}");
    effects.clear();
    let conflict = Err(AppendError::Conflict { head: 9 });
    lane.handle_appended(conversation(), conflict, &mut effects);
    let loaded = Loaded { extent: Extent { first: 1, head: 9 }, ..cursors::up_to_five() };
    lane.handle_loaded(conversation(), Ok(Some(loaded)), 0, &mut effects);
    let scans: Vec<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Scan(scan) => Some((scan.sender.clone(), scan.from)),
            _ => None,
        })
        .collect();
    // Bob's from the head that was durable, alice's from what her device said; hers that waited
    // comes behind it.
    let sender = |n: usize| (origin(n).user, origin(n).device);
    assert_eq!(scans, [(sender(1), 6), (sender(0), 1)]);
    effects.clear();
    let scan = Scan {
        conversation: conversation(),
        from: 1,
        to: 9,
        sender: sender(0),
        keys: vec![Key::new(&user(0), &origin(0).device, &ClientMsgId::parse("large").unwrap())],
    };
    lane.handle_scanned(&scan, Ok(Vec::new()), 0, &mut effects);
    let next = effects.iter().find_map(|effect| match effect {
        Effect::Scan(scan) => Some(scan.from),
        _ => None,
    });
    assert_eq!(next, Some(6), "{effects:?}");
}

fn sent_by_bob() -> Send {
    let Command::Send(_, send) = first_attempt(None) else { unreachable!() };
    Send { target: Target::User(user(0)), ..send }
}

#[test]
fn numbers_go_on_behind_what_has_expired() {
    let (mut lane, mut effects) = (World::lane(), Vec::new());
    lane.handle_command(conversation(), first_attempt(Some(0)), 0, &mut effects);
    effects.clear();
    let extent = Extent { first: 6, head: 5 };
    let loaded = Loaded { extent, ..cursors::up_to_five() };
    lane.handle_loaded(conversation(), Ok(Some(loaded)), 0, &mut effects);
    let [Effect::Scan(scan)] = &effects[..] else { panic!("{effects:?}") };
    let scan = scan.clone();
    effects.clear();
    lane.handle_scanned(&scan, Ok(Vec::new()), 0, &mut effects);
    let [Effect::Append(append)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(append.first, 6);
}

/// What the lane tells of a repeat: acknowledgements, and heads for all.
fn told(effects: &[Effect]) -> (usize, Vec<Seq>) {
    let acks = effects.iter().filter(|effect| matches!(effect, Effect::Ack(_))).count();
    let heads = effects.iter().filter_map(|effect| match effect {
        Effect::Grown(mark, members) if members.len() == 2 => Some(mark.seq),
        _ => None,
    });
    (acks, heads.collect())
}

/// Its append has survived the gateway that made it, and its repeat is the first that anybody here
/// hears of it.
#[test]
fn a_message_that_a_repeat_finds_is_told_to_all_of_them_once() {
    let record = |seq| Record {
        seq,
        sender: user(0),
        device: device(0),
        client_msg_id: ClientMsgId::parse(&format!("m{seq}")).unwrap(),
        time_ms: 0,
        content_type: String::new(),
        payload: Bytes::new(),
    };
    let repeat = |seq| {
        let Command::Send(_, send) = first_attempt(Some(0)) else { unreachable!() };
        let id = ClientMsgId::parse(&format!("m{seq}")).unwrap();
        Command::Send(origin(0), Send { client_msg_id: id, ..send })
    };
    // 4 and 5 are in the window, the others are not.
    let tail = vec![Known::of(&record(4)), Known::of(&record(5))];
    let loaded = || Loaded { tail: tail.clone(), ..cursors::up_to_five() };
    let loads = || {
        let (mut lane, mut effects) = (World::lane(), Vec::new());
        let cursor = Command::Cursor(origin(1), CursorKind::Read, 3);
        lane.handle_command(conversation(), cursor, 0, &mut effects);
        lane.handle_loaded(conversation(), Ok(Some(loaded())), 0, &mut effects);
        assert_eq!(told(&effects), (0, vec![]), "nobody has asked");
        lane
    };
    let mut lane = loads();
    let mut effects = Vec::new();
    lane.handle_command(conversation(), repeat(4), 0, &mut effects);
    assert_eq!(told(&effects), (1, vec![5]));
    // Whoever repeats it again and again tells nobody anything.
    for seq in [4, 5, 4] {
        effects.clear();
        lane.handle_command(conversation(), repeat(seq), 0, &mut effects);
        assert_eq!(told(&effects), (1, vec![]));
    }
    let mut lane = loads();
    effects.clear();
    lane.handle_command(conversation(), repeat(2), 0, &mut effects);
    let Some(Effect::Scan(scan)) = effects.pop() else { panic!("{effects:?}") };
    let found = vec![(Key::of(&record(2)), 2, 0)];
    lane.handle_scanned(&scan, Ok(found), 0, &mut effects);
    assert_eq!(told(&effects), (1, vec![5]));
    // A push tells of all that is before it.
    let mut lane = loads();
    effects.clear();
    lane.handle_command(conversation(), first_attempt(Some(5)), 0, &mut effects);
    lane.handle_appended(conversation(), Ok(()), &mut effects);
    effects.clear();
    lane.handle_command(conversation(), repeat(4), 0, &mut effects);
    assert_eq!(told(&effects), (1, vec![]));
}
