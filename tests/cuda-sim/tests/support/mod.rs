//! The C interface as a program sees it, and contexts that clean up after themselves.

#![allow(dead_code, reason = "each test binary uses a part")]
#![allow(non_snake_case, reason = "C names")]

// The functions are in this library; nothing of it is named.
use cuda_sim as _;

use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::process::{Command, Output};
use std::ptr::null_mut;

pub type Handle = *mut c_void;

unsafe extern "C" {
    pub safe fn cuInit(flags: u32) -> u32;
    pub fn cuDriverGetVersion(version: *mut c_int) -> u32;
    pub fn cuGetErrorName(code: u32, text: *mut *const c_char) -> u32;
    pub fn cuGetErrorString(code: u32, text: *mut *const c_char) -> u32;
    pub fn cuGetProcAddress_v2(
        name: *const c_char,
        place: *mut *mut c_void,
        version: c_int,
        flags: u64,
        status: *mut u32,
    ) -> u32;

    pub fn cuDeviceGet(device: *mut c_int, ordinal: c_int) -> u32;
    pub fn cuDeviceGetCount(count: *mut c_int) -> u32;
    pub fn cuDeviceGetName(name: *mut c_char, capacity: c_int, device: c_int) -> u32;
    pub fn cuDeviceGetAttribute(value: *mut c_int, attribute: u32, device: c_int) -> u32;
    pub fn cuDeviceTotalMem_v2(bytes: *mut usize, device: c_int) -> u32;
    pub fn cuDeviceGetUuid_v2(id: *mut [u8; 16], device: c_int) -> u32;

    pub fn cuDevicePrimaryCtxRetain(context: *mut Handle, device: c_int) -> u32;
    pub safe fn cuDevicePrimaryCtxRelease_v2(device: c_int) -> u32;
    pub fn cuDevicePrimaryCtxGetState(device: c_int, flags: *mut u32, active: *mut c_int) -> u32;
    pub fn cuCtxCreate_v2(context: *mut Handle, flags: u32, device: c_int) -> u32;
    pub fn cuCtxDestroy_v2(context: Handle) -> u32;
    pub fn cuCtxGetCurrent(context: *mut Handle) -> u32;
    pub fn cuCtxSetCurrent(context: Handle) -> u32;
    pub fn cuCtxPushCurrent_v2(context: Handle) -> u32;
    pub fn cuCtxPopCurrent_v2(context: *mut Handle) -> u32;
    pub fn cuCtxGetDevice(device: *mut c_int) -> u32;
    pub safe fn cuCtxSynchronize() -> u32;
    pub fn cuCtxGetLimit(value: *mut usize, limit: u32) -> u32;
    pub safe fn cuCtxSetLimit(limit: u32, value: usize) -> u32;

    pub fn cuStreamCreate(stream: *mut Handle, flags: u32) -> u32;
    pub fn cuStreamCreateWithPriority(stream: *mut Handle, flags: u32, priority: c_int) -> u32;
    pub fn cuStreamDestroy_v2(stream: Handle) -> u32;
    pub fn cuStreamSynchronize(stream: Handle) -> u32;
    pub fn cuStreamQuery(stream: Handle) -> u32;
    pub fn cuStreamWaitEvent(stream: Handle, event: Handle, flags: u32) -> u32;
    pub fn cuStreamIsCapturing(stream: Handle, status: *mut u32) -> u32;
    pub fn cuStreamGetPriority(stream: Handle, priority: *mut c_int) -> u32;
    pub fn cuStreamGetCtx(stream: Handle, context: *mut Handle) -> u32;
    pub fn cuLaunchHostFunc(
        stream: Handle,
        function: Option<unsafe extern "C" fn(*mut c_void)>,
        data: *mut c_void,
    ) -> u32;

    pub fn cuEventCreate(event: *mut Handle, flags: u32) -> u32;
    pub fn cuEventDestroy_v2(event: Handle) -> u32;
    pub fn cuEventRecord(event: Handle, stream: Handle) -> u32;
    pub fn cuEventQuery(event: Handle) -> u32;
    pub fn cuEventSynchronize(event: Handle) -> u32;
    pub fn cuEventElapsedTime(milliseconds: *mut f32, start: Handle, end: Handle) -> u32;

    pub fn cuMemAlloc_v2(address: *mut u64, bytes: usize) -> u32;
    pub fn cuMemAllocPitch_v2(
        address: *mut u64,
        pitch: *mut usize,
        width: usize,
        height: usize,
        element: u32,
    ) -> u32;
    pub safe fn cuMemFree_v2(address: u64) -> u32;
    pub fn cuMemAllocAsync(address: *mut u64, bytes: usize, stream: Handle) -> u32;
    pub fn cuMemFreeAsync(address: u64, stream: Handle) -> u32;
    pub fn cuMemGetInfo_v2(free: *mut usize, total: *mut usize) -> u32;
    pub fn cuMemGetAddressRange_v2(start: *mut u64, bytes: *mut usize, address: u64) -> u32;
    pub fn cuPointerGetAttribute(value: *mut c_void, attribute: u32, address: u64) -> u32;
    pub fn cuMemcpyHtoD_v2(device: u64, host: *const c_void, bytes: usize) -> u32;
    pub fn cuMemcpyHtoDAsync_v2(
        device: u64,
        host: *const c_void,
        bytes: usize,
        stream: Handle,
    ) -> u32;
    pub fn cuMemcpyDtoH_v2(host: *mut c_void, device: u64, bytes: usize) -> u32;
    pub fn cuMemcpyDtoHAsync_v2(
        host: *mut c_void,
        device: u64,
        bytes: usize,
        stream: Handle,
    ) -> u32;
    pub safe fn cuMemcpyDtoD_v2(to: u64, from: u64, bytes: usize) -> u32;
    pub fn cuMemcpyDtoDAsync_v2(to: u64, from: u64, bytes: usize, stream: Handle) -> u32;
    pub fn cuMemcpy(to: u64, from: u64, bytes: usize) -> u32;
    pub fn cuMemcpyPeerAsync(
        to: u64,
        a: Handle,
        from: u64,
        b: Handle,
        bytes: usize,
        stream: Handle,
    ) -> u32;
    pub safe fn cuMemsetD8_v2(device: u64, value: u8, count: usize) -> u32;
    pub safe fn cuMemsetD16_v2(device: u64, value: u16, count: usize) -> u32;
    pub safe fn cuMemsetD32_v2(device: u64, value: u32, count: usize) -> u32;
    pub fn cuMemsetD8Async(device: u64, value: u8, count: usize, stream: Handle) -> u32;

    pub fn cuMemHostAlloc(place: *mut *mut c_void, bytes: usize, flags: u32) -> u32;
    pub fn cuMemFreeHost(memory: *mut c_void) -> u32;
    pub fn cuMemHostRegister_v2(memory: *mut c_void, bytes: usize, flags: u32) -> u32;
    pub fn cuMemHostUnregister(memory: *mut c_void) -> u32;
    pub fn cuDeviceGetDefaultMemPool(pool: *mut Handle, device: c_int) -> u32;
    pub fn cuMemPoolSetAttribute(pool: Handle, attribute: u32, value: *const c_void) -> u32;
    pub fn cuMemPoolGetAttribute(pool: Handle, attribute: u32, value: *mut c_void) -> u32;
    pub fn cuMemAllocFromPoolAsync(
        address: *mut u64,
        bytes: usize,
        pool: Handle,
        stream: Handle,
    ) -> u32;

    pub fn cuModuleLoad(module: *mut Handle, path: *const c_char) -> u32;
    pub fn cuModuleLoadData(module: *mut Handle, image: *const c_void) -> u32;
    pub fn cuModuleLoadDataEx(
        module: *mut Handle,
        image: *const c_void,
        count: u32,
        options: *mut u32,
        values: *mut *mut c_void,
    ) -> u32;
    pub fn cuModuleUnload(module: Handle) -> u32;
    pub fn cuModuleGetFunction(function: *mut Handle, module: Handle, name: *const c_char) -> u32;
    pub fn cuModuleGetFunctionCount(count: *mut u32, module: Handle) -> u32;
    pub fn cuModuleGetGlobal_v2(
        address: *mut u64,
        bytes: *mut usize,
        module: Handle,
        name: *const c_char,
    ) -> u32;
    pub fn cuFuncGetAttribute(value: *mut c_int, attribute: u32, function: Handle) -> u32;
    pub fn cuFuncSetAttribute(function: Handle, attribute: u32, value: c_int) -> u32;
    pub fn cuFuncGetName(name: *mut *const c_char, function: Handle) -> u32;
    pub fn cuFuncGetParamInfo(
        function: Handle,
        index: usize,
        offset: *mut usize,
        size: *mut usize,
    ) -> u32;
    pub fn cuLaunchKernel(
        function: Handle,
        grid_x: u32,
        grid_y: u32,
        grid_z: u32,
        block_x: u32,
        block_y: u32,
        block_z: u32,
        shared: u32,
        stream: Handle,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32;
    pub fn cuLaunchKernelEx(
        config: *const LaunchConfig,
        function: Handle,
        parameters: *mut *mut c_void,
        extra: *mut *mut c_void,
    ) -> u32;
    pub fn cuOccupancyMaxActiveBlocksPerMultiprocessor(
        blocks: *mut c_int,
        function: Handle,
        block: c_int,
        shared: usize,
    ) -> u32;
    pub fn cuOccupancyMaxPotentialBlockSize(
        grid: *mut c_int,
        block: *mut c_int,
        function: Handle,
        shared_for: Option<unsafe extern "C" fn(c_int) -> usize>,
        shared: usize,
        limit: c_int,
    ) -> u32;
    pub fn cuOccupancyAvailableDynamicSMemPerBlock(
        bytes: *mut usize,
        function: Handle,
        blocks: c_int,
        block: c_int,
    ) -> u32;
}

/// `CUlaunchConfig`.
#[repr(C)]
pub struct LaunchConfig {
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub shared: u32,
    pub stream: Handle,
    pub attributes: *const LaunchAttribute,
    pub attribute_count: u32,
}

/// `CUlaunchAttribute`.
#[repr(C)]
pub struct LaunchAttribute {
    pub id: u32,
    pub pad: u32,
    pub value: [u32; 16],
}

pub const INVALID_VALUE: u32 = 1;
pub const OUT_OF_MEMORY: u32 = 2;
pub const NOT_INITIALIZED: u32 = 3;
pub const INVALID_DEVICE: u32 = 101;
pub const INVALID_IMAGE: u32 = 200;
pub const INVALID_CONTEXT: u32 = 201;
pub const NO_BINARY_FOR_GPU: u32 = 209;
pub const INVALID_PTX: u32 = 218;
pub const UNSUPPORTED_PTX_VERSION: u32 = 222;
pub const FILE_NOT_FOUND: u32 = 301;
pub const INVALID_HANDLE: u32 = 400;
pub const NOT_FOUND: u32 = 500;
pub const ILLEGAL_ADDRESS: u32 = 700;
pub const LAUNCH_OUT_OF_RESOURCES: u32 = 701;
pub const MISALIGNED_ADDRESS: u32 = 716;
pub const LAUNCH_FAILED: u32 = 719;
pub const NOT_SUPPORTED: u32 = 801;

/// Expects success.
#[track_caller]
pub fn ok(code: u32) {
    assert_eq!(code, 0, "{}", error_name(code));
}

pub fn error_name(code: u32) -> String {
    let mut text = std::ptr::null();
    // SAFETY: the place is valid, and the text lasts as long as the library.
    unsafe {
        cuGetErrorName(code, &mut text);
        if text.is_null() {
            format!("{code}")
        } else {
            CStr::from_ptr(text).to_str().unwrap().to_owned()
        }
    }
}

/// A handle that nothing has.
pub fn bad_handle() -> Handle {
    0xdead_beef_usize as Handle
}

/// A context of one's own, current in this thread.
pub struct Context(pub Handle);

impl Context {
    pub fn new() -> Self {
        ok(cuInit(0));
        let mut context = null_mut();
        // SAFETY: the place is valid.
        ok(unsafe { cuCtxCreate_v2(&mut context, 0, 0) });
        Self(context)
    }
}

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: a handle is looked up, not followed.
        ok(unsafe { cuCtxDestroy_v2(self.0) });
    }
}

