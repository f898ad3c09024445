use half::{bf16, f16};
use rayon::prelude::*;

/// A storage type of tensors, with the tag that GGUF gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(non_camel_case_types, reason = "the names that every tool prints")]
pub enum GgmlType {
    /// 32-bit floating point.
    F32 = 0,
    /// IEEE half precision.
    F16 = 1,
    /// 4 bits, scale per 32.
    Q4_0 = 2,
    /// 4 bits, scale and minimum per 32.
    Q4_1 = 3,
    /// 5 bits, scale per 32.
    Q5_0 = 6,
    /// 5 bits, scale and minimum per 32.
    Q5_1 = 7,
    /// 8 bits, scale per 32.
    Q8_0 = 8,
    /// 4 bits, 6-bit scales and minima per 32 in blocks of 256.
    Q4_K = 12,
    /// 5 bits, 6-bit scales and minima per 32 in blocks of 256.
    Q5_K = 13,
    /// 6 bits, 8-bit scales per 16 in blocks of 256.
    Q6_K = 14,
    /// bfloat16.
    BF16 = 30,
}

impl GgmlType {
    /// Every type that is read here.
    pub const ALL: [GgmlType; 11] = [
        GgmlType::F32,
        GgmlType::F16,
        GgmlType::BF16,
        GgmlType::Q4_0,
        GgmlType::Q4_1,
        GgmlType::Q5_0,
        GgmlType::Q5_1,
        GgmlType::Q8_0,
        GgmlType::Q4_K,
        GgmlType::Q5_K,
        GgmlType::Q6_K,
    ];

    /// The type with this tag.
    pub fn from_tag(tag: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|&t| t as u32 == tag)
    }

    /// The name that tools print, e.g. `Q4_K`.
    pub fn name(self) -> String {
        format!("{self:?}")
    }

    /// Values per block and bytes per block.
    pub fn block(self) -> (usize, usize) {
        match self {
            GgmlType::F32 => (1, 4),
            GgmlType::F16 | GgmlType::BF16 => (1, 2),
            GgmlType::Q4_0 => (32, 18),
            GgmlType::Q4_1 => (32, 20),
            GgmlType::Q5_0 => (32, 22),
            GgmlType::Q5_1 => (32, 24),
            GgmlType::Q8_0 => (32, 34),
            GgmlType::Q4_K => (256, 144),
            GgmlType::Q5_K => (256, 176),
            GgmlType::Q6_K => (256, 210),
        }
    }
}

