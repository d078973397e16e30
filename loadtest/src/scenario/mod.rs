//! What a run is told: a TOML file, over it the flags of the command line.
//!
//! [`Scenario`] is plain data whose every value is inside its range. [`Sources`] collects what was
//! given and from where; [`Sources::read`] gives the scenario or every problem at once, each with
//! its line and the nearest right key. All keys stand in one list ([`keys`](self) module); flags,
//! help texts and printed files come from it.
//!
//! ```text
//! file, flags -> Sources -> Scenario -> resolve: files, names -> expand -> Plan
//! ```
//!
//! ```
//! use skein_loadtest::scenario::{Program, Sources};
//!
//! let text = "program = \"chat\"\nfor = \"10s\"\n[load]\npairs = 64\n";
//! let scenario = Sources::new().text("chat.toml", text).read().unwrap();
//! assert_eq!((scenario.program, scenario.load.pairs), (Program::Chat, 64));
//! ```

mod check;
mod expand;
mod keys;
mod print;
mod program;
mod quantity;
mod resolve;
mod rule;
mod source;
mod table;
mod value;

pub use keys::{
    DEFAULT_PORT, GeneratorKeys, LoadKeys, PhaseKeys, RampKeys, RunKeys, Scenario, TargetKeys,
    UserKeys,
};
pub use program::Program;
pub use resolve::Resolved;
pub use source::{Problem, Problems, Sources};
pub(crate) use table::{Key, all_keys, keys_of};
pub use value::{ArrivalKind, CutKind, HostPort, Weights};

#[cfg(test)]
mod tests;
