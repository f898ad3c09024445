use std::ops::{Deref, DerefMut};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rhumb_linalg::Real;

/// Buffers that are reused instead of freed: after the first step of a fixed-shape training nothing is
/// allocated any more.
#[derive(Debug, Default)]
pub struct Pool<T> {
    free: Mutex<Vec<Vec<T>>>,
    bytes: AtomicUsize,
}

impl<T: Real> Pool<T> {
    /// An empty pool.
    pub fn new() -> Self {
        Pool { free: Mutex::new(Vec::with_capacity(256)), bytes: AtomicUsize::new(0) }
    }

    /// Bytes of all buffers that the pool ever made and still owns or has lent.
    pub fn bytes(&self) -> usize {
        self.bytes.load(Ordering::Relaxed)
    }

    /// A buffer of exactly `len` scalars with unspecified content.
    pub fn take(&self, len: usize) -> Vec<T> {
        if len == 0 {
            return Vec::new();
        }
        let mut free = self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        // Best fit with bounded waste: a small request must not pin a large buffer.
        let mut best: Option<(usize, usize)> = None;
        for (i, b) in free.iter().enumerate().rev() {
            let cap = b.capacity();
            if cap >= len && cap <= len + len / 2 && best.is_none_or(|(_, c)| cap < c) {
                best = Some((i, cap));
                if cap == len {
                    break;
                }
            }
        }
        if let Some((i, _)) = best {
            let mut b = free.swap_remove(i);
            // The vector keeps initialised scalars up to its length, so growing within capacity only
            // touches the tail.
            b.resize(len, T::ZERO);
            return b;
        }
        drop(free);
        self.bytes.fetch_add(len * T::BYTES, Ordering::Relaxed);
        vec![T::ZERO; len]
    }

    /// Gives a buffer back.
    pub fn put(&self, buf: Vec<T>) {
        if buf.capacity() > 0 {
            self.free.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(buf);
        }
    }

    /// A buffer that returns by itself.
    pub fn get(&self, len: usize) -> Lent<'_, T> {
        Lent { buf: self.take(len), pool: self }
    }
}

/// A buffer on loan from a [`Pool`].
pub struct Lent<'a, T: Real> {
    buf: Vec<T>,
    pool: &'a Pool<T>,
}

impl<T: Real> Deref for Lent<'_, T> {
    type Target = [T];
    fn deref(&self) -> &[T] {
        &self.buf
    }
}

impl<T: Real> DerefMut for Lent<'_, T> {
    fn deref_mut(&mut self) -> &mut [T] {
        &mut self.buf
    }
}

impl<T: Real> Drop for Lent<'_, T> {
    fn drop(&mut self) {
        self.pool.put(std::mem::take(&mut self.buf));
    }
}
