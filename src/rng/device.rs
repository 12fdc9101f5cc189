//! Keys in the memory of a device, for launches that are recorded once and replayed.

use super::Key;
use crate::check;
use candle_core::{DType, Device, Result, Tensor, bail};

/// A [`Key`] that lies in a device's memory: an op given one reads it there when its kernel runs, not when it is called.
///
/// Take a plain [`Key`] wherever you can: it is what makes a run repeatable, and it costs nothing. A `DeviceKey` is for
/// work that is recorded once and replayed, such as a CUDA graph. A key by value is frozen into the recording, so that every
/// replay draws the same noise; one in device memory, advanced by the recording itself ([`DeviceRng`]) or set by the
/// host between replays, makes every replay a fresh draw. Two ops given one `DeviceKey` see the same noise, and the backward
/// pass of an op draws the noise of its forward pass, as long as nothing writes to the key in between.
///
/// For the same seed and stream the noise is that of the [`Key`], bit for bit.
///
/// ```
/// use candle_reparam::{DeviceKey, Key, gumbel};
/// use candle_core::{DType, Device};
/// let key = Key::new(42, 7);
/// let there = DeviceKey::new(key, &Device::Cpu)?;
/// let a = gumbel(4, DType::F32, &Device::Cpu, key)?.to_vec1::<f32>()?;
/// let b = gumbel(4, DType::F32, &Device::Cpu, &there)?.to_vec1::<f32>()?;
/// assert_eq!(a, b);
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceKey(Tensor);

impl DeviceKey {
    /// Copies a key to a device. An error where its stream is not below 2^63.
    ///
    /// ```
    /// use candle_reparam::{DeviceKey, Key};
    /// let key = DeviceKey::new(Key::new(1, 2), &candle_core::Device::Cpu)?;
    /// assert_eq!(key.get()?, Key::new(1, 2));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(key: Key, device: &Device) -> Result<Self> {
        check::key("DeviceKey::new", key)?;
        words(key, device).map(Self)
    }

    /// Copies the key back from the device, which waits for the work that is under way there.
    ///
    /// ```
    /// use candle_reparam::{DeviceKey, Key};
    /// let key = DeviceKey::new(Key::new(u64::MAX, 0), &candle_core::Device::Cpu)?;
    /// assert_eq!(key.get()?.seed, u64::MAX);
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn get(&self) -> Result<Key> {
        match self.0.to_vec1::<i64>()?[..] {
            [seed, stream] => Ok(Key::new(seed as u64, stream as u64)),
            _ => bail!("DeviceKey::get: the key's tensor does not hold two numbers"),
        }
    }

    /// Writes another key to the same memory, in the order of the device's work: what was launched before sees the old
    /// key, what is launched or replayed after it the new one. An error where its stream is not below 2^63.
    ///
    /// ```
    /// use candle_reparam::{DeviceKey, Key};
    /// let key = DeviceKey::new(Key::new(1, 2), &candle_core::Device::Cpu)?;
    /// key.set(Key::new(1, 3))?;
    /// assert_eq!(key.get()?, Key::new(1, 3));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn set(&self, key: Key) -> Result<()> {
        check::key("DeviceKey::set", key)?;
        self.0.slice_set(&words(key, self.0.device())?, 0, 0)
    }

    /// Seed and stream as two numbers of 64 bits.
    pub(crate) fn tensor(&self) -> &Tensor {
        &self.0
    }
}

fn words(key: Key, device: &Device) -> Result<Tensor> {
    Tensor::new(&[key.seed as i64, key.stream as i64], device)
}

/// A source of [`DeviceKey`]s whose counter lies in a device's memory, so that a recorded [`DeviceRng::next_key`] takes
/// another key at every replay.
///
/// Its keys are those of [`Rng`](crate::Rng) with the same seed, in the same order.
///
/// ```
/// use candle_reparam::{DeviceRng, Rng};
/// let (rng, plain) = (DeviceRng::new(42, &candle_core::Device::Cpu)?, Rng::new(42));
/// for _ in 0..3 {
///     assert_eq!(rng.next_key()?.get()?, plain.next_key());
/// }
/// # Ok::<(), candle_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct DeviceRng {
    /// The next key.
    next: Tensor,
    /// What leads from a key to the next.
    step: Tensor,
}

impl DeviceRng {
    /// A source whose keys are a function of `seed` and of how many were taken.
    ///
    /// ```
    /// use candle_reparam::{DeviceRng, Key};
    /// let rng = DeviceRng::new(9, &candle_core::Device::Cpu)?;
    /// assert_eq!(rng.next_key()?.get()?, Key::new(9, 0));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn new(seed: u64, device: &Device) -> Result<Self> {
        Ok(Self {
            next: words(Key::new(seed, 0), device)?,
            step: words(Key::new(0, 1), device)?,
        })
    }

    /// The next key, in memory of its own: it stays what it is when further ones are taken. Not meant for several threads
    /// at a time, which could be given one key twice.
    ///
    /// ```
    /// use candle_reparam::DeviceRng;
    /// let rng = DeviceRng::new(9, &candle_core::Device::Cpu)?;
    /// let (a, b) = (rng.next_key()?, rng.next_key()?);
    /// assert_eq!((a.get()?.stream, b.get()?.stream), (0, 1));
    /// # Ok::<(), candle_core::Error>(())
    /// ```
    pub fn next_key(&self) -> Result<DeviceKey> {
        debug_assert_eq!(self.next.dtype(), DType::I64);
        let key = self.next.copy()?;
        self.next.slice_set(&(&self.next + &self.step)?, 0, 0)?;
        Ok(DeviceKey(key))
    }
}

/// Where an op takes its noise from: a [`Key`] by value, which is what to use, or a [`DeviceKey`], for work that is
/// recorded and replayed. Ops take `impl Into<KeySource>`, so that either can be given as it is.
///
/// ```
/// use candle_reparam::{Key, KeySource};
/// assert!(matches!(KeySource::from(Key::new(1, 2)), KeySource::Value(_)));
/// ```
#[derive(Clone, Debug)]
pub enum KeySource {
    /// A key by value.
    Value(Key),
    /// A key in a device's memory.
    Device(DeviceKey),
}

impl KeySource {
    /// The key as it is now.
    pub(crate) fn now(&self) -> Result<Key> {
        match self {
            KeySource::Value(key) => Ok(*key),
            KeySource::Device(key) => key.get(),
        }
    }
}

impl From<Key> for KeySource {
    fn from(key: Key) -> Self {
        Self::Value(key)
    }
}

impl From<DeviceKey> for KeySource {
    fn from(key: DeviceKey) -> Self {
        Self::Device(key)
    }
}

impl From<&DeviceKey> for KeySource {
    fn from(key: &DeviceKey) -> Self {
        Self::Device(key.clone())
    }
}
