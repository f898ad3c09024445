//! Parallel loops over disjoint pieces, on the thread pool of `rayon`.
//!
//! The names are those of `rayon`'s parallel iterators, of which this is the part that loops over tensors need. There
//! every loop compiles the scheduler anew, twice for two scalars, and that was a third of the compute core; here the
//! scheduler is one function, and a loop adds its body and an iterator.

use std::iter::{Enumerate, Take, Zip};
use std::ops::Range;
use std::slice::{Chunks, ChunksMut, IterMut};
use std::sync::{Mutex, PoisonError};

/// Batches for each thread in a loop that sets no length: enough that no thread waits long for the last.
const BATCHES: usize = 8;

/// Items of a batch at most.
const MOST: usize = 32;

/// Items that threads take in batches, in order; which thread takes an item is left to chance.
///
/// ```
/// use rhumb_linalg::par::{ParSlice, ParSliceMut};
///
/// let (x, mut y) = ([1.0, 2.0, 3.0, 4.0, 5.0], [0.0; 5]);
/// y.par_chunks_mut(2).zip(x.par_chunks(2)).enumerate().for_each(|(i, (y, x))| {
///     y.iter_mut().zip(x).for_each(|(y, x)| *y = x * i as f64);
/// });
/// assert_eq!(y, [0.0, 0.0, 3.0, 4.0, 10.0]);
/// ```
#[must_use = "nothing runs before `for_each`"]
pub struct Par<I> {
    items: I,
    least: usize,
    most: usize,
}

impl<I: Iterator> Par<I> {
    /// Of an iterator whose items may be worked on at the same time.
    pub fn new(items: I) -> Self {
        Par { items, least: 1, most: usize::MAX }
    }

    fn map<J>(self, change: impl FnOnce(I) -> J) -> Par<J> {
        Par { items: change(self.items), least: self.least, most: self.most }
    }

    /// Pairs of items, as many as the shorter has.
    pub fn zip<J: Iterator>(self, other: Par<J>) -> Par<Zip<I, J>> {
        self.map(|items| items.zip(other.items))
    }

    /// Items with their positions.
    pub fn enumerate(self) -> Par<Enumerate<I>> {
        self.map(I::enumerate)
    }

    /// The first `n` items.
    pub fn take(self, n: usize) -> Par<Take<I>> {
        self.map(|items| items.take(n))
    }

    /// At least `n` items in a batch, of up to 32: for items that are small.
    pub fn with_min_len(self, n: usize) -> Self {
        Par { least: n.max(1), ..self }
    }

    /// At most `n` items in a batch: for items of which some are much longer than others.
    pub fn with_max_len(self, n: usize) -> Self {
        Par { most: n.max(1), ..self }
    }
}

impl<I: ExactSizeIterator + Send> Par<I> {
    /// Calls `f` once for each item.
    ///
    /// # Panics
    /// Where `f` does, when the other threads have run the items that are left.
    pub fn for_each(self, f: impl Fn(I::Item) + Sync) {
        let (n, threads) = (self.items.len(), rayon::current_num_threads());
        let batch = (n / (BATCHES * threads)).min(self.most).max(self.least).min(MOST);
        if threads == 1 || n <= batch {
            self.items.for_each(f);
            return;
        }
        let items = Mutex::new(self.items);
        spread(threads.min(n.div_ceil(batch)), &|| {
            // On the stack: a training step allocates nothing.
            let mut some: [Option<I::Item>; MOST] = std::array::from_fn(|_| None);
            loop {
                {
                    // An iterator over slices does not panic, so a poisoned lock guards nothing broken.
                    let mut items = items.lock().unwrap_or_else(PoisonError::into_inner);
                    some[..batch].iter_mut().for_each(|place| *place = items.next());
                }
                if some[0].is_none() {
                    return;
                }
                some[..batch].iter_mut().map_while(Option::take).for_each(&f);
            }
        });
    }

