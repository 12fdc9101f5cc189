//! A scalar Philox4x32-10 and the crate's maps from words to uniforms, written from the paper and the stream
//! contract alone, so that the crate's vectorised generator is held against something it does not share code with.

/// One block: four words for a 128-bit counter and a 64-bit key (Salmon et al. 2011, table 2 and section 5.2).
pub fn block(counter: [u32; 4], key: [u32; 2], rounds: usize) -> [u32; 4] {
    const M0: u64 = 0xD251_1F53;
    const M1: u64 = 0xCD9E_8D57;
    const W0: u32 = 0x9E37_79B9;
    const W1: u32 = 0xBB67_AE85;
    let [mut c0, mut c1, mut c2, mut c3] = counter;
    let [mut k0, mut k1] = key;
    for _ in 0..rounds {
        let p0 = M0 * u64::from(c0);
        let p1 = M1 * u64::from(c2);
        let (h0, l0) = ((p0 >> 32) as u32, p0 as u32);
        let (h1, l1) = ((p1 >> 32) as u32, p1 as u32);
        (c0, c1, c2, c3) = (h1 ^ c1 ^ k0, l1, h0 ^ c3 ^ k1, l0);
        k0 = k0.wrapping_add(W0);
        k1 = k1.wrapping_add(W1);
    }
    [c0, c1, c2, c3]
}

fn block_of(seed: u64, stream: u64, index: u64) -> [u32; 4] {
    let counter = index / 4;
    block(
        [
            counter as u32,
            (counter >> 32) as u32,
            stream as u32,
            (stream >> 32) as u32,
        ],
        [seed as u32, (seed >> 32) as u32],
        10,
    )
}

/// Word `index` of the stream, and the refining word at the same place: its counter has the stream's top bit set.
pub fn words(seed: u64, stream: u64, index: u64) -> (u32, u32) {
    let lane = (index % 4) as usize;
    (
        block_of(seed, stream, index)[lane],
        block_of(seed, stream | 1 << 63, index)[lane],
    )
}

/// The first `n` (word, refining word) pairs of a stream.
pub fn stream_words(seed: u64, stream: u64, n: usize) -> Vec<(u32, u32)> {
    (0..n.div_ceil(4) as u64)
        .flat_map(|b| {
            let first = block_of(seed, stream, 4 * b);
            let second = block_of(seed, stream | 1 << 63, 4 * b);
            (0..4).map(move |lane| (first[lane], second[lane]))
        })
        .take(n)
        .collect()
}

const P32: f32 = 1.0 / 4_294_967_296.0;
const P33: f32 = P32 / 2.0;

/// The f32 uniform of a word, by the contract's own sentence.
pub fn uniform_f32(w: u32, w2: u32) -> f32 {
    if w < 256 {
        return (w as f32 + (w2 as f32).mul_add(P32, P33)) * P32;
    }
    (w as f32).mul_add(P32, P33).min(1.0 - f32::EPSILON / 2.0)
}

/// The f64 uniform of a word pair, by the contract's own sentence.
pub fn uniform_f64(w: u32, w2: u32) -> f64 {
    let (p32, p33) = (f64::from(P32), f64::from(P33));
    let v = (f64::from(w) + f64::from(w2).mul_add(p32, p33)) * p32;
    v.min(1.0 - f64::EPSILON / 2.0)
}

/// The seed of [`rare`].
pub const RARE_SEED: u64 = 2024;

/// Streams whose early words are rare ones, as (stream, index, word): below 256, where the second word refines them, the
/// two ends, the middle. Found by a search; each is checked to be what it says.
pub fn rare() -> impl Iterator<Item = (u64, u64, u32)> {
    const FOUND: [(u64, u64, u32); 14] = [
        (2_440_057, 19, 0),
        (41_964_541, 30, 0),
        (4_810_821, 53, 9),
        (294_471, 1, 10),
        (832_657, 11, 18),
        (2_789_965, 9, 27),
        (35_629, 61, 111),
        (7_094_571, 6, 108),
        (5_278_330, 48, 226),
        (519_191, 56, 249),
        (12_013_459, 26, 0x8000_0000),
        (36_845_557, 45, 0x7FFF_FFFF),
        (17_303_884, 29, 0xFFFF_FFFE),
        (21_678_395, 35, 0xFFFF_FFFE),
    ];
    FOUND
        .into_iter()
        .inspect(|&(stream, index, word)| assert_eq!(words(RARE_SEED, stream, index).0, word))
}
