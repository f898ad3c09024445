//! Bytes of optimizer state of known architectures, Adam-mini beside AdamW.

mod architecture;

use rhumb_core::Optimizer;
use rhumb_optim::{AdamMini, AdamParams, AdamW, Partition, Preset};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::architecture::{Architecture, KNOWN};
use super::{Experiment, Metrics};
use crate::embedded::unknown;
use crate::exit::Failure;
use crate::report::{BarPlot, Section, Series};
use crate::session::Context;
use crate::table::{Table, bytes, number};

/// Settings of `adam-mini-state`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(crate) struct StateSettings {
    /// Names of architectures.
    pub(crate) architectures: Vec<String>,
    /// How tensors are cut into blocks.
    pub(crate) partition: Preset,
    /// Up to so many parameters both optimizers are built and their state is counted; above, the state follows
    /// from the partition alone.
    pub(crate) build_up_to: u64,
}

impl Default for StateSettings {
    fn default() -> Self {
        StateSettings {
            architectures: KNOWN.iter().map(|a| a.name.to_owned()).collect(),
            partition: Preset::V1_1_1,
            build_up_to: 50_000_000,
        }
    }
}

/// State of one architecture.
struct Row {
    parameters: usize,
    blocks: usize,
    adamw: u64,
    mini: u64,
    built: bool,
}

impl Row {
    fn saving(&self) -> f64 {
        1.0 - self.mini as f64 / self.adamw as f64
    }
}

impl StateSettings {
    fn measure(&self, a: &Architecture) -> Result<Row, Failure> {
        let wrong = |e: rhumb_optim::OptimError| Failure::usage(format!("{}: {e}", a.name));
        let layout = a.layout();
        let partition = Partition::preset(self.partition, &layout).map_err(wrong)?;
        let (parameters, blocks) = (layout.len(), partition.blocks());
        let mut row = Row {
            parameters,
            blocks,
            adamw: 8 * parameters as u64,
            mini: 4 * (parameters + blocks) as u64,
            built: parameters as u64 <= self.build_up_to,
        };
        if row.built {
            let params = AdamParams::new(0.9, 0.95, 1e-8, 0.1).map_err(wrong)?;
            row.adamw = AdamW::<f32>::new(&layout, &partition, params).state_bytes() as u64;
            row.mini = AdamMini::<f32>::new(&layout, partition, params).state_bytes() as u64;
        }
        Ok(row)
    }
}

impl Experiment for StateSettings {
    fn run(&self, ctx: &mut Context<'_>) -> Result<Metrics, Failure> {
        let mut metrics = Metrics::default();
        let mut table =
            Table::new(["architecture", "parameters", "blocks", "AdamW", "Adam-mini", "saved", "counted on"]);
        let mut rows = Vec::new();
        for name in &self.architectures {
            let names: Vec<&str> = KNOWN.iter().map(|a| a.name).collect();
            let a = KNOWN.iter().find(|a| a.name == name);
            let row = self.measure(a.ok_or_else(|| unknown("architecture", name, &names))?)?;
            metrics.put(format!("{name}/adamw_bytes"), row.adamw as f64);
            metrics.put(format!("{name}/adam_mini_bytes"), row.mini as f64);
            metrics.put(format!("{name}/saving"), row.saving());
            table.row([
                name.clone(),
                row.parameters.to_string(),
                row.blocks.to_string(),
                bytes(row.adamw),
                bytes(row.mini),
                format!("{} %", number(100.0 * row.saving())),
                (if row.built { "the built state" } else { "the partition" }).to_owned(),
            ]);
            rows.push((name.clone(), row));
        }
        if rows.is_empty() {
            return Err(Failure::usage("algorithm.architectures is empty: name at least one".to_owned()));
        }
        let worst = rows.iter().map(|(_, r)| r.saving()).fold(f64::INFINITY, f64::min);
        metrics.put("saving/worst", worst);
        // A formula that the built optimizers contradict would make every other row worthless.
        let formula =
            |r: &Row| r.mini == 4 * (r.parameters + r.blocks) as u64 && r.adamw == 8 * r.parameters as u64;
        let wrong = rows.iter().filter(|(_, r)| !formula(r)).count();
        metrics.put("formula/mismatches", wrong as f64);
        ctx.show(Section::Table("State in f32".to_owned(), table));
        ctx.show(Section::Bars(BarPlot {
            title: "Bytes of state per parameter".to_owned(),
            y: "bytes".to_owned(),
            groups: rows.iter().map(|(n, _)| n.clone()).collect(),
            series: vec![
                Series::new(
                    "AdamW",
                    rows.iter().map(|(_, r)| r.adamw as f64 / r.parameters as f64).collect(),
                ),
                Series::new(
                    "Adam-mini",
                    rows.iter().map(|(_, r)| r.mini as f64 / r.parameters as f64).collect(),
                ),
            ],
        }));
        Ok(metrics)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;

    /// Parameters and blocks of the official package 1.1.1, counted by hand from the architectures.
    #[test]
    fn parameters_and_blocks_are_those_of_the_official_package() {
        let settings = StateSettings { build_up_to: 0, ..StateSettings::default() };
        let want = [
            ("nano", 828_672, 3_691),
            ("gpt2-125m", 124_373_760, 115_130),
            ("gpt2-350m", 354_599_936, 223_154),
            ("gpt2-1.5b", 1_556_840_000, 590_402),
            ("llama2-39m", 38_738_304, 89_713),
            ("llama2-1b", 1_055_991_808, 377_957),
            ("llama2-7b", 6_738_415_616, 1_163_841),
            ("llama3-8b", 8_030_261_248, 1_470_273),
            ("llama2-13b", 13_015_864_320, 1_787_601),
        ];
        for (name, parameters, blocks) in want {
            let a = KNOWN.iter().find(|a| a.name == name).unwrap();
            let row = settings.measure(a).unwrap();
            assert_eq!((row.parameters, row.blocks), (parameters, blocks), "{name}");
        }
    }

    #[test]
    fn built_state_is_exactly_the_formula() {
        let nano = KNOWN.iter().find(|a| a.name == "nano").unwrap();
        let row = StateSettings::default().measure(nano).unwrap();
        assert!(row.built);
        assert_eq!((row.adamw, row.mini), (8 * 828_672, 4 * (828_672 + 3_691)));
    }
}
