//! The yardstick of a memory-bound kernel: a plain copy on all threads of the pool.

use rayon::prelude::*;

/// Two buffers, allocated and touched before anything is timed, so that the copy pays for memory traffic and not for
/// page faults.
pub struct CopyBuffers {
    from: Vec<f32>,
    to: Vec<f32>,
}

impl CopyBuffers {
    /// `moved` counts what is read plus what is written, as the kernel it stands beside counts its own traffic.
    pub fn moving(moved: u64) -> Self {
        let len = moved as usize / 2 / size_of::<f32>();
        // Not zeros: a zeroed allocation is mapped to one shared page until it is written.
        Self {
            from: vec![1.; len],
            to: vec![2.; len],
        }
    }

    /// One memcpy per thread of the pool.
    pub fn copy(&mut self) {
        let piece = self.from.len().div_ceil(rayon::current_num_threads());
        self.to
            .par_chunks_mut(piece)
            .zip(self.from.par_chunks(piece))
            .for_each(|(to, from)| to.copy_from_slice(from));
        std::hint::black_box(&self.to);
    }
}
