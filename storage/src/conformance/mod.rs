//! The suite that every backend passes, written against the traits alone.
//!
//! A backend brings a [`Factory`] and calls [`conformance_tests!`](crate::conformance_tests) in a
//! test file; each behaviour becomes a test of its own:
//!
//! ```text
//! skein_storage::conformance_tests!(MyFactory);
//! ```
//! or it awaits [`run_all`]. A behaviour panics when it is not met, and its message says which
//! promise was broken.

mod cursors;
mod index;
mod life;
mod log;
mod model;
mod pages;
mod support;
mod threads;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use cursors::*;
pub use index::*;
pub use life::*;
pub use log::*;
pub use model::*;
pub use pages::*;
pub use support::run;
pub use threads::*;

use crate::Store;

/// Makes stores of one backend.
pub trait Factory: Send + Sync {
    /// A store with nothing in it, apart from all others.
    fn create(&self) -> BoxFuture<'_, Box<dyn Instance>>;
}

/// One store and what is needed to open it again.
pub trait Instance: Send {
    /// The store as it is open now. The suite drops all of these before it calls `reopen`.
    fn store(&self) -> Arc<dyn Store>;

    /// Ends the store and opens it again.
    fn reopen(&mut self, how: Reopen) -> BoxFuture<'_, ()>;
}

/// How a store ends before it is opened again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reopen {
    /// By [`Store::close`].
    Closed,
    /// As by `kill -9`: nothing is said or flushed. Nothing is under way when it happens.
    Killed,
}

/// Hands the names of all behaviours to a macro. The one list of them.
#[doc(hidden)]
#[macro_export]
macro_rules! __behaviours {
    ($then:ident, $($args:tt)*) => {
        $crate::$then! {
            $($args)*;
            a_new_log_is_empty
            appends_count_from_one
            another_number_is_a_conflict
            an_append_is_written_whole_or_not_at_all
            each_append_of_a_group_has_its_own_outcome
            appends_take_effect_in_order_of_submission
            an_empty_group_is_harmless
            records_come_back_as_they_were
            large_payloads_come_back
            logs_do_not_mix
            many_conversations
            pages_forward
            pages_backward
            pages_stop_at_bytes
            a_page_holds_at_least_one_record
            numbers_outside_are_passed_over
            what_is_shown_is_what_is_there
            acknowledged_messages_survive
            numbering_goes_on_after_reopening
            the_epoch_stays
            a_closed_store_refuses
            closing_finishes_what_was_submitted
            cursors_start_at_zero
            cursors_only_rise
            cursors_of_others_are_apart
            cursors_survive_closing
            conversations_are_listed
            conversations_are_paged
            beginning_again_changes_nothing
            members_of_similar_names_are_apart
            beginnings_survive
            one_append_wins_each_number
            threads_with_conversations_of_their_own
            cursors_rise_under_concurrency
            begin_under_concurrency
            what_is_read_was_never_half_written
            random_operations_match_the_model
        }
    };
}

/// A test for each behaviour, with stores from a [`Factory`] (an expression).
#[macro_export]
macro_rules! conformance_tests {
    ($factory:expr) => {
        $crate::__behaviours!(__conformance_tests, $factory);
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_tests {
    ($factory:expr; $($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                $crate::conformance::run(async {
                    $crate::conformance::$name(&$factory).await;
                });
            }
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_all {
    ($factory:expr; $($name:ident)*) => {
        $(
            println!("conformance: {}", stringify!($name));
            $name($factory).await;
        )*
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __conformance_names {
    (; $($name:ident)*) => {
        vec![$((stringify!($name), |factory: &dyn Factory| run($name(factory)))),*]
    };
}

/// A behaviour's name, and the function that checks it on a runtime of its own and panics when it
/// is not met.
pub type Behaviour = (&'static str, fn(&dyn Factory));

/// All behaviours, for backends whose tests have a runner of their own.
pub fn behaviours() -> Vec<Behaviour> {
    crate::__behaviours!(__conformance_names,)
}

/// Checks all behaviours one after the other, on a multi-threaded tokio runtime with time enabled.
///
/// # Panics
/// When one is not met.
pub async fn run_all(factory: &dyn Factory) {
    crate::__behaviours!(__conformance_all, factory);
}
