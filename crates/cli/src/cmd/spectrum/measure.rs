//! The spectra of one model after another.

use std::path::Path;
use std::sync::Arc;

use rhumb_core::{EvalError, Layout};
use rhumb_krylov::Orthogonality;
use rhumb_linalg::Real;
use rhumb_nn::loss::LossKind;
use rhumb_nn::model::{DecoderObjective, TokenBatch};
use rhumb_spectrum::{
    BlockAt, BlockSpectrum, CurvatureOf, Cut, Diagonality, NormMap, Sample, SelfCheck, Slice, SlqRun,
    SpectrumError, block_diagonality, blocks, disjoint, filter_normalised, norm_map, slice,
};
use serde::{Deserialize, Serialize};

use super::folder::Folder;
use super::{Args, choice, samples};
use crate::exit::{Code, Failure};
use crate::lm::LanguageModel;
use crate::machine;
use crate::table::bytes;

/// What was found of one model.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Found {
    /// The model, as it was given.
    pub(super) model: String,
    /// The loss on the batches.
    pub(super) loss: f64,
    /// Labels that take part.
    pub(super) labels: usize,
    /// Of the operator.
    pub(super) check: SelfCheck,
    /// Spectra.
    pub(super) blocks: Vec<BlockSpectrum>,
    /// How much of each matrix lies inside smaller blocks, where it was asked for.
    pub(super) structure: Vec<Structure>,
    /// How large the matrix is between blocks, where it was asked for.
    #[serde(default)]
    pub(super) map: Option<NormMap>,
    /// The loss along a top eigenvector, where it was asked for.
    pub(super) landscape: Option<Landscape>,
}

/// Where the curvature of one tensor lies.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Structure {
    /// The tensor.
    pub(super) tensor: String,
    /// Its heads, where it has some.
    pub(super) heads: Option<Diagonality>,
    /// Its rows.
    pub(super) rows: Diagonality,
}

/// The loss along the top eigenvector of a block.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Landscape {
    /// The block.
    pub(super) block: String,
    /// The loss.
    pub(super) slice: Slice,
}

/// Share of the memory that basis vectors may take.
const SHARE: f64 = 0.5;

/// A model with the batches that it is measured on.
pub(super) struct Ready {
    lm: LanguageModel,
    samples: Vec<Sample<TokenBatch>>,
}

/// Opens a model and reads the data; what cannot be measured is refused here, before a folder is begun.
pub(super) fn ready(args: &Args, model: &Path) -> Result<Ready, Failure> {
    let lm = LanguageModel::open(model)?;
    let samples = samples(args, &lm)?;
    let chosen =
        choice::chosen(lm.decoder.layout(), args.cut(), &args.blocks, &args.groups).map_err(from_spectrum)?;
    if args.map > 0 {
        disjoint(&chosen).map_err(from_spectrum)?;
    }
    SlqRun::<f32>::new(chosen, args.options()).map_err(from_spectrum)?;
    Ok(Ready { lm, samples })
}

/// All models; what an earlier part of the run has finished is read.
pub(super) fn all(args: &Args, folder: &mut Folder, first: Ready) -> Result<Vec<Found>, Failure> {
    let mut found = folder.finished()?;
    let mut first = Some(first);
    for i in found.len()..args.models.len() {
        let path = &args.models[i];
        let Ready { lm, samples } = match first.take().filter(|_| i == 0) {
            Some(r) => r,
            None => ready(args, path)?,
        };
        let one = if args.double {
            let at: Vec<f64> = lm.params.iter().map(|x| f64::from(*x)).collect();
            one::<f64>(args, path, &lm, &at, &samples, folder)?
        } else {
            one::<f32>(args, path, &lm, &lm.params, &samples, folder)?
        };
        folder.keep(i, &one)?;
        found.push(one);
    }
    Ok(found)
}

fn one<T: Real>(
    args: &Args,
    path: &Path,
    lm: &LanguageModel,
    at: &[T],
    samples: &[Sample<TokenBatch>],
    folder: &mut Folder,
) -> Result<Found, Failure> {
    let usage = |e| Failure::new(Code::Usage, e);
    let mut objective =
        DecoderObjective::<T>::new(lm.decoder.clone(), LossKind::Ce, false, Arc::default()).map_err(usage)?;
    let layout = lm.decoder.layout().clone();
    let chosen = choice::chosen(&layout, args.cut(), &args.blocks, &args.groups).map_err(from_spectrum)?;
    let mut run = SlqRun::<T>::new(chosen, args.options()).map_err(from_spectrum)?;
    fits(&run, args.options().orthogonality)?;
    let labels = samples.iter().map(|s| s.rows).sum();
    let loss = mean_loss(&mut objective, at, samples)?;
    let mut of = CurvatureOf::new(&mut objective, at, samples, args.curvature(), args.reduction())
        .map_err(from_spectrum)?;
    folder.load(&mut run)?;
    let smallest = run.found().iter().map(|f| &f.block).min_by_key(|b| b.dim()).cloned();
    let smallest: Vec<&BlockAt> = smallest.iter().collect();
    let check = of.check(&smallest, args.seed).map_err(from_spectrum)?;
    while !run.place().done {
        let place = run.step(&mut of).map_err(from_spectrum)?;
        folder.stepped(&run, place)?;
    }
    let found = run.found().to_vec();
    let structure = structure(args, &mut of, &layout, &found, &mut || folder.pause(&run))?;
    if args.map > 0 {
        folder.pause(&run)?;
    }
    let map = if args.map > 0 {
        let all: Vec<BlockAt> = found.iter().map(|f| f.block.clone()).collect();
        Some(norm_map(&mut of, &all, args.map as usize, args.seed).map_err(from_spectrum)?)
    } else {
        None
    };
    drop(of);
    let landscape = if args.landscape {
        Some(landscape(args, &mut objective, at, samples, &layout, &found)?)
    } else {
        None
    };
    let model = path.display().to_string();
    Ok(Found { model, loss, labels, check, blocks: found, structure, map, landscape })
}

