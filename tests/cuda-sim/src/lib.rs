//! A simulated CUDA device.
//!
//! The library stands in for `libcuda.so.1` and for the few calls of cuBLAS, cuRAND and the CUDA runtime that candle makes.
//! Kernels are PTX text, run by the interpreter of the crate `ptx-sim`, which checks every access to memory. See the
//! README for how to run a program on it.
//!
//! There is no Rust interface: the exported C functions are all there is. They are compiled into the `cdylib`, and into
//! the `rlib` for the tests.

#![allow(non_snake_case, reason = "C names")]
#![allow(clippy::too_many_arguments, reason = "C signatures")]
#![cfg_attr(
    not(test),
    allow(
        private_interfaces,
        reason = "the arguments of C functions have types that only this crate makes"
    )
)]

mod blas;
mod call;
mod config;
mod curand;
mod driver;
mod error;
mod exports;
mod ffi;
mod handles;
mod model;
mod nvrtc;
mod process;
mod report;
mod runtime;
mod sim;
mod state;
