//! How moments are kept between steps.
//!
//! A [`Store`] holds one number per parameter in a [`StateFormat`]; a step takes the [`View`] of a tensor, divides
//! it like a slice, and works on pieces of at most [`PIECE`] numbers: [`View::open`] decodes a piece into a buffer on
//! the stack (or lends the numbers themselves), [`View::close`] encodes it again. No piece outlives the first cache.

mod bf16;
mod dynamic;

use std::borrow::Cow;
use std::ops::Range;

use rhumb_core::{CheckpointError, Layout, StateReader, StateWriter};
use rhumb_linalg::Real;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use self::bf16::Noise;
use self::dynamic::Map;

/// Numbers of one piece: small against the first cache, a multiple of [`GRAIN`].
pub(crate) const PIECE: usize = 1024;
/// Views divide at multiples of this (counted from the beginning of a run), or between runs.
pub(crate) const GRAIN: usize = dynamic::BLOCK;
/// Tensors below this are kept whole in the eight-bit format: they are few bytes, and norms are sensitive.
const WHOLE_BELOW: usize = 4096;

/// In which form moments are kept between steps. Arithmetic is always that of the parameters.
///
/// Bytes of a first moment of n parameters in `f32` models: 4 n, 2 n, or n + 4 ⌈n / 256⌉.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum StateFormat {
    /// In the scalar type of the parameters.
    #[default]
    #[serde(rename = "f32")]
    Full,
    /// First moments in bfloat16 with stochastic rounding, second moments as in [`StateFormat::Full`]: with
    /// β₂ = 0.999 a second moment moves by less than the spacing of bfloat16. The random bits are a function of step
    /// and position, so that threads and restarts do not change a run. `f64` is rounded to `f32` first.
    #[serde(rename = "bf16")]
    Bf16,
    /// Eight bits and a scale in `f32` per 256 numbers (Dettmers et al., arXiv 2110.02861): first moments, and
    /// AdamW's second moments. Second moments of blocks of many parameters stay whole, and so do tensors of fewer
    /// than 4096 parameters.
    #[serde(rename = "8bit")]
    EightBit,
}

impl StateFormat {
    /// As written in a configuration.
    pub fn tag(self) -> &'static str {
        match self {
            StateFormat::Full => "f32",
            StateFormat::Bf16 => "bf16",
            StateFormat::EightBit => "8bit",
        }
    }

    /// Bytes of one first moment per parameter for a tensor of these runs; `scalar` is the bytes of one parameter.
    pub(crate) fn first_bytes(self, runs: impl Iterator<Item = usize> + Clone, scalar: usize) -> usize {
        let n: usize = runs.clone().sum();
        match self {
            StateFormat::Bf16 => 2 * n,
            StateFormat::EightBit if n >= WHOLE_BELOW => n + 4 * runs.map(scales).sum::<usize>(),
            _ => scalar * n,
        }
    }

    /// As [`StateFormat::first_bytes`] for one second moment per parameter.
    pub(crate) fn second_bytes(self, runs: impl Iterator<Item = usize> + Clone, scalar: usize) -> usize {
        match self {
            StateFormat::EightBit => self.first_bytes(runs, scalar),
            _ => StateFormat::Full.first_bytes(runs, scalar),
        }
    }
}

fn scales(run: usize) -> usize {
    run.div_ceil(dynamic::BLOCK)
}

/// Which moment; decides sign and format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Moment {
    First,
    Second,
}

/// Where the numbers of a tensor are.
#[derive(Clone, Debug)]
struct Place {
    /// Position in the flat vector of parameters.
    at: usize,
    full: Range<usize>,
    half: Range<usize>,
    codes: Range<usize>,
    scales: Range<usize>,
    /// Lengths of the runs, kept for the blocks of 256 that begin anew with each; empty for one run.
    runs: Vec<usize>,
}

/// One number per parameter of a layout.
#[derive(Clone, Debug)]
pub(crate) struct Store<T> {
    full: Vec<T>,
    half: Vec<u16>,
    codes: Vec<u8>,
    scales: Vec<f32>,
    places: Vec<Place>,
    seed: u64,
    map: &'static Map,
}

