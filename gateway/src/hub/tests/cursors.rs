//! Cursors on their way to the store.

use skein_storage::{CursorPair, Cursors};

use super::*;

/// Notes how many cursors the store is given at a time, and refuses some of the calls.
#[derive(Default)]
struct Pieces {
    given: Mutex<Vec<usize>>,
    /// The place of the call that fails.
    fails: usize,
}

impl Hooks for Pieces {
    fn takes_cursors(&self, updates: &[CursorUpdate]) -> Result<(), StoreError> {
        let mut given = lock(&self.given);
        given.push(updates.len());
        match given.len() - 1 == self.fails {
            true => Err(StoreError::Unavailable("test".into())),
            false => Ok(()),
        }
    }
}

#[tokio::test]
async fn cursors_are_written_in_pieces_and_a_piece_that_fails_is_written_again() {
    const MORE: usize = 100;
    let memory = Arc::new(MemoryStore::new());
    let hooks = Pieces { fails: 1, ..Pieces::default() };
    let store = Arc::new(Hooked { hooks, store: memory.clone() });
    let lane = LaneConfig { max_unwritten: 3 * CURSOR_PIECE, ..lane() };
    let hub = hub_with(store.clone(), Vec::new(), lane);
    let conversation =
        |n: usize| ConversationId::one_to_one(&user("ann"), &user(&format!("ben{n}")));
    let to = CursorPair { delivered: 3, read: 2 };
    let all = 2 * CURSOR_PIECE + MORE;
    for n in 0..all {
        let update = CursorUpdate { user: user("ann"), conversation: conversation(n), to };
        hub.lane(update.conversation).handle_cursor_written(&update, false);
    }
    let stored = async || {
        let mut stored = 0;
        for n in 0..all {
            let cursors = memory.cursors(user("ann"), conversation(n)).await.unwrap();
            stored += usize::from(cursors == to);
        }
        stored
    };
    let outcome = hub.flush_cursors().await;
    assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
    assert_eq!(*lock(&store.hooks.given), [CURSOR_PIECE, CURSOR_PIECE, MORE]);
    assert_eq!(stored().await, CURSOR_PIECE + MORE);
    // What was written is not written again.
    for _ in 0..2 {
        assert_eq!(hub.flush_cursors().await, Ok(()));
        assert_eq!(*lock(&store.hooks.given), [CURSOR_PIECE, CURSOR_PIECE, MORE, CURSOR_PIECE]);
    }
    assert_eq!(stored().await, all);
}
