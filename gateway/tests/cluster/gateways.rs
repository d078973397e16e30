//! The gateways of a run: one or two processes on the same keyspace, each of which believes that
//! every conversation is its own.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rand::RngExt;
use rand::rngs::StdRng;

use crate::support::process::{Gateway, LOG, Options};

/// What all gateways of an installation have in common, beside the store: the certificate, the key
/// of tokens, and the keys of the transport, so that one can tell the clients of another that
/// their connection is gone.
const SHARED: [&str; 6] = [
    "dev/ca.pem",
    "dev/cert.pem",
    "dev/key.pem",
    "dev/token-key.pem",
    "dev/token-key.pub.pem",
    "transport.keys",
];

/// Longest time until a gateway serves when the cluster does.
const START: Duration = Duration::from_secs(60);

/// Between two tries to start one.
const AGAIN: Duration = Duration::from_millis(500);

/// One or two gateways, or the time between two of them.
pub struct Gateways {
    options: Options,
    places: Vec<Place>,
    pub kills: u32,
}

/// What stores went through, added up over gateways and their lives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Trouble {
    /// Attempts of appends whose outcome was not known.
    pub unknown_outcomes: u64,
    /// Appends of once unknown outcome whose rows turned out to be there.
    pub found_appended: u64,
    /// Appends refused because the head was another.
    pub conflicts: u64,
}

struct Place {
    data: PathBuf,
    gateway: Option<Gateway>,
}

impl Gateways {
    pub fn start(folder: &Path, count: usize, options: Options, rng: &mut StdRng) -> Self {
        let place = |at: usize| {
            let data = folder.join(format!("gateway-{at}"));
            Place { data, gateway: None }
        };
        let places = (0..count).map(place).collect();
        let mut gateways = Self { options, places, kills: 0 };
        for at in 0..count {
            if at > 0 {
                share(&gateways.places[0].data, &gateways.places[at].data);
            }
            gateways.restart(at, rng);
        }
        gateways
    }

    /// The folder with certificate and keys.
    pub fn data(&self) -> &Path {
        &self.places[0].data
    }

    pub fn len(&self) -> usize {
        self.places.len()
    }

    pub fn get(&self, at: usize) -> Option<&Gateway> {
        self.places[at].gateway.as_ref()
    }

    pub fn address(&self, at: usize) -> Option<SocketAddr> {
        self.get(at).map(|gateway| gateway.address)
    }

    /// Those that run.
    pub fn alive(&self) -> Vec<usize> {
        (0..self.len()).filter(|&at| self.places[at].gateway.is_some()).collect()
    }

    /// It is no longer one of those that run; whoever takes it lets it end.
    pub fn take(&mut self, at: usize) -> Option<Gateway> {
        self.places[at].gateway.take()
    }

    /// SIGKILL.
    pub fn kill(&mut self, at: usize) {
        if let Some(gateway) = self.places[at].gateway.take() {
            gateway.kill();
            self.kills += 1;
        }
    }

    /// Starts it again, as whoever watches over services does: until it serves. The window in
    /// which repeats are known without reading changes from start to start.
    pub fn restart(&mut self, at: usize, rng: &mut StdRng) {
        let window = [0, 4, 64, 256][rng.random_range(0..4)];
        let options = self.options.clone().env("SKEIN_DEDUP_WINDOW", window);
        let place = &mut self.places[at];
        let until = Instant::now() + START;
        place.gateway = loop {
            if let Some(gateway) = Gateway::try_start(&place.data, &options) {
                break Some(gateway);
            }
            assert!(Instant::now() < until, "a gateway does not start although the cluster serves");
            std::thread::sleep(AGAIN);
        };
    }

    /// What their stores went through, by their logs.
    pub fn trouble(&self) -> Trouble {
        let mut trouble = Trouble::default();
        for place in &self.places {
            let log = std::fs::read_to_string(place.data.join(LOG)).unwrap_or_default();
            let count = |what: &str| log.matches(what).count() as u64;
            trouble.unknown_outcomes += count("an attempt to append has no known outcome");
            trouble.found_appended += count("an append of once unknown outcome was made");
            trouble.conflicts += count("an append met another head");
        }
        trouble
    }

    /// The most memory that each has ever had, in bytes.
    pub fn peaks(&self) -> Vec<u64> {
        let gateways = self.places.iter().filter_map(|place| place.gateway.as_ref());
        gateways.filter_map(Gateway::peak_bytes).collect()
    }
}

fn share(from: &Path, to: &Path) {
    std::fs::create_dir_all(to.join("dev")).unwrap();
    for name in SHARED {
        std::fs::copy(from.join(name), to.join(name)).unwrap();
    }
}
