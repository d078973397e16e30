//! Session tickets that the server does not have to remember.
//!
//! A ticket is the rustls session, sealed with a key that is derived from the gateway's stored
//! secret and the current half-day. So a ticket survives a restart, works on every shard and on
//! every gateway with the same secret, and costs no memory; and after a day at most it is worth
//! nothing. Resumption always comes with a fresh key exchange (rustls offers nothing else), so a
//! stolen secret does not open recorded traffic.
//!
//! The kept alternative, a bounded store of sessions, costs some 300 bytes a client and loses all
//! of it on a restart, just when a million clients come back at once.

use std::{
    fmt,
    sync::Mutex,
    time::{SystemTime, UNIX_EPOCH},
};

use rand::Rng;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use rustls::server::ProducesTickets;

use crate::Keys;

/// Seconds a sealing key is used. A ticket is good for one to two of these.
const PERIOD: u64 = 12 * 3600;

/// Seals and opens session tickets.
pub struct Tickets {
    secret: Keys,
    clock: fn() -> u64,
    /// Keys of the current and of the previous period.
    cache: Mutex<[Option<(u64, LessSafeKey)>; 2]>,
}

impl Tickets {
    /// Tickets under this secret.
    pub fn new(keys: &Keys) -> Self {
        Self::with_clock(keys, || {
            SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |age| age.as_secs())
        })
    }

    fn with_clock(keys: &Keys, clock: fn() -> u64) -> Self {
        Self {
            secret: Keys::from_bytes(keys.derive_shared(b"session tickets")),
            clock,
            cache: Mutex::default(),
        }
    }

    fn period(&self) -> u64 {
        (self.clock)() / PERIOD
    }

    fn key(&self, period: u64) -> LessSafeKey {
        let mut cache = self.cache.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let slot = &mut cache[(period % 2) as usize];
        match slot {
            Some((of, key)) if *of == period => key.clone(),
            _ => {
                let bytes = self.secret.derive(&period.to_be_bytes());
                let key = UnboundKey::new(&AES_256_GCM, &bytes)
                    .unwrap_or_else(|_| unreachable!("32 bytes are a key"));
                let key = LessSafeKey::new(key);
                *slot = Some((period, key.clone()));
                key
            }
        }
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tickets")
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        true
    }

    fn lifetime(&self) -> u32 {
        PERIOD as u32
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        let period = self.period();
        let mut nonce = [0; NONCE_LEN];
        rand::rng().fill_bytes(&mut nonce);
        let mut ticket = Vec::with_capacity(1 + NONCE_LEN + plain.len() + 16);
        ticket.push(period as u8);
        ticket.extend_from_slice(&nonce);
        let mut sealed = plain.to_vec();
        self.key(period)
            .seal_in_place_append_tag(
                Nonce::assume_unique_for_key(nonce),
                Aad::empty(),
                &mut sealed,
            )
            .ok()?;
        ticket.extend_from_slice(&sealed);
        Some(ticket)
    }

    fn decrypt(&self, ticket: &[u8]) -> Option<Vec<u8>> {
        let (&mark, rest) = ticket.split_first()?;
        let (nonce, sealed) = rest.split_at_checked(NONCE_LEN)?;
        let now = self.period();
        let period = [now, now.checked_sub(1)?].into_iter().find(|p| *p as u8 == mark)?;
        let mut plain = sealed.to_vec();
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let length = self.key(period).open_in_place(nonce, Aad::empty(), &mut plain).ok()?.len();
        plain.truncate(length);
        Some(plain)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ticket_survives_a_restart_and_ages() {
        let keys = Keys::random();
        let at = |clock: fn() -> u64| Tickets::with_clock(&keys, clock);
        let ticket = at(|| 10 * PERIOD).encrypt(b"session").unwrap();
        for (clock, good) in [
            ((|| 10 * PERIOD + 1) as fn() -> u64, true),
            (|| 11 * PERIOD, true),
            (|| 12 * PERIOD, false),
            (|| 266 * PERIOD, false),
            (|| 9 * PERIOD, false),
        ] {
            assert_eq!(at(clock).decrypt(&ticket).is_some(), good, "at {}", clock() / PERIOD);
        }
        assert_eq!(Tickets::new(&Keys::random()).decrypt(&ticket), None);
        let another = Tickets::with_clock(&Keys::random().with_tickets_of(&keys), || 10 * PERIOD);
        assert!(another.decrypt(&ticket).is_some(), "a gateway with which it is shared");
    }

    #[test]
    fn a_changed_or_cut_ticket_is_nothing() {
        let tickets = Tickets::new(&Keys::random());
        let ticket = tickets.encrypt(b"session").unwrap();
        assert_eq!(tickets.decrypt(&ticket).as_deref(), Some(&b"session"[..]));
        for at in 0..ticket.len() {
            let mut changed = ticket.clone();
            changed[at] ^= 1;
            assert_eq!(tickets.decrypt(&changed), None);
            assert_eq!(tickets.decrypt(&ticket[..at]), None);
        }
    }
}