/// Refuses bases that memory cannot hold.
fn fits<T: Real>(run: &SlqRun<T>, orthogonality: Orthogonality) -> Result<(), Failure> {
    let (need, room) =
        (run.basis_bytes() as f64, machine::memory_for_process().map_or(f64::MAX, |m| m as f64));
    if need <= SHARE * room {
        return Ok(());
    }
    let plain =
        if orthogonality == Orthogonality::Full { ", or --plain, which keeps two vectors" } else { "" };
    Err(Failure::usage(format!(
        "the basis vectors of {} blocks take {}, more than half of the memory ({}): choose fewer with --blocks, fewer \
         --steps{plain}",
        run.found().len(),
        bytes(need as u64),
        bytes(room as u64)
    )))
}

fn mean_loss<T: Real>(
    objective: &mut DecoderObjective<T>,
    at: &[T],
    samples: &[Sample<TokenBatch>],
) -> Result<f64, Failure> {
    let mut sum = (0.0, 0.0);
    for (batch, s) in samples.iter().enumerate() {
        let report = objective.report(at, &s.batch);
        // The training's advice, another learning rate, means nothing here.
        let report = report.map_err(|e| match e {
            EvalError::NonFinite { what, block } => Failure::new(
                Code::Numerical,
                anyhow::anyhow!(
                    "batch {batch}: the {what} is not finite{}: look at the weights and at that batch",
                    block.map(|b| format!(" in {b}")).unwrap_or_default()
                ),
            ),
            e => crate::lm::from_eval(e).context(format!("batch {batch}")),
        })?;
        sum.0 += s.rows as f64 * report.loss;
        sum.1 += s.rows as f64;
    }
    Ok(sum.0 / sum.1)
}

fn structure<T: Real>(
    args: &Args,
    of: &mut CurvatureOf<'_, T, DecoderObjective<T>>,
    layout: &Layout,
    found: &[BlockSpectrum],
    pause: &mut dyn FnMut() -> Result<(), Failure>,
) -> Result<Vec<Structure>, Failure> {
    let products = args.structure as usize;
    let mut out = Vec::new();
    if products == 0 {
        return Ok(out);
    }
    for f in found {
        pause()?;
        let (name, outer) = (&f.block.name, &f.block);
        // Only whole matrices have heads and rows inside them.
        let Some(tensor) = layout.find(name).filter(|t| t.shape.len() > 1) else { continue };
        let cut = |cut| blocks(layout, cut, std::slice::from_ref(&tensor.name)).map_err(from_spectrum);
        let (heads, rows) = (cut(Cut::Head)?, cut(Cut::Row)?);
        let mut share = |parts: &[BlockAt]| {
            // As many parts as there are products, then several vectors in each.
            let each = products.div_ceil(parts.len());
            block_diagonality(of, outer, parts, (each, products), args.seed).map_err(from_spectrum)
        };
        let heads = if heads.len() > 1 { Some(share(&heads)?) } else { None };
        out.push(Structure { tensor: name.clone(), heads, rows: share(&rows)? });
    }
    Ok(out)
}

/// Along the top eigenvector of the block with the largest eigenvalue, found again by a Lanczos run of its own.
fn landscape<T: Real>(
    args: &Args,
    objective: &mut DecoderObjective<T>,
    at: &[T],
    samples: &[Sample<TokenBatch>],
    layout: &Layout,
    found: &[BlockSpectrum],
) -> Result<Landscape, Failure> {
    let top = found.iter().max_by(|a, b| a.top.value.total_cmp(&b.top.value));
    let block = top.map(|f| f.block.clone()).ok_or_else(|| Failure::usage("there is no block"))?;
    let mut of = CurvatureOf::new(objective, at, samples, args.curvature(), args.reduction())
        .map_err(from_spectrum)?;
    let (name, pieces) = (block.name.clone(), block.pieces.clone());
    let v = rhumb_spectrum::top_vector(&mut of, &block, &args.options()).map_err(from_spectrum)?;
    drop(of);
    let mut direction = vec![T::ZERO; at.len()];
    let mut from = 0;
    for r in pieces {
        direction[r.clone()].copy_from_slice(&v[from..from + r.len()]);
        from += r.len();
    }
    let direction = filter_normalised(layout, at, &direction);
    let steps: Vec<f64> = (-10..=10).map(|i| f64::from(i) / 10.0).collect();
    let slice = slice(objective, at, &direction, &samples[0].batch, &steps).map_err(crate::lm::from_eval)?;
    Ok(Landscape { block: name, slice })
}

pub(super) fn from_spectrum(e: SpectrumError) -> Failure {
    let code = match &e {
        SpectrumError::NonFinite { .. }
        | SpectrumError::Random { .. }
        | SpectrumError::Krylov { .. }
        | SpectrumError::Objective { source: EvalError::NonFinite { .. }, .. } => Code::Numerical,
        _ => Code::Usage,
    };
    Failure::new(code, e)
}
