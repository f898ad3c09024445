//! What a micro kernel is: the contract between the blocking and the instruction sets.

/// One tile of the product: `c = init + alpha * a * b` over `k` packed (or suitably strided) steps.
///
/// Step `p` reads row `i` of the tile at `a + p * a_stride + i * a_row` and its columns at `b + p * b_stride`, the
/// latter contiguous. All `nr` columns of `b` are read even when only `cols` of them are stored.
pub struct Tile<T> {
    pub k: usize,
    pub alpha: T,
    pub a: *const T,
    pub a_stride: usize,
    /// Distance of the rows: 1 for [`Kernel::tiles`], anything for [`Kernel::tiles_in_place`].
    pub a_row: usize,
    pub b: *const T,
    pub b_stride: usize,
    pub c: *mut T,
    pub ldc: usize,
    /// What the product is added to; null stands for zero. May equal `c`.
    pub init: *const T,
    pub init_stride: usize,
    /// Columns stored, `1..=nr`.
    pub cols: usize,
}

/// Products of up to [`MAX_SHORT`] short vectors with many long rows, all contiguous along `k`:
/// `c[l, s] = init[l, s] + alpha * <long_l, short_s>`.
pub struct Dots<T> {
    pub k: usize,
    pub alpha: T,
    /// Number of long rows.
    pub rows: usize,
    pub long: *const T,
    pub long_stride: usize,
    pub short: *const T,
    pub short_stride: usize,
    pub c: *mut T,
    /// Strides of `c` (long, short).
    pub c_strides: (usize, usize),
    /// What the products are added to; null stands for zero. May equal `c`.
    pub init: *const T,
    /// Strides of `init` (long, short).
    pub init_strides: (usize, usize),
}

/// The most short vectors [`Dots`] takes at once.
pub(super) const MAX_SHORT: usize = 8;

/// Copies the `n x k` elements `src[i * along + p * deep]` into panels: panel `q` holds rows
/// `q * width ..` of all `k` steps, `width` contiguous values a step, zero beyond `n`.
pub(super) type Pack<T> =
    unsafe fn(dst: *mut T, src: *const T, n: usize, k: usize, along: usize, deep: usize);

/// An instruction set's micro kernels.
pub struct Kernel<T: 'static> {
    pub name: &'static str,
    /// Rows of a full tile.
    pub mr: usize,
    /// Columns of a full tile.
    pub nr: usize,
    /// Tiles of 1, 2, ..., `mr` rows.
    pub tiles: &'static [unsafe fn(&Tile<T>)],
    /// The same for rows of A at any distance.
    pub tiles_in_place: &'static [unsafe fn(&Tile<T>)],
    /// Packs A into panels of `mr`.
    pub pack_a: Pack<T>,
    /// Packs B into panels of `nr`.
    pub pack_b: Pack<T>,
    /// Dot products for 1, 2, ..., [`MAX_SHORT`] short vectors.
    pub dots: &'static [unsafe fn(&Dots<T>)],
}
