use std::fmt::{Debug, Display};
use std::iter::Sum;
use std::ops::{Add, AddAssign, Div, DivAssign, Mul, MulAssign, Neg, Sub, SubAssign};

pub(crate) use sealed::Sealed;

/// A generic function over the scalars that is compiled where it is written, once for each of them, instead of in
/// every crate that calls it. [`compiled!`](crate::compiled) writes the implementation.
///
/// A crate that calls a generic function compiles a copy of its own, with its own settings: hot loops would be compiled
/// many times, and somewhere without the settings that they need.
pub trait Compiled {
    /// The arguments.
    type In<T: Real>;
    /// The result.
    type Out<T: Real>;
    /// The function at `f32`.
    fn single(x: Self::In<f32>) -> Self::Out<f32>;
    /// The function at `f64`.
    fn double(x: Self::In<f64>) -> Self::Out<f64>;
}

/// Implements [`Compiled`](crate::Compiled) for a new private type, to be called by `T::compiled::<Name>(arguments)`.
///
/// ```
/// use rhumb_linalg::{Real, compiled};
///
/// compiled!(Sum<'a>, |x: &'a [T]| -> T { x.iter().copied().sum() });
///
/// fn sum<T: Real>(x: &[T]) -> T {
///     T::compiled::<Sum<'_>>(x)
/// }
///
/// assert_eq!(sum(&[1.0f32, 2.0]), 3.0);
/// assert_eq!(sum(&[1.0f64, 2.0]), 3.0);
/// ```
#[macro_export]
macro_rules! compiled {
    ($name:ident<$($life:lifetime $(: $longer:lifetime)?),*>, |$x:tt: $in:ty| -> $out:ty $body:block) => {
        struct $name<$($life $(: $longer)?),*>($(::std::marker::PhantomData<&$life ()>),*);

        impl<$($life $(: $longer)?),*> $crate::Compiled for $name<$($life),*> {
            type In<T: $crate::Real> = $in;
            type Out<T: $crate::Real> = $out;

            #[inline(never)]
            fn single(x: Self::In<f32>) -> Self::Out<f32> {
                fn body<$($life $(: $longer)?,)* T: $crate::Real>($x: $in) -> $out $body
                body::<f32>(x)
            }

            #[inline(never)]
            fn double(x: Self::In<f64>) -> Self::Out<f64> {
                fn body<$($life $(: $longer)?,)* T: $crate::Real>($x: $in) -> $out $body
                body::<f64>(x)
            }
        }
    };
}

mod sealed {
    use crate::gemm::Kernel;

    pub trait Sealed: Sized + 'static {
        /// The product kernels of this CPU, the preferred first; none where the portable path is all there is.
        fn kernels() -> &'static [&'static Kernel<Self>];
    }

    macro_rules! sealed {
        ($t:ty, $kernels:ident) => {
            impl Sealed for $t {
                fn kernels() -> &'static [&'static Kernel<Self>] {
                    #[cfg(target_arch = "x86_64")]
                    return crate::gemm::$kernels();
                    #[cfg(not(target_arch = "x86_64"))]
                    &[]
                }
            }
        };
    }
    sealed!(f32, kernels_f32);
    sealed!(f64, kernels_f64);
}

