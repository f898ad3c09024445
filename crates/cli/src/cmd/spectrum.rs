//! `rhumb spectrum`.

mod advice;
mod choice;
mod folder;
mod measure;
mod told;

use std::path::PathBuf;

use rhumb_core::Curvature;
use rhumb_krylov::Orthogonality;
use rhumb_krylov::slq::SlqOptions;
use rhumb_lm::data::{Example, PackedBatch, Tokenizing, pack};
use rhumb_nn::model::TokenBatch;
use rhumb_spectrum::{Cut, Reduction, Sample};
use serde::Serialize;

pub(crate) use self::choice::sampled;
use self::folder::Folder;
use crate::exit::{Code, Failure};
use crate::lm::LanguageModel;
use crate::output::{Global, Output};
use crate::rows::{self, Format};

/// Arguments of `spectrum`.
#[expect(clippy::struct_excessive_bools, reason = "each is a switch of the command line")]
#[derive(Debug, clap::Args, Serialize)]
pub(crate) struct Args {
    /// Folder or GGUF file of a model; several of them, as checkpoints of one training, are measured one after another
    /// and compared.
    #[arg(required = true, value_name = "MODEL")]
    #[serde(skip)]
    models: Vec<PathBuf>,
    /// Conversations or texts, as for `train sft`.
    #[arg(long, value_name = "FILE")]
    data: PathBuf,
    /// How rows are read.
    #[arg(long, value_enum, default_value = "auto")]
    format: Format,
    /// Tensors by name, separated by commas; `*` stands for any text. Without it the matrices of the first, the middle and
    /// the last layer, and those outside layers.
    #[arg(long, value_name = "PATTERN,..", value_delimiter = ',')]
    blocks: Vec<String>,
    /// Tensors that are one block together, under a name; may be given several times.
    #[arg(long = "group", value_name = "NAME=PATTERN,..", value_parser = choice::as_group)]
    groups: Vec<choice::Group>,
    /// What is a block among --blocks.
    #[arg(long, value_enum, default_value = "tensor")]
    cut: CutName,
    /// The curvature matrix.
    #[arg(long, value_enum, default_value = "hessian")]
    operator: Operator,
    /// Lanczos steps from each start vector; at most the parameters of the smallest block.
    #[arg(short = 'm', long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=10_000), allow_negative_numbers = true)]
    steps: u32,
    /// Random start vectors.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=10_000), allow_negative_numbers = true)]
    probes: u32,
    /// Packed rows of a batch.
    #[arg(long, visible_alias = "batch-size", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=65_536), allow_negative_numbers = true)]
    batch: u32,
    /// Tokens of a row.
    #[arg(long, visible_alias = "max-seq-len", default_value_t = 128, value_parser = clap::value_parser!(u32).range(2..=1_048_576), allow_negative_numbers = true)]
    tokens: u32,
    /// Batches, whose matrices are averaged.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=1_000_000), allow_negative_numbers = true)]
    batches: u32,
    /// How batches are put together: the mean over tokens, or the sum of the batches' means as the paper's code has it.
    #[arg(long, value_enum, default_value = "mean")]
    reduction: ReductionName,
    /// Compute in f64.
    #[arg(long)]
    double: bool,
    /// The three-term recurrence without orthogonalisation, as the paper's code: two vectors of memory, and copies of
    /// eigenvalues.
    #[arg(long)]
    plain: bool,
    /// Also how much of each matrix lies inside the blocks of its heads and of its rows, from at least this many products
    /// each, two or more.
    #[arg(long, value_name = "PRODUCTS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000), allow_negative_numbers = true)]
    structure: u32,
    /// Also how large the matrix is between each two blocks, from this many products for each block.
    #[arg(long, value_name = "PRODUCTS", default_value_t = 0, value_parser = clap::value_parser!(u32).range(0..=10_000), allow_negative_numbers = true)]
    map: u32,
    /// Also the loss along the top eigenvector of the block with the largest eigenvalue.
    #[arg(long)]
    landscape: bool,
    /// The seed of the start vectors.
    #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
    seed: u64,
    /// Minutes between two states on disk; one is also written at Ctrl-C.
    #[arg(long, default_value_t = 10.0, value_parser = crate::cmd::generate::positive, allow_negative_numbers = true)]
    #[serde(skip)]
    save_every: f64,
    /// Folder of the run, new or empty; `runs/spectrum-TIME` otherwise.
    #[arg(long, value_name = "DIR")]
    #[serde(skip)]
    out: Option<PathBuf>,
    /// Go on with the run in `--out`, with the same settings, models and data.
    #[arg(long, requires = "out")]
    #[serde(skip)]
    resume: bool,
}

/// What is a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum CutName {
    /// All chosen tensors together.
    Full,
    /// Each tensor.
    Tensor,
    /// Each head of queries, keys and values; other tensors whole.
    Head,
    /// Each row: an output neuron, a token.
    Row,
}

