//! Whether tests that need a CQL server run.
//!
//! They run when [`VARIABLE`] says which server to use, or that they are to start their own, as
//! `cargo xtask cql test` sets it. Otherwise they are to be listed as ignored, and one line on
//! standard error says so. libtest swallows what passing tests say, so such tests have
//! `harness = false` and are run by `libtest-mimic`:
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
    match value().filter(|value| value != OWN).as_deref().map(points) {
        Some(Ok(points)) => Some(points),
        Some(Err(error)) => panic!("{VARIABLE}: {error}"),
        None => {
            tell(tests, "it needs a CQL server");
            None
        }
    }
}

/// Whether the tests called `tests` are to start servers of their own. If not, a line has said so.
#[must_use]
pub fn may_start(tests: &str) -> bool {
    let may = value().is_some_and(|value| value == OWN);
    if !may {
        tell(tests, "it starts CQL servers of its own");
    }
    may
}

fn value() -> Option<String> {
    env::var(VARIABLE).ok().filter(|value| !value.is_empty())
}

fn tell(tests: &str, why: &str) {
    eprintln!("{tests}: not run, {why}. To run it: cargo xtask cql test --suite {tests}");
}

fn points(value: &str) -> Result<Vec<SocketAddr>, String> {
    let mut points = Vec::new();
    for point in value.split(',').map(str::trim) {
        let found = point.to_socket_addrs();
        points.extend(found.map_err(|error| format!("{point:?} is no HOST:PORT: {error}"))?);
    }
    Ok(points)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_point_or_several() {
        let first = SocketAddr::from(([127, 0, 0, 1], 9042));
        let second = SocketAddr::from(([127, 0, 0, 2], 9043));
        assert_eq!(points("127.0.0.1:9042"), Ok(vec![first]));
        assert_eq!(points("127.0.0.1:9042, 127.0.0.2:9043"), Ok(vec![first, second]));
        for wrong in ["own", "", "127.0.0.1", "127.0.0.1:9042,"] {
            assert!(points(wrong).is_err(), "{wrong:?}");
        }
    }
}
