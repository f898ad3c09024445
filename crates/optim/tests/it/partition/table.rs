//! Thirteen published decoders: parameters, blocks, bytes, savings.

use rhumb_optim::{AdamMini, Kind, OptimizerConfig, Partition, Preset, param_table};

use super::models::{MODELS, gpt2, llama};
use crate::params;
use rhumb_core::Optimizer;

#[test]
fn thirteen_published_decoders_have_the_counted_parameters_blocks_bytes_and_savings() {
    for m in &MODELS {
        let layout = m.layout();
        let partition = Partition::preset(Preset::V1_1_1, &layout).unwrap();
        assert_eq!((layout.len(), partition.blocks()), (m.parameters, m.blocks), "{}", m.name);

        let config = |kind, preset| OptimizerConfig { kind, preset, ..OptimizerConfig::default() };
        let bytes = |c: OptimizerConfig| c.state_bytes(&layout, 4).unwrap();
        let (adamw, mini) =
            (bytes(config(Kind::AdamW, Preset::V1_1_1)), bytes(config(Kind::AdamMini, Preset::V1_1_1)));
        assert_eq!(adamw, 8 * m.parameters, "{}", m.name);
        assert_eq!(mini, 4 * (m.parameters + m.blocks), "{}", m.name);

        let saving = |bytes: usize| 100.0 * (1.0 - bytes as f64 / adamw as f64);
        assert!(saving(mini) >= 49.7, "{}: {}", m.name, saving(mini));
        assert!((saving(mini) - m.saving).abs() <= 0.000_5, "{}: {}", m.name, saving(mini));
        let old = saving(bytes(config(Kind::AdamMini, Preset::V1_0_4)));
        assert!((old - m.saving_1_0_4).abs() <= 0.005, "{}: {old}", m.name);
    }
}

#[test]
fn the_preset_rhumb_adds_only_the_rows_of_the_position_table() {
    for m in &MODELS {
        let layout = m.layout();
        let blocks = Partition::preset(Preset::Rhumb, &layout).unwrap().blocks();
        let positions = layout.find("wpe.weight").map_or(0, |b| b.shape[0] - 1);
        assert_eq!(blocks, m.blocks + positions, "{}", m.name);
        // Rows of positions cost a thousandth of a per cent.
        let saving = 0.5 * (1.0 - blocks as f64 / m.parameters as f64);
        assert!(saving >= 0.497, "{}: {saving}", m.name);
    }
}

#[test]
fn version_1_1_0_counts_what_1_1_1_counts_where_there_are_no_biases() {
    for m in &MODELS {
        let layout = m.layout();
        assert_eq!(Partition::preset(Preset::V1_1_0, &layout).unwrap().blocks(), m.blocks, "{}", m.name);
    }
}

#[test]
fn the_state_held_is_what_was_estimated_and_what_the_table_adds_up_to() {
    for layout in [gpt2(4, 128, 65, 256, 4), llama(2, 64, 100, 4, 2, 96)] {
        for preset in Preset::ALL {
            let partition = Partition::preset(preset, &layout).unwrap();
            let want = 4 * (layout.len() + partition.blocks());
            assert_eq!(AdamMini::<f32>::new(&layout, partition, params()).state_bytes(), want, "{preset:?}");
            let rows = param_table(&layout, preset).unwrap();
            assert_eq!(rows.iter().map(|r| r.bytes).sum::<usize>(), want, "{preset:?}");
            assert_eq!(rows.iter().map(|r| r.blocks).sum::<usize>(), want / 4 - layout.len(), "{preset:?}");
            assert_eq!(rows.len(), layout.blocks().len());
        }
    }
}
