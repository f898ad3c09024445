//! IDX files, plain and packed, and what is wrong with others.

use std::io::Write;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use rhumb_io::idx::{self, Idx, LabelledImages};

fn array(shape: &[u32], data: &[u8]) -> Vec<u8> {
    let mut out = vec![0, 0, 8, shape.len() as u8];
    shape.iter().for_each(|d| out.extend(d.to_be_bytes()));
    out.extend(data);
    out
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut to = GzEncoder::new(Vec::new(), Compression::default());
    to.write_all(bytes).unwrap();
    to.finish().unwrap()
}

fn write(dir: &Path, name: &str, bytes: &[u8]) -> PathBuf {
    let path = dir.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

#[test]
fn an_array_is_read_plain_and_packed_whatever_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let data: Vec<u8> = (0..12).collect();
    let bytes = array(&[2, 3, 2], &data);
    for (name, bytes) in [("a", bytes.clone()), ("b.gz", packed(&bytes)), ("c", packed(&bytes))] {
        let got = idx::read(&write(dir.path(), name, &bytes)).unwrap();
        assert_eq!(got, Idx { shape: vec![2, 3, 2], data: data.clone() }, "{name}");
    }
    let empty = idx::read(&write(dir.path(), "empty", &array(&[0, 5], &[]))).unwrap();
    assert_eq!(empty, Idx { shape: vec![0, 5], data: vec![] });
}

#[test]
fn a_file_that_is_no_whole_array_is_refused_with_the_place() {
    let dir = tempfile::tempdir().unwrap();
    let good = array(&[2, 3], &[1, 2, 3, 4, 5, 6]);
    let long = [&good[..], &[7]].concat();
    let floats = [&[0, 0, 0x0d, 1], &good[4..]].concat();
    let huge = array(&[u32::MAX; 4], &[]);
    let vast = array(&[1 << 30], &[]);
    let cases: [(&[u8], &str); 10] = [
        (&[], "the header at byte 0 needs 4 bytes, the file has 0"),
        (&good[..3], "the header at byte 0 needs 4 bytes, the file has 3"),
        (&good[..9], "dimension 1 at byte 8 needs 4 bytes, the file has 9"),
        (&good[..16], "the values at byte 12 needs 6 bytes, the file has 16"),
        (&vast, "needs 1073741824 bytes, the file has 8"),
        (&long, "malformed at byte 18: goes on after an array of [2, 3]"),
        (b"PNG\n....", "is not a byte-array (IDX) file: it begins with PNG\\n"),
        (&floats, "type 0x0d, only unsigned bytes"),
        (&huge, "far too large"),
        (&packed(&good)[..20], "cannot read"),
    ];
    for (bytes, want) in cases {
        let e = idx::read(&write(dir.path(), "x", bytes)).unwrap_err().to_string();
        assert!(e.contains(want), "{want}: {e}");
        assert!(e.contains(dir.path().to_str().unwrap()), "{e}");
    }
    let e = idx::read(&write(dir.path(), "y", &packed(&good[..16]))).unwrap_err().to_string();
    assert!(e.contains("the values at byte 12 needs 6 bytes, the file has 16"), "{e}");
    assert!(idx::read(&dir.path().join("none")).unwrap_err().to_string().contains("check the path"));
}

#[test]
fn images_and_classes_have_to_belong_together() {
    let dir = tempfile::tempdir().unwrap();
    let images = write(dir.path(), "images", &array(&[2, 1, 3], &[1, 2, 3, 4, 5, 6]));
    let labels = write(dir.path(), "labels", &packed(&array(&[2], &[9, 0])));
    let got = LabelledImages::read(&images, &labels).unwrap();
    assert_eq!(got, LabelledImages { plane: [1, 3], pixels: vec![1, 2, 3, 4, 5, 6], labels: vec![9, 0] });
    let e = LabelledImages::read(&labels, &images).unwrap_err().to_string();
    assert!(e.contains("[2] is no list of images: are the files swapped?"), "{e}");
    let three = write(dir.path(), "three", &array(&[3], &[0; 3]));
    let e = LabelledImages::read(&images, &three).unwrap_err().to_string();
    assert!(e.contains("[3] does not name the classes of 2 images"), "{e}");
}

#[test]
fn images_in_lines_of_text_are_read_and_wrong_lines_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let good = write(dir.path(), "good.csv", b"0,1,2,16,7\n255, 0,0,0,9\n");
    let x = LabelledImages::read_csv(&good, [2, 2]).unwrap();
    assert_eq!((x.pixels, x.labels, x.plane), (vec![0, 1, 2, 16, 255, 0, 0, 0], vec![7, 9], [2, 2]));
    for (text, want) in [
        (&b"0,1,2,3,4\n0,1,2,3\n"[..], "line 2 has 4 values, 5 are the pixels of 2 x 2 and a class"),
        (b"0,1,2,3,4\n0,1,2,300,3\n", "line 2 holds \"300\", which is no whole number"),
        (b"a,b,c,d,e\n", "line 1 holds \"a\""),
        (b"0,1,2,3,\xff\n", "malformed"),
    ] {
        let e =
            LabelledImages::read_csv(&write(dir.path(), "bad.csv", text), [2, 2]).unwrap_err().to_string();
        assert!(e.contains(want) && e.contains("bad.csv"), "{e}");
    }
    assert!(LabelledImages::read_csv(&dir.path().join("none"), [2, 2]).is_err());
}

/// The real files, where `RHUMB_IMAGES` names the folder that `scripts/fetch-images.sh` filled.
#[test]
fn the_real_data_sets_have_their_numbers_of_images_and_classes() {
    let dir = std::env::var_os("RHUMB_IMAGES").map(PathBuf::from).filter(|d| d.join("mnist").is_dir());
    let Some(dir) = dir else {
        eprintln!("skipped: RHUMB_IMAGES does not name a folder with mnist and fashion-mnist");
        return;
    };
    for (set, end) in [("mnist", ""), ("fashion-mnist", ".gz")] {
        for (part, count) in [("train", 60_000), ("t10k", 10_000)] {
            let file = |what: &str| dir.join(set).join(format!("{part}-{what}-ubyte{end}"));
            let x = LabelledImages::read(&file("images-idx3"), &file("labels-idx1")).unwrap();
            assert_eq!((x.plane, x.labels.len(), x.pixels.len()), ([28, 28], count, count * 784));
            let mut found = [0; 10];
            x.labels.iter().for_each(|l| found[usize::from(*l)] += 1);
            assert!(found.iter().all(|n| *n > count / 12), "{set} {part}: {found:?}");
        }
    }
    let digits = LabelledImages::read_csv(&dir.join("digits/digits.csv.gz"), [8, 8]).unwrap();
    assert_eq!((digits.labels.len(), digits.pixels.len()), (1797, 1797 * 64));
    let counts: Vec<usize> =
        (0..10).map(|c| digits.labels.iter().filter(|l| usize::from(**l) == c).count()).collect();
    // As scikit-learn's documentation counts them.
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    assert_eq!(digits.pixels.iter().max(), Some(&16));
}
