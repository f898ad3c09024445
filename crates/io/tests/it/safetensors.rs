//! safetensors: types, shards, lying headers and interrupted writes.

use std::fs;
use std::path::Path;

use half::{bf16, f16};
use rhumb_io::gguf::GgmlType;
use rhumb_io::safetensors::{read, read_dir, write};
use rhumb_io::{IoError, TensorData, TensorMap};

fn file(path: &Path, header: &str, data: &[u8]) {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend(data);
    fs::write(path, bytes).unwrap();
}

fn refused(header: &str, data: &[u8]) -> IoError {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    file(&path, header, data);
    let error = read(&path).unwrap_err();
    assert!(error.to_string().contains("bad.safetensors"), "{error}");
    error
}

#[test]
fn what_is_written_is_read_back_to_the_bit_in_the_same_order() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let odd = vec![f32::MIN_POSITIVE / 4.0, -0.0, f32::MAX, 1.0 / 3.0, 0.0, -1e-30];
    let mut tensors = TensorMap::new();
    tensors.insert("z".into(), TensorData::new(vec![2, 3], odd).unwrap());
    tensors.insert("a".into(), TensorData::new(vec![1], vec![7.0]).unwrap());
    tensors.insert("m".into(), TensorData::new(vec![], vec![-2.5]).unwrap());
    write(&path, &tensors, GgmlType::F32).unwrap();
    let back = read(&path).unwrap();
    assert!(back.keys().eq(tensors.keys()));
    for (name, t) in &tensors {
        assert_eq!(back[name].shape, t.shape);
        assert!(back[name].data.iter().zip(&t.data).all(|(a, b)| a.to_bits() == b.to_bits()), "{name}");
    }
    let bytes = fs::read(&path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    assert_eq!(length % 8, 0, "the data is aligned");
    let header: serde_json::Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(header["__metadata__"]["format"], "pt");
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(left, ["model.safetensors"], "no temporary file stays");
}

#[test]
fn half_precision_and_bfloat_become_their_exact_f32() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.safetensors");
    let header = r#"{"h":{"dtype":"F16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"BF16","shape":[1,2],"data_offsets":[4,8]}}"#;
    let mut data: Vec<u8> = [0.1f32, -65504.0].iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect();
    data.extend([0.1f32, 3e38].iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
    file(&path, header, &data);
    let t = read(&path).unwrap();
    assert_eq!(t["h"].data, [0.099_975_586, -65504.0]);
    assert_eq!(t["b"].data, [bf16::from_f32(0.1).to_f32(), bf16::from_f32(3e38).to_f32()]);
    assert_eq!(t["b"].shape, [1, 2]);
}

#[test]
fn shards_are_joined_by_their_index() {
    let dir = tempfile::tempdir().unwrap();
    let one = |name: &str, v: f32| {
        TensorMap::from([(name.to_owned(), TensorData { shape: vec![1], data: vec![v] })])
    };
    write(&dir.path().join("model-00001-of-00002.safetensors"), &one("a", 1.0), GgmlType::F32).unwrap();
    write(&dir.path().join("model-00002-of-00002.safetensors"), &one("b", 2.0), GgmlType::F32).unwrap();
    let index = dir.path().join("model.safetensors.index.json");
    let list = r#"{"metadata":{"total_size":8},"weight_map":{"b":"model-00002-of-00002.safetensors","a":"model-00001-of-00002.safetensors"}}"#;
    fs::write(&index, list).unwrap();
    let t = read_dir(dir.path()).unwrap();
    assert_eq!((t["a"].data[0], t["b"].data[0]), (1.0, 2.0));

    fs::write(&index, list.replace("\"a\":", "\"c\":")).unwrap();
    let message = read_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("tensor c") && message.contains("00001-of-00002"), "{message}");
    fs::write(&index, list.replace("model-00001-of-00002", "../../model")).unwrap();
    let message = read_dir(dir.path()).unwrap_err().to_string();
    assert!(message.contains("outside the folder"), "{message}");
    fs::write(&index, "{").unwrap();
    assert!(matches!(read_dir(dir.path()), Err(IoError::Json { .. })));
}