/// A floating-point scalar: `f32` for work, `f64` for proof.
///
/// Sealed: kernels are tuned and tested for these two types and no other.
pub trait Real:
    Sealed
    + Copy
    + Default
    + PartialOrd
    + Debug
    + Display
    + Send
    + Sync
    + 'static
    + Add<Output = Self>
    + Sub<Output = Self>
    + Mul<Output = Self>
    + Div<Output = Self>
    + Neg<Output = Self>
    + AddAssign
    + SubAssign
    + MulAssign
    + DivAssign
    + Sum
{
    /// The additive identity.
    const ZERO: Self;
    /// The multiplicative identity.
    const ONE: Self;
    /// Size of one scalar in bytes.
    const BYTES: usize;
    /// `"f32"` or `"f64"`.
    const NAME: &'static str;

    /// Calls a [`Compiled`] function at this type.
    fn compiled<C: Compiled>(x: C::In<Self>) -> C::Out<Self>;
    /// Rounds an `f64` to this type.
    fn of(x: f64) -> Self;
    /// Widens to `f64` exactly.
    fn f64(self) -> f64;
    /// `self * a + b` with one rounding where the target has a fused instruction.
    fn mul_add(self, a: Self, b: Self) -> Self;
    /// Square root.
    fn sqrt(self) -> Self;
    /// Natural exponential. For `f32` a branch-free polynomial within 2 ulp that vectorises; arguments
    /// below -87 give a value that is zero for every practical purpose (1e-38), above 88 they saturate.
    fn exp(self) -> Self;
    /// `e^(self by)` for products of at most zero, exactly zero below `e^-80` and for NaN: the weights of a softmax.
    /// For `f32` in base 2, with half the operations of [`Real::exp`]; `by` is best the same for many calls.
    fn decay(self, by: Self) -> Self;
    /// Natural logarithm (library accuracy).
    fn ln(self) -> Self;
    /// Hyperbolic tangent (library accuracy for `f64`, through [`Real::exp`] for `f32`).
    fn tanh(self) -> Self;
    /// Absolute value.
    fn abs(self) -> Self;
    /// The larger of two finite values (`other` when `self` is NaN).
    fn max(self, other: Self) -> Self;
    /// The smaller of two finite values (`other` when `self` is NaN).
    fn min(self, other: Self) -> Self;
    /// Neither infinite nor NaN.
    fn is_finite(self) -> bool;
}

impl Real for f32 {
    const ZERO: f32 = 0.0;
    const ONE: f32 = 1.0;
    const BYTES: usize = 4;
    const NAME: &'static str = "f32";