/// The curvature matrix.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum Operator {
    /// The Hessian.
    Hessian,
    /// The generalised Gauss-Newton matrix.
    Ggn,
    /// The empirical Fisher matrix, a token being a sample.
    Fisher,
}

/// How batches are put together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "kebab-case")]
enum ReductionName {
    /// The mean over tokens.
    Mean,
    /// The sum over batches.
    Sum,
}

impl Args {
    /// Whether the curvature is that on which the limits of the advice were drawn.
    fn comparable(&self) -> bool {
        self.blocks.is_empty()
            && self.groups.is_empty()
            && self.cut == CutName::Tensor
            && self.operator == Operator::Hessian
            && self.reduction == ReductionName::Mean
    }

    fn cut(&self) -> Cut {
        match self.cut {
            CutName::Full => Cut::Full,
            CutName::Tensor => Cut::Tensor,
            CutName::Head => Cut::Head,
            CutName::Row => Cut::Row,
        }
    }

    fn curvature(&self) -> Curvature {
        match self.operator {
            Operator::Hessian => Curvature::Hessian,
            Operator::Ggn => Curvature::GaussNewton,
            Operator::Fisher => Curvature::EmpiricalFisher,
        }
    }

    fn reduction(&self) -> Reduction {
        match self.reduction {
            ReductionName::Mean => Reduction::Mean,
            ReductionName::Sum => Reduction::Sum,
        }
    }

    fn options(&self) -> SlqOptions {
        let orthogonality =
            if self.plain { Orthogonality::Plain { keep: false } } else { Orthogonality::Full };
        let (steps, starts) = (self.steps as usize, self.probes as usize);
        SlqOptions { steps, starts, seed: self.seed, orthogonality }
    }
}

/// Measures the spectra of blocks of a model's curvature.
pub(crate) fn run(args: &Args, global: Global) -> Result<Output, Failure> {
    if args.landscape && args.plain {
        return Err(Failure::usage(
            "--landscape needs the eigenvector, which --plain does not keep: leave one of them out",
        ));
    }
    if args.structure == 1 {
        return Err(Failure::usage("--structure 1: one product has no error beside it; give 2 or more"));
    }
    let first = args.models.first().ok_or_else(|| Failure::usage("give a model"))?;
    let ready = measure::ready(args, first)?;
    let mut folder = Folder::begin(args, global)?;
    let done = measure::all(args, &mut folder, ready);
    if let Err(e) = &done {
        folder.failed(e)?;
    }
    let found = done?;
    folder.finish(args, &found)
}

/// The first rows of the data as batches.
fn samples(args: &Args, lm: &LanguageModel) -> Result<Vec<Sample<TokenBatch>>, Failure> {
    let (len, context) = (args.tokens as usize, lm.decoder.config().positions);
    if len > context {
        return Err(Failure::usage(format!(
            "--tokens {len}: the context of this model is {context} tokens; give at most that"
        )));
    }
    let tokenizing = Tokenizing {
        encoder: &lm.tokenizer,
        format: lm.template.as_ref().map(|t| t as _),
        eos: lm.eos.first().copied(),
        max_len: len,
    };
    let usage = |e| Failure::new(Code::Usage, e);
    let want = args.batch as usize * args.batches as usize;
    let mut examples: Vec<Example> = Vec::new();
    let (mut tokens, mut dropped) = (0, None);
    for row in rows::open(&args.data, args.format)? {
        let take = |e: Example| {
            tokens += e.ids.len();
            examples.push(e);
            Ok(())
        };
        let intake =
            tokenizing.each(std::iter::once(row), &args.data.display().to_string(), take).map_err(usage)?;
        dropped = dropped.or(intake.dropped.into_iter().next());
        // First fit leaves less than half of the places empty.
        if tokens >= 2 * want * len {
            break;
        }
    }
    let packed = pack(&examples, len).map_err(usage)?;
    if let (true, Some(first)) = (examples.is_empty(), dropped) {
        return Err(Failure::usage(format!(
            "{}: no row can be measured on; line {}: {}",
            args.data.display(),
            first.line,
            crate::cmd::train::sft::intake::reason(&first.why)
        )));
    }
    if packed.len() < want {
        return Err(Failure::usage(format!(
            "{} fills {} rows of {len} tokens, and {want} are asked for: give more data, or fewer or shorter rows \
             (--batch, --batches, --tokens)",
            args.data.display(),
            packed.len()
        )));
    }
    let batch = |rows: &[rhumb_lm::data::PackedRow]| {
        let batch: TokenBatch = PackedBatch::new(&examples, rows, len).into();
        Sample { rows: batch.live(), batch }
    };
    Ok(packed[..want].chunks(args.batch as usize).map(batch).collect())
}
