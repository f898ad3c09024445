//! The losses, one entry each: name, parameter, sums, formulas, Hessian.
//!
//! # Symbols
//! `z` scores, `y` label, `p = softmax(z)`, `H` its entropy, `CE = -log p_y`, `q = softmax(z / beta)`,
//! `w_i = sigmoid((z_i - z_y) / 100)`.

use serde::{Deserialize, Serialize};

use super::scan::Sums;

/// A loss that cannot be.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum LossError {
    /// No loss of that name.
    #[error("unknown loss {0:?}: use one of {names}", names = names())]
    Unknown(String),
    /// A parameter out of range.
    #[error("{name} is {value}: it must be {range}")]
    Parameter {
        /// Name of the parameter.
        name: &'static str,
        /// What was given.
        value: f64,
        /// What is allowed.
        range: &'static str,
    },
    /// A parameter for a loss that has none.
    #[error("{0} has no parameter: leave it out")]
    NoParameter(&'static str),
}

/// The one number of a loss.
#[derive(Clone, Copy, Debug)]
pub struct Parameter {
    /// The field's name.
    pub name: &'static str,
    /// What the literature uses.
    pub default: f64,
    /// Where the gradient is that of cross-entropy.
    pub neutral: f64,
    /// What is allowed, in words.
    pub range: &'static str,
    fits: fn(f64) -> bool,
}

/// One loss of the table.
#[derive(Clone, Copy, Debug)]
pub struct LossEntry {
    /// The field's name.
    pub name: &'static str,
    /// One line for lists.
    pub about: &'static str,
    /// Its parameter.
    pub parameter: Option<Parameter>,
    /// The scalar whose gradient training follows.
    pub lowers: &'static str,
    /// Why there is no Hessian.
    pub no_hessian: Option<&'static str>,
    kind: fn(f64) -> LossKind,
    pub(super) scan: Scan,
    pub(super) value: fn(&View<'_>) -> f64,
    pub(super) lowered: fn(&View<'_>) -> f64,
    pub(super) field: fn(&View<'_>) -> Field,
}

impl LossEntry {
    /// The loss with its parameter, or with the default.
    ///
    /// # Errors
    /// A parameter out of range, or one for a loss that has none.
    pub fn kind(&self, parameter: Option<f64>) -> Result<LossKind, LossError> {
        match (self.parameter, parameter) {
            (None, Some(_)) => Err(LossError::NoParameter(self.name)),
            (p, x) => (self.kind)(x.or(p.map(|p| p.default)).unwrap_or(0.0)).checked(),
        }
    }

    /// Whether training lowers the cross-entropy itself.
    pub fn lowers_ce(&self) -> bool {
        self.lowers == CE
    }
}

/// What a scan of a row sums up, and whether the gradient reads the scores again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scan {
    /// Weights of `p`; the gradient is a multiple of them.
    Plain,
    /// Weights of `p`; the gradient reads the scores.
    Tilted,
    /// Weights of `p` and the plain sum of the scores; the gradient reads the scores.
    Flat,
    /// Weights of `p` and of `q`; the gradient is a multiple of the latter.
    Cold,
    /// Weights of `p`, `q` and `q w`; the gradient is a multiple of the last.
    ColdSigmoid,
}

/// What formulas read: the sums of a row relative to its largest score `m`.
pub(super) struct View<'a> {
    pub(super) sums: &'a Sums,
    /// `m - z_y`.
    pub(super) gap: f64,
    /// The loss's parameter.
    pub(super) x: f64,
}

impl View<'_> {
    fn log_norm(&self) -> f64 {
        self.sums.p.ln()
    }

    pub(super) fn ce(&self) -> f64 {
        self.log_norm() + self.gap
    }

    pub(super) fn entropy(&self) -> f64 {
        self.log_norm() - self.sums.pz / self.sums.p
    }

    /// Mean over the columns of `-log p_i`.
    fn mean_surprise(&self) -> f64 {
        self.log_norm() - self.sums.flat / self.sums.columns
    }

    // The gap apart: the mean score and the label's score are large numbers of nearly equal size.
    fn gem(&self) -> f64 {
        let s = self.sums;
        s.qwz / s.q + s.qw / s.q * self.gap
    }

    fn cold_ce(&self) -> f64 {
        self.x * self.sums.q.ln() + self.gap
    }
}

/// The gradient by a few numbers of the row.
///
/// # Equation
/// `g_i = weight r_i (1 + tilt (z_i - E_p z)) - flat - mass [i = y]`, `r` being the scan's weights over the
/// sum of those of `p` (of `q` for cold scans).
pub(super) struct Field {
    pub(super) weight: f64,
    pub(super) tilt: f64,
    /// Of every column that is not masked.
    pub(super) flat: f64,
    pub(super) mass: f64,
    /// `weight` and `mass` are multiples of `p_y`, and move with it when the gradient is differentiated.
    pub(super) follows: bool,
}

