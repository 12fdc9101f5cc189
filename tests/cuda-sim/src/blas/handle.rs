//! Handles of cuBLAS: the stream and the modes of the calls that follow.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};

use crate::ffi::Out;
use crate::handles::{Handle, Table};
use crate::state;

use super::{Result, Status, call};

/// cuBLAS 13.0.
const VERSION: [i32; 3] = [13, 0, 0];

/// What a handle stands for.
#[derive(Default)]
pub struct Blas {
    stream: AtomicU64,
    math_mode: AtomicU32,
    pointer_mode: AtomicU32,
    atomics_mode: AtomicU32,
}

impl Blas {
    pub fn stream(&self) -> Handle {
        self.stream.load(Ordering::Relaxed)
    }

    /// Whether the factors of a product are in device memory.
    pub fn factors_on_device(&self) -> bool {
        self.pointer_mode.load(Ordering::Relaxed) == 1
    }
}

fn table() -> &'static Table<Blas> {
    static TABLE: OnceLock<Table<Blas>> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}

/// What a handle stands for, if it is one.
pub fn known(handle: Handle) -> Result<Arc<Blas>> {
    table().get(handle).ok_or(Status::NotInitialized)
}

/// Makes a handle for the current context.
///
/// # Safety
/// `handle` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasCreate_v2(handle: Out<Handle>) -> u32 {
    call("cublasCreate_v2", || {
        state::current()?;
        if handle.is_null() {
            return Err(Status::InvalidValue);
        }
        Ok(handle.set(table().insert(Blas::default()))?)
    })
}

/// Ends a handle.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasDestroy_v2(handle: Handle) -> u32 {
    call("cublasDestroy_v2", || {
        table()
            .remove(handle)
            .map(drop)
            .ok_or(Status::NotInitialized)
    })
}

/// Sets the stream of the calls that follow.
///
/// # Safety
/// None beyond the C calling convention: handles are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetStream_v2(handle: Handle, stream: Handle) -> u32 {
    call("cublasSetStream_v2", || {
        let blas = known(handle)?;
        state::get().stream(stream)?;
        blas.stream.store(stream, Ordering::Relaxed);
        Ok(())
    })
}

/// The stream of the calls that follow.
///
/// # Safety
/// `stream` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetStream_v2(handle: Handle, stream: Out<Handle>) -> u32 {
    call("cublasGetStream_v2", || {
        Ok(stream.set(known(handle)?.stream())?)
    })
}

/// Sets whether products may be computed with less precision. Here none is.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetMathMode(handle: Handle, mode: u32) -> u32 {
    call("cublasSetMathMode", || {
        known(handle)?.math_mode.store(mode, Ordering::Relaxed);
        Ok(())
    })
}

/// The math mode that was set.
///
/// # Safety
/// `mode` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetMathMode(handle: Handle, mode: Out<u32>) -> u32 {
    call("cublasGetMathMode", || {
        Ok(mode.set(known(handle)?.math_mode.load(Ordering::Relaxed))?)
    })
}

/// Sets whether factors are given in host memory, 0, or in device memory, 1.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetPointerMode_v2(handle: Handle, mode: u32) -> u32 {
    call("cublasSetPointerMode_v2", || {
        if mode > 1 {
            return Err(Status::InvalidValue);
        }
        known(handle)?.pointer_mode.store(mode, Ordering::Relaxed);
        Ok(())
    })
}

/// The pointer mode that was set.
///
/// # Safety
/// `mode` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetPointerMode_v2(handle: Handle, mode: Out<u32>) -> u32 {
    call("cublasGetPointerMode_v2", || {
        Ok(mode.set(known(handle)?.pointer_mode.load(Ordering::Relaxed))?)
    })
}

/// Sets whether results may depend on the order of atomic operations. Here none does.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetAtomicsMode(handle: Handle, mode: u32) -> u32 {
    call("cublasSetAtomicsMode", || {
        known(handle)?.atomics_mode.store(mode, Ordering::Relaxed);
        Ok(())
    })
}

/// The atomics mode that was set.
///
/// # Safety
/// `mode` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetAtomicsMode(handle: Handle, mode: Out<u32>) -> u32 {
    call("cublasGetAtomicsMode", || {
        Ok(mode.set(known(handle)?.atomics_mode.load(Ordering::Relaxed))?)
    })
}

/// Lends memory to the calls that follow, which need none.
///
/// # Safety
/// None beyond the C calling convention: a device address is not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasSetWorkspace_v2(handle: Handle, _memory: u64, _bytes: usize) -> u32 {
    call("cublasSetWorkspace_v2", || known(handle).map(drop))
}

/// The version of the library.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetVersion_v2(_handle: Handle, version: Out<i32>) -> u32 {
    let [major, minor, patch] = VERSION;
    call("cublasGetVersion_v2", || {
        Ok(version.set(major * 10_000 + minor * 100 + patch)?)
    })
}

/// A part of the version of the library: 0 major, 1 minor, 2 patch.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cublasGetProperty(part: u32, value: Out<i32>) -> u32 {
    call("cublasGetProperty", || {
        Ok(value.set(*VERSION.get(part as usize).ok_or(Status::InvalidValue)?)?)
    })
}
