//! Cipher suites whose QUIC keys are kept as they were derived, 32 bytes, and expanded when used.
//!
//! An expanded AES-GCM key (round keys, GHASH table) takes some 550 bytes, and *ring* reserves as
//! much for a ChaCha20 key; a connection has four such keys and two for headers. Nearly all
//! connections of a chat gateway are idle nearly always, so the expanded form would lie about
//! unused. Expanding takes a fraction of a microsecond; each thread keeps the expanded form of the
//! keys it used last, so that a busy connection does not even pay that ([`warm`]).

use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};

use ring::aead::{self, quic as header};
use rustls::{
    CipherSuiteCommon, Error, SupportedCipherSuite, Tls13CipherSuite,
    crypto::cipher::{AeadKey, Iv, Nonce},
    crypto::ring::cipher_suite as stock,
    quic::{self, HeaderProtectionKey, PacketKey, Tag},
};

/// The TLS 1.3 suites with cold keys; AES-128 first, ChaCha20 last.
pub(crate) fn suites() -> Vec<SupportedCipherSuite> {
    static SUITES: OnceLock<Vec<SupportedCipherSuite>> = OnceLock::new();
    SUITES
        .get_or_init(|| {
            static COLD: [Cold; 3] =
                [Cold(Cipher::Aes128Gcm), Cold(Cipher::Aes256Gcm), Cold(Cipher::ChaCha20)];
            [
                (stock::TLS13_AES_128_GCM_SHA256, &COLD[0]),
                (stock::TLS13_AES_256_GCM_SHA384, &COLD[1]),
                (stock::TLS13_CHACHA20_POLY1305_SHA256, &COLD[2]),
            ]
            .into_iter()
            .filter_map(|(suite, cold)| {
                let stock = suite.tls13()?;
                let common = CipherSuiteCommon {
                    suite: stock.common.suite,
                    hash_provider: stock.common.hash_provider,
                    confidentiality_limit: stock.common.confidentiality_limit,
                };
                // Three values for the life of the process, as rustls wants them.
                Some(SupportedCipherSuite::Tls13(Box::leak(Box::new(Tls13CipherSuite {
                    common,
                    hkdf_provider: stock.hkdf_provider,
                    aead_alg: stock.aead_alg,
                    quic: Some(cold),
                }))))
            })
            .collect()
        })
        .clone()
}

/// One cipher, for packets and for headers.
struct Algorithm {
    packet: &'static aead::Algorithm,
    header: &'static header::Algorithm,
    key_len: usize,
    /// RFC 9001 section 6.6 and appendix B.
    confidentiality_limit: u64,
    integrity_limit: u64,
}

static AES_128: Algorithm = Algorithm {
    packet: &aead::AES_128_GCM,
    header: &header::AES_128,
    key_len: 16,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
};

static AES_256: Algorithm = Algorithm {
    packet: &aead::AES_256_GCM,
    header: &header::AES_256,
    key_len: 32,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
};

static CHACHA20: Algorithm = Algorithm {
    packet: &aead::CHACHA20_POLY1305,
    header: &header::CHACHA20,
    key_len: 32,
    confidentiality_limit: u64::MAX,
    integrity_limit: 1 << 36,
};

#[derive(Clone, Copy, PartialEq, Eq)]
enum Cipher {
    Aes128Gcm,
    Aes256Gcm,
    ChaCha20,
}

impl Cipher {
    fn algorithm(self) -> &'static Algorithm {
        match self {
            Self::Aes128Gcm => &AES_128,
            Self::Aes256Gcm => &AES_256,
            Self::ChaCha20 => &CHACHA20,
        }
    }
}

/// What rustls makes keys with.
struct Cold(Cipher);

impl quic::Algorithm for Cold {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv.as_ref());
        Box::new(ColdPacketKey { key: ColdKey::new(&key, self.0), iv: nonce })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(ColdHeaderKey { key: ColdKey::new(&key, self.0) })
    }

    fn aead_key_len(&self) -> usize {
        self.0.algorithm().key_len
    }
}

/// A key as it was derived.
struct ColdKey {
    /// The first `key_len` are used, the rest is 0.
    bytes: [u8; 32],
    /// Where the warm form is kept. Numbers are used again after 2^32 keys: the bytes decide.
    place: u32,
    cipher: Cipher,
}

impl ColdKey {
    fn new(key: &AeadKey, cipher: Cipher) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let mut bytes = [0; 32];
        bytes[..key.as_ref().len()].copy_from_slice(key.as_ref());
        Self { bytes, place: NEXT.fetch_add(1, Ordering::Relaxed), cipher }
    }

    fn algorithm(&self) -> &'static Algorithm {
        self.cipher.algorithm()
    }

    fn used(&self) -> &[u8] {
        &self.bytes[..self.algorithm().key_len]
    }
}

