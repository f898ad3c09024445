//! The same checks for every optimizer. A new kind is one more row of [`cases`], a fixture of
//! `reference/optimizers.py` and nothing else.

mod parity;
mod properties;
mod state;

use rhumb_core::{Layout, Optimizer, Role};
use rhumb_linalg::Real;
use rhumb_linalg::rng::Rng;
use rhumb_optim::OptimizerConfig;

/// A name that is also that of the fixture, and the configuration in it.
struct Case {
    name: &'static str,
    fixture: &'static str,
}

macro_rules! cases {
    ($($name:literal),* $(,)?) => {
        &[$(Case {
            name: $name,
            fixture: include_str!(concat!("../../../../../fixtures/optimizers/", $name, ".json")),
        }),*]
    };
}

fn cases() -> &'static [Case] {
    cases![
        "sgd",
        "sgd-momentum",
        "sgd-nesterov",
        "adamw",
        "adam-mini",
        "lion",
        "adafactor",
        "adafactor-first-moment",
        "adafactor-fixed-lr",
        "muon",
        "muon-match-rms",
        "muon-per-head",
        "slim-adam",
        "slim-adam-measured",
    ]
}

impl Case {
    fn config(&self) -> OptimizerConfig {
        let whole: serde_json::Value = serde_json::from_str(self.fixture).unwrap();
        serde_json::from_value(whole["optimizer"].clone()).unwrap()
    }

    fn build<T: Real>(&self, layout: &Layout) -> Box<dyn Optimizer<T>> {
        self.config().build(layout).unwrap()
    }
}

/// Names that both the official name rules and the roles understand; every kind of tensor once.
fn layout(scale: usize) -> Layout {
    let mut l = Layout::new();
    let (d, head_dim) = (6 * scale, 3 * scale);
    l.push("embed_tokens", &[7 * scale, d], Role::Embed);
    l.push("q_proj", &[d, d], Role::Query { head_dim });
    l.push("k_proj", &[head_dim, d], Role::Key { head_dim });
    l.push("v_proj", &[head_dim, d], Role::Value { head_dim });
    l.push("o_proj", &[d, d], Role::AttnOut);
    l.push("mlp.up", &[10 * scale, d], Role::Mlp);
    l.push("mlp.bias", &[10 * scale], Role::Bias);
    l.push("norm", &[d], Role::Norm);
    l.push("lm_head", &[7 * scale, d], Role::Head);
    l
}

fn random<T: Real>(n: usize, seed: u64) -> Vec<T> {
    let mut r = Rng::new(seed);
    (0..n).map(|_| T::of(r.normal())).collect()
}

fn bits<T: Real>(v: &[T]) -> Vec<u64> {
    v.iter().map(|x| x.f64().to_bits()).collect()
}