/// `r - 1_y`.
const PLAIN: Field = Field { weight: 1.0, tilt: 0.0, flat: 0.0, mass: 1.0, follows: false };

const CE: &str = "cross-entropy";

const BETA: Parameter = Parameter {
    name: "beta",
    default: 0.7,
    neutral: 1.0,
    range: "finite and positive, usually 0.6 to 0.9",
    fits: |x| x > 0.0,
};

/// The enumeration and the table from one list.
macro_rules! losses {
    ($( $(#[$doc:meta])* $name:literal => $kind:ident $({ $(#[$pdoc:meta])* $parameter:ident })?
        = $entry:ident { $($field:tt)* } )*) => {
        /// A loss on one row of scores.
        ///
        /// # Equation
        /// See the variants; `q`, `w` and the factor `p_y` of `dft` are held constant.
        ///
        /// # Reference
        /// GEM: Li et al., "Preserving Diversity in Supervised Fine-Tuning of Large Language Models", ICLR 2025,
        /// arXiv 2408.16673; the values are the closed forms in which the normaliser of `p` cancels. Label smoothing:
        /// Szegedy et al. 2016, arXiv 1512.00567. NEFT: Jain et al. 2023, arXiv 2310.05914. DFT: Wu et al. 2025,
        /// arXiv 2508.05629. Entropy bonus: Pereyra et al. 2017, arXiv 1701.06548.
        #[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(tag = "kind", deny_unknown_fields)]
        pub enum LossKind {
            $( $(#[$doc])* #[serde(rename = $name)] $kind $({ $(#[$pdoc])* $parameter: f64 })?, )*
        }

        /// Every loss.
        pub const LOSSES: &[&LossEntry] = &[$( LossKind::$kind $({ $parameter: 0.0 })?.entry() ),*];

        impl LossKind {
            /// The loss in the table.
            pub const fn entry(self) -> &'static LossEntry {
                match self {
                    $( LossKind::$kind { .. } => {
                        const ENTRY: $entry = $entry {
                            name: $name,
                            kind: |_x| LossKind::$kind $({ $parameter: _x })?,
                            $($field)*
                        };
                        &ENTRY
                    } )*
                }
            }

            /// The parameter; `None` for a loss without one.
            pub fn parameter(self) -> Option<f64> {
                match self {
                    $( LossKind::$kind $({ $parameter })? => [$( $parameter )?].first().copied(), )*
                }
            }
        }
    };
}

losses! {
    /// Cross-entropy: `CE`, gradient `p - 1_y`.
    "ce" => Ce = LossEntry {
        about: "Cross-entropy",
        parameter: None,
        lowers: CE,
        no_hessian: None,
        scan: Scan::Plain,
        value: |v| v.ce(),
        lowered: |v| v.ce(),
        field: |_| PLAIN,
    }

    /// Cross-entropy with an entropy bonus: `CE - lambda H`, gradient `p - 1_y + lambda p (log p + H)`.
    "ce+entropy" => CeEntropy {
        /// Weight of the entropy.
        lambda
    } = LossEntry {
        about: "Cross-entropy less lambda times the entropy of the prediction",
        parameter: Some(Parameter {
            name: "lambda",
            default: 0.1,
            neutral: 0.0,
            range: "finite and at least 0, usually 0.01 to 0.3",
            fits: |x| x >= 0.0,
        }),
        lowers: "CE - lambda H",
        no_hessian: None,
        scan: Scan::Tilted,
        value: |v| v.ce() - v.x * v.entropy(),
        lowered: |v| v.ce() - v.x * v.entropy(),
        // log p_i + H = z_i - E_p z: the normaliser cancels.
        field: |v| Field { tilt: v.x, ..PLAIN },
    }

    /// Cross-entropy against labels of which a share lies evenly on all columns:
    /// `(1 - smoothing) CE + smoothing mean_i(-log p_i)`, gradient `p - (1 - smoothing) 1_y - smoothing / V`.
    /// `V` counts the columns that are not masked.
    "label-smoothing" => LabelSmoothing {
        /// The share.
        smoothing
    } = LossEntry {
        about: "Cross-entropy with a share of every label spread evenly over the vocabulary",
        parameter: Some(Parameter {
            name: "smoothing",
            default: 0.1,
            neutral: 0.0,
            range: "at least 0 and below 1, usually 0.05 to 0.2",
            fits: |x| (0.0..1.0).contains(&x),
        }),
        lowers: "smoothed cross-entropy",
        no_hessian: None,
        scan: Scan::Flat,
        value: |v| (1.0 - v.x) * v.ce() + v.x * v.mean_surprise(),
        lowered: |v| (1.0 - v.x) * v.ce() + v.x * v.mean_surprise(),
        field: |v| Field { flat: v.x / v.sums.columns, mass: 1.0 - v.x, ..PLAIN },
    }

    /// Cross-entropy of a model whose token embeddings are shaken in training by `U(-1, 1) alpha / sqrt(L d)`, `L`
    /// the tokens of the document and `d` the width; on a row of scores it is cross-entropy.
    "neft" => Neft {
        /// Size of the noise.
        alpha
    } = LossEntry {
        about: "Cross-entropy with uniform noise on the token embeddings in training",
        parameter: Some(Parameter {
            name: "noise-alpha",
            default: 5.0,
            neutral: 0.0,
            range: "finite and at least 0, usually 5 to 15",
            fits: |x| x >= 0.0,
        }),
        lowers: CE,
        no_hessian: None,
        scan: Scan::Plain,
        value: |v| v.ce(),
        lowered: |v| v.ce(),
        field: |_| PLAIN,
    }

    /// Cross-entropy weighted by the probability of the label: `p_y CE` with `p_y` held constant, gradient
    /// `p_y (p - 1_y)`, which is that of `1 - p_y`.
    "dft" => Dft = LossEntry {
        about: "Cross-entropy weighted by the probability of the label, held constant",
        parameter: None,
        lowers: "1 - p_y",
        no_hessian: None,
        scan: Scan::Plain,
        value: |v| (-v.ce()).exp() * v.ce(),
        lowered: |v| -(-v.ce()).exp_m1(),
        field: |v| {
            let p = (-v.ce()).exp();
            Field { weight: p, mass: p, follows: true, ..PLAIN }
        },
    }

    /// GEM with the identity link: `E_q[z] - z_y`, gradient `q - 1_y`, which is that of `beta CE(z / beta)`.
    "gem-linear" => GemLinear {
        /// Temperature parameter.
        beta
    } = LossEntry {
        about: "GEM with h(u) = u",
        parameter: Some(BETA),
        lowers: "S = beta CE(z / beta)",
        no_hessian: None,
        scan: Scan::Cold,
        value: |v| v.gem(),
        lowered: |v| v.cold_ce(),
        field: |_| PLAIN,
    }

    /// GEM with the log-sigmoid link: `sum_i q_i w_i (z_i - z_y)`, gradient `a - (sum a) 1_y`, `a_i = q_i w_i`.
    "gem-logsigmoid" => GemLogsigmoid {
        /// Temperature parameter.
        beta
    } = LossEntry {
        about: "GEM with h(u) = log sigmoid(u / 100)",
        parameter: Some(BETA),
        lowers: "S = beta CE(z / beta)",
        no_hessian: Some(
            "gem-logsigmoid holds its weights constant, so its gradient is no gradient of a function and has no \
             Hessian: use ce or gem-linear for curvature",
        ),
        scan: Scan::ColdSigmoid,
        value: |v| v.gem(),
        lowered: |v| v.cold_ce(),
        field: |v| Field { mass: v.sums.qw / v.sums.q, ..PLAIN },
    }
}

fn names() -> String {
    LOSSES.iter().map(|l| l.name).collect::<Vec<_>>().join(", ")
}

impl LossKind {
    /// The loss of that name with its parameter, or with the default.
    ///
    /// # Errors
    /// An unknown name, a parameter out of range, or one for a loss that has none.
    pub fn parse(name: &str, parameter: Option<f64>) -> Result<Self, LossError> {
        match LOSSES.iter().find(|l| l.name == name) {
            Some(entry) => entry.kind(parameter),
            None => Err(LossError::Unknown(name.to_owned())),
        }
    }

    /// The loss itself when its parameter makes sense, for values that were read from a file.
    ///
    /// # Errors
    /// A parameter out of range.
    pub fn checked(self) -> Result<Self, LossError> {
        match (self.entry().parameter, self.parameter()) {
            (Some(p), Some(value)) if !(value.is_finite() && (p.fits)(value)) => {
                Err(LossError::Parameter { name: p.name, value, range: p.range })
            }
            _ => Ok(self),
        }
    }

    /// The field's name.
    pub fn name(self) -> &'static str {
        self.entry().name
    }

    /// The temperature inside GEM; 1 for the other losses.
    pub fn beta(self) -> f64 {
        match self.entry().scan {
            Scan::Cold | Scan::ColdSigmoid => self.parameter().unwrap_or(1.0),
            Scan::Plain | Scan::Tilted | Scan::Flat => 1.0,
        }
    }

    /// Whether it is one of the GEM losses.
    pub fn is_gem(self) -> bool {
        matches!(self, LossKind::GemLinear { .. } | LossKind::GemLogsigmoid { .. })
    }

    /// Size of the noise on token embeddings in training.
    pub fn noise(self) -> f64 {
        match self {
            LossKind::Neft { alpha } => alpha,
            _ => 0.0,
        }
    }
}
