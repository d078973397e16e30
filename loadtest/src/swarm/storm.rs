//! All sessions of a fleet are lost at once, and come back.

use std::cmp::Reverse;

use skein_transport::Io;

use super::session::{Entry, State};
use super::shard::Shard;
use crate::clock::{self, Nanos, length};
use crate::plan::Work;

impl Shard {
    /// The fleet's sessions are about to be lost.
    pub(super) fn cut(&mut self, io: &mut Io<'_>, share: usize, close: bool) {
        let one = &mut self.shares[share];
        one.cut = true;
        one.held = close;
        if !close {
            return;
        }
        let now = clock::now();
        for index in one.sessions.clone() {
            if self.sessions[index as usize].state == State::Idle {
                continue;
            }
            self.leave(io, index);
            self.set_state(index, State::Away);
            self.sessions[index as usize].entry =
                Some(Box::new(Entry { resume_since: Some(now), ..Entry::default() }));
        }
    }

    /// They come back evenly over the time that the plan says.
    pub(super) fn bring_back(&mut self, share: usize, from: Nanos) {
        let over = match *self.work(share) {
            Work::Storm { return_over, .. } => length(return_over),
            _ => 0,
        };
        let one = &mut self.shares[share];
        one.cut = false;
        if !std::mem::take(&mut one.held) {
            return;
        }
        let count = one.sessions.len() as u64;
        for (place, index) in one.sessions.clone().enumerate() {
            let session = &mut self.sessions[index as usize];
            if session.state != State::Away {
                continue;
            }
            let at = from + (u128::from(over) * place as u128 / u128::from(count.max(1))) as u64;
            if let Some(entry) = session.entry.as_mut() {
                entry.resume_since = Some(at);
            }
            session.attempts = 0;
            self.dials.push(Reverse((at, index)));
        }
    }
}