/// Device memory that holds values, and is freed at the end.
pub struct Buffer {
    pub address: u64,
    pub bytes: usize,
}

impl Buffer {
    pub fn new(bytes: usize) -> Self {
        let mut address = 0;
        // SAFETY: the place is valid.
        ok(unsafe { cuMemAlloc_v2(&mut address, bytes) });
        Self { address, bytes }
    }

    pub fn of<T: Copy>(values: &[T]) -> Self {
        let buffer = Self::new(size_of_val(values));
        // SAFETY: as many bytes as the slice has.
        ok(unsafe { cuMemcpyHtoD_v2(buffer.address, values.as_ptr().cast(), size_of_val(values)) });
        buffer
    }

    pub fn read<T: Copy + Default>(&self) -> Vec<T> {
        let mut values = vec![T::default(); self.bytes / size_of::<T>()];
        // SAFETY: as many bytes as the vector has.
        ok(unsafe {
            cuMemcpyDtoH_v2(
                values.as_mut_ptr().cast(),
                self.address,
                size_of_val(&values[..]),
            )
        });
        values
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        // A context that a fault has ended frees nothing, as on a device.
        cuMemFree_v2(self.address);
    }
}

/// A module of PTX text.
pub fn load(ptx: &str) -> Result<Handle, u32> {
    let text = CString::new(ptx).unwrap();
    let mut module = null_mut();
    // SAFETY: a place, and a zero-terminated text.
    match unsafe { cuModuleLoadData(&mut module, text.as_ptr().cast()) } {
        0 => Ok(module),
        code => Err(code),
    }
}