impl<T: Real> Store<T> {
    /// Zeros. `runs` are the lengths at which a tensor may be divided besides multiples of [`GRAIN`].
    pub(crate) fn new(
        format: StateFormat,
        moment: Moment,
        layout: &Layout,
        runs: impl Fn(usize) -> Vec<usize>,
    ) -> Self {
        let (mut full, mut half, mut codes, mut scale) = (0, 0, 0, 0);
        let mut places = Vec::with_capacity(layout.blocks().len());
        for (i, b) in layout.blocks().iter().enumerate() {
            let n = b.range.len();
            let runs = runs(i);
            let mut place = Place {
                at: b.range.start,
                full: full..full,
                half: half..half,
                codes: codes..codes,
                scales: scale..scale,
                runs: Vec::new(),
            };
            match (format, moment) {
                (StateFormat::EightBit, _) if n >= WHOLE_BELOW => {
                    codes += n;
                    scale += runs.iter().copied().map(scales).sum::<usize>();
                    if runs.len() > 1 {
                        place.runs = runs;
                    }
                }
                (StateFormat::Bf16, Moment::First) => half += n,
                _ => full += n,
            }
            place.full.end = full;
            place.half.end = half;
            place.codes.end = codes;
            place.scales.end = scale;
            places.push(place);
        }
        Store {
            full: vec![T::ZERO; full],
            half: vec![0; half],
            codes: vec![if moment == Moment::First { 127 } else { 0 }; codes],
            scales: vec![0.0; scale],
            places,
            seed: 0,
            map: if moment == Moment::First { &dynamic::SIGNED } else { &dynamic::UNSIGNED },
        }
    }

    /// Sets the stream of the roundings.
    pub(crate) fn seed(&mut self, seed: u64) {
        self.seed = seed;
    }

    /// The numbers of a tensor, to be changed in a step.
    pub(crate) fn view(&mut self, tensor: usize, step: u64) -> View<'_, T> {
        let place = &self.places[tensor];
        if !place.half.is_empty() {
            View::Bf16 {
                values: &mut self.half[place.half.clone()],
                noise: Noise::of_step(self.seed, step),
                at: place.at as u64,
            }
        } else if !place.codes.is_empty() {
            View::EightBit {
                codes: &mut self.codes[place.codes.clone()],
                scales: &mut self.scales[place.scales.clone()],
                map: self.map,
            }
        } else {
            View::Full(&mut self.full[place.full.clone()])
        }
    }

    pub(crate) fn bytes(&self) -> usize {
        self.full.len() * T::BYTES + self.half.len() * 2 + self.codes.len() + self.scales.len() * 4
    }

    /// All numbers in the order of the parameters.
    pub(crate) fn numbers(&self) -> Cow<'_, [T]> {
        if self.half.is_empty() && self.codes.is_empty() {
            return Cow::Borrowed(&self.full);
        }
        let mut out = vec![T::ZERO; self.places.last().map_or(0, |p| p.at + p.len())];
        for place in &self.places {
            let out = &mut out[place.at..place.at + place.len()];
            if !place.half.is_empty() {
                bf16::decode(&self.half[place.half.clone()], out);
            } else if !place.codes.is_empty() {
                place.each_run(|numbers, scales| {
                    let codes = &self.codes[place.codes.clone()][numbers.clone()];
                    self.map.decode(codes, &self.scales[place.scales.clone()][scales], &mut out[numbers]);
                });
            } else {
                out.copy_from_slice(&self.full[place.full.clone()]);
            }
        }
        Cow::Owned(out)
    }

    /// Replaces all numbers.
    pub(crate) fn fill(&mut self, numbers: &[T], step: u64) {
        for i in 0..self.places.len() {
            let place = self.places[i].clone();
            let from = &numbers[place.at..place.at + place.len()];
            match self.view(i, step) {
                View::Full(to) => to.copy_from_slice(from),
                View::Bf16 { values, noise, at } => bf16::encode(from, values, noise, at),
                View::EightBit { codes, scales, map } => place.each_run(|numbers, blocks| {
                    map.encode(&from[numbers.clone()], &mut codes[numbers], &mut scales[blocks]);
                }),
            }
        }
    }

    /// Writes `prefix/NAME` per tensor, with `.bf16`, or `.8bit` and `.scales`, behind it in those formats.
    pub(crate) fn save(
        &self,
        prefix: &str,
        layout: &Layout,
        out: &mut StateWriter<'_>,
    ) -> Result<(), CheckpointError> {
        for (place, b) in self.places.iter().zip(layout.blocks()) {
            let name = format!("{prefix}/{}", b.name);
            if !place.half.is_empty() {
                let halves = &self.half[place.half.clone()];
                let bytes: Vec<u8> = halves.iter().flat_map(|h| h.to_le_bytes()).collect();
                out.put(&format!("{name}.bf16"), &bytes)?;
            } else if !place.codes.is_empty() {
                out.put(&format!("{name}.8bit"), &self.codes[place.codes.clone()])?;
                out.put_reals(&format!("{name}.scales"), &self.scales[place.scales.clone()])?;
            } else {
                out.put_reals(&name, &self.full[place.full.clone()])?;
            }
        }
        Ok(())
    }

    pub(crate) fn load(
        &mut self,
        prefix: &str,
        layout: &Layout,
        src: &mut StateReader,
    ) -> Result<(), CheckpointError> {
        for (place, b) in self.places.iter().zip(layout.blocks()) {
            let name = format!("{prefix}/{}", b.name);
            if !place.half.is_empty() {
                let bytes = sized(src, &format!("{name}.bf16"), 2 * place.half.len())?;
                for (to, from) in self.half[place.half.clone()].iter_mut().zip(bytes.as_chunks().0) {
                    *to = u16::from_le_bytes(*from);
                }
            } else if !place.codes.is_empty() {
                let bytes = sized(src, &format!("{name}.8bit"), place.codes.len())?;
                self.codes[place.codes.clone()].copy_from_slice(&bytes);
                src.reals(&format!("{name}.scales"), &mut self.scales[place.scales.clone()])?;
            } else {
                src.reals(&name, &mut self.full[place.full.clone()])?;
            }
        }
        Ok(())
    }
}

