//! The driver's calls, a file for each group of the CUDA driver API.
//!
//! Work is done when it is submitted, in the order of the calls: streams and events order nothing that is not ordered
//! already. Every call checks what it is given as the driver documents it.

mod context;
mod device;
mod entry;
mod errors;
mod event;
mod function;
mod host;
mod launch;
mod memory;
mod module;
mod occupancy;
mod pool;
mod stream;
mod transfer;

pub use memory::{cuMemAlloc_v2, cuMemAllocAsync, cuMemFree_v2, cuMemFreeAsync};
pub use transfer::{cuMemcpy, cuMemcpyAsync, cuMemsetD8_v2, cuMemsetD8Async};