/// The expanded keys that a thread used last, each in the one place that its number names.
mod warm {
    use std::cell::RefCell;

    use ring::aead::{LessSafeKey, UnboundKey, quic::HeaderProtectionKey};
    use rustls::Error;

    use super::{Cipher, ColdKey};

    /// Places of each kind. A connection has four of them (two ciphers, two for headers), and its
    /// handshake as many: the 64 connections that are busiest fit, for some 0.4 MB a thread.
    const PLACES: usize = 512;

    /// A key, and whose it is.
    struct Warm<K> {
        bytes: [u8; 32],
        cipher: Cipher,
        key: K,
    }

    type Cache<K> = RefCell<Vec<Option<Warm<K>>>>;

    thread_local! {
        static PACKET: Cache<LessSafeKey> = const { RefCell::new(Vec::new()) };
        static HEADER: Cache<HeaderProtectionKey> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn packet<T>(
        cold: &ColdKey,
        act: impl FnOnce(&LessSafeKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let expand = || {
            UnboundKey::new(cold.algorithm().packet, cold.used())
                .map(LessSafeKey::new)
                .map_err(|_| Error::General("length of a key".into()))
        };
        PACKET.with_borrow_mut(|cache| act(find(cache, cold, expand)?))
    }

    pub(super) fn header<T>(
        cold: &ColdKey,
        act: impl FnOnce(&HeaderProtectionKey) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let expand = || {
            HeaderProtectionKey::new(cold.algorithm().header, cold.used())
                .map_err(|_| Error::General("length of a header key".into()))
        };
        HEADER.with_borrow_mut(|cache| act(find(cache, cold, expand)?))
    }

    fn find<'a, K>(
        cache: &'a mut Vec<Option<Warm<K>>>,
        cold: &ColdKey,
        expand: impl FnOnce() -> Result<K, Error>,
    ) -> Result<&'a K, Error> {
        if cache.is_empty() {
            cache.resize_with(PLACES, || None);
        }
        let place = &mut cache[cold.place as usize % PLACES];
        let same = place
            .as_ref()
            .is_some_and(|warm| warm.bytes == cold.bytes && warm.cipher == cold.cipher);
        if !same {
            *place = None;
        }
        let warm = match place {
            Some(warm) => warm,
            None => place.insert(Warm { bytes: cold.bytes, cipher: cold.cipher, key: expand()? }),
        };
        Ok(&warm.key)
    }
}

struct ColdPacketKey {
    key: ColdKey,
    iv: [u8; 12],
}

impl ColdPacketKey {
    fn nonce(&self, packet_number: u64) -> aead::Nonce {
        aead::Nonce::assume_unique_for_key(Nonce::new(&Iv::from(self.iv), packet_number).0)
    }
}

impl PacketKey for ColdPacketKey {
    fn encrypt_in_place(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &mut [u8],
    ) -> Result<Tag, Error> {
        warm::packet(&self.key, |key| {
            let aad = aead::Aad::from(header);
            key.seal_in_place_separate_tag(self.nonce(packet_number), aad, payload)
                .map(|tag| Tag::from(tag.as_ref()))
                .map_err(|_| Error::EncryptError)
        })
    }

    fn decrypt_in_place<'a>(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        warm::packet(&self.key, |key| {
            key.open_in_place(self.nonce(packet_number), aead::Aad::from(header), payload)
                .map(|plain| &*plain)
                .map_err(|_| Error::DecryptError)
        })
    }

    fn tag_len(&self) -> usize {
        self.key.algorithm().packet.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.key.algorithm().confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.key.algorithm().integrity_limit
    }
}

struct ColdHeaderKey {
    key: ColdKey,
}

impl ColdHeaderKey {
    /// RFC 9001 section 5.4.1. `masked`: the packet came off the wire, so the length of its number
    /// can be read only after the first byte is unmasked.
    fn apply(
        &self,
        sample: &[u8],
        first: &mut u8,
        packet_number: &mut [u8],
        masked: bool,
    ) -> Result<(), Error> {
        let mask = warm::header(&self.key, |key| {
            key.new_mask(sample).map_err(|_| Error::General("length of a header sample".into()))
        })?;
        if packet_number.len() > 4 {
            return Err(Error::General("length of a packet number".into()));
        }
        let long = *first & 0x80 != 0;
        let bits = mask[0] & if long { 0x0f } else { 0x1f };
        let plain = if masked { *first ^ bits } else { *first };
        *first ^= bits;
        let length = usize::from(plain & 0x03) + 1;
        for (byte, mask) in packet_number.iter_mut().zip(&mask[1..]).take(length) {
            *byte ^= mask;
        }
        Ok(())
    }
}

