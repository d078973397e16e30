//! Cursors: written behind, never lost, never past the head.

use super::*;

/// A lane with one loaded conversation of alice and bob, in which bob has read up to 3.
pub(super) fn read_up_to_three() -> Lane {
    let mut lane = World::lane();
    let mut effects = Vec::new();
    let cursor = Command::Cursor(origin(1), CursorKind::Read, 3);
    lane.handle_command(conversation(), cursor, 0, &mut effects);
    lane.handle_loaded(conversation(), Ok(Some(up_to_five())), 0, &mut effects);
    assert!(matches!(effects[..], [Effect::Load(_), Effect::Receipt(_)]), "{effects:?}");
    lane
}

pub(super) fn up_to_five() -> Loaded {
    Loaded {
        members: vec![user(0), user(1)],
        extent: Extent { first: 1, head: 5 },
        tail: Vec::new(),
        cursors: vec![CursorPair::default(); 2],
    }
}

#[test]
fn a_cursor_that_was_not_written_is_written_again() {
    let mut lane = read_up_to_three();
    let updates = lane.take_cursor_updates();
    assert_eq!(updates.len(), 1);
    assert!(lane.take_cursor_updates().is_empty(), "it is on its way");
    lane.handle_cursor_written(&updates[0], false);
    assert_eq!(lane.take_cursor_updates(), updates);
    lane.handle_cursor_written(&updates[0], true);
    assert!(lane.take_cursor_updates().is_empty());
}

#[test]
fn a_cursor_on_its_way_to_the_store_keeps_its_conversation_in_memory() {
    let mut lane = read_up_to_three();
    let updates = lane.take_cursor_updates();
    lane.config.max_conversations = 0;
    let Some(Slot::Ready(state)) = lane.slots.get_mut(&conversation()) else { panic!() };
    assert!(!state.may_be_forgotten(false) && !state.may_be_forgotten(false));
    lane.handle_cursor_written(&updates[0], true);
    lane.evict();
    assert!(lane.peek(conversation()).is_none());
    // The store takes no cursors: there is a bound all the same.
    let mut lane = read_up_to_three();
    lane.config.max_conversations = 0;
    lane.evict();
    assert!(lane.peek(conversation()).is_some());
    lane.config.max_unwritten = 0;
    lane.evict();
    assert!(lane.peek(conversation()).is_none());
}

#[test]
fn a_cursor_that_was_written_meanwhile_does_not_go_back() {
    let mut lane = read_up_to_three();
    let updates = lane.take_cursor_updates();
    lane.forget(conversation());
    let mut effects = Vec::new();
    let head = Command::TellIfPast(origin(1), 0);
    lane.handle_command(conversation(), head, 0, &mut effects);
    // Read before the cursor was written.
    lane.handle_loaded(conversation(), Ok(Some(up_to_five())), 0, &mut effects);
    lane.handle_cursor_written(&updates[0], true);
    let cursors = lane.peek(conversation()).unwrap().cursors;
    assert!(cursors.contains(&updates[0].to), "{cursors:?}");
}

#[test]
fn a_cursor_that_finds_no_place_is_taken_up_when_there_is_one() {
    let mut lane = World::lane();
    lane.config.max_loading = 2;
    let others = ConversationId::one_to_one(&user(0), &UserId::parse("carol").unwrap());
    let mut effects = Vec::new();
    for id in [conversation(), others] {
        let cursor = Command::Cursor(origin(0), CursorKind::Read, 2);
        lane.handle_command(id, cursor, 0, &mut effects);
    }
    let [Effect::Load(first)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(first.conversation, conversation(), "half of two places is one");
    effects.clear();
    lane.handle_loaded(conversation(), Ok(Some(up_to_five())), 0, &mut effects);
    let second = |effect: &Effect| matches!(effect, Effect::Load(l) if l.conversation == others);
    assert!(effects.iter().any(second), "{effects:?}");
    lane.handle_loaded(others, Ok(None), 0, &mut effects);
    assert_eq!(lane.waiting_bytes(), 0);
}

/// The lane's answer to a look at a log that another gateway has written to.
fn looked(lane: &mut Lane, head: Seq) -> Vec<Effect> {
    let mut effects = Vec::new();
    lane.handle_looked(conversation(), Ok(Extent { first: 1, head }), &mut effects);
    effects
}

#[test]
fn a_cursor_beyond_the_head_is_taken_once_the_store_knows_of_it() {
    let mut lane = read_up_to_three();
    let cursor = |lane: &mut Lane, device_no, seq| {
        let mut effects = Vec::new();
        let cursor = Command::Cursor(origin(device_no), CursorKind::Delivered, seq);
        lane.handle_command(conversation(), cursor, 0, &mut effects);
        effects
    };
    // This lane knows of 5; another gateway has written up to 9, and up to 12 meanwhile.
    assert!(matches!(cursor(&mut lane, 0, 9)[..], [Effect::Look(_)]));
    assert!(cursor(&mut lane, 0, 8).is_empty(), "one look at a time");
    assert!(cursor(&mut lane, 1, 12).is_empty());
    let effects = looked(&mut lane, 9);
    let [Effect::Grown(mark, _), Effect::Receipt(receipt), Effect::Look(_)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((mark.seq, receipt.seq), (9, 9));
    let effects = looked(&mut lane, 12);
    let [Effect::Grown(..), Effect::Receipt(receipt)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(receipt.seq, 12);
    // What is not true is cut off.
    assert!(matches!(cursor(&mut lane, 0, Seq::MAX)[..], [Effect::Look(_)]));
    let effects = looked(&mut lane, 12);
    let [Effect::Receipt(receipt)] = &effects[..] else { panic!("{effects:?}") };
    assert_eq!(receipt.seq, 12);
    let delivered: Vec<Seq> =
        lane.take_cursor_updates().iter().map(|update| update.to.delivered).collect();
    assert_eq!(delivered, [12, 12]);
}

#[test]
fn cursors_outlive_a_conflict() {
    let mut lane = read_up_to_three();
    let mut effects = Vec::new();
    let (_, command) = super::bounds::large(0, "bob", None);
    lane.handle_command(conversation(), command, 0, &mut effects);
    let cursor = Command::Cursor(origin(0), CursorKind::Delivered, 7);
    lane.handle_command(conversation(), cursor, 0, &mut effects);
    assert!(matches!(effects[..], [Effect::Append(_), Effect::Look(_)]), "{effects:?}");
    effects.clear();
    let conflict = Err(AppendError::Conflict { head: 8 });
    lane.handle_appended(conversation(), conflict, &mut effects);
    assert!(matches!(effects[..], [Effect::Load(_)]), "{effects:?}");
    assert!(looked(&mut lane, 8).is_empty());
    let updates = lane.take_cursor_updates();
    let [update] = &updates[..] else { panic!("{updates:?}") };
    assert_eq!((&update.user, update.to.read), (&user(1), 3));
    lane.handle_cursor_written(update, false);
    let extent = Extent { first: 1, head: 8 };
    let loaded = Ok(Some(Loaded { extent, ..up_to_five() }));
    effects.clear();
    lane.handle_loaded(conversation(), loaded, 0, &mut effects);
    let [Effect::Grown(mark, _), Effect::Scan(_), Effect::Receipt(receipt)] = &effects[..] else {
        panic!("{effects:?}");
    };
    assert_eq!((mark.seq, &receipt.user, receipt.seq), (8, &user(0), 7));
    let updates = lane.take_cursor_updates();
    assert!(updates.iter().any(|update| update.to.read == 3), "{updates:?}");
    assert!(updates.iter().any(|update| update.to.delivered == 7), "{updates:?}");
}
