//! Blocking, packing and scheduling around the micro kernels.
//!
//! The operand with the shorter free dimension is packed whole and shared by all tasks; the other is cut into
//! blocks of fixed size, one task each, packed by the task that uses it. `k` is cut into blocks of a size that
//! depends on `k` alone, so that an element's bits depend neither on the tasks nor on the threads.

use crate::par::ParRange;

use super::kernel::{Dots, Kernel, MAX_SHORT, Pack, Tile};
use super::scratch::{self, Use};
use super::{Mat, Source};
use crate::Real;

/// Steps of k per block at most: a panel of A and one of B then stay in the second-level cache.
const K_BLOCK: usize = 512;
/// Rows (or columns) of the streamed operand per task, about.
const TASK: usize = 64;
/// Size of the packed shared operand at most, in bytes: well inside the last-level cache.
const SHARED_BYTES: usize = 4 << 20;
/// Multiply-adds below which threads cost more than they bring.
const PARALLEL_WORK: usize = 1 << 18;
/// Bytes of the long operand per task of dot products.
const DOTS_BYTES: usize = 128 << 10;
/// An operand that takes part in at most this many products per element is read in place when its layout allows.
const DIRECT: usize = 64;
/// Rows at a multiple of this distance in bytes compete for the same places of a first-level cache.
const ALIASING: usize = 4096;

/// A pointer shared between tasks that touch disjoint parts of what it points to.
struct Shared<T>(*mut T);
impl<T> Clone for Shared<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for Shared<T> {}
// SAFETY: tasks read packed panels or write disjoint tiles; the scalars themselves may cross threads.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above.
unsafe impl<T: Send> Sync for Shared<T> {}
impl<T> Shared<T> {
    /// A method, so that closures capture the wrapper and not the bare pointer.
    fn at(self, i: usize) -> *mut T {
        self.0.wrapping_add(i)
    }
}

/// A checked product: every element that the strides reach exists.
#[derive(Clone, Copy)]
pub(super) struct Product<'a, T> {
    pub(super) size: (usize, usize, usize),
    pub(super) alpha: T,
    pub(super) a: Mat<'a, T>,
    pub(super) b: Mat<'a, T>,
    pub(super) ldc: usize,
}

/// Runs `f` for `0..count`, in parallel or in order.
fn each(parallel: bool, count: usize, f: impl Fn(usize) + Sync + Send) {
    if parallel && count > 1 {
        (0..count).into_par_iter().with_max_len(1).for_each(f);
    } else {
        (0..count).for_each(f);
    }
}

/// `c = init + alpha * a * b` for `m, n, k > 0`.
///
/// # Safety
/// `c` is valid for `m` rows of `n` values at distance `ldc`, `init` as [`Source`] says, and the CPU has the
/// kernel's features.
pub(super) unsafe fn run<T: Real>(
    kernel: &'static Kernel<T>,
    parallel: bool,
    product: Product<'_, T>,
    c: *mut T,
    init: Source<T>,
) {
    let Product { size: (m, n, k), a, b, .. } = product;
    let parallel = parallel && m.saturating_mul(n).saturating_mul(k) >= PARALLEL_WORK;
    // SAFETY: passed on.
    unsafe {
        if m <= MAX_SHORT && b.row_stride == 1 {
            dots(kernel, parallel, product, c, init, true);
        } else if n <= MAX_SHORT && a.col_stride == 1 {
            dots(kernel, parallel, product, c, init, false);
        } else {
            tiles(kernel, parallel, product, c, init);
        }
    }
}

/// One operand of the tiled product, seen along its free dimension and along k.
#[derive(Clone, Copy)]
struct Operand<T: 'static> {
    data: Shared<T>,
    /// Length of the free dimension.
    len: usize,
    along: usize,
    deep: usize,
    /// Panel width of the kernel.
    width: usize,
    pack: Pack<T>,
    /// Read in place: no panel is reused enough to pay for packing.
    direct: bool,
}

impl<T: Real> Operand<T> {
    fn new(
        data: &[T],
        len: usize,
        (along, deep): (usize, usize),
        width: usize,
        pack: Pack<T>,
        direct: bool,
    ) -> Self {
        Operand { data: Shared(data.as_ptr().cast_mut()), len, along, deep, width, pack, direct }
    }

    /// Packs rows `from..from + n`, steps `k0..k0 + kc`.
    ///
    /// # Safety
    /// The rows and steps exist and `dst` has room for whole panels.
    unsafe fn pack(self, dst: *mut T, from: usize, n: usize, k0: usize, kc: usize) {
        // SAFETY: passed on.
        unsafe {
            (self.pack)(dst, self.data.at(from * self.along + k0 * self.deep), n, kc, self.along, self.deep);
        }
    }

