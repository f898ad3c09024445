use rhumb_linalg::rng::Rng;

use super::*;
use crate::loss::{LOSSES, LogitLoss, RowState, row_losses, score_rows};
use crate::op::Data;
use crate::tape::Pool;

const ROWS: usize = 13;
const WIDTH: usize = 5;
const VOCAB: usize = 37;

/// Every loss of the table.
fn kinds() -> Vec<LossKind> {
    LOSSES.iter().map(|l| l.kind(None).unwrap()).collect()
}

fn random(seed: u64, n: usize) -> Vec<f64> {
    let mut rng = Rng::new(seed);
    (0..n).map(|_| rng.uniform() * 4.0 - 2.0).collect()
}

fn labels() -> Vec<u32> {
    (0..ROWS as u32).map(|i| if i % 4 == 1 { IGNORE } else { (7 * i) % VOCAB as u32 }).collect()
}

#[derive(Debug, PartialEq)]
struct Out<T> {
    report: LossReport,
    dh: Vec<T>,
    dw: Vec<T>,
}

fn eval<T: Real>(head: &LmHead, h: &[T], w: &[T], targets: &[u32], weight: f64) -> Result<Out<T>, EvalError> {
    let scratch = Pool::new();
    let data = Data { targets, ..Data::default() };
    let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight };
    // Whatever lies in the buffers must be overwritten.
    let nan = T::of(f64::NAN);
    let (mut dh, mut dw) = (vec![nan; h.len()], vec![nan; w.len()]);
    let mut dx = [Some(Adj { buf: &mut dh, add: false }), Some(Adj { buf: &mut dw, add: false })];
    let report = head.eval(&cx, &[h, w], &mut dx)?;
    Ok(Out { report, dh, dw })
}

fn close(a: &[f64], b: &[f64]) {
    for (a, b) in a.iter().zip(b) {
        assert!((a - b).abs() <= 1e-12 * (1.0 + b.abs()), "{a} against {b}");
    }
}

#[test]
fn the_length_of_a_chunk_changes_neither_loss_nor_gradients() {
    let (h, w, y) = (random(1, ROWS * WIDTH), random(2, VOCAB * WIDTH), labels());
    for kind in kinds() {
        let whole = eval(&LmHead::with_chunk(ROWS, WIDTH, VOCAB, kind, 64), &h, &w, &y, 0.1).unwrap();
        for chunk in [1, 7] {
            let cut = eval(&LmHead::with_chunk(ROWS, WIDTH, VOCAB, kind, chunk), &h, &w, &y, 0.1).unwrap();
            close(&cut.dh, &whole.dh);
            close(&cut.dw, &whole.dw);
            close(&[cut.report.loss, cut.report.ce], &[whole.report.loss, whole.report.ce]);
            assert_eq!(cut.report.live, 10);
        }
    }
}

#[test]
fn chunks_agree_within_a_millionth_in_single_precision() {
    let narrow = |x: Vec<f64>| x.into_iter().map(|x| x as f32).collect::<Vec<f32>>();
    let (h, w, y) = (narrow(random(1, ROWS * WIDTH)), narrow(random(2, VOCAB * WIDTH)), labels());
    for kind in kinds() {
        let of = |chunk| eval(&LmHead::with_chunk(ROWS, WIDTH, VOCAB, kind, chunk), &h, &w, &y, 0.1).unwrap();
        let whole = of(64);
        for cut in [of(1), of(7)] {
            let pairs = cut.dh.iter().zip(&whole.dh).chain(cut.dw.iter().zip(&whole.dw));
            assert!(pairs.clone().all(|(a, b)| (a - b).abs() <= 1e-6), "{kind:?}");
            assert!((cut.report.loss - whole.report.loss).abs() <= 1e-6, "{kind:?}");
        }
    }
}

#[test]
fn one_and_two_threads_give_the_same_bits() {
    let (h, w, y) = (random(1, ROWS * WIDTH), random(2, VOCAB * WIDTH), labels());
    let on = |threads: usize, kind: LossKind| {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &y, 0.1).unwrap())
    };
    for kind in kinds() {
        assert_eq!(on(1, kind), on(2, kind));
    }
}

