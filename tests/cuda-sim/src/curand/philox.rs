//! Philox4x32-10 (Salmon et al. 2011), a counter-based generator.

use std::f64::consts::TAU;

/// A sequence of words, by seed and place.
pub struct Philox {
    key: [u32; 2],
    place: u64,
    block: [u32; 4],
}

impl Philox {
    pub fn new(seed: u64) -> Self {
        let mut philox = Self {
            key: [seed as u32, (seed >> 32) as u32],
            place: 0,
            block: [0; 4],
        };
        philox.skip_to(0);
        philox
    }

    /// Goes to a word of the sequence.
    pub fn skip_to(&mut self, place: u64) {
        self.place = place;
        self.block = self.generate(place / 4);
    }

    fn generate(&self, counter: u64) -> [u32; 4] {
        rounds([counter as u32, (counter >> 32) as u32, 0, 0], self.key)
    }

    pub fn word(&mut self) -> u32 {
        let word = self.block[(self.place % 4) as usize];
        self.place = self.place.wrapping_add(1);
        if self.place.is_multiple_of(4) {
            self.block = self.generate(self.place / 4);
        }
        word
    }

    /// In (0, 1]: the largest words round up to 1.
    pub fn uniform(&mut self) -> f32 {
        self.word() as f32 * 2_f32.powi(-32) + 2_f32.powi(-33)
    }

    /// In (0, 1], of 53 bits.
    pub fn uniform_double(&mut self) -> f64 {
        let bits = u64::from(self.word()) | u64::from(self.word()) << 32;
        ((bits >> 11) + 1) as f64 * 2_f64.powi(-53)
    }

    /// Two independent normal numbers, by Box and Muller's method.
    pub fn normals(&mut self) -> [f64; 2] {
        let radius = (-2.0 * self.uniform_double().ln()).sqrt();
        let (sin, cos) = (TAU * self.uniform_double()).sin_cos();
        [radius * sin, radius * cos]
    }
}

fn rounds(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..10 {
        if round > 0 {
            key = [
                key[0].wrapping_add(0x9e37_79b9),
                key[1].wrapping_add(0xbb67_ae85),
            ];
        }
        let first = u64::from(counter[0]) * 0xd251_1f53;
        let second = u64::from(counter[2]) * 0xcd9e_8d57;
        counter = [
            (second >> 32) as u32 ^ counter[1] ^ key[0],
            second as u32,
            (first >> 32) as u32 ^ counter[3] ^ key[1],
            first as u32,
        ];
    }
    counter
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123.
    #[test]
    fn known_answers() {
        assert_eq!(
            rounds([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            rounds([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
    }

    #[test]
    fn a_place_is_the_same_however_one_comes_there() {
        let mut walked = Philox::new(7);
        for _ in 0..10 {
            walked.word();
        }
        let mut skipped = Philox::new(7);
        skipped.skip_to(10);
        assert_eq!(
            [walked.word(), walked.word(), walked.word()],
            [skipped.word(), skipped.word(), skipped.word()]
        );
    }

    #[test]
    fn ranges_and_moments() {
        let mut philox = Philox::new(1);
        let count = 1 << 18;
        let (mut sum, mut squares) = (0.0, 0.0);
        for _ in 0..count / 2 {
            for z in philox.normals() {
                sum += z;
                squares += z * z;
            }
        }
        let mean = sum / f64::from(count);
        let variance = squares / f64::from(count);
        assert!(
            mean.abs() < 0.01 && (variance - 1.0).abs() < 0.02,
            "{mean} {variance}"
        );
        for _ in 0..1000 {
            let (x, y) = (philox.uniform(), philox.uniform_double());
            assert!(x > 0.0 && x <= 1.0 && y > 0.0 && y <= 1.0);
        }
    }
}