    /// What `f` gives for each item, in order.
    ///
    /// # Panics
    /// As [`Self::for_each`].
    pub fn map_collect<R: Clone + Default + Send>(self, f: impl Fn(I::Item) -> R + Sync) -> Vec<R> {
        let mut results = vec![R::default(); self.items.len()];
        self.zip(results.par_iter_mut()).for_each(|(item, result)| *result = f(item));
        results
    }
}

/// Runs `work` on this thread and on those of `copies - 1` others that are free before it ends.
#[inline(never)]
fn spread(copies: usize, work: &(dyn Fn() + Sync)) {
    if copies < 2 {
        return work();
    }
    rayon::join(|| spread(copies - copies / 2, work), || spread(copies / 2, work));
}

/// Parallel loops over a slice that is read.
pub trait ParSlice<T> {
    /// Pieces of `size` values, the last perhaps shorter.
    ///
    /// # Panics
    /// For a size of 0.
    fn par_chunks(&self, size: usize) -> Par<Chunks<'_, T>>;
}

/// Parallel loops over a slice that is written.
pub trait ParSliceMut<T> {
    /// Pieces of `size` values, the last perhaps shorter.
    ///
    /// # Panics
    /// For a size of 0.
    fn par_chunks_mut(&mut self, size: usize) -> Par<ChunksMut<'_, T>>;
    /// Single values.
    fn par_iter_mut(&mut self) -> Par<IterMut<'_, T>>;
}

/// Parallel loops over numbers.
pub trait ParRange {
    /// The numbers of the range.
    fn into_par_iter(self) -> Par<Range<usize>>;
}

impl<T> ParSlice<T> for [T] {
    fn par_chunks(&self, size: usize) -> Par<Chunks<'_, T>> {
        Par::new(self.chunks(size))
    }
}

impl<T> ParSliceMut<T> for [T] {
    fn par_chunks_mut(&mut self, size: usize) -> Par<ChunksMut<'_, T>> {
        Par::new(self.chunks_mut(size))
    }

    fn par_iter_mut(&mut self) -> Par<IterMut<'_, T>> {
        Par::new(self.iter_mut())
    }
}

impl ParRange for Range<usize> {
    fn into_par_iter(self) -> Par<Range<usize>> {
        Par::new(self)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_runs_once_whatever_the_batches() {
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for (n, least, most) in
                    [(0, 1, 1), (1, 1, 9), (7, 1, 1), (100, 32, 99), (1000, 1, 3), (1000, 1, 99)]
                {
                    let mut seen = vec![0_usize; n];
                    let items = seen.par_iter_mut().enumerate().with_min_len(least).with_max_len(most);
                    items.for_each(|(i, s)| *s += i + 1);
                    assert!(
                        seen.iter().enumerate().all(|(i, s)| *s == i + 1),
                        "{n} {least} {most} {threads}"
                    );
                }
                let calls = AtomicUsize::new(0);
                (0..50).into_par_iter().take(20).for_each(|i| {
                    (0..i).into_par_iter().for_each(|_| {
                        calls.fetch_add(1, Ordering::Relaxed);
                    });
                });
                assert_eq!(calls.into_inner(), 190);
                let squares = (0..300).into_par_iter().with_min_len(7).map_collect(|i| i * i);
                assert!(squares.iter().enumerate().all(|(i, s)| *s == i * i) && squares.len() == 300);
            });
        }
    }

    #[test]
    fn items_run_on_several_threads_at_once() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        // Each of two items waits for the other, a minute at most.
        let (here, began) = (AtomicUsize::new(0), std::time::Instant::now());
        pool.install(|| {
            (0..2).into_par_iter().for_each(|_| {
                here.fetch_add(1, Ordering::SeqCst);
                while here.load(Ordering::SeqCst) < 2 {
                    assert!(began.elapsed().as_secs() < 60, "one item runs after the other");
                    std::thread::yield_now();
                }
            });
        });
    }

    #[test]
    #[should_panic(expected = "item 40")]
    fn a_panic_reaches_the_caller() {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(2).build().unwrap();
        pool.install(|| (0..100_usize).into_par_iter().for_each(|i| assert!(i != 40, "item {i}")));
    }
}