/// The values of `bytes`, which hold whole blocks; trailing bytes of an incomplete block are ignored.
///
/// # Equation
/// Q4_0, Q5_0, Q8_0: x = d q; Q4_1, Q5_1: x = d q + m; Q4_K, Q5_K: x = (d s) q - (dmin m); Q6_K: x = (d s) q.
/// Each product and sum is rounded to `f32` by itself, in the order of ggml's reference, so the bits are those
/// of the `gguf` package for Python.
///
/// # Cost
/// One pass, in parallel over blocks.
pub fn dequantize(ty: GgmlType, bytes: &[u8]) -> Vec<f32> {
    match ty {
        GgmlType::F32 => each::<4, 1>(bytes, |b, out| out[0] = f32::from_le_bytes(*b)),
        GgmlType::F16 => each::<2, 1>(bytes, |b, out| out[0] = f16::from_le_bytes(*b).to_f32()),
        GgmlType::BF16 => each::<2, 1>(bytes, |b, out| out[0] = bf16::from_le_bytes(*b).to_f32()),
        GgmlType::Q4_0 => each::<18, 32>(bytes, |b, out| {
            let d = scale(b, 0);
            nibbles(&b[2..], out, |q, _| d * (q as i8 - 8) as f32);
        }),
        GgmlType::Q4_1 => each::<20, 32>(bytes, |b, out| {
            let (d, m) = (scale(b, 0), scale(b, 2));
            nibbles(&b[4..], out, |q, _| d * q as f32 + m);
        }),
        GgmlType::Q5_0 => each::<22, 32>(bytes, |b, out| {
            let (d, high) = (scale(b, 0), word(b, 2));
            nibbles(&b[6..], out, |q, i| d * ((q | fifth(high, i)) as i8 - 16) as f32);
        }),
        GgmlType::Q5_1 => each::<24, 32>(bytes, |b, out| {
            let (d, m, high) = (scale(b, 0), scale(b, 2), word(b, 4));
            nibbles(&b[8..], out, |q, i| d * (q | fifth(high, i)) as f32 + m);
        }),
        GgmlType::Q8_0 => each::<34, 32>(bytes, |b, out| {
            let d = scale(b, 0);
            for (x, &q) in out.iter_mut().zip(&b[2..]) {
                *x = q as i8 as f32 * d;
            }
        }),
        GgmlType::Q4_K => each::<144, 256>(bytes, |b, out| {
            k_block(b, out, |i| (b[16 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15);
        }),
        GgmlType::Q5_K => each::<176, 256>(bytes, |b, out| {
            k_block(b, out, |i| {
                let low = (b[48 + i / 64 * 32 + i % 32] >> (i / 32 % 2 * 4)) & 15;
                low | (((b[16 + i % 32] >> (i / 32)) & 1) << 4)
            });
        }),
        GgmlType::Q6_K => each::<210, 256>(bytes, |b, out| {
            let d = scale(b, 208);
            for (i, x) in out.iter_mut().enumerate() {
                let low = (b[i / 128 * 64 + i % 64] >> (i / 64 % 2 * 4)) & 15;
                let high = (b[128 + i / 128 * 32 + i % 32] >> (i / 32 % 4 * 2)) & 3;
                let s = b[192 + i / 16] as i8 as f32;
                *x = (d * s) * ((low | (high << 4)) as i8 - 32) as f32;
            }
        }),
    }
}

/// The bytes of `values` as F32, F16 or Q8_0.
///
/// # Equation
/// Q8_0, per 32 values: d = max|x| / 127, q = round(x / d) with halves away from zero, d stored as F16.
///
/// # Errors
/// The index of the first value that the type cannot hold (not finite, or beyond half precision), or of the
/// first that does not fill a block; `Err(None)` for a type that is not written here.
pub fn quantize(ty: GgmlType, values: &[f32]) -> Result<Vec<u8>, Option<usize>> {
    match ty {
        GgmlType::F32 => Ok(values.iter().flat_map(|v| v.to_le_bytes()).collect()),
        GgmlType::F16 => match values.iter().position(|&v| !f16::from_f32(v).is_finite()) {
            Some(i) => Err(Some(i)),
            None => Ok(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()).collect()),
        },
        GgmlType::Q8_0 => {
            let (blocks, rest) = values.as_chunks::<32>();
            if !rest.is_empty() {
                return Err(Some(values.len() - rest.len()));
            }
            let mut out = Vec::with_capacity(blocks.len() * 34);
            for (i, block) in blocks.iter().enumerate() {
                if let Some(j) = block.iter().position(|v| !v.is_finite()) {
                    return Err(Some(i * 32 + j));
                }
                let largest = block.iter().fold(0f32, |m, v| m.max(v.abs()));
                let d = largest / 127.0;
                let inverse = if d > 0.0 { 1.0 / d } else { 0.0 };
                if !f16::from_f32(d).is_finite() {
                    return Err(Some(i * 32 + block.iter().position(|v| v.abs() >= largest).unwrap_or(0)));
                }
                out.extend(f16::from_f32(d).to_le_bytes());
                out.extend(block.iter().map(|v| (v * inverse).round() as i8 as u8));
            }
            Ok(out)
        }
        _ => Err(None),
    }
}

fn each<const BYTES: usize, const VALUES: usize>(
    bytes: &[u8],
    f: impl Fn(&[u8; BYTES], &mut [f32; VALUES]) + Sync,
) -> Vec<f32> {
    // Large enough that the bookkeeping of a task is nothing beside its work.
    const RUN: usize = 4096;
    let (blocks, _) = bytes.as_chunks::<BYTES>();
    let mut out = vec![0.0; blocks.len() * VALUES];
    let (values, _) = out.as_chunks_mut::<VALUES>();
    values.par_chunks_mut(RUN).zip(blocks.par_chunks(RUN)).for_each(|(values, blocks)| {
        for (v, b) in values.iter_mut().zip(blocks) {
            f(b, v);
        }
    });
    out
}

fn scale(b: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([b[at], b[at + 1]]).to_f32()
}

fn word(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

fn fifth(high: u32, i: usize) -> u8 {
    (((high >> i) & 1) << 4) as u8
}

/// Value i of a block of 32 is the low half of byte i, value i + 16 the high half.
fn nibbles(packed: &[u8], out: &mut [f32; 32], f: impl Fn(u8, usize) -> f32) {
    for (i, &byte) in packed.iter().take(16).enumerate() {
        out[i] = f(byte & 15, i);
        out[i + 16] = f(byte >> 4, i + 16);
    }
}

/// The shared head of Q4_K and Q5_K: d, dmin, and eight 6-bit scales and minima in twelve bytes.
fn k_block(b: &[u8], out: &mut [f32; 256], q: impl Fn(usize) -> u8) {
    let (d, dmin, packed) = (scale(b, 0), scale(b, 2), &b[4..16]);
    for (j, group) in out.chunks_exact_mut(32).enumerate() {
        let (s, m) = if j < 4 {
            (packed[j] & 63, packed[j + 4] & 63)
        } else {
            (
                (packed[j + 4] & 0x0f) | ((packed[j - 4] >> 2) & 0x30),
                (packed[j + 4] >> 4) | ((packed[j] >> 2) & 0x30),
            )
        };
        let (step, least) = (d * s as f32, dmin * m as f32);
        for (i, x) in group.iter_mut().enumerate() {
            *x = step * q(j * 32 + i) as f32 - least;
        }
    }
}
