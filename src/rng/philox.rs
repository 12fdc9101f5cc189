use super::Key;
use crate::simd::{BLOCK_OF_LANE, Bits, Simd};
use rand::rand_core::{Infallible, SeedableRng, TryRng};

const MULTIPLIER: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;
/// In the counter's last word: selects the words that refine those of the plain counter.
const SECOND: u32 = 1 << 31;

/// Philox4x32-10 (Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011) as a sequential
/// generator: the words of a [`Key`]'s stream in the order in which an op's elements take them.
///
/// It implements the traits of `rand` 0.10, so that it serves `rand_distr`, shuffles and anything else that takes a
/// generator. It is not a cryptographic generator.
///
/// ```
/// use candle_reparam::{Key, Philox4x32};
/// use rand::seq::SliceRandom;
/// let mut order: Vec<usize> = (0..10).collect();
/// order.shuffle(&mut Philox4x32::new(Key::new(42, 0)));
/// # assert_eq!(order.iter().sum::<usize>(), 45);
/// ```
#[derive(Clone, Debug)]
pub struct Philox4x32 {
    key: Key,
    /// The index of the next word.
    position: u64,
    /// The block that holds it, unless `position` is a multiple of 4.
    words: [u32; 4],
}

impl Philox4x32 {
    /// The stream of `key`, from its first word. A key's stream should be below 2^63, as for the ops: from there on are the
    /// words that refine small uniforms.
    ///
    /// ```
    /// use candle_reparam::{Key, Philox4x32};
    /// use rand::Rng;
    /// assert_eq!(Philox4x32::new(Key::new(0, 0)).next_u32(), 0x6627_E8D5);
    /// ```
    #[must_use]
    pub fn new(key: Key) -> Self {
        Self {
            key,
            position: 0,
            words: [0; 4],
        }
    }

    /// Moves to the word of element `index`.
    ///
    /// ```
    /// use candle_reparam::{Key, Philox4x32};
    /// use rand::Rng;
    /// let mut rng = Philox4x32::new(Key::new(0, 0));
    /// let words: Vec<u32> = (0..6).map(|_| rng.next_u32()).collect();
    /// rng.seek(5);
    /// assert_eq!(rng.next_u32(), words[5]);
    /// ```
    pub fn seek(&mut self, index: u64) {
        self.position = index;
        if !index.is_multiple_of(4) {
            self.words = Stream::new(self.key).block(index / 4);
        }
    }

    /// One block: ten rounds of Philox4x32 on a counter under a key, lowest word first.
    ///
    /// ```
    /// use candle_reparam::Philox4x32;
    /// let words = Philox4x32::block([0; 4], [0; 2]);
    /// assert_eq!(words, [0x6627_E8D5, 0xE169_C58D, 0xBC57_AC4C, 0x9B00_DBD8]);
    /// ```
    #[must_use]
    pub fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let [mut c0, mut c1, mut c2, mut c3] = counter;
        for [k0, k1] in schedule(key) {
            let p0 = u64::from(MULTIPLIER[0]) * u64::from(c0);
            let p1 = u64::from(MULTIPLIER[1]) * u64::from(c2);
            (c0, c1, c2, c3) = (
                (p1 >> 32) as u32 ^ c1 ^ k0,
                p1 as u32,
                (p0 >> 32) as u32 ^ c3 ^ k1,
                p0 as u32,
            );
        }
        [c0, c1, c2, c3]
    }
}

impl TryRng for Philox4x32 {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let word = (self.position % 4) as usize;
        if word == 0 {
            self.words = Stream::new(self.key).block(self.position / 4);
        }
        self.position = self.position.wrapping_add(1);
        Ok(self.words[word])
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let low = self.try_next_u32()?;
        let high = self.try_next_u32()?;
        Ok(u64::from(low) | u64::from(high) << 32)
    }

    fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Infallible> {
        for piece in dst.chunks_mut(4) {
            let word = self.try_next_u32()?.to_le_bytes();
            piece.copy_from_slice(&word[..piece.len()]);
        }
        Ok(())
    }
}

impl SeedableRng for Philox4x32 {
    /// The key's seed, then its stream, both little-endian; the top bit of the stream is dropped.
    type Seed = [u8; 16];

    fn from_seed(seed: [u8; 16]) -> Self {
        let bits = u128::from_le_bytes(seed);
        Self::new(Key::new(bits as u64, (bits >> 64) as u64 & (u64::MAX >> 1)))
    }
}

/// The round keys of a key.
#[inline(always)]
fn schedule(key: [u32; 2]) -> [[u32; 2]; ROUNDS] {
    let mut keys = [key; ROUNDS];
    for round in 1..ROUNDS {
        for half in 0..2 {
            keys[round][half] = keys[round - 1][half].wrapping_add(WEYL[half]);
        }
    }
    keys
}

/// What the kernels need of a key.
#[derive(Clone, Copy)]
pub(crate) struct Stream {
    key: [u32; 2],
    stream: [u32; 2],
}

impl Stream {
    pub(crate) fn new(key: Key) -> Self {
        Self {
            key: [key.seed as u32, (key.seed >> 32) as u32],
            stream: [key.stream as u32, (key.stream >> 32) as u32],
        }
    }

    /// The key of every round.
    #[cfg(feature = "cuda")]
    pub(crate) fn rounds(&self) -> [[u32; 2]; ROUNDS] {
        schedule(self.key)
    }

    /// The stream's number, low half first.
    #[cfg(feature = "cuda")]
    pub(crate) fn number(&self) -> [u32; 2] {
        self.stream
    }

    /// The words of elements `4 * index ..`.
    pub(crate) fn block(&self, index: u64) -> [u32; 4] {
        Philox4x32::block(
            [
                index as u32,
                (index >> 32) as u32,
                self.stream[0],
                self.stream[1],
            ],
            self.key,
        )
    }

    /// The same draw's second words, those that refine [`Stream::block`].
    pub(crate) fn second(self) -> Self {
        Self {
            stream: [self.stream[0], self.stream[1] | SECOND],
            ..self
        }
    }

    /// The word and the second word of one element.
    pub(crate) fn words(&self, element: u64) -> (u32, u32) {
        let word = (element % 4) as usize;
        (
            self.block(element / 4)[word],
            self.second().block(element / 4)[word],
        )
    }

    /// The words of as many blocks as `S` has 64-bit lanes, from `first` on, in the order of their elements.
    ///
    /// The four words of a block live in the low halves of 64-bit lanes. The high halves hold what the shuffles
    /// and the products left there; neither the multiplication nor the interleaving reads them, so nothing is masked.
    #[inline(always)]
    pub(crate) fn blocks<S: Simd>(&self, first: u64) -> (S::U32, S::U32) {
        let lanes = S::U64::load(&BLOCK_OF_LANE);
        let multiplier = MULTIPLIER.map(|m| S::U64::splat(u64::from(m)));
        let mut c0 = S::U64::splat(first).add(lanes);
        let mut c1 = c0.shr::<32>();
        let mut c2 = S::U64::splat(u64::from(self.stream[0]));
        let mut c3 = S::U64::splat(u64::from(self.stream[1]));
        for [k0, k1] in schedule(self.key) {
            let p0 = S::mul_low32(c0, multiplier[0]);
            let p1 = S::mul_low32(c2, multiplier[1]);
            c0 = S::high32(p1).xor(c1).xor(S::U64::splat(u64::from(k0)));
            c2 = S::high32(p0).xor(c3).xor(S::U64::splat(u64::from(k1)));
            c1 = p1;
            c3 = p0;
        }
        S::interleave([c0, c1, c2, c3])
    }
}