    /// Where the panel of rows `from..` and steps `k0..k0 + kc` starts, and the distances of its steps and rows;
    /// `packed` holds the panels from row `base` on.
    fn panel(
        self,
        packed: *mut T,
        base: usize,
        from: usize,
        k0: usize,
        kc: usize,
    ) -> (*const T, usize, usize) {
        if self.direct {
            (self.data.at(from * self.along + k0 * self.deep), self.deep, self.along)
        } else {
            (packed.wrapping_add((from - base) * kc), self.width, 1)
        }
    }
}

/// Cuts `len` into pieces of at most `most`, as even as multiples of `unit` allow; returns their length.
fn even(len: usize, most: usize, unit: usize) -> usize {
    let units = len.div_ceil(unit);
    units.div_ceil(len.div_ceil(most.max(unit))) * unit
}

/// Length of one task's part of the streamed operand: about `task` and the length that two (hence also
/// four, ...) threads share most evenly. It depends on the shape alone.
fn task_len(len: usize, width: usize, task: usize) -> usize {
    let panels = len.div_ceil(width);
    let most = (task * 3 / 2).div_ceil(width);
    let longest = |per: usize| panels.div_ceil(per).div_ceil(2) * per;
    (most.div_ceil(3)..=most).rev().min_by_key(|&per| longest(per)).unwrap_or(most) * width
}

/// The tiled product.
///
/// # Safety
/// As [`run`].
unsafe fn tiles<T: Real>(
    kernel: &'static Kernel<T>,
    parallel: bool,
    Product { size: (m, n, k), alpha, a, b, ldc }: Product<'_, T>,
    c: *mut T,
    init: Source<T>,
) {
    // Rows of A that are contiguous along k are read in place however often: a tile broadcasts single values, and the
    // few loads more hide behind the multiply-adds, while packing copies the largest operand of a linear layer.
    let few = n <= DIRECT || (a.col_stride == 1 && a.row_stride * T::BYTES % ALIASING != 0);
    let rows = Operand::new(a.data, m, (a.row_stride, a.col_stride), kernel.mr, kernel.pack_a, few);
    // A tile reads whole panels of B, so that a ragged last panel must be packed.
    let whole = m <= DIRECT && n % kernel.nr == 0 && b.col_stride == 1;
    let cols = Operand::new(b.data, n, (b.col_stride, b.row_stride), kernel.nr, kernel.pack_b, whole);
    let tiles = if rows.direct && rows.along != 1 { kernel.tiles_in_place } else { kernel.tiles };
    let rows_stream = m >= n;
    let (stream, share) = if rows_stream { (rows, cols) } else { (cols, rows) };
    let kc = even(k, K_BLOCK, 1);
    // Without packing, small tasks cost nothing and threads wait less for the last one.
    let task = task_len(stream.len, stream.width, if stream.direct { TASK / 2 } else { TASK });
    // Where the shared operand exceeds its buffer, cut the dimension that costs less to come back to: each
    // further block of steps reads and writes C again, each further chunk packs the streamed operand again.
    let room = SHARED_BYTES / T::BYTES;
    let steps = if k > 2 * share.len { even(k, room / share.len, kc) } else { k };
    let chunk = even(share.len, room / steps, share.width);
    let (c, source) = (Shared(c), Shared(init.data.cast_mut()));

    scratch::with(Use::Shared, if share.direct { 0 } else { chunk * steps }, |shared: *mut T| {
        let shared = Shared(shared);
        let chunks =
            (0..k).step_by(steps).flat_map(|p0| (0..share.len).step_by(chunk).map(move |s0| (p0, s0)));
        for (p0, s0) in chunks {
            let (p1, s1) = (k.min(p0 + steps), share.len.min(s0 + chunk));
            if !share.direct {
                let (part, blocks) = (4 * share.width, (p1 - p0).div_ceil(kc));
                each(parallel, (s1 - s0).div_ceil(part) * blocks, |t| {
                    let (from, k0) = (s0 + t / blocks * part, p0 + t % blocks * kc);
                    let kc = kc.min(p1 - k0);
                    let dst = shared.at(chunk * (k0 - p0) + (from - s0) * kc);
                    // SAFETY: rows below s1 and steps below p1 exist; block k0 of the buffer starts at
                    // chunk * (k0 - p0).
                    unsafe { share.pack(dst, from, part.min(s1 - from), k0, kc) };
                });
            }
            each(parallel, stream.len.div_ceil(task), |t| {
                let t0 = t * task;
                let t1 = stream.len.min(t0 + task);
                let room = if stream.direct { 0 } else { task * kc };
                scratch::with(Use::Local, room, |local: *mut T| {
                    for k0 in (p0..p1).step_by(kc) {
                        let block = kc.min(p1 - k0);
                        if !stream.direct {
                            // SAFETY: rows t0..t1 and these steps exist; local takes task * kc values.
                            unsafe { stream.pack(local, t0, t1 - t0, k0, block) };
                        }
                        for s in (s0..s1).step_by(share.width) {
                            let shared = share.panel(shared.at(chunk * (k0 - p0)), s0, s, k0, block);
                            for t in (t0..t1).step_by(stream.width) {
                                let local = stream.panel(local, t0, t, k0, block);
                                let ((i, a), (j, b)) = if rows_stream {
                                    ((t, local), (s, shared))
                                } else {
                                    ((s, shared), (t, local))
                                };
                                let c = c.at(i * ldc + j);
                                // The first block of k starts from init, the later ones from the sum so far.
                                let (from, from_stride) = if k0 > 0 {
                                    (c.cast_const(), ldc)
                                } else if source.0.is_null() {
                                    (std::ptr::null(), 0)
                                } else {
                                    (source.at(i * init.row_stride + j).cast_const(), init.row_stride)
                                };
                                let tile = Tile {
                                    k: block,
                                    alpha,
                                    a: a.0,
                                    a_stride: a.1,
                                    a_row: a.2,
                                    b: b.0,
                                    b_stride: b.1,
                                    c,
                                    ldc,
                                    init: from,
                                    init_stride: from_stride,
                                    cols: kernel.nr.min(n - j),
                                };
                                // SAFETY: the panels hold `block` steps, tiles of different tasks are disjoint, and
                                // rows and columns stay below m and n.
                                unsafe { tiles[kernel.mr.min(m - i) - 1](&tile) };
                            }
                        }
                    }
                });
            });
        }
    });
}