#[test]
fn the_fused_head_agrees_with_scores_that_are_written_out() {
    let (h, w, y) = (random(3, ROWS * WIDTH), random(4, VOCAB * WIDTH), labels());
    let scores: Vec<f64> = (0..ROWS * VOCAB)
        .map(|i| (0..WIDTH).map(|k| h[i / VOCAB * WIDTH + k] * w[i % VOCAB * WIDTH + k]).sum())
        .collect();
    for kind in kinds() {
        let fused = eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &y, 1.0).unwrap();
        let scratch = Pool::new();
        let data = Data { targets: &y, ..Data::default() };
        let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight: 1.0 };
        let mut dz = vec![f64::NAN; scores.len()];
        let mut dx = [Some(Adj { buf: &mut dz, add: false })];
        let report = LogitLoss::new(ROWS, VOCAB, kind).eval(&cx, &[&scores], &mut dx).unwrap();
        close(&[fused.report.loss, fused.report.entropy], &[report.loss, report.entropy]);
        let dh: Vec<f64> = (0..ROWS * WIDTH)
            .map(|i| (0..VOCAB).map(|v| dz[i / WIDTH * VOCAB + v] * w[v * WIDTH + i % WIDTH]).sum())
            .collect();
        close(&fused.dh, &dh);
        let tokens = score_rows(kind, &h, &w, WIDTH, &y).unwrap();
        close(&[tokens.iter().map(|t| t.stats.loss).sum::<f64>()], &[report.loss]);
    }
}

/// The head over ranks that hold the columns between neighbours of `cuts` each: of every row they exchange the score of
/// the label and a [`RowState`], and of the gradient of `h` a sum.
fn over_ranks(
    kind: LossKind,
    h: &[f64],
    w: &[f64],
    y: &[u32],
    weight: f64,
    cuts: &[usize],
) -> (f64, Out<f64>) {
    let ranks: Vec<_> = cuts.windows(2).map(|c| c[0]..c[1]).collect();
    let (mut dh, mut dw) = (vec![0.0; h.len()], vec![0.0; w.len()]);
    let mut loss = 0.0;
    for (i, &label) in y.iter().enumerate().filter(|(_, y)| **y != IGNORE) {
        let (label, h) = (label as usize, &h[i * WIDTH..][..WIDTH]);
        let score = |v: usize| (0..WIDTH).map(|k| h[k] * w[v * WIDTH + k]).sum::<f64>();
        let mut pieces: Vec<Vec<f64>> = ranks.iter().map(|r| r.clone().map(score).collect()).collect();
        let zy = score(label);
        let states = pieces.iter().map(|z| RowState::scan(kind, z, zy));
        let state = states.reduce(RowState::merge).unwrap();
        loss += weight * state.finish(zy).loss;
        for (piece, own) in pieces.iter_mut().zip(&ranks) {
            state.gradient(piece, own.contains(&label).then(|| label - own.start), zy, weight);
            for (v, g) in own.clone().zip(piece.iter()) {
                for k in 0..WIDTH {
                    dh[i * WIDTH + k] += g * w[v * WIDTH + k];
                    dw[v * WIDTH + k] += g * h[k];
                }
            }
        }
    }
    (loss, Out { report: LossReport::default(), dh, dw })
}

#[test]
fn two_and_three_ranks_of_the_vocabulary_give_the_head_of_one() {
    let (h, w, y) = (random(1, ROWS * WIDTH), random(2, VOCAB * WIDTH), labels());
    for kind in kinds() {
        let one = eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &y, 0.1).unwrap();
        for cuts in [&[0, 20, VOCAB][..], &[0, 11, 30, VOCAB]] {
            let (loss, ranks) = over_ranks(kind, &h, &w, &y, 0.1, cuts);
            close(&[loss], &[one.report.loss]);
            close(&ranks.dh, &one.dh);
            close(&ranks.dw, &one.dw);
        }
    }
}

#[test]
fn ignored_rows_have_no_loss_and_an_exactly_zero_gradient() {
    let (h, w, y) = (random(5, ROWS * WIDTH), random(6, VOCAB * WIDTH), labels());
    for kind in kinds() {
        let out = eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &y, 1.0).unwrap();
        for (i, row) in out.dh.chunks(WIDTH).enumerate() {
            assert_eq!(row.iter().all(|g| *g == 0.0), y[i] == IGNORE, "row {i}");
        }
    }
}

#[test]
fn a_batch_without_a_live_row_has_loss_zero_and_gradient_zero() {
    let (h, w) = (random(5, ROWS * WIDTH), random(6, VOCAB * WIDTH));
    for kind in kinds() {
        let out = eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &[IGNORE; ROWS], 1.0).unwrap();
        assert_eq!(out.report, LossReport::default());
        assert!(out.dh.iter().chain(&out.dw).all(|g| *g == 0.0));
        let scratch = Pool::new();
        let data = Data { targets: &[IGNORE; 2], ..Data::default() };
        let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight: 1.0 };
        let mut dz = [f64::NAN; 6];
        let mut dx = [Some(Adj { buf: &mut dz, add: false })];
        let report = LogitLoss::new(2, 3, kind).eval(&cx, &[&[1.0; 6]], &mut dx).unwrap();
        assert_eq!((report, dz), (LossReport::default(), [0.0; 6]));
    }
}

