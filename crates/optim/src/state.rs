//! What saved optimizer state says about itself.

use rhumb_core::CheckpointError;
use serde::{Deserialize, Serialize};

use crate::adam_mini::Cut;
use crate::store::StateFormat;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Meta {
    pub(crate) kind: String,
    pub(crate) partition: String,
    pub(crate) scalar: String,
    /// States written before there was a choice are whole.
    #[serde(default)]
    pub(crate) state: StateFormat,
    pub(crate) t: u64,
    pub(crate) tensors: Vec<TensorMeta>,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct TensorMeta {
    pub(crate) name: String,
    pub(crate) shape: Vec<usize>,
    pub(crate) cuts: Vec<Cut>,
}

impl Meta {
    /// Refuses state that belongs to another optimizer, partition or model, and names the first difference.
    pub(crate) fn accept(&self, found: &Meta) -> Result<(), CheckpointError> {
        for (what, here, there) in [
            ("optimizer", &self.kind, &found.kind),
            ("partition", &self.partition, &found.partition),
            ("scalar type", &self.scalar, &found.scalar),
            ("state format", &self.state.tag().to_owned(), &found.state.tag().to_owned()),
        ] {
            if here != there {
                return refuse(format!(
                    "the saved state has the {what} {there}, this run has {here}: use the settings it was saved with"
                ));
            }
        }
        if let Some((a, b)) = self.tensors.iter().zip(&found.tensors).find(|(a, b)| a != b) {
            return refuse(format!(
                "the saved state has tensor {} of shape {:?} where this model has {} of shape {:?}{}: it belongs to another model",
                b.name,
                b.shape,
                a.name,
                a.shape,
                if a.cuts == b.cuts { "" } else { ", cut into other blocks" }
            ));
        }
        if self.tensors.len() != found.tensors.len() {
            return refuse(format!(
                "the saved state has {} tensors, this model has {}: it belongs to another model",
                found.tensors.len(),
                self.tensors.len()
            ));
        }
        Ok(())
    }
}

fn refuse(what: String) -> Result<(), CheckpointError> {
    Err(CheckpointError::Mismatch(what))
}