/// The product with at most [`MAX_SHORT`] rows (`rows_short`) or columns, the other operand contiguous along k:
/// each of its rows is read once, in place.
///
/// # Safety
/// As [`run`].
unsafe fn dots<T: Real>(
    kernel: &'static Kernel<T>,
    parallel: bool,
    Product { size: (m, n, k), alpha, a, b, ldc }: Product<'_, T>,
    c: *mut T,
    init: Source<T>,
    rows_short: bool,
) {
    let (count, len) = if rows_short { (m, n) } else { (n, m) };
    let (short, along, deep, long, long_stride) = if rows_short {
        (a.data, a.row_stride, a.col_stride, b.data, b.col_stride)
    } else {
        (b.data, b.col_stride, b.row_stride, a.data, a.row_stride)
    };
    let order = |(row, col): (usize, usize)| if rows_short { (col, row) } else { (row, col) };
    let (c_strides, init_strides) = (order((ldc, 1)), order((init.row_stride, 1)));
    let task = (DOTS_BYTES / (k * T::BYTES)).max(1).next_multiple_of(4);
    let (c, source) = (Shared(c), Shared(init.data.cast_mut()));
    let (long, short) = (Shared(long.as_ptr().cast_mut()), Shared(short.as_ptr().cast_mut()));
    // The short vectors are read once per long row: copied to aligned rows, no load straddles two cache lines.
    let short_stride = k.next_multiple_of(64 / T::BYTES);
    scratch::with(Use::Shared, count * short_stride, |packed: *mut T| {
        for s in 0..count {
            for p in 0..k {
                // SAFETY: vector s, step p exists, and the buffer takes count * short_stride values.
                unsafe { *packed.add(s * short_stride + p) = *short.at(s * along + p * deep) };
            }
        }
        let short = Shared(packed);
        each(parallel, len.div_ceil(task), |t| {
            let l = t * task;
            let init = source.0.is_null();
            let dots = Dots {
                k,
                alpha,
                rows: task.min(len - l),
                long: long.at(l * long_stride),
                long_stride,
                short: short.at(0),
                short_stride,
                c: c.at(l * c_strides.0),
                c_strides,
                init: if init { std::ptr::null() } else { source.at(l * init_strides.0) },
                init_strides,
            };
            // SAFETY: rows l.. exist, tasks write disjoint elements, count is 1..=MAX_SHORT.
            unsafe { kernel.dots[count - 1](&dots) };
        });
    });
}
