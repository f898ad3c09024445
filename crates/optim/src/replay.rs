//! An optimizer run from a file: given gradients in, parameters and state of every step out.

use std::collections::BTreeMap;
use std::path::Path;

use rhumb_core::{CheckpointError, Layout, Optimizer, Role, StateReader, StateWriter};
use rhumb_linalg::Real;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{OptimError, OptimizerConfig};

/// Why a replay could not be done.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The text is no JSON of the expected form.
    #[error("{0}; `rhumb optimizer replay --example` prints a file to start from")]
    Json(#[from] serde_json::Error),
    /// A tensor is given wrongly.
    #[error("tensor {name}: {what}")]
    Tensor {
        /// The tensor.
        name: String,
        /// What is wrong and what to write.
        what: String,
    },
    /// A step is given wrongly.
    #[error("step {step}: {what}")]
    Step {
        /// The step, from 1.
        step: usize,
        /// What is wrong and what to write.
        what: String,
    },
    /// The optimizer cannot be built.
    #[error("optimizer: {0}")]
    Optimizer(#[from] OptimError),
    /// The state of the optimizer could not be read back.
    #[error("state of the optimizer: {0}")]
    State(#[from] CheckpointError),
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Request {
    #[serde(default)]
    scalar: Scalar,
    optimizer: OptimizerConfig,
    tensors: Vec<TensorIn>,
    steps: Vec<StepIn>,
}

#[derive(Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Scalar {
    F32,
    #[default]
    F64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TensorIn {
    name: String,
    shape: Vec<usize>,
    #[serde(default = "other")]
    role: Role,
    values: Value,
}

fn other() -> Role {
    Role::Other
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StepIn {
    lr: Option<f64>,
    gradients: Map<String, Value>,
}

/// What an optimizer did.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Replay {
    /// The optimizer, as in the configuration.
    pub optimizer: &'static str,
    /// `"f32"` or `"f64"`.
    pub scalar: &'static str,
    /// Bytes of state after the last step.
    pub state_bytes: usize,
    /// After each step.
    pub steps: Vec<ReplayStep>,
}

/// Parameters and state after one step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayStep {
    /// From 1.
    pub step: usize,
    /// The learning rate of the step.
    pub lr: f64,
    /// In the order of the file.
    pub tensors: Vec<ReplayTensor>,
}

/// One tensor after a step.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplayTensor {
    /// Its name.
    pub name: String,
    /// Its parameters, row-major.
    pub values: Vec<f64>,
    /// What the optimizer keeps for it, by the names of its equations; moments in fewer bits are left out.
    pub state: BTreeMap<String, Vec<f64>>,
}

/// A file to start from: two steps of Adam-mini on a matrix of two rows.
pub const REPLAY_EXAMPLE: &str = r#"{
  "scalar": "f64",
  "optimizer": {"kind": "adam-mini", "preset": "rhumb", "lr": 0.01, "beta1": 0.9, "beta2": 0.95, "eps": 1e-8, "weight_decay": 0.1},
  "tensors": [
    {"name": "mlp.w", "shape": [2, 3], "role": "mlp", "values": [[0.1, -0.2, 0.3], [0.4, 0.5, -0.6]]}
  ],
  "steps": [
    {"gradients": {"mlp.w": [[1, 2, -2], [0, 3, 4]]}},
    {"lr": 0.01, "gradients": {"mlp.w": [[-1, 0, 1], [2, -2, 1]]}}
  ]
}
"#;

/// Runs the optimizer that a JSON text describes.
///
/// # Format
/// `scalar` (`"f32"` or `"f64"`, default `"f64"`), `optimizer` (an [`OptimizerConfig`]), `tensors` (each a `name`, a `shape`, its
/// `values` flat or nested, and perhaps a `role`, default `"other"`) and `steps` (each with `gradients` by name, and
/// perhaps an `lr`, default that of `optimizer`). A tensor without a gradient in a step is not updated in it; steps are
/// counted for the whole model. Unknown keys are refused, and so are numbers that the scalar type cannot hold.
///
/// # Errors
/// [`ReplayError`], naming the line, or the tensor and the step.
///
/// ```
/// let replay = rhumb_optim::replay(rhumb_optim::REPLAY_EXAMPLE)?;
/// let w = &replay.steps[1].tensors[0];
/// assert!((w.values[0] - 0.094_424_291_451).abs() < 1e-12);
/// assert!((w.state["v"][1] - 0.545_833_333_333).abs() < 1e-12);
/// # Ok::<(), rhumb_optim::ReplayError>(())
/// ```
pub fn replay(text: &str) -> Result<Replay, ReplayError> {
    let request: Request = serde_json::from_str(text)?;
    match request.scalar {
        Scalar::F32 => run::<f32>(&request),
        Scalar::F64 => run::<f64>(&request),
    }
}