pub fn function(module: Handle, name: &str) -> Result<Handle, u32> {
    let name = CString::new(name).unwrap();
    let mut function = null_mut();
    // SAFETY: a place, and a zero-terminated text.
    match unsafe { cuModuleGetFunction(&mut function, module, name.as_ptr()) } {
        0 => Ok(function),
        code => Err(code),
    }
}

/// Launches with parameters of eight bytes each.
pub fn launch(function: Handle, grid: u32, block: u32, parameters: &mut [u64]) -> u32 {
    let mut pointers: Vec<*mut c_void> = parameters
        .iter_mut()
        .map(|p| std::ptr::from_mut(p).cast())
        .collect();
    // SAFETY: a pointer to each parameter, none larger than eight bytes.
    unsafe {
        cuLaunchKernel(
            function,
            grid,
            1,
            1,
            block,
            1,
            1,
            0,
            null_mut(),
            pointers.as_mut_ptr(),
            null_mut(),
        )
    }
}

/// Runs one ignored test of this binary in a process of its own, with settings.
pub fn child(test: &str, settings: &[(&str, &str)]) -> Output {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args([
        "--exact",
        test,
        "--ignored",
        "--nocapture",
        "--test-threads=1",
    ]);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CUDA_")) {
        command.env_remove(name);
    }
    command.envs(settings.iter().copied()).output().unwrap()
}

pub fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}
