//! Is this machine fit for so many sessions? What a run needs, against what the machine has; the
//! checks and the way they are told are those of `skein-machine`.

mod judge;

pub use judge::{Need, examine};
pub(crate) use skein_machine::memory_group_left;
pub use skein_machine::{Finding, Level, Machine, OpenFiles, is_fit, text};
