//! Where the figures of the target's process come from.

use std::sync::{Arc, Mutex, PoisonError};

use crate::clock::{self, Nanos, SECOND};
use crate::process::Usage;

/// Figures of a scrape are taken for those of now for so long. They come once a second.
const FRESH: Nanos = 5 * SECOND;

/// What is known of the target's process.
#[derive(Clone, Debug, Default)]
pub enum Target {
    /// Nothing.
    #[default]
    Unknown,
    /// It runs on this machine.
    Process(u32),
    /// It tells of itself.
    Scraped(Scraped),
}

impl Target {
    /// What it uses; `None` while that is not known.
    pub fn usage(&self) -> Option<Usage> {
        match self {
            Self::Unknown => None,
            Self::Process(process) => Usage::of(*process),
            Self::Scraped(scraped) => scraped.get(),
        }
    }

    /// Its process, if it is on this machine.
    pub fn process(&self) -> Option<u32> {
        match self {
            Self::Process(process) => Some(*process),
            Self::Unknown | Self::Scraped(_) => None,
        }
    }
}

/// The latest figures that a target exposed. Clones are of the same.
#[derive(Clone, Debug, Default)]
pub struct Scraped(Arc<Mutex<Option<(Nanos, Usage)>>>);

impl Scraped {
    /// New figures came.
    pub fn set(&self, usage: Usage) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((clock::now(), usage));
    }

    fn get(&self) -> Option<Usage> {
        let latest = *self.0.lock().unwrap_or_else(PoisonError::into_inner);
        latest.filter(|(at, _)| clock::now() < at + FRESH).map(|(_, usage)| usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_come_from_where_they_are_known() {
        assert_eq!(Target::Unknown.usage(), None);
        assert!(Target::Process(std::process::id()).usage().is_some());
        let scraped = Scraped::default();
        let target = Target::Scraped(scraped.clone());
        assert_eq!((target.usage(), target.process()), (None, None));
        let usage = Usage { rss: 5, cpu_seconds: 1.0 };
        scraped.set(usage);
        assert_eq!(target.usage(), Some(usage));
    }
}
