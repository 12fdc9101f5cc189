//! A strict interpreter for the PTX that NVIDIA's compiler emits, with the checks that a device does not make.
//!
//! It runs kernels on an ordinary processor, block by block, warp by warp in lockstep, with IEEE arithmetic to the bit,
//! and reports what real hardware would pass over in silence: accesses out of bounds or after a free, misaligned
//! vectors, reads of memory that nothing wrote, data races in shared memory and between blocks, barriers and warp
//! operations that not all threads reach. An instruction that it does not know is an error, never a guess.
//!
//! ```
//! use std::sync::Arc;
//! use ptx_sim::{Launch, Memory, Module, Options, launch};
//!
//! let ptx = "
//! .version 8.0
//! .target sm_80
//! .address_size 64
//! .visible .entry fill(.param .u64 out)
//! {
//!     .reg .b32 %r<2>;
//!     .reg .b64 %rd<4>;
//!     ld.param.u64 %rd1, [out];
//!     mov.u32 %r1, %tid.x;
//!     mul.wide.u32 %rd2, %r1, 4;
//!     add.s64 %rd3, %rd1, %rd2;
//!     st.global.u32 [%rd3], %r1;
//!     ret;
//! }";
//! let memory = Arc::new(Memory::new());
//! let module = Module::parse(ptx, &memory)?;
//! let fill = module.function("fill")?;
//! let out = memory.alloc(64 * 4)?;
//! let params = out.to_le_bytes().to_vec();
//! let job = Launch { grid: [1, 1, 1], block: [64, 1, 1], dynamic_shared: 0, params };
//! let counters = launch(&memory, &fill, &job, &Options::default())?;
//! assert_eq!(counters.distinct_bytes_written, 256);
//! let mut bytes = [0; 256];
//! memory.read(out, &mut bytes)?;
//! assert_eq!(bytes[4..8], [1, 0, 0, 0]);
//! # Ok::<(), ptx_sim::Fault>(())
//! ```

mod allocate;
mod approx;
mod atomic;
mod cfg;
mod counters;
mod decode;
mod exec;
mod fault;
mod float;
#[cfg(test)]
mod float_tests;
mod footprint;
mod ir;
mod lexer;
mod memory;
mod module;
mod parser;
mod regs;
mod shared;
#[cfg(test)]
mod shared_tests;
mod types;
mod within;

pub use counters::Counters;
pub use exec::{Launch, Limits, Options, launch};
pub use fault::{AllocationInfo, Fault, FaultDetail, FaultKind};
pub use memory::Memory;
pub use module::{Function, Module, Param};
