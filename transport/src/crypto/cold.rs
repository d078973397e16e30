//! Cipher suites whose QUIC keys are kept as they were derived, 32 bytes, and expanded when used.
//!
//! An expanded AES-GCM key (round keys, GHASH table) takes some 550 bytes, and *ring* reserves as
//! much for a ChaCha20 key; a connection has four such keys and two for headers. Nearly all
//! connections of a chat gateway are idle nearly always, so the expanded form would lie about
//! unused. Expanding takes a fraction of a microsecond, next to several for sending a datagram
//! (ADR 0002 has the figures).

use std::sync::OnceLock;

use ring::aead::{self, LessSafeKey, UnboundKey, quic as header};
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
            [
                (stock::TLS13_AES_128_GCM_SHA256, &AES_128),
                (stock::TLS13_AES_256_GCM_SHA384, &AES_256),
                (stock::TLS13_CHACHA20_POLY1305_SHA256, &CHACHA20),
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

static AES_128: Cold = Cold(&Algorithm {
    packet: &aead::AES_128_GCM,
    header: &header::AES_128,
    key_len: 16,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
});

static AES_256: Cold = Cold(&Algorithm {
    packet: &aead::AES_256_GCM,
    header: &header::AES_256,
    key_len: 32,
    confidentiality_limit: 1 << 23,
    integrity_limit: 1 << 52,
});

static CHACHA20: Cold = Cold(&Algorithm {
    packet: &aead::CHACHA20_POLY1305,
    header: &header::CHACHA20,
    key_len: 32,
    confidentiality_limit: u64::MAX,
    integrity_limit: 1 << 36,
});

/// What rustls makes keys with.
struct Cold(&'static Algorithm);

impl quic::Algorithm for Cold {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        let mut nonce = [0; 12];
        nonce.copy_from_slice(iv.as_ref());
        Box::new(ColdPacketKey { key: ColdKey::new(&key), iv: nonce, algorithm: self.0 })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        Box::new(ColdHeaderKey { key: ColdKey::new(&key), algorithm: self.0 })
    }

    fn aead_key_len(&self) -> usize {
        self.0.key_len
    }
}

/// Key bytes, the first `key_len` of them used.
struct ColdKey([u8; 32]);

impl ColdKey {
    fn new(key: &AeadKey) -> Self {
        let mut bytes = [0; 32];
        bytes[..key.as_ref().len()].copy_from_slice(key.as_ref());
        Self(bytes)
    }
}

struct ColdPacketKey {
    key: ColdKey,
    iv: [u8; 12],
    algorithm: &'static Algorithm,
}

impl ColdPacketKey {
    fn expand(&self) -> Result<LessSafeKey, Error> {
        let key = &self.key.0[..self.algorithm.key_len];
        UnboundKey::new(self.algorithm.packet, key)
            .map(LessSafeKey::new)
            .map_err(|_| Error::General("key length".into()))
    }

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
        let tag = self
            .expand()?
            .seal_in_place_separate_tag(self.nonce(packet_number), aead::Aad::from(header), payload)
            .map_err(|_| Error::EncryptError)?;
        Ok(Tag::from(tag.as_ref()))
    }

    fn decrypt_in_place<'a>(
        &self,
        packet_number: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let plain = self
            .expand()?
            .open_in_place(self.nonce(packet_number), aead::Aad::from(header), payload)
            .map_err(|_| Error::DecryptError)?;
        Ok(plain)
    }

    fn tag_len(&self) -> usize {
        self.algorithm.packet.tag_len()
    }

    fn confidentiality_limit(&self) -> u64 {
        self.algorithm.confidentiality_limit
    }

    fn integrity_limit(&self) -> u64 {
        self.algorithm.integrity_limit
    }
}

struct ColdHeaderKey {
    key: ColdKey,
    algorithm: &'static Algorithm,
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
        let key = &self.key.0[..self.algorithm.key_len];
        let mask = header::HeaderProtectionKey::new(self.algorithm.header, key)
            .and_then(|key| key.new_mask(sample))
            .map_err(|_| Error::General("length of a header sample".into()))?;
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
        self.algorithm.header.sample_len()
    }
}

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
}
