//! IDX: arrays of bytes, as MNIST and data sets after its fashion are kept; packed by gzip or not. And images in lines of
//! text.
//!
//! # Format
//! Two zero bytes, the type (8: unsigned bytes, the only one read here), the number of dimensions, each dimension as four
//! bytes with the most significant first, then the bytes row by row (LeCun, Cortes, Burges 1998).

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;

use crate::IoError;

/// Bytes of an array that is still believed: four times the largest data set in use.
const MOST: u64 = 4 << 30;

/// An array of bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Idx {
    /// Dimensions, slowest first.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` bytes.
    pub data: Vec<u8>,
}

/// Reads an array, unpacking it where it begins as gzip does.
///
/// # Errors
/// [`IoError`] for a file of another kind or type, one that ends too early and one that goes on.
pub fn read(path: &Path) -> Result<Idx, IoError> {
    parse(path, open(path)?)
}

/// A file, unpacked where it begins as gzip does.
fn open(path: &Path) -> Result<Box<dyn Read>, IoError> {
    let open = || File::open(path).map_err(|e| IoError::io("open", path, e));
    let mut start = [0; 2];
    let packed = open()?.read_exact(&mut start).is_ok() && start == [0x1f, 0x8b];
    let file = BufReader::new(open()?);
    Ok(if packed { Box::new(MultiGzDecoder::new(file)) } else { Box::new(file) })
}

fn parse(path: &Path, mut from: impl Read) -> Result<Idx, IoError> {
    let mut at = 0;
    let magic = take(path, &mut from, &mut at, 4, "the header")?;
    let [0, 0, kind, dimensions] = magic[..] else {
        let found = String::from_utf8_lossy(&magic).escape_debug().to_string();
        return Err(IoError::Foreign { path: path.to_owned(), expected: "byte-array (IDX)", found });
    };
    if kind != 8 {
        let what = format!("holds values of type {kind:#04x}, only unsigned bytes (0x08) are read here");
        return Err(IoError::malformed(path, 2, what));
    }
    let mut shape = Vec::with_capacity(dimensions.into());
    for d in 0..dimensions {
        let bytes = take(path, &mut from, &mut at, 4, &format!("dimension {d}"))?;
        shape.push(bytes.iter().fold(0, |n, b| n << 8 | usize::from(*b)));
    }
    let len = shape.iter().try_fold(1_u64, |n, d| n.checked_mul(*d as u64)).filter(|n| *n <= MOST);
    let Some(len) = len else {
        return Err(IoError::malformed(path, 4, format!("dimensions {shape:?} are far too large")));
    };
    let data = take(path, &mut from, &mut at, len, "the values")?;
    match take(path, &mut from, &mut at, 1, "") {
        Err(IoError::Truncated { .. }) => Ok(Idx { shape, data }),
        Err(e) => Err(e),
        Ok(_) => Err(IoError::malformed(path, at - 1, format!("goes on after an array of {shape:?}"))),
    }
}

/// Reads `len` bytes, never believing more than the file gives.
fn take(path: &Path, from: &mut impl Read, at: &mut u64, len: u64, what: &str) -> Result<Vec<u8>, IoError> {
    let mut out = Vec::new();
    from.take(len).read_to_end(&mut out).map_err(|e| IoError::io("read", path, e))?;
    let got = out.len() as u64;
    if got < len {
        let (path, what) = (path.to_owned(), what.to_owned());
        return Err(IoError::Truncated { path, what, at: *at, needed: len, size: *at + got });
    }
    *at += len;
    Ok(out)
}

/// Images of bytes with their classes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LabelledImages {
    /// Rows and columns of an image.
    pub plane: [usize; 2],
    /// `[images, rows, columns]`.
    pub pixels: Vec<u8>,
    /// One class an image.
    pub labels: Vec<u8>,
}

impl LabelledImages {
    /// Reads a file of images and the file of their classes.
    ///
    /// # Errors
    /// As [`read()`], and when the files hold other arrays or do not belong together.
    pub fn read(images: &Path, labels: &Path) -> Result<Self, IoError> {
        let (x, y) = (read(images)?, read(labels)?);
        let wrong = |path: &Path, what: String| Err(IoError::malformed(path, 4, what));
        let [count, rows, columns] = x.shape[..] else {
            return wrong(
                images,
                format!("an array of {:?} is no list of images: are the files swapped?", x.shape),
            );
        };
        if y.shape != [count] {
            let what = format!("an array of {:?} does not name the classes of {count} images", y.shape);
            return wrong(labels, what);
        }
        Ok(LabelledImages { plane: [rows, columns], pixels: x.data, labels: y.data })
    }

    /// Reads lines of whole numbers, the pixels of an image of `plane` rows and columns and then its class, packed by
    /// gzip or not: scikit-learn's `digits.csv.gz`, 8 x 8 with pixels from 0 to 16.
    ///
    /// # Errors
    /// [`IoError`] for a line of another length, or a value that is no whole number below 256, with its line.
    pub fn read_csv(path: &Path, plane: [usize; 2]) -> Result<Self, IoError> {
        let mut lines = csv::ReaderBuilder::new().has_headers(false).flexible(true).from_reader(open(path)?);
        let (mut pixels, mut labels) = (Vec::new(), Vec::new());
        let want = plane[0] * plane[1] + 1;
        for record in lines.records() {
            let record = record.map_err(|e| {
                let at = e.position().map_or(0, csv::Position::byte);
                IoError::malformed(path, at, e.to_string())
            })?;
            let (line, at) = record.position().map_or((0, 0), |p| (p.line(), p.byte()));
            let wrong = |what: String| IoError::malformed(path, at, format!("line {line} {what}"));
            if record.len() != want {
                return Err(wrong(format!(
                    "has {} values, {want} are the pixels of {} x {} and a class",
                    record.len(),
                    plane[0],
                    plane[1]
                )));
            }
            for (i, field) in record.iter().enumerate() {
                let value: u8 = field
                    .trim()
                    .parse()
                    .map_err(|_| wrong(format!("holds {field:?}, which is no whole number from 0 to 255")))?;
                if i + 1 < want { pixels.push(value) } else { labels.push(value) }
            }
        }
        Ok(LabelledImages { plane, pixels, labels })
    }
}