#[test]
fn a_header_that_lies_about_a_range_is_refused() {
    for (header, part) in [
        (r#"{"w":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#, "header"),
        (r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#, "header"),
        (r#"{"w":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, "header"),
        (r#"{"w":{"dtype":"F32","shape":[18446744073709551615,2],"data_offsets":[0,8]}}"#, "header"),
        (r#"{"w":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, "header"),
        (r#"{"w":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#, "covers 4 of 8 bytes"),
        (r#"{"w":{"dtype":"F32","shape":[4],"data_offsets":[0,16]}}"#, "needs 16 bytes"),
        (
            r#"{"w":{"dtype":"F32","shape":[4611686018427387903],"data_offsets":[0,18446744073709551612]}}"#,
            "header",
        ),
        (r#"{"w":{"dtype":"F64","shape":[1],"data_offsets":[0,8]}}"#, "tensor w"),
        ("not json", "header"),
        ("", "header"),
    ] {
        let message = refused(header, &[0; 8]).to_string();
        assert!(message.contains(part), "{part} in {message}");
    }
}

#[test]
fn a_lying_header_length_reserves_no_memory() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("bad.safetensors");
    for (length, part) in
        [(u64::MAX, "not a safetensors file"), (99_999_999, "ends too early"), (3, "ends too early")]
    {
        fs::write(&path, [&length.to_le_bytes()[..], b"{}"].concat()).unwrap();
        let message = read(&path).unwrap_err().to_string();
        assert!(message.contains(part), "{message}");
    }
    fs::write(&path, b"1234").unwrap();
    assert!(matches!(read(&path), Err(IoError::Truncated { .. })));
}

#[test]
fn a_file_cut_anywhere_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.safetensors");
    let t = TensorMap::from([("w".to_owned(), TensorData { shape: vec![4], data: vec![1.0; 4] })]);
    write(&path, &t, GgmlType::F32).unwrap();
    let bytes = fs::read(&path).unwrap();
    for n in 0..bytes.len() {
        fs::write(&path, &bytes[..n]).unwrap();
        assert!(read(&path).is_err(), "{n}");
    }
}

#[test]
fn a_failed_write_leaves_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("model.safetensors");
    let good = TensorMap::from([("w".to_owned(), TensorData { shape: vec![1], data: vec![1.0] })]);
    write(&path, &good, GgmlType::F32).unwrap();
    let bad = TensorMap::from([("w".to_owned(), TensorData { shape: vec![2], data: vec![1.0] })]);
    assert!(write(&path, &bad, GgmlType::F32).is_err());
    assert_eq!(read(&path).unwrap(), good);
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let nowhere = dir.path().join("missing/model.safetensors");
    let message = write(&nowhere, &good, GgmlType::F32).unwrap_err().to_string();
    assert!(message.contains("missing") && message.contains("check the path"), "{message}");
}

#[test]
fn halves_keep_what_they_can_hold_and_refuse_what_is_too_large() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("half.safetensors");
    let tensors =
        |v: f32| TensorMap::from([("a".to_owned(), TensorData { shape: vec![3], data: vec![0.0, -1.5, v] })]);
    for (dtype, name) in [(GgmlType::F16, "F16"), (GgmlType::BF16, "BF16")] {
        // 1 + 2^-7 has eight significant bits, which both types hold.
        write(&path, &tensors(1.007_812_5), dtype).unwrap();
        assert_eq!(read(&path).unwrap()["a"].data, [0.0, -1.5, 1.007_812_5]);
        let header = std::fs::read(&path).unwrap();
        assert!(String::from_utf8_lossy(&header).contains(name));
    }
    let error = write(&path, &tensors(1e6), GgmlType::F16).unwrap_err().to_string();
    assert!(error.contains('a'), "{error}");
    assert!(
        write(&path, &tensors(1.0), GgmlType::Q8_0).unwrap_err().to_string().contains("F32, F16 or BF16")
    );
    // The good file of before is still there.
    assert_eq!(read(&path).unwrap()["a"].data[2], 1.007_812_5);
}
