//! How Adam-mini cuts a model, told before a training begins.

use rhumb_core::Layout;
use rhumb_optim::adam_mini::{ParamRow, Partition, param_table_of};
use rhumb_optim::{Kind, OptimizerConfig};

use crate::exit::{Code, Failure};
use crate::output::{Global, warn};
use crate::table::{Table, bytes, counted};

/// Tensors of one name but for the layer, and of one shape and class.
struct Group {
    pattern: String,
    shape: Vec<usize>,
    class: String,
    tensors: usize,
    blocks: usize,
    bytes: u64,
}

/// Prints the table of a model that Adam-mini trains, and warns of tensors that a strict run would refuse.
pub(super) fn tell(config: &OptimizerConfig, layout: &Layout, global: Global) -> Result<(), Failure> {
    if config.kind != Kind::AdamMini {
        return Ok(());
    }
    let wrong = |e: rhumb_optim::OptimError| Failure::new(Code::Usage, e);
    let findings = Partition::audit(config.preset, &config.names, layout).map_err(wrong)?;
    let rows = param_table_of(layout, &config.partition(layout).map_err(wrong)?, &findings);
    let mut table = Table::new(["tensors", "shape", "class", "number", "blocks", "state in f32"]);
    for g in groups(&rows) {
        let shape: Vec<String> = g.shape.iter().map(ToString::to_string).collect();
        let (n, blocks) = (g.tensors.to_string(), g.blocks.to_string());
        table.row([g.pattern, shape.join(" x "), g.class, n, blocks, bytes(g.bytes)]);
    }
    global.note(&table.render());
    for (first, more) in warnings(&rows) {
        let rest = if more == 0 { String::new() } else { format!(" (and {})", counted(more, "tensor more")) };
        warn(&format!("{first}{rest}"));
    }
    Ok(())
}

fn groups(rows: &[ParamRow]) -> Vec<Group> {
    let mut out: Vec<Group> = Vec::new();
    for r in rows {
        let pattern = pattern(&r.name);
        let same = |g: &&mut Group| g.pattern == pattern && g.shape == r.shape && g.class == r.class;
        if let Some(g) = out.iter_mut().find(same) {
            g.tensors += 1;
            g.blocks += r.blocks;
            g.bytes += r.bytes as u64;
        } else {
            out.push(Group {
                pattern,
                shape: r.shape.clone(),
                class: r.class.clone(),
                tensors: 1,
                blocks: r.blocks,
                bytes: r.bytes as u64,
            });
        }
    }
    out
}

/// A name without the numbers of layers and experts.
pub(crate) fn pattern(name: &str) -> String {
    let number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    name.split('.').map(|part| if number(part) { "*" } else { part }).collect::<Vec<_>>().join(".")
}

/// The first warning of each group of tensors, and how many more of them have one.
fn warnings(rows: &[ParamRow]) -> Vec<(String, u64)> {
    let mut out: Vec<(String, String, u64)> = Vec::new();
    for r in rows.iter().filter(|r| !r.warnings.is_empty()) {
        let pattern = pattern(&r.name);
        match out.iter_mut().find(|o| o.0 == pattern) {
            Some(o) => o.2 += 1,
            None => out.push((pattern, format!("{}: {}", r.name, r.warnings.join("; ")), 0)),
        }
    }
    out.into_iter().map(|(_, text, more)| (text, more)).collect()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use rhumb_core::Role;
    use rhumb_optim::Preset;
    use rhumb_optim::adam_mini::{NameOptions, param_table_with};

    use super::*;

    fn rows(preset: Preset) -> Vec<ParamRow> {
        let mut layout = Layout::new();
        layout.push("embed.weight", &[10, 4], Role::Embed);
        for i in 0..3 {
            layout.push(format!("layers.{i}.q_proj.weight"), &[4, 4], Role::Query { head_dim: 2 });
            layout.push(format!("layers.{i}.attn.qkv.weight"), &[12, 4], Role::Other);
        }
        param_table_with(&layout, preset, &NameOptions::default()).unwrap()
    }

    #[test]
    fn layers_are_one_line_whose_blocks_and_bytes_add_up() {
        let g = groups(&rows(Preset::Rhumb));
        let shown: Vec<(&str, usize, usize)> =
            g.iter().map(|g| (g.pattern.as_str(), g.tensors, g.blocks)).collect();
        assert_eq!(
            shown,
            [("embed.weight", 1, 10), ("layers.*.q_proj.weight", 3, 6), ("layers.*.attn.qkv.weight", 3, 3)]
        );
        // 4 (elements + blocks).
        assert_eq!(g[1].bytes, 4 * (3 * 16 + 6));
    }

    #[test]
    fn a_warning_is_told_once_for_all_layers() {
        let w = warnings(&rows(Preset::V1_1_1));
        let fused: Vec<_> = w.iter().filter(|(text, _)| text.contains("qkv")).collect();
        assert_eq!(fused.len(), 1, "{w:?}");
        assert!(fused[0].0.starts_with("layers.0.attn.qkv.weight: ") && fused[0].1 == 2, "{w:?}");
        assert!(!w.iter().any(|(text, _)| text.contains("q_proj")), "{w:?}");
    }
}
