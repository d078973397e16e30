//! Whether tests that need a CQL server run.
//!
//! They run when [`VARIABLE`] is set, as `cargo xtask cql test` does. Otherwise they are to be
//! listed as ignored, and one line on standard error says so. libtest swallows what passing tests
//! say, so such tests have `harness = false` and are run by `libtest-mimic`:
//!
//! ```ignore
//! let server = skein_xtask::cql::for_tests("conformance_cql");
//! let trials = vec![
//!     Trial::test("name", move || Ok(())).with_ignored_flag(server.is_none()),
//! ];
//! ```

use std::env;
use std::net::{SocketAddr, ToSocketAddrs};

/// `SKEIN_CQL`: the contact points of a server for tests, `HOST:PORT`, several with commas between;
/// or [`OWN`].
pub const VARIABLE: &str = "SKEIN_CQL";

/// What [`VARIABLE`] says when tests are to start servers of their own.
pub const OWN: &str = "own";

/// The contact points of the server that the tests called `tests` are to use. With none the tests
/// are not to run, and a line has said so.
///
/// # Panics
/// When the variable names no address: tests that were asked for must not be passed over.
#[must_use]
pub fn for_tests(tests: &str) -> Option<Vec<SocketAddr>> {
    let value = asked(tests)?;
    let points: Vec<_> = value
        .split(',')
        .flat_map(|point| match point.trim().to_socket_addrs() {
            Ok(addresses) => addresses,
            Err(error) => panic!("{VARIABLE}={value} has no HOST:PORT in {point:?}: {error}"),
        })
        .collect();
    Some(points)
}

/// Whether the tests called `tests` are to start servers of their own. If not, a line has said so.
#[must_use]
pub fn may_start(tests: &str) -> bool {
    asked(tests).is_some()
}

fn asked(tests: &str) -> Option<String> {
    let value = env::var(VARIABLE).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        eprintln!("{tests}: not run, it needs a CQL server. To run it: cargo xtask cql test");
    }
    value
}