fn run<T: Real>(request: &Request) -> Result<Replay, ReplayError> {
    let (layout, mut p) = start::<T>(&request.tensors)?;
    let mut optimizer = request.optimizer.build::<T>(&layout)?;
    let mut steps = Vec::with_capacity(request.steps.len());
    for (i, given) in request.steps.iter().enumerate() {
        let step = i + 1;
        let bad = |what: String| ReplayError::Step { step, what };
        let lr = given.lr.unwrap_or(request.optimizer.lr);
        if !(lr >= 0.0 && lr.is_finite()) {
            return Err(bad(format!("lr = {lr}: a finite number >= 0")));
        }
        if let Some(name) = given.gradients.keys().find(|n| layout.find(n).is_none()) {
            let known: Vec<&str> = layout.blocks().iter().map(|b| b.name.as_str()).collect();
            return Err(bad(format!("a gradient for {name}, but the tensors are {}", known.join(", "))));
        }
        optimizer.begin();
        for (block, b) in layout.blocks().iter().enumerate() {
            if let Some(values) = given.gradients.get(&b.name) {
                let g: Vec<T> =
                    flat(values, &b.shape).map_err(|what| bad(format!("gradient of {}: {what}", b.name)))?;
                optimizer.step_block(lr, block, &mut p[b.range.clone()], &g);
            }
        }
        let mut state = state::<T>(&*optimizer)?;
        let tensors = layout
            .blocks()
            .iter()
            .map(|b| ReplayTensor {
                name: b.name.clone(),
                values: p[b.range.clone()].iter().map(|x| x.f64()).collect(),
                state: state.remove(&b.name).unwrap_or_default(),
            })
            .collect();
        steps.push(ReplayStep { step, lr, tensors });
    }
    Ok(Replay {
        optimizer: request.optimizer.kind.name(),
        scalar: T::NAME,
        state_bytes: optimizer.state_bytes(),
        steps,
    })
}

fn start<T: Real>(tensors: &[TensorIn]) -> Result<(Layout, Vec<T>), ReplayError> {
    let mut layout = Layout::new();
    let mut p = Vec::new();
    for t in tensors {
        let bad = |what: String| ReplayError::Tensor { name: t.name.clone(), what };
        if layout.find(&t.name).is_some() {
            return Err(bad("given twice; every tensor needs a name of its own".to_owned()));
        }
        // Read before the layout adds up its length, so that a shape too large is refused as a length.
        p.extend(flat::<T>(&t.values, &t.shape).map_err(bad)?);
        layout.push(t.name.clone(), &t.shape, t.role);
    }
    Ok((layout, p))
}

/// Numbers of a flat list, or of lists nested like the shape.
fn flat<T: Real>(values: &Value, shape: &[usize]) -> Result<Vec<T>, String> {
    let want = shape
        .iter()
        .try_fold(1_usize, |n, d| n.checked_mul(*d))
        .ok_or_else(|| format!("the shape {shape:?} is too large"))?;
    let mut out = Vec::new();
    match values {
        Value::Array(list) if list.iter().any(Value::is_array) => nested(values, shape, &mut out)?,
        Value::Array(list) => list.iter().try_for_each(|v| number(v).map(|v| out.push(v)))?,
        v => out.push(number(v)?),
    }
    if out.len() == want {
        Ok(out)
    } else {
        Err(format!("{} numbers, but the shape {shape:?} has {want}", out.len()))
    }
}

fn nested<T: Real>(values: &Value, shape: &[usize], out: &mut Vec<T>) -> Result<(), String> {
    match (values, shape.split_first()) {
        (Value::Array(list), Some((rows, inner))) if list.len() == *rows => {
            list.iter().try_for_each(|v| nested(v, inner, out))
        }
        (Value::Array(list), Some((rows, _))) => {
            Err(format!("a list of {} where the shape has {rows}", list.len()))
        }
        (Value::Array(_), None) => Err("lists nested more deeply than the shape".to_owned()),
        (v, None) => number(v).map(|v| out.push(v)),
        (v, Some(_)) => Err(format!("{v} where the shape has a list")),
    }
}

fn number<T: Real>(v: &Value) -> Result<T, String> {
    let x = v.as_f64().ok_or_else(|| format!("{v} is not a number"))?;
    let rounded = T::of(x);
    if rounded.is_finite() { Ok(rounded) } else { Err(format!("{x} does not fit into {}", T::NAME)) }
}

/// What the optimizer would save, by tensor and name.
fn state<T: Real>(
    optimizer: &dyn Optimizer<T>,
) -> Result<BTreeMap<String, BTreeMap<String, Vec<f64>>>, CheckpointError> {
    let memory = Path::new("memory");
    let mut bytes = Vec::new();
    let mut out = StateWriter::new(&mut bytes, memory)?;
    optimizer.save(&mut out)?;
    out.finish()?;
    let mut src = StateReader::from_bytes(bytes, memory)?;
    let names: Vec<String> = src.names().map(str::to_owned).collect();
    let mut all = BTreeMap::<String, BTreeMap<String, Vec<f64>>>::new();
    for section in names {
        // Sections of an optimizer inside another one have its scope in front, and a name may end another one.
        let within = |name: &str| section.strip_suffix(name).and_then(|s| s.strip_suffix('/'));
        let blocks = optimizer.layout().blocks().iter();
        let found = blocks.filter_map(|b| Some((b, within(&b.name)?))).max_by_key(|(b, _)| b.name.len());
        let Some((block, what)) = found else { continue };
        let what = what.rsplit('/').next().unwrap_or(what).to_owned();
        let mut values = vec![T::ZERO; src.bytes(&section)?.len() / T::BYTES];
        src.reals(&section, &mut values)?;
        all.entry(block.name.clone()).or_default().insert(what, values.iter().map(|v| v.f64()).collect());
    }
    Ok(all)
}
