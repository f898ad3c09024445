//! Named random streams of one seed.

use std::collections::BTreeMap;

use rhumb_linalg::rng::Rng;
use serde::{Deserialize, Serialize};

/// The random streams of a run.
///
/// Every purpose (`"data"`, `"init"`, `"dropout"` ...) has a stream of its own, made on first use, so that a
/// new consumer never moves the numbers another one sees. The whole set is saved with a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Streams {
    seed: u64,
    open: BTreeMap<String, Rng>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Saved {
    seed: u64,
    states: BTreeMap<String, u64>,
}

impl Streams {
    /// The streams of a seed, none used yet.
    pub fn new(seed: u64) -> Self {
        Streams { seed, open: BTreeMap::new() }
    }

    /// The seed.
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The stream of a purpose.
    pub fn get(&mut self, purpose: &str) -> &mut Rng {
        self.open.entry(purpose.to_owned()).or_insert_with(|| Rng::named(self.seed, purpose))
    }

    /// The state of every used stream as JSON text.
    pub fn save(&self) -> String {
        let states: serde_json::Map<String, serde_json::Value> =
            self.open.iter().map(|(k, r)| (k.clone(), r.state().into())).collect();
        serde_json::json!({ "seed": self.seed, "states": states }).to_string()
    }

    /// Restores what [`Streams::save`] wrote.
    ///
    /// # Errors
    /// A sentence when the text is not such a state or belongs to another seed.
    pub fn load(&mut self, text: &str) -> Result<(), String> {
        let saved: Saved =
            serde_json::from_str(text).map_err(|e| format!("the random streams do not parse: {e}"))?;
        if saved.seed != self.seed {
            return Err(format!(
                "the checkpoint was made with seed {}, this run has seed {}: resume with the same seed",
                saved.seed, self.seed
            ));
        }
        self.open = saved.states.into_iter().map(|(k, s)| (k, Rng::from_state(s))).collect();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    #[test]
    fn restored_streams_continue_with_the_same_numbers() {
        let mut a = Streams::new(5);
        a.get("data").next_u64();
        a.get("init").normal();
        let text = a.save();
        let mut b = Streams::new(5);
        b.load(&text).unwrap();
        assert_eq!(a, b);
        assert_eq!(a.get("data").next_u64(), b.get("data").next_u64());
        assert_eq!(a.get("never used").next_u64(), b.get("never used").next_u64());
    }

    #[test]
    fn streams_of_another_seed_and_broken_text_are_refused() {
        let text = Streams::new(5).save();
        assert!(Streams::new(6).load(&text).unwrap_err().contains("seed 5"));
        assert!(Streams::new(5).load("{").unwrap_err().contains("parse"));
    }
}
