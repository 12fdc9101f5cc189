use super::philox::Philox4x32;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// The name of one draw: the same key, shape and input give the same result, on any device, thread count, launch
/// geometry, batch position or memory layout.
///
/// A key is a plain value. Two ops given the same key see the same noise: that is how a straight-through sample gets the
/// gradient of the relaxed sample at the same noise, and why every independent draw needs a key of its own. Take keys
/// from an [`Rng`], or derive them with [`Key::fold_in`].
///
/// Element `i` of a draw, the logical row-major index in the tensor's own shape, takes word `i % 4` of the Philox4x32-10
/// block with key `(seed.lo, seed.hi)` and counter `((i / 4).lo, (i / 4).hi, stream.lo, stream.hi)`.
///
/// `stream` must be below 2^63, since its top bit selects the words that refine small uniforms; ops given a larger one
/// return an error.
///
/// ```
/// use candle_reparam::{Key, normal};
/// use candle_core::{DType, Device};
/// let key = Key::new(42, 0);
/// let a = normal((2, 3), DType::F32, &Device::Cpu, key)?.to_vec2::<f32>()?;
/// let b = normal((2, 3), DType::F32, &Device::Cpu, key)?.to_vec2::<f32>()?;
/// assert_eq!(a, b);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// The Philox key: one per experiment.
    pub seed: u64,
    /// The upper half of the Philox counter: one per draw, below 2^63.
    pub stream: u64,
}

impl Key {
    /// The key of a seed and a stream.
    ///
    /// ```
    /// let key = candle_reparam::Key::new(1, 2);
    /// assert_eq!((key.seed, key.stream), (1, 2));
    /// ```
    #[must_use]
    pub const fn new(seed: u64, stream: u64) -> Self {
        Self { seed, stream }
    }

    /// A new key from this one and a number, such as a layer's index or a step: a hash of both, so that keys folded from
    /// different numbers, or from different keys, name unrelated draws (as `jax.random.fold_in`).
    ///
    /// ```
    /// let key = candle_reparam::Key::new(1, 2);
    /// assert_eq!(key.fold_in(7), key.fold_in(7));
    /// assert_ne!(key.fold_in(7), key.fold_in(8));
    /// ```
    #[must_use]
    pub fn fold_in(self, data: u64) -> Self {
        let low = |x: u64| x as u32;
        let high = |x: u64| (x >> 32) as u32;
        // The key is complemented so that these words are not also the noise of a draw under `seed`.
        let [a, b, c, d] = Philox4x32::block(
            [low(data), high(data), low(self.stream), high(self.stream)],
            [!low(self.seed), !high(self.seed)],
        );
        Self {
            seed: u64::from(a) | u64::from(b) << 32,
            stream: u64::from(c) | u64::from(d & 0x7FFF_FFFF) << 32,
        }
    }
}

/// A source of keys: each call of [`Rng::next_key`] returns the next stream of one seed.
///
/// Cheap to clone and safe to share: clones draw from one counter, so no two calls, from whatever thread, return the
/// same key. Which thread gets which key depends on timing; for a result that does not, take the keys in one thread and
/// hand them out, or derive them with [`Key::fold_in`].
///
/// ```
/// use candle_reparam::Rng;
/// let rng = Rng::new(42);
/// let (a, b) = (rng.next_key(), rng.next_key());
/// assert_eq!((a.stream, b.stream), (0, 1));
/// ```
#[derive(Clone, Debug)]
pub struct Rng {
    seed: u64,
    next: Arc<AtomicU64>,
}

impl Rng {
    /// A source whose keys are a function of `seed` and of how many were taken (as `torch.Generator().manual_seed`).
    ///
    /// ```
    /// use candle_reparam::Rng;
    /// assert_eq!(Rng::new(3).next_key(), Rng::new(3).next_key());
    /// ```
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self {
            seed,
            next: Arc::new(AtomicU64::new(0)),
        }
    }

    /// A source seeded by the operating system, for runs that need not be repeated; [`Rng::seed`] says what it drew.
    ///
    /// ```
    /// use candle_reparam::Rng;
    /// assert_ne!(Rng::from_os().seed(), Rng::from_os().seed());
    /// ```
    #[must_use]
    pub fn from_os() -> Self {
        Self::new(rand::random())
    }

    /// The seed that every key of this source carries.
    ///
    /// ```
    /// assert_eq!(candle_reparam::Rng::new(9).seed(), 9);
    /// ```
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// The next key.
    ///
    /// ```
    /// use candle_reparam::{Key, Rng};
    /// assert_eq!(Rng::new(9).next_key(), Key::new(9, 0));
    /// ```
    pub fn next_key(&self) -> Key {
        Key::new(self.seed, self.next.fetch_add(1, Ordering::Relaxed))
    }
}
