#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::path::Path;

use super::*;

fn fill(w: &mut StateWriter<'_>) -> Result<(), CheckpointError> {
    w.put("bytes", &[1, 2, 3])?;
    w.put_text("text", "größer")?;
    w.scope("model", |w| {
        w.put_reals("f32", &[1.5_f32, f32::MIN_POSITIVE, -0.0])?;
        w.put_reals("f64", &[std::f64::consts::PI, f64::INFINITY])
    })
}

fn whole() -> Vec<u8> {
    let mut out = Vec::new();
    let mut w = StateWriter::new(&mut out, Path::new("m")).unwrap();
    fill(&mut w).unwrap();
    w.finish().unwrap();
    out
}

fn read(bytes: Vec<u8>) -> Result<StateReader, CheckpointError> {
    StateReader::from_bytes(bytes, Path::new("m"))
}

#[test]
fn what_is_written_is_read_back_bit_for_bit_and_in_any_order() {
    let mut r = read(whole()).unwrap();
    let mut a = [0.0_f32; 3];
    let mut b = [0.0_f64; 2];
    r.scope("model", |r| {
        r.reals("f64", &mut b)?;
        r.reals("f32", &mut a)
    })
    .unwrap();
    assert_eq!(a.map(f32::to_bits), [1.5_f32, f32::MIN_POSITIVE, -0.0].map(f32::to_bits));
    assert_eq!(b.map(f64::to_bits), [std::f64::consts::PI, f64::INFINITY].map(f64::to_bits));
    assert_eq!(r.text("text").unwrap(), "größer");
    assert_eq!(r.bytes("bytes").unwrap(), [1, 2, 3]);
    assert_eq!(r.names().collect::<Vec<_>>(), ["bytes", "model/f32", "model/f64", "text"]);
}

#[test]
fn sections_longer_than_the_buffers_survive() {
    let values: Vec<f64> = (0..20_001).map(|i| f64::from(i).sin()).collect();
    let mut out = Vec::new();
    let mut w = StateWriter::new(&mut out, Path::new("m")).unwrap();
    w.put_reals("x", &values).unwrap();
    w.finish().unwrap();
    let mut back = vec![0.0_f64; values.len()];
    read(out).unwrap().reals("x", &mut back).unwrap();
    assert!(values.iter().zip(&back).all(|(a, b)| a.to_bits() == b.to_bits()));
}

#[test]
fn every_possible_cut_is_noticed() {
    let bytes = whole();
    for n in 0..bytes.len() {
        let e = read(bytes[..n].to_vec()).err().unwrap();
        let foreign = n < 8;
        assert!(
            matches!(e, CheckpointError::Foreign { .. }) == foreign
                && matches!(e, CheckpointError::Truncated { .. }) != foreign,
            "{n}: {e}"
        );
    }
}

#[test]
fn every_flipped_byte_is_noticed() {
    let bytes = whole();
    for i in 0..bytes.len() {
        let mut bad = bytes.clone();
        bad[i] ^= 0x10;
        assert!(read(bad).is_err(), "byte {i}");
    }
}

#[test]
fn bytes_after_the_end_and_other_versions_are_refused() {
    let mut long = whole();
    long.push(0);
    assert!(matches!(read(long), Err(CheckpointError::Corrupt { .. })));
    let mut newer = whole();
    newer[8] = 9;
    let e = read(newer).err().unwrap().to_string();
    assert!(e.contains("format 9") && e.contains("reads 1"), "{e}");
}

#[test]
fn a_length_that_lies_does_not_reserve_memory() {
    let mut bad = whole();
    // The length of the first section follows magic, version, mark, name length and the name "bytes".
    let at = 8 + 4 + 1 + 2 + 5;
    bad[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(matches!(read(bad), Err(CheckpointError::Truncated { .. })));
}

#[test]
fn missing_sections_wrong_sizes_and_double_names_say_which() {
    let mut r = read(whole()).unwrap();
    let e = r.bytes("momentum").unwrap_err().to_string();
    assert!(e.contains("momentum") && e.contains("missing"), "{e}");
    let e = r.scope("model", |r| r.reals("f32", &mut [0.0_f32; 4])).unwrap_err().to_string();
    assert!(e.contains("model/f32") && e.contains("12 bytes") && e.contains("16"), "{e}");
    let e = r.scope("model", |r| r.text("f64")).unwrap_err().to_string();
    assert!(e.contains("not text"), "{e}");
    let mut out = Vec::new();
    let mut w = StateWriter::new(&mut out, Path::new("m")).unwrap();
    w.put("a", &[]).unwrap();
    assert!(w.put("a", &[]).unwrap_err().to_string().contains("twice"));
    assert!(w.put(&"n".repeat(70_000), &[]).unwrap_err().to_string().contains("too long"));
}

#[test]
fn the_checkpoint_before_the_last_one_is_kept_and_taken_when_the_last_is_damaged() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.bin");
    assert!(!exists(&path));
    for text in ["first", "second"] {
        write(&path, |w| w.put_text("which", text)).unwrap();
    }
    let latest = || open_latest(&path).map(|(mut r, note)| (r.text("which").unwrap(), note));
    assert_eq!(latest().unwrap(), ("second".to_owned(), None));

    let whole = fs::read(&path).unwrap();
    fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    let (which, note) = latest().unwrap();
    assert_eq!(which, "first");
    assert!(note.unwrap().contains("cut off"));

    // Killed between the two renames.
    fs::remove_file(&path).unwrap();
    assert!(exists(&path));
    assert_eq!(latest().unwrap().0, "first");

    fs::write(previous(&path), b"something else").unwrap();
    fs::write(&path, b"not a checkpoint").unwrap();
    let e = latest().unwrap_err().to_string();
    assert!(e.contains("state.bin is not a checkpoint"), "{e}");
}

#[test]
fn a_writer_that_fails_leaves_the_old_checkpoint_and_no_temporary_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.bin");
    write(&path, |w| w.put_text("which", "good")).unwrap();
    let e = write(&path, |_| Err(CheckpointError::Mismatch("no".to_owned()))).unwrap_err();
    assert_eq!(e.to_string(), "no");
    assert_eq!(open(&path).unwrap().text("which").unwrap(), "good");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_leaves_the_old_checkpoint_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("state.bin");
    write(&path, |w| w.put_text("which", "good")).unwrap();
    std::os::unix::fs::symlink("/dev/full", dir.path().join("state.bin.tmp")).unwrap();
    let e = write(&path, |w| w.put("big", &[7; 4096])).unwrap_err().to_string();
    assert!(e.contains("state.bin") && e.contains("free some space"), "{e}");
    assert_eq!(open(&path).unwrap().text("which").unwrap(), "good");
}

#[test]
fn a_folder_that_does_not_exist_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("no/state.bin");
    let e = write(&path, |w| w.put("a", &[])).unwrap_err().to_string();
    assert!(e.contains("no/state.bin.tmp") && e.contains("check the path"), "{e}");
}
