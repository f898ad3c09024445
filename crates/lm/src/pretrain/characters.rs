//! Text by single bytes, for models so small that an embedding of words would be most of them.

/// The bytes that occur in a text, numbered in order of their value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Characters {
    bytes: Vec<u8>,
}

impl Characters {
    /// Those of `text`.
    pub fn of(text: &[u8]) -> Self {
        let mut seen = [false; 256];
        text.iter().for_each(|b| seen[usize::from(*b)] = true);
        Characters { bytes: (0..=u8::MAX).filter(|b| seen[usize::from(*b)]).collect() }
    }

    /// Number of different bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// True for those of an empty text.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Token numbers of `text`; `None` where it has a byte that the first text did not have.
    pub fn encode(&self, text: &[u8]) -> Option<Vec<u32>> {
        text.iter().map(|b| self.bytes.binary_search(b).ok().map(|i| i as u32)).collect()
    }

    /// The bytes of token numbers; numbers out of range are left out.
    pub fn decode(&self, ids: &[u32]) -> Vec<u8> {
        ids.iter().filter_map(|i| self.bytes.get(*i as usize).copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn bytes_are_numbered_by_value_and_come_back() {
        let c = Characters::of(b"banana bread");
        assert_eq!(c.len(), 7);
        assert_eq!(c.encode(b"abd").unwrap(), [1, 2, 3]);
        assert_eq!(c.decode(&c.encode(b"bread").unwrap()), b"bread");
        assert_eq!(c.encode(b"bread!"), None);
        assert_eq!(c.decode(&[1, 99]), b"a");
        assert!(Characters::of(b"").is_empty());
    }
}
