//! `rhumb optimizer`.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use rhumb_optim::{REPLAY_EXAMPLE, Replay, replay};
use serde_json::json;

use crate::exit::{Code, Failure};
use crate::output::Output;
use crate::table::{Table, number};

/// Commands on optimizers.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run an optimizer on given gradients and show parameters and state after every step.
    Replay {
        /// JSON with `optimizer`, `tensors` (name, shape, values, perhaps role) and `steps` (gradients by name).
        #[arg(required_unless_present = "example")]
        file: Option<PathBuf>,
        /// Print a file to start from.
        #[arg(long, conflicts_with = "file")]
        example: bool,
    },
}

/// Works on optimizers.
pub(crate) fn run(command: &Command) -> Result<Output, Failure> {
    match command {
        Command::Replay { file: Some(file), .. } => from_file(file),
        Command::Replay { file: None, .. } => Ok(Output::new(REPLAY_EXAMPLE, json!(REPLAY_EXAMPLE))),
    }
}

fn from_file(file: &Path) -> Result<Output, Failure> {
    let name = file.display().to_string();
    let text = std::fs::read_to_string(file).map_err(|e| {
        let code = if e.kind() == std::io::ErrorKind::NotFound { Code::Missing } else { Code::Usage };
        Failure::new(code, anyhow::anyhow!("cannot read {name}: {e}; check the path"))
    })?;
    let result = replay(&text).map_err(|e| Failure::new(Code::Usage, e).context(name))?;
    Ok(Output::new(table(&result), json!(result)))
}

/// Numbers of one cell; `--json` has all.
const SHOWN: usize = 8;

fn table(result: &Replay) -> String {
    let mut t = Table::new(["step", "lr", "tensor", "of", "values"]);
    let list = |values: &[f64]| {
        let more = if values.len() > SHOWN { format!(" ... {} in all", values.len()) } else { String::new() };
        values.iter().take(SHOWN).map(|x| number(*x)).collect::<Vec<_>>().join(" ") + &more
    };
    for step in &result.steps {
        for tensor in &step.tensors {
            let mut row = |of: &str, values: &[f64]| {
                t.row([&step.step.to_string(), &number(step.lr), &tensor.name, of, &list(values)]);
            };
            row("parameters", &tensor.values);
            tensor.state.iter().for_each(|(of, values)| row(of, values));
        }
    }
    format!(
        "{}\n{} in {}, {} bytes of state\n",
        t.render(),
        result.optimizer,
        result.scalar,
        result.state_bytes
    )
}
