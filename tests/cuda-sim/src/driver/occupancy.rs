//! How many blocks a multiprocessor holds: the least of what its threads, blocks, registers and shared memory allow.

use crate::call::driver;
use crate::error::{CUresult, Error, Result};
use crate::ffi::Out;
use crate::handles::Handle;
use crate::model::{self, Model};
use crate::sim;
use crate::state::Kernel;

use super::function::{known, max_threads};

/// Shared memory is handed out in pieces of this size.
const SHARED_GRANULE: u64 = 128;
/// Registers are handed out to warps in pieces of this size.
const REGISTER_GRANULE: u32 = 256;

/// Blocks of a kernel that fit on a multiprocessor at once.
fn active_blocks(model: &Model, kernel: &Kernel, block: u32, dynamic_shared: usize) -> u32 {
    let warps = block.div_ceil(Model::WARP);
    let by_threads = model.threads_per_multiprocessor / (warps * Model::WARP);
    let registers =
        warps * (Model::REGISTERS_PER_THREAD * Model::WARP).next_multiple_of(REGISTER_GRANULE);
    let by_registers = Model::REGISTERS_PER_MULTIPROCESSOR / registers;
    let shared = (dynamic_shared as u64
        + u64::from(sim::static_shared(&kernel.function) + model.reserved_shared()))
    .next_multiple_of(SHARED_GRANULE);
    let by_shared = u64::from(model.shared_per_multiprocessor)
        .checked_div(shared)
        .map_or(u32::MAX, |blocks| blocks as u32);
    model
        .blocks_per_multiprocessor
        .min(by_threads)
        .min(by_registers)
        .min(by_shared)
}

fn block_size(size: i32) -> Result<u32> {
    u32::try_from(size)
        .ok()
        .filter(|size| (1..=Model::THREADS_PER_BLOCK).contains(size))
        .ok_or(Error::InvalidValue)
}

fn report_active(count: Out<i32>, function: Handle, block: i32, dynamic_shared: usize) -> Result {
    let kernel = known(function)?;
    let block = block_size(block)?;
    let blocks = if block > max_threads(&kernel) {
        0
    } else {
        active_blocks(model::get(), &kernel, block, dynamic_shared)
    };
    count.set(blocks as i32)
}

/// Blocks that fit on a multiprocessor.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
    count: Out<i32>,
    function: Handle,
    block: i32,
    dynamic_shared: usize,
) -> CUresult {
    driver("cuOccupancyMaxActiveBlocksPerMultiprocessor", || {
        report_active(count, function, block, dynamic_shared)
    })
}

/// Blocks that fit on a multiprocessor; the flags concern caching.
///
/// # Safety
/// `count` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
    count: Out<i32>,
    function: Handle,
    block: i32,
    dynamic_shared: usize,
    _flags: u32,
) -> CUresult {
    driver(
        "cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags",
        || report_active(count, function, block, dynamic_shared),
    )
}

/// How much dynamic shared memory blocks of a size may have.
type SharedForBlock = unsafe extern "C" fn(i32) -> usize;

/// The block size that fills a multiprocessor best, the largest of equals, and the grid that fills the device.
fn best(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_for: Option<SharedForBlock>,
    dynamic_shared: usize,
    limit: i32,
) -> Result {
    let kernel = known(function)?;
    let most = match limit {
        ..=0 => max_threads(&kernel),
        limit => max_threads(&kernel).min(limit as u32),
    };
    let model = model::get();
    let mut found = (0, 0, 0);
    let mut size = most;
    while size > 0 {
        // SAFETY: the caller promises a function that may be called with any block size.
        let shared = shared_for.map_or(dynamic_shared, |shared_for| unsafe {
            shared_for(size as i32)
        });
        let blocks = active_blocks(model, &kernel, size, shared);
        if blocks * size > found.0 {
            found = (blocks * size, size, blocks);
        }
        size = (size - 1) / Model::WARP * Model::WARP;
    }
    let (_, size, blocks) = found;
    grid.set((blocks * model.multiprocessors) as i32)?;
    block.set(size as i32)
}

/// The block size that fills a multiprocessor best, and the grid that fills the device.
///
/// # Safety
/// `grid` and `block` are null or valid for a write; `shared_for` is null or may be called with any block size.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSize(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_for: Option<SharedForBlock>,
    dynamic_shared: usize,
    limit: i32,
) -> CUresult {
    driver("cuOccupancyMaxPotentialBlockSize", || {
        best(grid, block, function, shared_for, dynamic_shared, limit)
    })
}

/// The block size that fills a multiprocessor best, and the grid that fills the device; the flags concern caching.
///
/// # Safety
/// As for [`cuOccupancyMaxPotentialBlockSize`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyMaxPotentialBlockSizeWithFlags(
    grid: Out<i32>,
    block: Out<i32>,
    function: Handle,
    shared_for: Option<SharedForBlock>,
    dynamic_shared: usize,
    limit: i32,
    _flags: u32,
) -> CUresult {
    driver("cuOccupancyMaxPotentialBlockSizeWithFlags", || {
        best(grid, block, function, shared_for, dynamic_shared, limit)
    })
}

/// Dynamic shared memory of a block if so many are to fit on a multiprocessor.
///
/// # Safety
/// `bytes` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuOccupancyAvailableDynamicSMemPerBlock(
    bytes: Out<usize>,
    function: Handle,
    blocks: i32,
    block: i32,
) -> CUresult {
    driver("cuOccupancyAvailableDynamicSMemPerBlock", || {
        let kernel = known(function)?;
        let block = block_size(block)?;
        let model = model::get();
        let blocks = u32::try_from(blocks)
            .ok()
            .filter(|blocks| *blocks > 0)
            .ok_or(Error::InvalidValue)?;
        if blocks > active_blocks(model, &kernel, block, 0) {
            return Err(Error::InvalidValue);
        }
        let taken = sim::static_shared(&kernel.function);
        let share = (u64::from(model.shared_per_multiprocessor / blocks) / SHARED_GRANULE
            * SHARED_GRANULE) as u32;
        let most = share
            .saturating_sub(model.reserved_shared())
            .min(model.shared_per_block_opt_in)
            .saturating_sub(taken);
        bytes.set(most as usize)
    })
}
