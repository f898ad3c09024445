//! Questions with several right answers: vectors, and classes that random networks name.

use rhumb_linalg::rng::Rng;

/// Right answers of a question; some may be the same class.
pub(super) const ANSWERS: usize = 4;
/// Numbers of a question.
pub(super) const INPUTS: usize = 16;
/// Classes.
pub(super) const CLASSES: usize = 64;
/// Hidden units of the networks that know.
const TEACHER: usize = 64;

/// Networks that share their hidden layer; each names one right answer.
///
/// # Equation
/// `answer_j(x) = argmax_c (W_j tanh(W x))_c`, `W` normal with variance `2.25 / 16`, `W_j` standard normal.
struct Teacher {
    hidden: Vec<f64>,
    out: Vec<Vec<f64>>,
}

impl Teacher {
    fn new(rng: &mut Rng) -> Self {
        let scale = 1.5 / (INPUTS as f64).sqrt();
        let mut normal = |n: usize, by: f64| (0..n).map(|_| by * rng.normal()).collect::<Vec<_>>();
        Teacher {
            hidden: normal(TEACHER * INPUTS, scale),
            out: (0..ANSWERS).map(|_| normal(CLASSES * TEACHER, 1.0)).collect(),
        }
    }

    fn answers(&self, x: &[f64]) -> [u32; ANSWERS] {
        let dot = |row: &[f64], v: &[f64]| row.iter().zip(v).map(|(a, b)| a * b).sum::<f64>();
        let h: Vec<f64> = self.hidden.chunks_exact(INPUTS).map(|row| dot(row, x).tanh()).collect();
        let mut right = [0; ANSWERS];
        for (right, w) in right.iter_mut().zip(&self.out) {
            let scores = w.chunks_exact(TEACHER).map(|row| dot(row, &h));
            let best = scores.enumerate().max_by(|a, b| a.1.total_cmp(&b.1));
            *right = best.map_or(0, |(c, _)| c as u32);
        }
        right
    }
}

/// Questions with what was answered.
#[derive(Clone, Debug, Default)]
pub(super) struct Set {
    /// `[questions, INPUTS]`.
    pub(super) inputs: Vec<f64>,
    /// One label a question.
    pub(super) labels: Vec<u32>,
    /// All right answers of each.
    pub(super) right: Vec<[u32; ANSWERS]>,
    /// Of each, the one that somebody has in mind: drawn evenly.
    pub(super) hidden: Vec<u32>,
}

impl Set {
    pub(super) fn len(&self) -> usize {
        self.labels.len()
    }

    /// The first ones.
    pub(super) fn first(&self, n: usize) -> Set {
        let n = n.min(self.len());
        Set {
            inputs: self.inputs[..n * INPUTS].to_vec(),
            labels: self.labels[..n].to_vec(),
            right: self.right[..n].to_vec(),
            hidden: self.hidden[..n].to_vec(),
        }
    }
}

/// Sizes of the three sets.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sizes {
    pub(super) before: usize,
    pub(super) fine_tune: usize,
    pub(super) test: usize,
}

/// What is learnt first, what is fine-tuned on, and what judges.
pub(super) struct World {
    /// Every right answer is as likely; the share [`NOISE`] of the labels is any class.
    pub(super) before: Set,
    /// The share [`STYLE`] of the labels is the first right answer, the others are even over the rest.
    pub(super) fine_tune: Set,
    /// As `fine_tune`.
    pub(super) test: Set,
}

/// Labels of the first set that are any class.
const NOISE: f64 = 0.4;
/// Labels of the other sets that are the first right answer.
const STYLE: f64 = 0.7;

impl World {
    pub(super) fn new(seed: u64, sizes: Sizes) -> World {
        let teacher = Teacher::new(&mut Rng::named(seed, "teacher"));
        let draw = |purpose: &str, n: usize, label: &dyn Fn(&mut Rng, [u32; ANSWERS]) -> u32| {
            let mut rng = Rng::named(seed, purpose);
            let mut set = Set::default();
            for _ in 0..n {
                let x: Vec<f64> = (0..INPUTS).map(|_| rng.normal()).collect();
                let right = teacher.answers(&x);
                set.labels.push(label(&mut rng, right));
                set.hidden.push(right[rng.below(ANSWERS)]);
                set.right.push(right);
                set.inputs.extend(x);
            }
            set
        };
        let noisy = |rng: &mut Rng, right: [u32; ANSWERS]| {
            let (own, any) = (right[rng.below(ANSWERS)], rng.below(CLASSES) as u32);
            if rng.uniform() < NOISE { any } else { own }
        };
        let styled = |rng: &mut Rng, right: [u32; ANSWERS]| {
            let other = right[1 + rng.below(ANSWERS - 1)];
            if rng.uniform() < STYLE { right[0] } else { other }
        };
        World {
            before: draw("before", sizes.before, &noisy),
            fine_tune: draw("fine-tune", sizes.fine_tune, &styled),
            test: draw("test", sizes.test, &styled),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_have_the_stated_frequencies_and_right_answers_do_not_depend_on_the_set() {
        let sizes = Sizes { before: 6000, fine_tune: 6000, test: 100 };
        let world = World::new(5, sizes);
        let share = |set: &Set, right: &dyn Fn(u32, [u32; ANSWERS]) -> bool| {
            set.labels.iter().zip(&set.right).filter(|(l, r)| right(**l, **r)).count() as f64
                / set.len() as f64
        };
        // Any class is right by chance with at most 4 in 64; three standard deviations of a share are below 0.02.
        let valid = share(&world.before, &|l, r| r.contains(&l));
        assert!((0.6 - 0.02..0.6 + 0.4 * 4.0 / 64.0 + 0.02).contains(&valid), "{valid}");
        let first = share(&world.fine_tune, &|l, r| l == r[0]);
        // The other networks agree with the first now and then.
        assert!((0.7 - 0.02..0.7 + 0.3 * 0.2).contains(&first), "{first}");
        assert!((share(&world.fine_tune, &|l, r| r.contains(&l)) - 1.0).abs() < 1e-12);
        // One teacher, other questions.
        assert_ne!(world.test.inputs[..INPUTS], world.fine_tune.inputs[..INPUTS]);
        let again = World::new(5, Sizes { test: 7, ..sizes });
        assert_eq!(again.test.right[..], world.test.right[..7]);
    }
}
