//! Histograms as text: HdrHistogram's V2 form in base64. A few hundred bytes for what takes 140 KB
//! of memory, without loss.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hdrhistogram::Histogram;
use hdrhistogram::serialization::{Deserializer, Serializer as _, V2Serializer};
use serde::{Deserialize, Serialize};

use crate::record;

/// A histogram that is kept, not recorded into: one of each second of a long run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed(Vec<u8>);

/// The text is no histogram, or one with other bounds than ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a histogram: {0}")]
pub struct NotAHistogram(String);

impl Packed {
    /// Packs one.
    pub fn pack(histogram: &Histogram<u64>) -> Self {
        let mut bytes = Vec::new();
        if !histogram.is_empty() {
            // Writing to memory does not fail, and counts are far below what the form can hold.
            V2Serializer::new()
                .serialize(histogram, &mut bytes)
                .unwrap_or_else(|error| unreachable!("a vector takes all bytes: {error:?}"));
        }
        Self(bytes)
    }

    /// The histogram again.
    ///
    /// # Errors
    /// Bytes that came from elsewhere may be anything.
    pub fn unpack(&self) -> Result<Histogram<u64>, NotAHistogram> {
        let mut whole = record::histogram();
        if self.0.is_empty() {
            return Ok(whole);
        }
        let found: Histogram<u64> = Deserializer::new()
            .deserialize(&mut &self.0[..])
            .map_err(|error| NotAHistogram(error.to_string()))?;
        // Adding checks that every value has its place within our bounds.
        whole.add(&found).map_err(|error| NotAHistogram(error.to_string()))?;
        Ok(whole)
    }

    /// Adds another one.
    ///
    /// # Errors
    /// See [`unpack`](Self::unpack).
    pub fn merge(&mut self, other: &Self) -> Result<(), NotAHistogram> {
        let mut sum = self.unpack()?;
        sum.add(other.unpack()?).map_err(|error| NotAHistogram(error.to_string()))?;
        *self = Self::pack(&sum);
        Ok(())
    }
}

impl Serialize for Packed {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Packed {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(serde::de::Error::custom)
    }
}

/// For `#[serde(with = "packed::histogram")]`.
pub(crate) mod histogram {
    use hdrhistogram::Histogram;
    use serde::{Deserialize as _, Deserializer, Serialize as _, Serializer, de::Error as _};

    use super::Packed;

    pub(crate) fn serialize<S: Serializer>(
        histogram: &Histogram<u64>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        Packed::pack(histogram).serialize(serializer)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Histogram<u64>, D::Error> {
        Packed::deserialize(deserializer)?.unpack().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_loses_nothing_and_merging_adds() {
        let mut one = record::histogram();
        let mut other = record::histogram();
        for value in [1, 17, 999, 123_456, 60_000_000] {
            one.record_n(value, value % 7 + 1).unwrap();
            other.record(value / 3 + 1).unwrap();
        }
        assert_eq!(Packed::pack(&one).unpack().unwrap(), one);
        assert_eq!(Packed::default().unpack().unwrap(), record::histogram());
        let mut packed = Packed::pack(&one);
        packed.merge(&Packed::pack(&other)).unwrap();
        one.add(&other).unwrap();
        assert_eq!(packed.unpack().unwrap(), one);
        let text = serde_json::to_string(&packed).unwrap();
        assert_eq!(serde_json::from_str::<Packed>(&text).unwrap(), packed);
        assert!(Packed(vec![1, 2, 3]).unpack().is_err());
    }
}
