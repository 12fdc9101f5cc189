//! The driver's calls other than those on modules and kernels, through the C interface.

mod support;

use std::ffi::{CStr, CString, c_void};
use std::ptr::{null, null_mut};
use std::sync::atomic::{AtomicU32, Ordering};

use support::*;

#[test]
fn nothing_works_before_initialisation() {
    let output = child("uninitialised", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
#[ignore = "run by nothing_works_before_initialisation in a process of its own"]
fn uninitialised() {
    let mut number = 0;
    let mut handle = null_mut();
    // SAFETY: the places are valid.
    unsafe {
        assert_eq!(cuDeviceGetCount(&mut number), NOT_INITIALIZED);
        assert_eq!(cuDevicePrimaryCtxRetain(&mut handle, 0), NOT_INITIALIZED);
        ok(cuDriverGetVersion(&mut number));
        assert_eq!(number, 13_000);
        assert_eq!(cuInit(1), INVALID_VALUE);
        assert_eq!(cuDeviceGetCount(&mut number), NOT_INITIALIZED);
        ok(cuInit(0));
        ok(cuDeviceGetCount(&mut number));
        assert_eq!(number, 1);
        // Initialised, but no context.
        assert_eq!(cuMemAlloc_v2(&mut 0, 16), INVALID_CONTEXT);
        assert_eq!(cuStreamCreate(&mut handle, 0), INVALID_CONTEXT);
        assert_eq!(cuCtxSynchronize(), INVALID_CONTEXT);
        assert_eq!(cuStreamSynchronize(null_mut()), INVALID_CONTEXT);
    }
}

fn attribute(number: u32) -> i32 {
    let mut value = -1;
    // SAFETY: the place is valid.
    ok(unsafe { cuDeviceGetAttribute(&mut value, number, 0) });
    value
}

#[test]
fn devices() {
    ok(cuInit(0));
    let mut device = -1;
    let mut bytes = 0;
    let mut name = [1_i8; 8];
    let mut long_name = [1_i8; 128];
    let mut id = [0; 16];
    // SAFETY: the places are valid, the buffers as long as stated.
    unsafe {
        ok(cuDeviceGet(&mut device, 0));
        assert_eq!(device, 0);
        assert_eq!(cuDeviceGet(&mut device, 1), INVALID_DEVICE);
        assert_eq!(cuDeviceGet(&mut device, -1), INVALID_DEVICE);
        assert_eq!(cuDeviceGet(null_mut(), 0), INVALID_VALUE);
        ok(cuDeviceTotalMem_v2(&mut bytes, 0));
        assert_eq!(bytes, 16 << 30);
        ok(cuDeviceGetName(name.as_mut_ptr().cast(), 8, 0));
        assert_eq!(name[7], 0, "cut to fit, with its end");
        ok(cuDeviceGetName(long_name.as_mut_ptr().cast(), 128, 0));
        let text = CStr::from_ptr(long_name.as_ptr().cast()).to_str().unwrap();
        assert!(text.contains("Simulated") && text.contains("9.0"), "{text}");
        assert_eq!(cuDeviceGetName(null_mut(), 8, 0), INVALID_VALUE);
        assert_eq!(
            cuDeviceGetName(name.as_mut_ptr().cast(), 0, 0),
            INVALID_VALUE
        );
        ok(cuDeviceGetUuid_v2(&mut id, 0));
        assert_ne!(id, [0; 16]);
        let mut value = 0;
        assert_eq!(cuDeviceGetAttribute(&mut value, 0, 0), INVALID_VALUE);
        assert_eq!(cuDeviceGetAttribute(&mut value, 9999, 0), INVALID_VALUE);
        assert_eq!(cuDeviceGetAttribute(null_mut(), 1, 0), INVALID_VALUE);
    }
    // Compute capability 9.0: threads of a block, warp, multiprocessors, capability, shared memory, memory pools.
    for (number, value) in [
        (1, 1024),
        (8, 49_152),
        (10, 32),
        (16, 132),
        (75, 9),
        (76, 0),
        (97, 232_448),
        (115, 1),
    ] {
        assert_eq!(attribute(number), value, "attribute {number}");
    }
    assert_eq!(
        [attribute(5), attribute(6), attribute(7)],
        [0x7fff_ffff, 65_535, 65_535]
    );
}

#[test]
fn other_models() {
    let settings = [
        ("CUDA_SIM_CC", "8.0"),
        ("CUDA_SIM_SMS", "4"),
        ("CUDA_SIM_DEVICES", "2"),
        ("CUDA_SIM_MEMORY", "1M"),
    ];
    let output = child("settings", &settings);
    assert!(output.status.success(), "{}", stderr(&output));
    let output = child("settings", &[("CUDA_SIM_CC", "nine")]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("CUDA_SIM_CC=nine"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[ignore = "run by other_models in a process of its own"]
fn settings() {
    ok(cuInit(0));
    assert_eq!(
        [attribute(75), attribute(76), attribute(16), attribute(97)],
        [8, 0, 4, 166_912]
    );
    let mut count = 0;
    // SAFETY: the places are valid.
    unsafe {
        ok(cuDeviceGetCount(&mut count));
        assert_eq!(count, 2);
        let _context = Context::new();
        let (mut address, mut free, mut total) = (0, 0, 0);
        ok(cuMemAlloc_v2(&mut address, 1 << 19));
        ok(cuMemGetInfo_v2(&mut free, &mut total));
        assert_eq!((free, total), (1 << 19, 1 << 20));
        assert_eq!(cuMemAlloc_v2(&mut address, (1 << 19) + 1), OUT_OF_MEMORY);
        assert_eq!(cuMemAlloc_v2(&mut address, usize::MAX), OUT_OF_MEMORY);
        ok(cuMemFree_v2(address));
        ok(cuMemAlloc_v2(&mut address, 1 << 20));
    }
}

#[test]
fn no_device() {
    for setting in ["CUDA_VISIBLE_DEVICES", "CUDA_SIM_DEVICES"] {
        let output = child(
            "without_devices",
            &[(
                setting,
                if setting.starts_with("CUDA_SIM") {
                    "0"
                } else {
                    ""
                },
            )],
        );
        assert!(output.status.success(), "{}", stderr(&output));
    }
}

#[test]
#[ignore = "run by no_device in a process of its own"]
fn without_devices() {
    assert_eq!(cuInit(0), 100);
}

#[test]
fn errors_have_names() {
    let mut text = null();
    // SAFETY: the places are valid, and the texts last as long as the library.
    unsafe {
        ok(cuGetErrorName(700, &mut text));
        assert_eq!(CStr::from_ptr(text), c"CUDA_ERROR_ILLEGAL_ADDRESS");
        ok(cuGetErrorString(700, &mut text));
        assert_eq!(
            CStr::from_ptr(text),
            c"an illegal memory access was encountered"
        );
        ok(cuGetErrorString(0, &mut text));
        assert_eq!(CStr::from_ptr(text), c"no error");
        assert_eq!(cuGetErrorName(12_345, &mut text), INVALID_VALUE);
        assert!(text.is_null());
        assert_eq!(cuGetErrorName(0, null_mut()), INVALID_VALUE);
    }
}

#[test]
fn entry_points_by_name() {
    let look_up = |name: &str| {
        let name = CString::new(name).unwrap();
        let (mut place, mut status) = (null_mut(), 9);
        // SAFETY: a zero-terminated text, and valid places.
        let code =
            unsafe { cuGetProcAddress_v2(name.as_ptr(), &mut place, 13_000, 0, &mut status) };
        (code, place, status)
    };
    // The newest variant stands for the name without one, as in the headers.
    assert_eq!(look_up("cuMemAlloc"), (0, cuMemAlloc_v2 as *mut c_void, 0));
    assert_eq!(
        look_up("cuMemAlloc_v2"),
        (0, cuMemAlloc_v2 as *mut c_void, 0)
    );
    assert_eq!(
        look_up("cuMemAllocAsync"),
        (0, cuMemAllocAsync as *mut c_void, 0)
    );
    assert_eq!(
        look_up("cuLaunchKernel"),
        (0, cuLaunchKernel as *mut c_void, 0)
    );
    assert_eq!(look_up("cuNoSuchFunction"), (NOT_FOUND, null_mut(), 1));
    // SAFETY: null is answered with an error.
    unsafe {
        assert_eq!(
            cuGetProcAddress_v2(null(), &mut null_mut(), 0, 0, null_mut()),
            INVALID_VALUE
        );
    }
}

#[test]
fn contexts() {
    let output = child("contexts_alone", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
}

#[test]
#[ignore = "run by contexts in a process of its own: it counts the shares in the primary context"]
fn contexts_alone() {
    ok(cuInit(0));
    let (mut first, mut second, mut current) = (null_mut(), null_mut(), null_mut());
    let (mut flags, mut active, mut device) = (9, 9, 9);
    // SAFETY: the places are valid.
    unsafe {
        ok(cuCtxGetCurrent(&mut current));
        assert!(current.is_null());
        assert_eq!(cuDevicePrimaryCtxRelease_v2(0), INVALID_CONTEXT);
        ok(cuDevicePrimaryCtxRetain(&mut first, 0));
        ok(cuDevicePrimaryCtxRetain(&mut second, 0));
        assert_eq!(first, second, "a device has one primary context");
        assert_eq!(cuDevicePrimaryCtxRetain(&mut second, 7), INVALID_DEVICE);
        ok(cuDevicePrimaryCtxGetState(0, &mut flags, &mut active));
        assert_eq!((flags, active), (0, 1));
        assert_eq!(
            cuCtxDestroy_v2(first),
            INVALID_CONTEXT,
            "a primary context is released"
        );

        ok(cuCtxSetCurrent(first));
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, first);
        ok(cuCtxGetDevice(&mut device));
        assert_eq!(device, 0);
        let elsewhere = std::thread::spawn(|| {
            let mut current = bad_handle();
            ok(cuCtxGetCurrent(&mut current));
            current.is_null()
        });
        assert!(
            elsewhere.join().unwrap(),
            "a context is current in one thread"
        );

        let mut own = null_mut();
        ok(cuCtxCreate_v2(&mut own, 0, 0));
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, own);
        assert_eq!(cuCtxSetCurrent(bad_handle()), INVALID_CONTEXT);
        assert_eq!(cuCtxPushCurrent_v2(bad_handle()), INVALID_CONTEXT);
        ok(cuCtxPopCurrent_v2(&mut current));
        assert_eq!(current, own);
        ok(cuCtxGetCurrent(&mut current));
        assert_eq!(current, first);
        ok(cuCtxDestroy_v2(own));
        assert_eq!(cuCtxDestroy_v2(own), INVALID_CONTEXT);

        let mut value = 0;
        ok(cuCtxGetLimit(&mut value, 0));
        assert_eq!(value, 1024);
        ok(cuCtxSetLimit(0, 4096));
        ok(cuCtxGetLimit(&mut value, 0));
        assert_eq!(value, 4096);

        // What was made in a context ends with it.
        let (mut stream, mut address) = (null_mut(), 0);
        ok(cuStreamCreate(&mut stream, 0));
        ok(cuMemAlloc_v2(&mut address, 64));
        ok(cuDevicePrimaryCtxRelease_v2(0));
        ok(cuCtxSynchronize());
        ok(cuDevicePrimaryCtxRelease_v2(0));
        assert_eq!(cuCtxSynchronize(), 709, "the context is destroyed");
        ok(cuDevicePrimaryCtxRetain(&mut second, 0));
        assert_ne!(first, second);
        ok(cuCtxSetCurrent(second));
        assert_eq!(cuStreamSynchronize(stream), INVALID_HANDLE);
        assert_eq!(cuMemFree_v2(address), INVALID_VALUE);
    }
}

#[test]
fn streams() {
    let context = Context::new();
    let (mut stream, mut owner) = (null_mut(), null_mut());
    let (mut status, mut priority) = (9, 9);
    // SAFETY: the places are valid; the host function is given the counter that it expects.
    unsafe {
        ok(cuStreamCreate(&mut stream, 1));
        ok(cuStreamSynchronize(stream));
        ok(cuStreamQuery(stream));
        ok(cuStreamIsCapturing(stream, &mut status));
        assert_eq!(status, 0);
        ok(cuStreamGetCtx(stream, &mut owner));
        assert_eq!(owner, context.0);
        // The default streams: null, legacy, of the thread.
        for default in 0..3_usize {
            ok(cuStreamSynchronize(default as Handle));
        }
        let calls = AtomicU32::new(0);
        unsafe extern "C" fn count(data: *mut c_void) {
            // SAFETY: the caller hands in the counter.
            unsafe { &*data.cast::<AtomicU32>() }.fetch_add(1, Ordering::Relaxed);
        }
        ok(cuLaunchHostFunc(
            stream,
            Some(count),
            (&raw const calls).cast_mut().cast(),
        ));
        assert_eq!(calls.load(Ordering::Relaxed), 1);
        assert_eq!(cuLaunchHostFunc(stream, None, null_mut()), INVALID_VALUE);
        ok(cuStreamDestroy_v2(stream));
        assert_eq!(cuStreamDestroy_v2(stream), INVALID_HANDLE);
        assert_eq!(cuStreamSynchronize(stream), INVALID_HANDLE);
        ok(cuStreamCreateWithPriority(&mut stream, 0, -9));
        ok(cuStreamGetPriority(stream, &mut priority));
        assert_eq!(priority, -5, "clamped to the greatest");
        ok(cuStreamDestroy_v2(stream));
        assert_eq!(cuStreamCreate(null_mut(), 0), INVALID_VALUE);
        assert_eq!(cuStreamCreate(&mut stream, 64), INVALID_VALUE);
        assert_eq!(cuStreamSynchronize(bad_handle()), INVALID_HANDLE);
        assert_eq!(
            cuStreamSynchronize(context.0),
            INVALID_HANDLE,
            "a context is no stream"
        );
    }
}

#[test]
fn events() {
    let _context = Context::new();
    let (mut start, mut end, mut untimed, mut stream) =
        (null_mut(), null_mut(), null_mut(), null_mut());
    let mut milliseconds = -1.0;
    // SAFETY: the places are valid.
    unsafe {
        ok(cuEventCreate(&mut start, 0));
        ok(cuEventCreate(&mut end, 0));
        ok(cuEventCreate(&mut untimed, 2));
        ok(cuStreamCreate(&mut stream, 0));
        ok(cuEventQuery(start));
        assert_eq!(
            cuEventElapsedTime(&mut milliseconds, start, end),
            INVALID_HANDLE,
            "not recorded"
        );
        ok(cuEventRecord(start, stream));
        std::thread::sleep(std::time::Duration::from_millis(2));
        ok(cuEventRecord(end, null_mut()));
        ok(cuStreamWaitEvent(stream, end, 0));
        ok(cuEventSynchronize(end));
        ok(cuEventElapsedTime(&mut milliseconds, start, end));
        assert!((2.0..1000.0).contains(&milliseconds), "{milliseconds}");
        ok(cuEventRecord(untimed, stream));
        assert_eq!(
            cuEventElapsedTime(&mut milliseconds, start, untimed),
            INVALID_HANDLE
        );
        assert_eq!(cuEventRecord(start, bad_handle()), INVALID_HANDLE);
        assert_eq!(cuEventRecord(bad_handle(), stream), INVALID_HANDLE);
        assert_eq!(cuStreamWaitEvent(stream, bad_handle(), 0), INVALID_HANDLE);
        assert_eq!(cuEventCreate(null_mut(), 0), INVALID_VALUE);
        assert_eq!(cuEventCreate(&mut end, 8), INVALID_VALUE);
        ok(cuEventDestroy_v2(start));
        assert_eq!(cuEventDestroy_v2(start), INVALID_HANDLE);
        assert_eq!(cuEventSynchronize(start), INVALID_HANDLE);
    }
}

#[test]
fn memory() {
    let _context = Context::new();
    let (mut address, mut start, mut bytes) = (0, 0, 0);
    // SAFETY: the places are valid.
    unsafe {
        ok(cuMemAlloc_v2(&mut address, 100));
        assert_eq!(address % 256, 0);
        ok(cuMemGetAddressRange_v2(
            &mut start,
            &mut bytes,
            address + 99,
        ));
        assert_eq!((start, bytes), (address, 100));
        assert_eq!(
            cuMemGetAddressRange_v2(&mut start, &mut bytes, address + 100),
            NOT_FOUND
        );
        let mut kind = 0_u32;
        ok(cuPointerGetAttribute(
            (&raw mut kind).cast(),
            2,
            address + 8,
        ));
        assert_eq!(kind, 2, "device memory");
        assert_eq!(
            cuPointerGetAttribute((&raw mut kind).cast(), 2, 64),
            INVALID_VALUE
        );
        assert_eq!(cuMemFree_v2(address + 4), INVALID_VALUE, "not the start");
        ok(cuMemFree_v2(address));
        assert_eq!(cuMemFree_v2(address), INVALID_VALUE, "freed already");
        assert_eq!(cuMemAlloc_v2(&mut address, 0), INVALID_VALUE);
        assert_eq!(cuMemAlloc_v2(null_mut(), 16), INVALID_VALUE);

        ok(cuMemAllocAsync(&mut address, 64, null_mut()));
        ok(cuMemFreeAsync(address, null_mut()));
        assert_eq!(cuMemFreeAsync(address, null_mut()), INVALID_VALUE);
        ok(cuMemAllocAsync(&mut address, 0, null_mut()));
        ok(cuMemFreeAsync(address, null_mut()));
        assert_eq!(
            cuMemAllocAsync(&mut address, 64, bad_handle()),
            INVALID_HANDLE
        );

        let mut pitch = 0;
        ok(cuMemAllocPitch_v2(&mut address, &mut pitch, 100, 3, 4));
        assert_eq!(pitch, 512);
        ok(cuMemFree_v2(address));
    }
}

#[test]
fn copies() {
    let context = Context::new();
    let values: Vec<u32> = (0..1000).collect();
    let from = Buffer::of(&values);
    assert_eq!(from.read::<u32>(), values);
    let to = Buffer::new(4000);
    ok(cuMemcpyDtoD_v2(to.address, from.address, 4000));
    assert_eq!(to.read::<u32>(), values);
    let mut back = vec![0_u32; 10];
    // SAFETY: the host memory is as large as stated.
    unsafe {
        ok(cuMemcpyDtoHAsync_v2(
            back.as_mut_ptr().cast(),
            from.address + 40,
            40,
            null_mut(),
        ));
        assert_eq!(back, values[10..20]);
        ok(cuMemcpyHtoDAsync_v2(
            to.address,
            values[500..].as_ptr().cast(),
            40,
            null_mut(),
        ));
        ok(cuMemcpyDtoDAsync_v2(
            to.address + 40,
            from.address,
            40,
            null_mut(),
        ));
        ok(cuMemcpyPeerAsync(
            to.address + 80,
            context.0,
            from.address + 400,
            context.0,
            40,
            null_mut(),
        ));
        assert_eq!(
            to.read::<u32>()[..30],
            [&values[500..510], &values[..10], &values[100..110]].concat()
        );
        // Unified addressing: host and device by the address alone.
        ok(cuMemcpy(back.as_mut_ptr() as u64, from.address, 40));
        assert_eq!(back, values[..10]);
        ok(cuMemcpy(to.address, values[20..].as_ptr() as u64, 40));
        assert_eq!(to.read::<u32>()[..10], values[20..30]);

        let host = back.as_mut_ptr().cast();
        assert_eq!(
            cuMemcpyDtoH_v2(host, from.address + 3990, 20),
            INVALID_VALUE,
            "past the end"
        );
        assert_eq!(cuMemcpyDtoH_v2(null_mut(), from.address, 4), INVALID_VALUE);
        assert_eq!(cuMemcpyHtoD_v2(from.address, null(), 4), INVALID_VALUE);
        assert_eq!(
            cuMemcpyHtoD_v2(1 << 20, host, 4),
            INVALID_VALUE,
            "no memory there"
        );
        assert_eq!(
            cuMemcpyHtoDAsync_v2(from.address, host, 4, bad_handle()),
            INVALID_HANDLE
        );
        assert_eq!(
            cuMemcpyPeerAsync(
                to.address,
                bad_handle(),
                from.address,
                context.0,
                4,
                null_mut()
            ),
            INVALID_CONTEXT
        );
        ok(cuMemcpyDtoH_v2(null_mut(), from.address, 0));
    }
    assert_eq!(
        cuMemcpyDtoD_v2(to.address, from.address + 3999, 2),
        INVALID_VALUE
    );
    // A copy that is refused does the context no harm.
    ok(cuCtxSynchronize());
}

#[test]
fn use_after_free_is_refused() {
    let _context = Context::new();
    let buffer = Buffer::of(&[1_u32, 2, 3]);
    let address = buffer.address;
    drop(buffer);
    let mut host = 0_u32;
    // SAFETY: the host memory is as large as stated.
    unsafe {
        assert_eq!(
            cuMemcpyDtoH_v2((&raw mut host).cast(), address, 4),
            INVALID_VALUE
        );
    }
}

#[test]
fn fills() {
    let _context = Context::new();
    let buffer = Buffer::new(1 << 18);
    ok(cuMemsetD8_v2(buffer.address, 7, 1 << 18));
    assert!(buffer.read::<u8>().iter().all(|byte| *byte == 7));
    ok(cuMemsetD16_v2(buffer.address, 0x1234, 3));
    ok(cuMemsetD32_v2(buffer.address + 8, 0x1234_5678, 50_000));
    let words = buffer.read::<u32>();
    assert_eq!(words[..2], [0x1234_1234, 0x0707_1234]);
    assert!(words[2..50_002].iter().all(|word| *word == 0x1234_5678));
    assert_eq!(words[50_002], 0x0707_0707);
    assert_eq!(
        cuMemsetD32_v2(buffer.address + 2, 0, 1),
        INVALID_VALUE,
        "not aligned"
    );
    assert_eq!(
        cuMemsetD8_v2(buffer.address, 0, (1 << 18) + 1),
        INVALID_VALUE,
        "past the end"
    );
    assert_eq!(
        cuMemsetD32_v2(buffer.address, 0, usize::MAX / 2),
        INVALID_VALUE
    );
    // SAFETY: handles are looked up.
    unsafe {
        ok(cuMemsetD8Async(buffer.address, 0, 4, null_mut()));
        assert_eq!(
            cuMemsetD8Async(buffer.address, 0, 4, bad_handle()),
            INVALID_HANDLE
        );
    }
    assert_eq!(buffer.read::<u32>()[0], 0);
}

#[test]
fn host_memory() {
    let _context = Context::new();
    let mut place = null_mut();
    let mut own = [0_u8; 64];
    let registered = own.as_mut_ptr().cast::<c_void>();
    // SAFETY: the places are valid; the memory is written within its size and not used after it is freed.
    unsafe {
        ok(cuMemHostAlloc(&mut place, 4096, 4));
        place.cast::<u8>().write_bytes(5, 4096);
        let buffer = Buffer::new(4096);
        ok(cuMemcpyHtoD_v2(buffer.address, place, 4096));
        assert!(buffer.read::<u8>().iter().all(|byte| *byte == 5));
        let mut kind = 0_u32;
        ok(cuPointerGetAttribute(
            (&raw mut kind).cast(),
            2,
            place as u64 + 10,
        ));
        assert_eq!(kind, 1, "host memory");
        ok(cuMemFreeHost(place));
        assert_eq!(cuMemFreeHost(place), INVALID_VALUE);
        assert_eq!(cuMemHostAlloc(&mut place, 0, 0), INVALID_VALUE);

        ok(cuMemHostRegister_v2(registered, 64, 0));
        assert_eq!(cuMemHostRegister_v2(registered.byte_add(32), 8, 0), 712);
        assert_eq!(cuMemFreeHost(registered), INVALID_VALUE, "not the driver's");
        ok(cuMemHostUnregister(registered));
        assert_eq!(cuMemHostUnregister(registered), 713);
        assert_eq!(
            cuMemHostRegister_v2(registered, 64, 2),
            NOT_SUPPORTED,
            "no kernel reaches host memory"
        );
    }
}

#[test]
fn pools() {
    let _context = Context::new();
    let (mut pool, mut address) = (null_mut(), 0);
    let threshold = u64::MAX;
    let mut told = 0_u64;
    // SAFETY: the places are valid and of the attribute's type.
    unsafe {
        ok(cuDeviceGetDefaultMemPool(&mut pool, 0));
        ok(cuMemPoolSetAttribute(
            pool,
            4,
            (&raw const threshold).cast(),
        ));
        ok(cuMemPoolGetAttribute(pool, 4, (&raw mut told).cast()));
        assert_eq!(told, threshold);
        ok(cuMemAllocFromPoolAsync(&mut address, 32, pool, null_mut()));
        ok(cuMemFree_v2(address));
        assert_eq!(
            cuMemAllocFromPoolAsync(&mut address, 32, bad_handle(), null_mut()),
            INVALID_VALUE
        );
    }
}

#[test]
fn leaks_are_listed() {
    let output = child("leaking", &[("CUDA_SIM_LEAKS", "1")]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    assert!(text.contains("48 bytes at"), "{text}");
    assert!(
        text.contains("48 bytes in 1 allocations not freed when its context ended"),
        "{text}"
    );
    assert!(
        text.contains("80 bytes in 1 allocations not freed at exit"),
        "{text}"
    );
    assert!(!stderr(&child("leaking", &[])).contains("leak"));
    let output = child("leaking_nothing", &[("CUDA_SIM_LEAKS", "1")]);
    let text = stderr(&output);
    assert!(output.status.success() && !text.contains("leak"), "{text}");
}

#[test]
#[ignore = "run by leaks_are_listed in a process of its own"]
fn leaking_nothing() {
    let _context = Context::new();
    drop(Buffer::new(64));
}

#[test]
#[ignore = "run by leaks_are_listed in a process of its own"]
fn leaking() {
    {
        let _context = Context::new();
        std::mem::forget(Buffer::new(48));
        drop(Buffer::new(64));
    }
    let context = Context::new();
    std::mem::forget(Buffer::new(80));
    std::mem::forget(context);
}
