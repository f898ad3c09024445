//! GGUF against the Python package: its bits, its files, and what it would refuse.

use std::borrow::Cow;
use std::fs;
use std::path::{Path, PathBuf};

use rhumb_io::gguf::{Array, GgmlType, GgufFile, Metadata, TensorOut, Value, quantize, write};
use rhumb_io::{IoError, TensorData};
use serde_json::Value as Json;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fixtures/gguf")
}

fn expected() -> Json {
    serde_json::from_slice(&fs::read(fixtures().join("expected.json")).unwrap()).unwrap()
}

fn fnv(values: &[f32]) -> String {
    let mut h: u64 = 0xcbf2_9ce4_8422_2325;
    for b in values.iter().flat_map(|v| v.to_le_bytes()) {
        h = (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
    }
    format!("{h:016x}")
}

#[test]
fn every_type_has_the_bits_of_the_python_package() {
    let mut file = GgufFile::open(&fixtures().join("all_types.gguf")).unwrap();
    let expected = expected();
    let expected = expected["dequantised"].as_object().unwrap();
    assert_eq!(expected.len(), GgmlType::ALL.len());
    for dtype in GgmlType::ALL {
        let name = format!("test.{}.weight", dtype.name().to_lowercase());
        assert_eq!(file.tensors()[&name].dtype, dtype);
        let t = file.tensor(&name).unwrap();
        let want = &expected[&name];
        assert_eq!(Json::from(t.shape.clone()), want["shape"], "{name}");
        let middle: Vec<_> =
            t.data[t.data.len() / 2..][..8].iter().map(|v| format!("{:08x}", v.to_bits())).collect();
        assert_eq!(Json::from(middle), want["middle"], "{name}");
        assert_eq!(fnv(&t.data), want["fnv1a64"], "{name}");
    }
}

#[test]
fn quantising_gives_the_bytes_of_the_python_package() {
    let expected = expected();
    let values: Vec<f32> = expected["quantised"]["values"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| f32::from_bits(u32::from_str_radix(v.as_str().unwrap(), 16).unwrap()))
        .collect();
    for dtype in [GgmlType::F16, GgmlType::Q8_0] {
        let bytes = quantize(dtype, &values).unwrap();
        let hex: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        assert_eq!(expected["quantised"]["bytes"][dtype.name()], hex.concat(), "{}", dtype.name());
    }
}

#[test]
fn metadata_of_every_type_is_read() {
    let file = GgufFile::open(&fixtures().join("all_types.gguf")).unwrap();
    let m = file.metadata();
    assert_eq!(m.get_str("general.architecture"), Some("llama"));
    for (key, want) in [
        ("uint8", Value::U8(200)),
        ("int8", Value::I8(-100)),
        ("uint16", Value::U16(60000)),
        ("int16", Value::I16(-30000)),
        ("uint32", Value::U32(4_000_000_000)),
        ("int32", Value::I32(-2_000_000_000)),
        ("float32", Value::F32(1e-5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("Grüße, 世界".into())),
        ("uint64", Value::U64(1 << 63)),
        ("int64", Value::I64(-(1 << 62))),
        ("float64", Value::F64(0.1)),
        ("strings", Value::Array(Array::String(vec!["a".into(), String::new(), "ü".into()]))),
        ("ints", Value::Array(Array::I32(vec![1, -2, 3]))),
    ] {
        assert_eq!(m.get(&format!("test.{key}")), Some(&want), "{key}");
    }
    assert_eq!(m.get("test.float32").unwrap().as_f64(), Some(1e-5));
}

fn small(path: &Path, alignment: Option<u32>) -> (Metadata, Vec<TensorData>) {
    let mut metadata = Metadata::new();
    metadata.insert("general.architecture", Value::String("llama".into()));
    if let Some(a) = alignment {
        metadata.insert("general.alignment", Value::U32(a));
    }
    let nested = Array::Array(vec![Array::U8(vec![1, 2]), Array::Bool(vec![true, false])]);
    metadata.insert("nested", Value::Array(nested));
    let values = |n: usize| (0..n).map(|i| (i as f32 - 30.0) / 8.0).collect();
    let tensors = vec![
        TensorData::new(vec![3, 5], values(15)).unwrap(),
        TensorData::new(vec![2, 32], values(64)).unwrap(),
        TensorData::new(vec![7], values(7)).unwrap(),
    ];
    let out: Vec<_> = tensors
        .iter()
        .zip([GgmlType::F32, GgmlType::Q8_0, GgmlType::F16])
        .enumerate()
        .map(|(i, (t, dtype))| TensorOut { name: format!("t{i}"), tensor: Cow::Borrowed(t), dtype })
        .collect();
    write(path, &metadata, &out).unwrap();
    (metadata, tensors)
}

#[test]
fn what_is_written_is_read_back_at_every_alignment() {
    let dir = tempfile::tempdir().unwrap();
    for alignment in [None, Some(8), Some(64), Some(4096)] {
        let path = dir.path().join("small.gguf");
        let (metadata, tensors) = small(&path, alignment);
        let mut file = GgufFile::open(&path).unwrap();
        assert_eq!(file.metadata(), &metadata);
        for i in [0, 2] {
            assert_eq!(file.tensor(&format!("t{i}")).unwrap(), tensors[i]);
        }
        let (back, was) = (file.tensor("t1").unwrap(), &tensors[1]);
        let worst = back.data.iter().zip(&was.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        // Half a step of a block whose largest value is 4.125, and the rounding of its scale to half precision.
        assert!(worst > 0.0 && worst < 4.125 / 127.0 * 0.51, "{worst}");
    }
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["small.gguf"], "no temporary file stays");
}

#[test]
fn a_file_cut_anywhere_is_an_error_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("whole.gguf");
    small(&path, None);
    let bytes = fs::read(&path).unwrap();
    let cut = dir.path().join("cut.gguf");
    // The last tensor takes 14 bytes; the padding behind it may be missing.
    let needed = bytes.len() - (32 - 14);
    for n in 0..needed {
        fs::write(&cut, &bytes[..n]).unwrap();
        let message = GgufFile::open(&cut).unwrap_err().to_string();
        assert!(message.contains("cut.gguf") && message.contains("byte"), "{n}: {message}");
    }
    fs::write(&cut, &bytes[..needed]).unwrap();
    GgufFile::open(&cut).unwrap().tensor("t2").unwrap();
    fs::write(&cut, &bytes[..needed - 1]).unwrap();
    let message = GgufFile::open(&cut).unwrap_err().to_string();
    assert!(message.contains("tensor t2") && message.contains("needs 14 bytes"), "{message}");
}

#[test]
fn no_changed_byte_of_the_head_makes_the_reader_panic() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("changed.gguf");
    small(&path, None);
    let bytes = fs::read(&path).unwrap();
    for at in 0..bytes.len().min(420) {
        for value in [0x00, 0x7f, 0x80, 0xff] {
            let mut changed = bytes.clone();
            changed[at] = value;
            fs::write(&path, &changed).unwrap();
            if let Ok(mut file) = GgufFile::open(&path) {
                let names: Vec<_> = file.tensors().keys().cloned().collect();
                for name in names {
                    let _ = file.tensor(&name);
                }
            }
        }
    }
}