#[test]
fn a_label_outside_the_vocabulary_is_an_error_that_names_it() {
    let (h, w, mut y) = (random(5, ROWS * WIDTH), random(6, VOCAB * WIDTH), labels());
    y[8] = VOCAB as u32;
    for kind in kinds() {
        let error = eval(&LmHead::new(ROWS, WIDTH, VOCAB, kind), &h, &w, &y, 1.0).unwrap_err().to_string();
        assert!(error.starts_with("label 37 of token 8 is outside the vocabulary of 37"), "{error}");
    }
}

#[test]
fn a_label_on_a_masked_column_is_an_error_that_names_it() {
    let data = Data { targets: &[2, 1], ..Data::default() };
    let scratch = Pool::new();
    let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight: 1.0 };
    let scores = [0.0, 1.0, 2.0, 0.5, f64::NEG_INFINITY, 0.0];
    for kind in kinds() {
        let error = LogitLoss::new(2, 3, kind).eval(&cx, &[&scores], &mut []).unwrap_err().to_string();
        assert!(error.starts_with("the score of label 1 is -inf"), "{error}");
    }
}

#[test]
fn a_loss_without_a_hessian_says_why_and_the_others_have_one() {
    let data = Data { targets: &[1], ..Data::default() };
    let scratch = Pool::new();
    let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight: 1.0 };
    for kind in kinds() {
        let got = LogitLoss::new(1, 3, kind).eval_tangent(
            &cx,
            &[&[0.0, 1.0, 2.0]],
            &[None],
            &mut [None],
            &mut [None],
        );
        match kind.entry().no_hessian {
            None => assert!(got.is_ok(), "{kind:?}"),
            Some(why) => {
                let error = got.unwrap_err().to_string();
                assert!(why.contains("no gradient of a function") && error.contains(why), "{error}");
            }
        }
    }
    assert!(LossKind::GemLogsigmoid { beta: 0.7 }.entry().no_hessian.is_some());
}

#[test]
fn scratch_does_not_grow_with_the_number_of_tokens() {
    let (width, vocab, chunk) = (3, 11, 8);
    let bytes = |rows: usize| {
        let head = LmHead::with_chunk(rows, width, vocab, LossKind::GemLinear { beta: 0.7 }, chunk);
        let (h, w) = (random(1, rows * width), random(2, vocab * width));
        let targets: Vec<u32> = (0..rows as u32).map(|i| i % vocab as u32).collect();
        let scratch = Pool::new();
        let data = Data { targets: &targets, ..Data::default() };
        let cx = Cx { data, scratch: &scratch, seed: None, cache: None, weight: 1.0 };
        let (mut dh, mut dw) = (vec![0.0; h.len()], vec![0.0; w.len()]);
        let mut dx = [Some(Adj { buf: &mut dh, add: false }), Some(Adj { buf: &mut dw, add: false })];
        head.eval(&cx, &[&h, &w], &mut dx).unwrap();
        scratch.bytes()
    };
    assert_eq!(bytes(80), 8 * chunk * (vocab + 2 * width));
    assert_eq!(bytes(8000), bytes(80));
}

#[test]
fn losses_of_given_scores_are_those_of_their_rows() {
    let (z, y) = (random(5, ROWS * VOCAB), labels());
    for kind in kinds() {
        let (mut out, mut stats) = (z.clone(), Vec::new());
        let report = row_losses(kind, &mut out, VOCAB, &y, Some(0.5), &mut stats).unwrap();
        let mut loss = 0.0;
        for (i, (z, out)) in z.chunks(VOCAB).zip(out.chunks(VOCAB)).enumerate() {
            let mut want = z.to_vec();
            if y[i] == IGNORE {
                assert!(out.iter().all(|g| *g == 0.0) && stats[i] == RowStats::default());
                continue;
            }
            let s = crate::loss::row::row(kind, &mut want, y[i] as usize, Some(0.5));
            close(out, &want);
            loss += s.loss;
        }
        assert!((report.loss - loss).abs() < 1e-12 * (1.0 + loss.abs()));
        let mut kept = z.clone();
        row_losses(kind, &mut kept, VOCAB, &y, None, &mut stats).unwrap();
    }
    let told = |classes: usize, y: &[u32]| {
        let e = row_losses(LossKind::Ce, &mut z.clone(), classes, y, None, &mut Vec::new());
        e.unwrap_err().to_string()
    };
    assert!(told(VOCAB + 1, &y).contains("scores: expected"));
    let mut wrong = y.clone();
    wrong[3] = VOCAB as u32;
    assert!(told(VOCAB, &wrong).contains("label 37 of row 3 is outside the 37 classes"));
}
