//! Packing buffers that outlive the calls: each thread keeps the buffers it has used.

use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::ptr::NonNull;

use crate::Real;

/// Alignment of a buffer: one cache line, and the widest vector.
const ALIGN: usize = 64;

/// Uninitialised, aligned memory.
struct Buffer {
    at: NonNull<u8>,
    bytes: usize,
}

impl Buffer {
    fn layout(bytes: usize) -> Layout {
        // Fails only above isize::MAX bytes, beyond what the slices being packed can hold.
        Layout::from_size_align(bytes, ALIGN).expect("a packing buffer exceeds the address space")
    }

    fn new(bytes: usize) -> Self {
        let layout = Self::layout(bytes.max(ALIGN));
        // SAFETY: the size is not zero.
        let at = NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout));
        Buffer { at, bytes: layout.size() }
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // SAFETY: allocated in `new` with this layout.
        unsafe { dealloc(self.at.as_ptr(), Self::layout(self.bytes)) }
    }
}

/// What a buffer holds; kept apart so that each kind settles at its own size.
#[derive(Clone, Copy)]
pub(super) enum Use {
    /// The operand that all tasks of a product read.
    Shared,
    /// The block that one task packs for itself.
    Local,
}

thread_local! {
    static FREE: [RefCell<Vec<Buffer>>; 2] = const { [RefCell::new(Vec::new()), RefCell::new(Vec::new())] };
}

/// Calls `f` with room for `len` scalars.
///
/// The buffer leaves the thread's list while `f` runs: when `f` waits in rayon and the thread takes up another
/// product meanwhile, that product finds the list unborrowed and uses the next buffer.
pub(super) fn with<T: Real, R>(kind: Use, len: usize, f: impl FnOnce(*mut T) -> R) -> R {
    let bytes = len * T::BYTES;
    let kept = FREE.with(|free| free[kind as usize].borrow_mut().pop());
    let buffer = kept.filter(|b| b.bytes >= bytes).unwrap_or_else(|| Buffer::new(bytes));
    let result = f(buffer.at.as_ptr().cast());
    FREE.with(|free| free[kind as usize].borrow_mut().push(buffer));
    result
}