/// Opens `small` with `bytes` written over it at `at`.
fn opened_with(at: usize, bytes: &[u8]) -> IoError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.gguf");
    small(&path, None);
    let mut all = fs::read(&path).unwrap();
    all[at..at + bytes.len()].copy_from_slice(bytes);
    fs::write(&path, all).unwrap();
    let error = GgufFile::open(&path).unwrap_err();
    assert!(error.to_string().contains("bad.gguf"), "{error}");
    error
}

#[test]
fn a_wrong_magic_is_named() {
    let error = opened_with(0, b"PK\x03\x04");
    assert!(matches!(error, IoError::Foreign { expected: "GGUF", .. }), "{error:?}");
}

#[test]
fn other_versions_are_named_with_a_way_out() {
    for (version, hint) in
        [(1u32, "current tool"), (4, "older conversion"), (3u32.swap_bytes(), "big-endian")]
    {
        let error = opened_with(4, &version.to_le_bytes());
        assert!(matches!(error, IoError::Version { found, .. } if found == version), "{error:?}");
        assert!(error.to_string().contains(hint), "{error}");
    }
}

#[test]
fn absurd_counts_are_refused_before_memory_is_reserved() {
    for at in [8, 16] {
        for count in [u64::MAX, 1 << 60, 10_000] {
            let error = opened_with(at, &count.to_le_bytes());
            assert!(error.to_string().contains(&count.to_string()), "{error}");
            assert!(matches!(error, IoError::Malformed { at: a, .. } if a == at as u64), "{error:?}");
        }
    }
    // The length of the first key.
    let error = opened_with(24, &u64::MAX.to_le_bytes());
    assert!(error.to_string().contains("metadata key 0"), "{error}");
}

#[test]
fn an_unknown_tensor_type_is_named_with_the_readable_ones() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("iq.gguf");
    small(&path, None);
    let mut bytes = fs::read(&path).unwrap();
    let name = bytes.windows(10).position(|w| w == b"\x02\0\0\0\0\0\0\0t0").unwrap();
    let at = name + 10 + 4 + 16;
    assert_eq!(bytes[at..at + 4], [0; 4], "t0 is F32");
    bytes[at] = 10;
    fs::write(&path, bytes).unwrap();
    let message = GgufFile::open(&path).unwrap_err().to_string();
    for part in ["iq.gguf", "tensor t0", "Q2_K", "Q4_K", &format!("byte {name}")] {
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn values_that_a_type_cannot_hold_are_refused_by_tensor_and_place() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("refused.gguf");
    for (dtype, value) in [
        (GgmlType::F16, 1e6),
        (GgmlType::F16, f32::NAN),
        (GgmlType::Q8_0, f32::INFINITY),
        (GgmlType::Q8_0, 1e9),
    ] {
        let mut tensor = TensorData::new(vec![1, 64], vec![0.5; 64]).unwrap();
        tensor.data[33] = value;
        let out = TensorOut { name: "w".into(), tensor: Cow::Owned(tensor), dtype };
        let message = write(&path, &Metadata::new(), &[out]).unwrap_err().to_string();
        assert!(message.contains("tensor w") && message.contains("value 33"), "{message}");
        assert!(!path.exists());
    }
}

#[test]
fn a_row_that_fills_no_block_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let tensor = TensorData::new(vec![32, 2], vec![0.5; 64]).unwrap();
    let out = TensorOut { name: "w".into(), tensor: Cow::Owned(tensor), dtype: GgmlType::Q8_0 };
    let message = write(&dir.path().join("w.gguf"), &Metadata::new(), &[out]).unwrap_err().to_string();
    assert!(message.contains("[32, 2]") && message.contains("Q8_0"), "{message}");
}
