//! What all arms share: the text as tokens, the decoder, its first weights.

use rhumb_core::Layout;
use rhumb_lm::data::Example;
use rhumb_lm::pretrain::characters::Characters;
use rhumb_lm::pretrain::tale::tale;
use rhumb_nn::model::{Decoder, DecoderConfig, Family, RopeConfig, init};

use super::PretrainSettings;
use crate::exit::{Code, Failure};
use crate::lm::from_io;

/// The generated prose is the same for every seed of a run.
const TALE: u64 = 0;

pub(super) struct Material {
    pub(super) tokens: Vec<u32>,
    pub(super) decoder: Decoder,
    pub(super) start: Vec<f32>,
    /// Windows that choose, and windows that judge.
    pub(super) held_out: [Vec<Example>; 2],
    source: String,
    characters: usize,
}

impl Material {
    pub(super) fn new(s: &PretrainSettings, seed: u64) -> Result<Self, Failure> {
        let (mut text, source) = match &s.text {
            Some(path) => {
                let text = std::fs::read(path).map_err(|e| {
                    let code =
                        if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
                    let what = anyhow::anyhow!(
                        "cannot read algorithm.text, {}: {e}; check the path",
                        path.display()
                    );
                    Failure::new(code, what)
                })?;
                (text, path.display().to_string())
            }
            None => (tale(TALE, s.bytes).into_bytes(), "generated prose".to_owned()),
        };
        text.truncate(s.bytes);
        let characters = Characters::of(&text);
        let tokens = characters.encode(&text).unwrap_or_default();
        let decoder = decoder(s, characters.len()).map_err(|e| Failure::usage(format!("algorithm: {e}")))?;
        let windows = Self::windows(s, tokens.clone(), seed)?;
        let mut choose = windows.held_out().map_err(from_io)?;
        let judge = choose.split_off(choose.len() / 2);
        Ok(Material {
            start: init(decoder.layout(), s.layers, 0.02, seed),
            characters: characters.len(),
            held_out: [choose, judge],
            tokens,
            decoder,
            source,
        })
    }

    pub(super) fn windows(
        s: &PretrainSettings,
        tokens: Vec<u32>,
        seed: u64,
    ) -> Result<rhumb_lm::pretrain::Windows, Failure> {
        rhumb_lm::pretrain::Windows::new(tokens, s.tokens, s.held_out, false, seed)
            .map_err(|e| Failure::usage(format!("algorithm: {e}")))
    }

    pub(super) fn layout(&self) -> &Layout {
        self.decoder.layout()
    }

    pub(super) fn description(&self) -> String {
        format!(
            "{}: {} bytes, {} different ones; a decoder of {} parameters; {} windows choose the rate, {} others judge.",
            self.source,
            self.tokens.len(),
            self.characters,
            self.layout().len(),
            self.held_out[0].len(),
            self.held_out[1].len()
        )
    }
}

fn decoder(s: &PretrainSettings, vocab: usize) -> Result<Decoder, rhumb_nn::model::ModelError> {
    let heads = s.heads.max(1);
    Decoder::new(DecoderConfig {
        family: Family::Llama,
        vocab,
        width: s.width,
        layers: s.layers,
        heads,
        kv_heads: heads,
        head_dim: s.width / heads,
        // Three matrices of 8/3 width have the parameters of two of 4 width.
        ffn: (8 * s.width / 3).next_multiple_of(8),
        positions: s.tokens,
        eps: 1e-5,
        rope: Some(RopeConfig { theta: 10_000.0, llama3: None }),
        qkv_bias: false,
        qk_norm: false,
        tied: true,
    })
}