impl HeaderProtectionKey for ColdHeaderKey {
    fn encrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.apply(sample, first, packet_number, false)
    }

    fn decrypt_in_place(
        &self,
        sample: &[u8],
        first: &mut u8,
        packet_number: &mut [u8],
    ) -> Result<(), Error> {
        self.apply(sample, first, packet_number, true)
    }

    fn sample_len(&self) -> usize {
        self.key.algorithm().header.sample_len()
    }
}

const _: () = assert!(size_of::<ColdPacketKey>() <= 56 && size_of::<ColdHeaderKey>() <= 40);

#[cfg(test)]
mod tests {
    use super::*;

    /// Every suite agrees with the stock one byte for byte, both ways.
    #[test]
    fn same_bytes_as_the_stock_keys() {
        let stock = [
            stock::TLS13_AES_128_GCM_SHA256,
            stock::TLS13_AES_256_GCM_SHA384,
            stock::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        assert_eq!(suites().len(), stock.len());
        for (cold, stock) in suites().into_iter().zip(stock) {
            assert_eq!(cold.suite(), stock.suite());
            let cold = cold.tls13().unwrap().quic_suite().unwrap();
            let stock = stock.tls13().unwrap().quic_suite().unwrap();
            let keys = |suite: &quic::Suite, side| {
                suite.keys(b"8394c8f03e515708", side, quic::Version::V1)
            };
            let sender = keys(&cold, rustls::Side::Client);
            let twin = keys(&stock, rustls::Side::Client);
            let receiver = keys(&stock, rustls::Side::Server);

            let header = *b"\xc3header of the packet";
            let mut sealed = b"something to say".to_vec();
            let mut same = sealed.clone();
            let tag = sender.local.packet.encrypt_in_place(9, &header, &mut sealed).unwrap();
            let same_tag = twin.local.packet.encrypt_in_place(9, &header, &mut same).unwrap();
            assert_eq!((&sealed, tag.as_ref()), (&same, same_tag.as_ref()));
            sealed.extend_from_slice(tag.as_ref());
            let mut changed = sealed.clone();
            changed[3] ^= 1;
            let plain = receiver.remote.packet.decrypt_in_place(9, &header, &mut sealed).unwrap();
            assert_eq!(plain, b"something to say");
            let own = keys(&cold, rustls::Side::Server);
            assert!(own.remote.packet.decrypt_in_place(9, &header, &mut changed).is_err());

            for first in [0x43u8, 0xc1, 0x40] {
                let sample = [7; 16];
                let (mut a, mut b) = ((first, [1, 2, 3, 4]), (first, [1, 2, 3, 4]));
                sender.local.header.encrypt_in_place(&sample, &mut a.0, &mut a.1).unwrap();
                twin.local.header.encrypt_in_place(&sample, &mut b.0, &mut b.1).unwrap();
                assert_eq!(a, b);
                own.remote.header.decrypt_in_place(&sample, &mut a.0, &mut a.1).unwrap();
                assert_eq!(a, (first, [1, 2, 3, 4]));
            }
            assert!(sender.local.header.encrypt_in_place(&[0; 3], &mut 0, &mut [0]).is_err());
        }
    }
    /// Keys that share a place in the cache never take each other's form.
    #[test]
    fn a_shared_place_does_not_mix_keys() {
        let suite = suites()[0].tls13().unwrap().quic_suite().unwrap();
        let make = |n: u32| suite.keys(&n.to_be_bytes(), rustls::Side::Client, quic::Version::V1);
        let seal = |keys: &quic::Keys| {
            let mut text = *b"the same text";
            let tag = keys.local.packet.encrypt_in_place(1, b"header", &mut text).unwrap();
            let (mut first, mut number) = (0x40, [0; 2]);
            keys.local.header.encrypt_in_place(&[5; 16], &mut first, &mut number).unwrap();
            (text, tag.as_ref().to_vec(), first, number)
        };
        // More keys than places, several times over.
        let all: Vec<quic::Keys> = (0..2000).map(make).collect();
        let once: Vec<_> = all.iter().map(seal).collect();
        for round in 0..3 {
            for (n, keys) in all.iter().enumerate().skip(round) {
                assert_eq!(seal(keys), once[n], "key {n}");
            }
        }
        let distinct: std::collections::BTreeSet<_> = once.iter().map(|sealed| sealed.0).collect();
        assert_eq!(distinct.len(), all.len());
    }
}