fn sized(src: &mut StateReader, section: &str, want: usize) -> Result<Vec<u8>, CheckpointError> {
    let bytes = src.bytes(section)?;
    if bytes.len() == want {
        return Ok(bytes);
    }
    Err(CheckpointError::Mismatch(format!(
        "section {section} has {} bytes where this run needs {want}: it belongs to another model",
        bytes.len()
    )))
}

impl Place {
    fn len(&self) -> usize {
        self.full.len() + self.half.len() + self.codes.len()
    }

    /// Calls with the numbers and the scales of every run.
    fn each_run(&self, mut f: impl FnMut(Range<usize>, Range<usize>)) {
        let whole = [self.len()];
        let (mut at, mut block) = (0, 0);
        for &n in if self.runs.is_empty() { &whole[..] } else { &self.runs } {
            f(at..at + n, block..block + scales(n));
            at += n;
            block += scales(n);
        }
    }
}

/// The numbers of a tensor or of a part of it, during a step.
pub(crate) enum View<'a, T> {
    Full(&'a mut [T]),
    Bf16 {
        values: &'a mut [u16],
        noise: Noise,
        /// Position of the first one in the flat vector.
        at: u64,
    },
    EightBit {
        codes: &'a mut [u8],
        scales: &'a mut [f32],
        map: &'static Map,
    },
}

impl<T: Real> View<'_, T> {
    /// Divides at the end of a run or at a multiple of [`GRAIN`] within one.
    #[inline(always)]
    pub(crate) fn split_at(self, n: usize) -> (Self, Self) {
        match self {
            View::Full(x) => {
                let (a, b) = x.split_at_mut(n);
                (View::Full(a), View::Full(b))
            }
            View::Bf16 { values, noise, at } => {
                let (a, b) = values.split_at_mut(n);
                (View::Bf16 { values: a, noise, at }, View::Bf16 { values: b, noise, at: at + n as u64 })
            }
            View::EightBit { codes, scales, map } => {
                let (a, b) = codes.split_at_mut(n);
                let (c, d) = scales.split_at_mut(self::scales(n));
                (View::EightBit { codes: a, scales: c, map }, View::EightBit { codes: b, scales: d, map })
            }
        }
    }

    /// Whether parts must begin at multiples of [`GRAIN`].
    pub(crate) fn grain(&self) -> usize {
        if matches!(self, View::EightBit { .. }) { GRAIN } else { 1 }
    }

    /// The numbers `at..at + n` (n at most [`PIECE`], `at` a multiple of [`View::grain`]): themselves, or
    /// decoded in the buffer.
    #[inline(always)]
    pub(crate) fn open<'b>(&'b mut self, at: usize, n: usize, buffer: &'b mut [T; PIECE]) -> &'b mut [T] {
        match self {
            View::Full(x) => &mut x[at..at + n],
            View::Bf16 { values, .. } => {
                let to = &mut buffer[..n];
                bf16::decode(&values[at..at + n], to);
                to
            }
            View::EightBit { codes, scales, map } => {
                let to = &mut buffer[..n];
                map.decode(&codes[at..at + n], &scales[at / GRAIN..], to);
                to
            }
        }
    }

    /// Keeps what was opened and changed.
    #[inline(always)]
    pub(crate) fn close(&mut self, at: usize, n: usize, buffer: &[T; PIECE]) {
        match self {
            View::Full(_) => {}
            View::Bf16 { values, noise, at: first } => {
                bf16::encode(&buffer[..n], &mut values[at..at + n], *noise, *first + at as u64);
            }
            View::EightBit { codes, scales, map } => {
                map.encode(&buffer[..n], &mut codes[at..at + n], &mut scales[at / GRAIN..]);
            }
        }
    }
}
