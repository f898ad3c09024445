//! Token shards: tokenized text on disk, larger than memory if need be.
//!
//! # Format
//! A folder with `tokens.json` ([`TokensInfo`]) and files `tokens-00000.safetensors`, each with one tensor `tokens`
//! of type U16 (vocabularies up to 65,536) or U32. The index is written last, so that a folder without it is an
//! unfinished one.
//!
//! Reading is by position: a window costs one read of its bytes from the page cache, nothing else is held. Unlike
//! a mapping, a file that is cut off while it is in use gives an error instead of a signal.

mod read;
mod write;

pub use read::TokenShards;
pub use write::TokenWriter;

use serde::{Deserialize, Serialize};

const INDEX: &str = "tokens.json";
const FORMAT: &str = "rhumb-tokens-1";
const TENSOR: &str = "tokens";

/// What a folder of token shards says about itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TokensInfo {
    /// `rhumb-tokens-1`.
    pub format: String,
    /// Size of the vocabulary; every token is below it.
    pub vocab: u32,
    /// [`fingerprint`] of the tokenizer.
    pub tokenizer: String,
    /// Token that ends a document, if one was put there.
    pub eos: Option<u32>,
    /// Documents.
    pub documents: u64,
    /// Tokens of each shard, in order.
    pub shards: Vec<u64>,
}

impl TokensInfo {
    /// Tokens of all shards.
    pub fn tokens(&self) -> u64 {
        self.shards.iter().sum()
    }
}

/// A name for a tokenizer that changes when its vocabulary or its rules do: FNV-1a, 64 bits, of its JSON.
/// It tells mistakes, not attacks.
pub fn fingerprint(tokenizer: &serde_json::Value) -> String {
    let text = tokenizer.to_string();
    let hash = text
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3));
    format!("{hash:016x}")
}

/// Bytes of one stored token.
fn width(vocab: u32) -> usize {
    if vocab <= 1 << 16 { 2 } else { 4 }
}

fn shard_name(index: usize) -> String {
    format!("tokens-{index:05}.safetensors")
}