    #[inline(always)]
    fn compiled<C: Compiled>(x: C::In<f32>) -> C::Out<f32> {
        C::single(x)
    }
    #[inline(always)]
    fn of(x: f64) -> f32 {
        x as f32
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        f64::from(self)
    }
    #[inline(always)]
    fn mul_add(self, a: f32, b: f32) -> f32 {
        f32::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> f32 {
        f32::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f32 {
        // Adding 1.5 * 2^23 rounds to an integer without a branch.
        const MAGIC: f32 = 12_582_912.0;
        let x = if self > -87.0 { self } else { -87.0 };
        let x = if x < 88.0 { x } else { 88.0 };
        let z = x.mul_add(std::f32::consts::LOG2_E, MAGIC);
        let n = z - MAGIC;
        let f = n.mul_add(-0.693_359_4, x);
        let f = n.mul_add(2.121_944_4e-4, f);
        let p = 1.987_569_1e-4_f32.mul_add(f, 1.398_199_9e-3);
        let p = p.mul_add(f, 8.333_452e-3).mul_add(f, 4.166_579_6e-2);
        let p = p.mul_add(f, 1.666_666_5e-1).mul_add(f, 0.5);
        let p = p.mul_add(f * f, f + 1.0);
        p * f32::from_bits((z.to_bits() << 23).wrapping_add(127 << 23))
    }
    #[inline(always)]
    fn decay(self, by: f32) -> f32 {
        // Adding 1.5 * 2^23 rounds to an integer without a branch, and leaves it in the low bits.
        const MAGIC: f32 = 12_582_912.0;
        const LOWEST: f32 = -80.0 * std::f32::consts::LOG2_E;
        let t = self * (by * std::f32::consts::LOG2_E);
        let rounded = t + MAGIC;
        let f = t - (rounded - MAGIC);
        let p = 1.535_336_2e-4_f32.mul_add(f, 1.339_887_4e-3).mul_add(f, 9.618_437e-3);
        let p = p.mul_add(f, 5.550_332_5e-2).mul_add(f, 2.402_264_8e-1);
        let p = p.mul_add(f, 6.931_472e-1).mul_add(f, 1.0);
        let power = f32::from_bits(p.to_bits().wrapping_add(rounded.to_bits() << 23));
        if t > LOWEST { power } else { 0.0 }
    }
    #[inline(always)]
    fn ln(self) -> f32 {
        f32::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f32 {
        // Near zero the quotient loses digits to cancellation; the series is exact to f32 there.
        let a = f32::abs(self);
        let e = <f32 as Real>::exp(-2.0 * a);
        let t = (1.0 - e) / (1.0 + e);
        let s = a * a;
        let small = a * (s.mul_add(s.mul_add(2.0 / 15.0, -1.0 / 3.0), 1.0));
        let t = if a < 0.1 { small } else { t };
        t.copysign(self)
    }
    #[inline(always)]
    fn abs(self) -> f32 {
        f32::abs(self)
    }
    #[inline(always)]
    fn max(self, other: f32) -> f32 {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn min(self, other: f32) -> f32 {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        f32::is_finite(self)
    }
}

impl Real for f64 {
    const ZERO: f64 = 0.0;
    const ONE: f64 = 1.0;
    const BYTES: usize = 8;
    const NAME: &'static str = "f64";

    #[inline(always)]
    fn compiled<C: Compiled>(x: C::In<f64>) -> C::Out<f64> {
        C::double(x)
    }
    #[inline(always)]
    fn of(x: f64) -> f64 {
        x
    }
    #[inline(always)]
    fn f64(self) -> f64 {
        self
    }
    #[inline(always)]
    fn mul_add(self, a: f64, b: f64) -> f64 {
        f64::mul_add(self, a, b)
    }
    #[inline(always)]
    fn sqrt(self) -> f64 {
        f64::sqrt(self)
    }
    #[inline(always)]
    fn exp(self) -> f64 {
        f64::exp(self)
    }
    #[inline(always)]
    fn decay(self, by: f64) -> f64 {
        let t = self * by;
        if t > -80.0 { f64::exp(t) } else { 0.0 }
    }
    #[inline(always)]
    fn ln(self) -> f64 {
        f64::ln(self)
    }
    #[inline(always)]
    fn tanh(self) -> f64 {
        f64::tanh(self)
    }
    #[inline(always)]
    fn abs(self) -> f64 {
        f64::abs(self)
    }
    #[inline(always)]
    fn max(self, other: f64) -> f64 {
        if self > other { self } else { other }
    }
    #[inline(always)]
    fn min(self, other: f64) -> f64 {
        if self < other { self } else { other }
    }
    #[inline(always)]
    fn is_finite(self) -> bool {
        f64::is_finite(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decay_is_the_exponential_of_its_product_and_vanishes_where_it_says() {
        let mut worst = 0.0_f64;
        for i in 0..200_000 {
            let x = -79.0 * f64::from(i) / 200_000.0;
            for by in [1.0_f32, 1.0 / 0.7, 0.5] {
                let d = x as f32 / by;
                let want = (f64::from(d) * f64::from(by)).exp();
                // Rounding the product alone shifts the exponent by so much.
                let allowed = 2.5e-7 + 1.2e-7 * x.abs();
                let off = (f64::from(d.decay(by)) / want - 1.0).abs();
                assert!(off <= allowed, "{d} {by}: {off:e}");
                worst = worst.max(off / allowed);
                assert!((f64::from(d).decay(f64::from(by)) / want - 1.0).abs() < 1e-15);
            }
        }
        assert!(worst > 0.2, "the bound is idle: {worst}");
        assert_eq!(
            (0.0_f32.decay(3.0).to_bits(), 0.0_f64.decay(3.0).to_bits()),
            (1.0_f32.to_bits(), 1.0_f64.to_bits())
        );
        for d in [f32::NEG_INFINITY, -1e30, -81.0, f32::NAN] {
            assert!(d.decay(1.0).to_bits() == 0 && f64::from(d).decay(1.0).to_bits() == 0, "{d}");
        }
    }
}
