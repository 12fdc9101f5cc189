//! The names under which calls without a stream mean the calling thread's own default stream. It waits for as little as
//! any other here, so that they are the plain calls again.

use std::ffi::c_void;

use crate::ffi::Out;
use crate::handles::Handle;

use super::device::cudaStreamSynchronize;
use super::memory::{
    cudaFreeAsync, cudaMallocAsync, cudaMemcpy, cudaMemcpyAsync, cudaMemset, cudaMemsetAsync,
};
use super::registration::{__cudaLaunchKernel, cudaLaunchKernel};

/// Generates a call that is another one.
macro_rules! export_aliases {
    ($($alias:ident = $original:ident($($argument:ident: $type:ty),*);)*) => {$(
        #[doc = concat!("See [`", stringify!($original), "`].")]
        ///
        /// # Safety
        /// As for the call that it stands for.
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $alias($($argument: $type),*) -> u32 {
            // SAFETY: the caller's promise is the one that this asks for.
            unsafe { $original($($argument),*) }
        }
    )*};
}

export_aliases! {
    cudaMallocAsync_ptsz = cudaMallocAsync(address: Out<u64>, bytes: usize, stream: Handle);
    cudaFreeAsync_ptsz = cudaFreeAsync(address: u64, stream: Handle);
    cudaMemset_ptds = cudaMemset(address: u64, value: i32, count: usize);
    cudaMemsetAsync_ptsz = cudaMemsetAsync(address: u64, value: i32, count: usize, stream: Handle);
    cudaMemcpy_ptds = cudaMemcpy(to: u64, from: u64, bytes: usize, kind: u32);
    cudaMemcpyAsync_ptsz = cudaMemcpyAsync(to: u64, from: u64, bytes: usize, kind: u32, stream: Handle);
    cudaStreamSynchronize_ptsz = cudaStreamSynchronize(stream: Handle);
    cudaLaunchKernel_ptsz = cudaLaunchKernel(function: *const c_void);
    __cudaLaunchKernel_ptsz = __cudaLaunchKernel(function: *const c_void);
}
