//! Trains a small network of candle tensors with an optimizer of rhumb-optim.
//!
//! candle computes the loss and the gradients, rhumb-optim the update. Between them are flat slices: [`Bridge`] names every `Var` in a
//! layout once, then copies gradients in and parameters out, tensor by tensor.

use candle_core::backprop::GradStore;
use candle_core::{DType, Device, Result, Tensor, Var};
use rhumb_core::{Layout, Optimizer, Role};
use rhumb_optim::{Kind, OptimizerConfig, param_table};

/// The variables of a model and the optimizer that updates them.
struct Bridge {
    vars: Vec<Var>,
    optimizer: Box<dyn Optimizer<f32>>,
}

impl Bridge {
    /// Names, roles and variables in one list; the roles decide how Adam-mini cuts them.
    fn new(config: &OptimizerConfig, named: &[(&str, Role, &Var)]) -> Result<Self> {
        let mut layout = Layout::new();
        for (name, role, var) in named {
            layout.push(*name, var.dims(), *role);
        }
        if config.kind == Kind::AdamMini {
            for row in param_table(&layout, config.preset).map_err(candle_core::Error::wrap)? {
                println!(
                    "{:<8} {:<8} {:<12} {:>3} blocks",
                    row.name,
                    format!("{:?}", row.shape),
                    row.class,
                    row.blocks
                );
            }
        }
        let optimizer = config.build(&layout).map_err(candle_core::Error::wrap)?;
        Ok(Bridge { vars: named.iter().map(|(_, _, v)| (*v).clone()).collect(), optimizer })
    }

    fn step(&mut self, lr: f64, gradients: &GradStore) -> Result<()> {
        self.optimizer.begin();
        for (i, var) in self.vars.iter().enumerate() {
            // A variable that the loss does not reach has no gradient and stays.
            let Some(gradient) = gradients.get(var) else { continue };
            let g = gradient.flatten_all()?.to_vec1::<f32>()?;
            let mut p = var.flatten_all()?.to_vec1::<f32>()?;
            self.optimizer.step_block(lr, i, &mut p, &g);
            var.set(&Tensor::from_vec(p, var.dims(), var.device())?)?;
        }
        Ok(())
    }
}

/// A network of one hidden layer.
struct Mlp {
    w1: Var,
    b1: Var,
    w2: Var,
    b2: Var,
}

impl Mlp {
    /// Weights from a fixed recurrence instead of a random number generator, so that every run prints the same.
    fn new(inputs: usize, hidden: usize, device: &Device) -> Result<Self> {
        let mut state = 1_u64;
        let mut weight = |rows: usize, columns: usize| {
            let scale = 1.0 / (columns as f32).sqrt();
            let values: Vec<f32> = (0..rows * columns)
                .map(|_| {
                    state =
                        state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    scale * ((state >> 40) as f32 / (1 << 23) as f32 - 1.0)
                })
                .collect();
            Var::from_vec(values, (rows, columns), device)
        };
        Ok(Mlp {
            w1: weight(hidden, inputs)?,
            b1: Var::zeros(hidden, DType::F32, device)?,
            w2: weight(1, hidden)?,
            b2: Var::zeros(1, DType::F32, device)?,
        })
    }

    fn loss(&self, x: &Tensor, y: &Tensor) -> Result<Tensor> {
        let hidden = x.matmul(&self.w1.t()?)?.broadcast_add(&self.b1)?.tanh()?;
        let out = hidden.matmul(&self.w2.t()?)?.broadcast_add(&self.b2)?;
        (out - y)?.sqr()?.mean_all()
    }
}

/// sin(3 x₀) + x₁² on a grid.
fn data(device: &Device) -> Result<(Tensor, Tensor)> {
    let points: Vec<[f32; 2]> =
        (0..256).map(|i| [(i % 16) as f32 / 7.5 - 1.0, (i / 16) as f32 / 7.5 - 1.0]).collect();
    let y: Vec<f32> = points.iter().map(|[a, b]| (3.0 * a).sin() + b * b).collect();
    let x: Vec<f32> = points.concat();
    Ok((Tensor::from_vec(x, (256, 2), device)?, Tensor::from_vec(y, (256, 1), device)?))
}

fn train(kind: Kind) -> Result<()> {
    let device = Device::Cpu;
    let (x, y) = data(&device)?;
    let model = Mlp::new(2, 64, &device)?;
    let config = OptimizerConfig { kind, beta2: 0.95, ..OptimizerConfig::default() };
    println!("{}", kind.name());
    let mut bridge = Bridge::new(
        &config,
        &[
            ("mlp.w1", Role::Mlp, &model.w1),
            ("mlp.b1", Role::Bias, &model.b1),
            ("mlp.w2", Role::Mlp, &model.w2),
            ("mlp.b2", Role::Bias, &model.b2),
        ],
    )?;
    for step in 0..=1000 {
        let loss = model.loss(&x, &y)?;
        if step % 250 == 0 {
            println!("step {step:>4}  loss {:.6}", loss.to_scalar::<f32>()?);
        }
        bridge.step(0.01, &loss.backward()?)?;
    }
    println!("{} bytes of state\n", bridge.optimizer.state_bytes());
    Ok(())
}

fn main() -> Result<()> {
    train(Kind::AdamMini)?;
    train(Kind::AdamW)
}
