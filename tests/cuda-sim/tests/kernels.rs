//! Modules, functions, launches and faults: PTX text written by hand, through the C interface.

mod support;

use std::ffi::{CStr, CString, c_void};
use std::fs;
use std::ptr::{null, null_mut};

use support::*;

/// Kernels that every test picks from.
const PTX: &str = r#"
.version 8.0
.target sm_80
.address_size 64

.visible .global .align 4 .u32 counter = 7;
.visible .global .align 4 .f32 table[4] = {0f3F800000, 0f40000000, 0f40400000, 0f40800000};

// out[i] = a * x[i] + y[i], for i below count
.visible .entry saxpy(
    .param .u64 out, .param .u64 x, .param .u64 y, .param .f32 a, .param .u32 count
)
{
    .reg .pred %p;
    .reg .b32 %r<6>;
    .reg .b64 %d<8>;
    .reg .f32 %f<5>;
    ld.param.u64 %d1, [out];
    ld.param.u64 %d2, [x];
    ld.param.u64 %d3, [y];
    ld.param.f32 %f1, [a];
    ld.param.u32 %r1, [count];
    mov.u32 %r2, %ctaid.x;
    mov.u32 %r3, %ntid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    cvta.to.global.u64 %d1, %d1;
    cvta.to.global.u64 %d2, %d2;
    cvta.to.global.u64 %d3, %d3;
    mul.wide.u32 %d4, %r5, 4;
    add.s64 %d5, %d2, %d4;
    add.s64 %d6, %d3, %d4;
    add.s64 %d7, %d1, %d4;
    ld.global.f32 %f2, [%d5];
    ld.global.f32 %f3, [%d6];
    fma.rn.f32 %f4, %f1, %f2, %f3;
    st.global.f32 [%d7], %f4;
DONE:
    ret;
}

// Adds the module's counter to what out points to, and leaves the sum in both places.
.visible .entry count(.param .u64 out)
{
    .reg .b32 %r<4>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [out];
    ld.global.u32 %r1, [counter];
    ld.global.u32 %r2, [%d1];
    add.u32 %r3, %r1, %r2;
    st.global.u32 [%d1], %r3;
    st.global.u32 [counter], %r3;
    ret;
}

// A 32-bit store of 9 wherever it is told.
.visible .entry poke(.param .u64 place)
{
    .reg .b32 %r<2>;
    .reg .b64 %d<2>;
    ld.param.u64 %d1, [place];
    mov.u32 %r1, 9;
    st.global.u32 [%d1], %r1;
    ret;
}

// to[0] = from[0]
.visible .entry peek(.param .u64 to, .param .u64 from)
{
    .reg .b32 %r<2>;
    .reg .b64 %d<3>;
    ld.param.u64 %d1, [to];
    ld.param.u64 %d2, [from];
    ld.global.u32 %r1, [%d2];
    st.global.u32 [%d1], %r1;
    ret;
}

.extern .shared .align 4 .b8 scratch[];

// Each thread leaves its number in dynamic shared memory and takes that of its neighbour.
.visible .entry neighbour(.param .u64 out)
.maxntid 64, 1, 1
{
    .reg .b32 %r<9>;
    .reg .b64 %d<5>;
    .shared .align 4 .b8 fixed[256];
    ld.param.u64 %d1, [out];
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, scratch;
    shl.b32 %r4, %r1, 2;
    add.u32 %r5, %r3, %r4;
    st.shared.u32 [%r5], %r1;
    bar.sync 0;
    add.u32 %r6, %r1, 1;
    rem.u32 %r6, %r6, %r2;
    shl.b32 %r6, %r6, 2;
    add.u32 %r7, %r3, %r6;
    ld.shared.u32 %r8, [%r7];
    mul.wide.u32 %d2, %r1, 4;
    add.s64 %d3, %d1, %d2;
    st.global.u32 [%d3], %r8;
    ret;
}

.visible .entry nothing()
{
    ret;
}
"#;

fn with_header(version: &str, target: &str) -> String {
    format!(
        ".version {version}\n.target {target}\n.address_size 64\n.visible .entry nothing()\n{{\n    ret;\n}}\n"
    )
}

fn kernel(name: &str) -> Handle {
    function(load(PTX).unwrap(), name).unwrap()
}

/// Arrays of saxpy: out, x, y.
type Arrays<'a> = [&'a Buffer; 3];

/// Launches saxpy with parameters of their own sizes.
fn saxpy(
    function: Handle,
    grid: u32,
    block: u32,
    [out, x, y]: Arrays<'_>,
    a: f32,
    count: u32,
) -> u32 {
    let (mut out, mut x, mut y, mut a, mut count) = (out.address, x.address, y.address, a, count);
    let mut parameters: [*mut c_void; 5] = [
        (&raw mut out).cast(),
        (&raw mut x).cast(),
        (&raw mut y).cast(),
        (&raw mut a).cast(),
        (&raw mut count).cast(),
    ];
    // SAFETY: a pointer to each parameter.
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
            parameters.as_mut_ptr(),
            null_mut(),
        )
    }
}

#[test]
fn a_kernel_runs() {
    let _context = Context::new();
    let count = 1000;
    let x: Vec<f32> = (0..count).map(|i| i as f32).collect();
    let y = vec![0.5_f32; count];
    let (x_device, y_device, out) = (Buffer::of(&x), Buffer::of(&y), Buffer::new(count * 4));
    ok(saxpy(
        kernel("saxpy"),
        8,
        128,
        [&out, &x_device, &y_device],
        2.0,
        count as u32,
    ));
    let wanted: Vec<f32> = x.iter().map(|x| 2.0 * x + 0.5).collect();
    assert_eq!(out.read::<f32>(), wanted);
}

#[test]
fn parameters_in_a_buffer() {
    #[repr(C)]
    struct Parameters {
        out: u64,
        x: u64,
        y: u64,
        a: f32,
        count: u32,
    }
    let _context = Context::new();
    let (x, y, out) = (
        Buffer::of(&[1.0_f32, 2.0]),
        Buffer::of(&[10.0_f32, 20.0]),
        Buffer::new(8),
    );
    let mut parameters = Parameters {
        out: out.address,
        x: x.address,
        y: y.address,
        a: 3.0,
        count: 2,
    };
    let function = kernel("saxpy");
    let mut launch = |mut size: usize| {
        let mut extra: [*mut c_void; 5] = [
            std::ptr::without_provenance_mut(1),
            (&raw mut parameters).cast(),
            std::ptr::without_provenance_mut(2),
            (&raw mut size).cast(),
            null_mut(),
        ];
        // SAFETY: a list as the driver defines it.
        unsafe {
            cuLaunchKernel(
                function,
                1,
                1,
                1,
                2,
                1,
                1,
                0,
                null_mut(),
                null_mut(),
                extra.as_mut_ptr(),
            )
        }
    };
    ok(launch(size_of::<Parameters>()));
    assert_eq!(out.read::<f32>(), [13.0, 26.0]);
    assert_eq!(launch(8), INVALID_VALUE, "too short");
    // SAFETY: null is answered with an error.
    unsafe {
        let none = null_mut();
        assert_eq!(
            cuLaunchKernel(
                function,
                1,
                1,
                1,
                2,
                1,
                1,
                0,
                none,
                none.cast(),
                none.cast()
            ),
            INVALID_VALUE
        );
    }
}

#[test]
fn launch_attributes() {
    let context = Context::new();
    let function = kernel("nothing");
    let launch = |id: u32, value: u32| {
        let mut attribute = LaunchAttribute {
            id,
            pad: 0,
            value: [0; 16],
        };
        attribute.value[..3].fill(value);
        let config = LaunchConfig {
            grid: [2, 1, 1],
            block: [32, 1, 1],
            shared: 0,
            stream: null_mut(),
            attributes: &attribute,
            attribute_count: 1,
        };
        // SAFETY: the configuration is valid, with one attribute.
        unsafe { cuLaunchKernelEx(&config, function, null_mut(), null_mut()) }
    };
    ok(launch(8, 0));
    ok(launch(4, 1));
    assert_eq!(launch(4, 2), NOT_SUPPORTED, "clusters");
    assert_eq!(launch(2, 1), NOT_SUPPORTED, "cooperative");
    // SAFETY: null is answered with an error.
    unsafe {
        assert_eq!(
            cuLaunchKernelEx(null(), function, null_mut(), null_mut()),
            INVALID_VALUE
        );
    }
    drop(context);
    let _other = Context::new();
    assert_eq!(
        support::launch(function, 1, 1, &mut []),
        INVALID_HANDLE,
        "its context has ended"
    );
}

#[test]
fn variables_of_a_module() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let (mut address, mut bytes) = (0, 0);
    let mut table = [0.0_f32; 4];
    // SAFETY: the places are valid, the names texts.
    unsafe {
        ok(cuModuleGetGlobal_v2(
            &mut address,
            &mut bytes,
            module,
            c"table".as_ptr(),
        ));
        assert_eq!(bytes, 16);
        ok(cuMemcpyDtoH_v2(table.as_mut_ptr().cast(), address, 16));
        assert_eq!(table, [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(
            cuModuleGetGlobal_v2(&mut address, &mut bytes, module, c"no".as_ptr()),
            NOT_FOUND
        );
        ok(cuModuleGetGlobal_v2(
            &mut address,
            null_mut(),
            module,
            c"counter".as_ptr(),
        ));
    }
    let out = Buffer::of(&[1_u32]);
    let count = function(module, "count").unwrap();
    ok(launch(count, 1, 1, &mut [out.address]));
    ok(launch(count, 1, 1, &mut [out.address]));
    assert_eq!(out.read::<u32>(), [16], "7 + 1, and as much again");
    let mut counter = 0_u32;
    // SAFETY: the place is as large as stated.
    ok(unsafe { cuMemcpyDtoH_v2((&raw mut counter).cast(), address, 4) });
    assert_eq!(counter, 16);
    // They end with the module.
    // SAFETY: the place is as large as stated; handles are looked up.
    unsafe {
        ok(cuModuleUnload(module));
        assert_eq!(
            cuMemcpyDtoH_v2((&raw mut counter).cast(), address, 4),
            INVALID_VALUE
        );
    }
    // Another load of the text has variables of its own.
    let out = Buffer::of(&[0_u32]);
    ok(launch(kernel("count"), 1, 1, &mut [out.address]));
    assert_eq!(out.read::<u32>(), [7]);
}

#[test]
fn modules_and_functions() {
    let _context = Context::new();
    let module = load(PTX).unwrap();
    let saxpy = function(module, "saxpy").unwrap();
    assert_eq!(function(module, "saxpy").unwrap(), saxpy);
    assert_eq!(function(module, "absent"), Err(NOT_FOUND));
    assert_eq!(function(bad_handle(), "saxpy"), Err(INVALID_HANDLE));
    let (mut count, mut value, mut name) = (0, 0, null());
    let (mut offset, mut size) = (0, 0);
    // SAFETY: the places are valid; the name lasts as long as the module.
    unsafe {
        ok(cuModuleGetFunctionCount(&mut count, module));
        assert_eq!(count, 6);
        ok(cuFuncGetName(&mut name, saxpy));
        assert_eq!(CStr::from_ptr(name), c"saxpy");
        ok(cuFuncGetParamInfo(saxpy, 3, &mut offset, &mut size));
        assert_eq!((offset, size), (24, 4));
        assert_eq!(
            cuFuncGetParamInfo(saxpy, 5, &mut offset, &mut size),
            INVALID_VALUE
        );
        ok(cuFuncGetAttribute(&mut value, 0, saxpy));
        assert_eq!(value, 1024);
        assert_eq!(cuFuncGetAttribute(&mut value, 99, saxpy), INVALID_VALUE);
        assert_eq!(
            cuFuncGetAttribute(&mut value, 0, bad_handle()),
            INVALID_HANDLE
        );
        assert_eq!(
            cuModuleGetFunction(null_mut(), module, c"saxpy".as_ptr()),
            INVALID_VALUE
        );
        assert_eq!(
            cuModuleGetFunction(&mut null_mut(), module, null()),
            INVALID_VALUE
        );
        ok(cuModuleUnload(module));
        assert_eq!(cuModuleUnload(module), INVALID_HANDLE);
        assert_eq!(cuFuncGetAttribute(&mut value, 0, saxpy), INVALID_HANDLE);
    }
    assert_eq!(launch(saxpy, 1, 1, &mut [0; 5]), INVALID_HANDLE);
}

#[test]
fn what_loads_and_what_does_not() {
    let _context = Context::new();
    assert!(load(&with_header("9.0", "sm_90")).is_ok());
    assert!(load(&with_header("8.0", "sm_90a, texmode_unified")).is_ok());
    assert_eq!(
        load(&with_header("9.1", "sm_80")),
        Err(UNSUPPORTED_PTX_VERSION)
    );
    assert_eq!(load(&with_header("9.0", "sm_100")), Err(INVALID_PTX));
    assert_eq!(load(&with_header("9.0", "sm_80a")), Err(INVALID_PTX));
    assert_eq!(load("\x7fELF and so on"), Err(NO_BINARY_FOR_GPU));
    assert_eq!(load("no PTX"), Err(INVALID_IMAGE));
    assert_eq!(load(""), Err(INVALID_IMAGE));
    // Whether the text is understood when it is loaded or when the function is asked for, it is refused.
    let broken = with_header("8.0", "sm_80").replace("ret;", "frobnicate.b32 %r1, 2;");
    assert_eq!(
        load(&broken).and_then(|module| function(module, "nothing")),
        Err(INVALID_PTX)
    );

    let folder = std::env::temp_dir().join(format!("cuda-sim-{}", std::process::id()));
    fs::write(&folder, with_header("8.0", "sm_80")).unwrap();
    let path = CString::new(folder.to_str().unwrap()).unwrap();
    let mut module = null_mut();
    // SAFETY: the places are valid, the paths and the text zero-terminated.
    unsafe {
        ok(cuModuleLoad(&mut module, path.as_ptr()));
        assert_eq!(
            cuModuleLoad(&mut module, c"/no/such/file".as_ptr()),
            FILE_NOT_FOUND
        );
        let text = CString::new(with_header("8.0", "sm_80")).unwrap();
        ok(cuModuleLoadDataEx(
            &mut module,
            text.as_ptr().cast(),
            0,
            null_mut(),
            null_mut(),
        ));
        assert_eq!(cuModuleLoadData(&mut module, null()), INVALID_VALUE);
        assert_eq!(
            cuModuleLoadData(null_mut(), text.as_ptr().cast()),
            INVALID_VALUE
        );
    }
    fs::remove_file(folder).unwrap();
}

#[test]
fn shared_memory_and_its_limit() {
    let _context = Context::new();
    let neighbour = kernel("neighbour");
    let out = Buffer::new(256);
    let run = |block: u32, shared: u32| {
        let mut place = out.address;
        let mut parameters = [(&raw mut place).cast::<c_void>()];
        // SAFETY: a pointer to the parameter.
        unsafe {
            cuLaunchKernel(
                neighbour,
                1,
                1,
                1,
                block,
                1,
                1,
                shared,
                null_mut(),
                parameters.as_mut_ptr(),
                null_mut(),
            )
        }
    };
    ok(run(64, 256));
    let wanted: Vec<u32> = (0..64).map(|i| (i + 1) % 64).collect();
    assert_eq!(out.read::<u32>(), wanted);
    assert_eq!(
        run(65, 260),
        LAUNCH_OUT_OF_RESOURCES,
        "compiled for 64 threads"
    );

    let mut value = 0;
    let attribute = |number: u32| {
        let mut value = -1;
        // SAFETY: the place is valid.
        ok(unsafe { cuFuncGetAttribute(&mut value, number, neighbour) });
        value
    };
    assert_eq!(
        [attribute(0), attribute(1), attribute(8)],
        [64, 256, 49_152 - 256]
    );
    ok(run(64, 49_152 - 256));
    assert_eq!(
        run(64, 49_152),
        INVALID_VALUE,
        "not without asking for more"
    );
    // SAFETY: handles are looked up.
    unsafe {
        ok(cuFuncSetAttribute(neighbour, 8, 232_448 - 256));
        assert_eq!(
            cuFuncSetAttribute(neighbour, 8, 232_448),
            INVALID_VALUE,
            "more than there is"
        );
        ok(run(64, 100_000));
        ok(cuOccupancyMaxActiveBlocksPerMultiprocessor(
            &mut value, neighbour, 64, 100_000,
        ));
        assert_eq!(value, 2);
    }
}

#[test]
fn occupancy() {
    let _context = Context::new();
    let nothing = kernel("nothing");
    let blocks = |block, shared| {
        let mut value = -1;
        // SAFETY: the place is valid.
        ok(unsafe {
            cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut value, nothing, block, shared)
        });
        value
    };
    assert_eq!(blocks(1024, 0), 2, "by threads");
    assert_eq!(blocks(32, 0), 32, "by blocks");
    assert_eq!(blocks(33, 0), 32);
    assert_eq!(blocks(256, 0), 8);
    assert_eq!(blocks(256, 50_000), 4, "by shared memory");
    assert_eq!(blocks(256, 1 << 20), 0);
    let (mut grid, mut block, mut bytes) = (0, 0, 0);
    // SAFETY: the places are valid.
    unsafe {
        ok(cuOccupancyMaxPotentialBlockSize(
            &mut grid, &mut block, nothing, None, 0, 0,
        ));
        assert_eq!((grid, block), (2 * 132, 1024));
        ok(cuOccupancyMaxPotentialBlockSize(
            &mut grid, &mut block, nothing, None, 0, 200,
        ));
        assert_eq!(
            (grid, block),
            (16 * 132, 128),
            "16 blocks of 128 fill a multiprocessor, 10 of 192 do not"
        );
        ok(cuOccupancyAvailableDynamicSMemPerBlock(
            &mut bytes, nothing, 2, 128,
        ));
        assert_eq!(bytes, 228 * 1024 / 2 - 1024);
        assert_eq!(
            cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut block, nothing, 0, 0),
            INVALID_VALUE
        );
        assert_eq!(
            cuOccupancyMaxActiveBlocksPerMultiprocessor(&mut block, bad_handle(), 32, 0),
            INVALID_HANDLE
        );
    }
}

#[test]
fn launches_that_are_refused() {
    let _context = Context::new();
    let nothing = kernel("nothing");
    let run = |grid: [u32; 3], block: [u32; 3], stream| {
        // SAFETY: the function has no parameters.
        unsafe {
            cuLaunchKernel(
                nothing,
                grid[0],
                grid[1],
                grid[2],
                block[0],
                block[1],
                block[2],
                0,
                stream,
                null_mut(),
                null_mut(),
            )
        }
    };
    ok(run([1; 3], [8, 8, 16], null_mut()));
    assert_eq!(run([0, 1, 1], [1; 3], null_mut()), INVALID_VALUE);
    assert_eq!(run([1, 65_536, 1], [1; 3], null_mut()), INVALID_VALUE);
    assert_eq!(run([1; 3], [0, 1, 1], null_mut()), INVALID_VALUE);
    assert_eq!(run([1; 3], [1, 1, 65], null_mut()), INVALID_VALUE);
    assert_eq!(run([1; 3], [1025, 1, 1], null_mut()), INVALID_VALUE);
    assert_eq!(run([1; 3], [32, 32, 2], null_mut()), INVALID_VALUE);
    assert_eq!(run([1; 3], [1; 3], bad_handle()), INVALID_HANDLE);
    assert_eq!(launch(bad_handle(), 1, 1, &mut []), INVALID_HANDLE);
    // None of these does the context harm.
    ok(run([1; 3], [1; 3], null_mut()));
}

#[test]
fn a_fault_ends_its_context_and_no_other() {
    let other = Context::new();
    let kept = Buffer::of(&[5_u32]);
    let buffer;
    {
        let _context = Context::new();
        buffer = Buffer::of(&[1_u32, 2]);
        let poke = kernel("poke");
        ok(launch(poke, 1, 1, &mut [buffer.address + 4]));
        assert_eq!(buffer.read::<u32>(), [1, 9]);
        assert_eq!(
            launch(poke, 1, 1, &mut [buffer.address + 8]),
            ILLEGAL_ADDRESS
        );
        // As on a device, all that follows fails alike.
        assert_eq!(launch(poke, 1, 1, &mut [buffer.address]), ILLEGAL_ADDRESS);
        assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
        let mut host = 0_u32;
        // SAFETY: the place is as large as stated.
        unsafe {
            assert_eq!(
                cuMemcpyDtoH_v2((&raw mut host).cast(), buffer.address, 4),
                ILLEGAL_ADDRESS
            );
            assert_eq!(cuMemAlloc_v2(&mut 0, 4), ILLEGAL_ADDRESS);
        }
    }
    std::mem::forget(buffer);
    ok(cuCtxSynchronize());
    assert_eq!(kept.read::<u32>(), [5]);
    drop(kept);
    drop(other);
}

#[test]
fn the_result_names_the_fault() {
    let context = Context::new();
    let buffer = Buffer::of(&[1_u32, 2]);
    assert_eq!(
        launch(kernel("poke"), 1, 1, &mut [buffer.address + 2]),
        MISALIGNED_ADDRESS
    );
    drop((buffer, context));

    // A read of what nothing wrote stops no device: the launch fails, and the context lives on.
    let _context = Context::new();
    let (to, from) = (Buffer::new(4), Buffer::new(4));
    assert_eq!(
        launch(kernel("peek"), 1, 1, &mut [to.address, from.address]),
        LAUNCH_FAILED
    );
    ok(cuCtxSynchronize());
    ok(cuMemsetD32_v2(from.address, 3, 1));
    ok(launch(
        kernel("peek"),
        1,
        1,
        &mut [to.address, from.address],
    ));
    assert_eq!(to.read::<u32>(), [3]);
}

#[test]
fn faults_are_told_and_may_end_the_process() {
    let output = child("faulting", &[]);
    let text = stderr(&output);
    assert!(output.status.success(), "{text}");
    for part in [
        "kernel poke",
        "CUDA_ERROR_ILLEGAL_ADDRESS",
        "st.global.u32 [%d1], %r1;",
        "1 problems were reported",
    ] {
        assert!(text.contains(part), "no {part} in {text}");
    }
    let output = child("faulting", &[("CUDA_SIM_ABORT", "1")]);
    assert!(!output.status.success());
    assert!(
        stderr(&output).contains("CUDA_SIM_ABORT is set"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[ignore = "run by faults_are_told_and_may_end_the_process in a process of its own"]
fn faulting() {
    let _context = Context::new();
    let buffer = Buffer::of(&[1_u32]);
    assert_eq!(
        launch(kernel("poke"), 1, 1, &mut [buffer.address + 4]),
        ILLEGAL_ADDRESS
    );
    std::mem::forget(buffer);
}

#[test]
fn checks_may_be_turned_off() {
    let output = child("reading_what_nothing_wrote", &[("CUDA_SIM_CHECKS", "0")]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(!child("reading_what_nothing_wrote", &[]).status.success());
}

#[test]
#[ignore = "run by checks_may_be_turned_off in a process of its own"]
fn reading_what_nothing_wrote() {
    let _context = Context::new();
    let (to, from) = (Buffer::new(4), Buffer::new(4));
    ok(launch(
        kernel("peek"),
        1,
        1,
        &mut [to.address, from.address],
    ));
}

#[test]
fn counters_are_written() {
    let path = std::env::temp_dir().join(format!("cuda-sim-counters-{}", std::process::id()));
    let output = child(
        "counting",
        &[
            ("CUDA_SIM_COUNTERS", path.to_str().unwrap()),
            ("CUDA_SIM_TRACE", "1"),
        ],
    );
    let text = fs::read_to_string(&path).unwrap();
    fs::remove_file(path).unwrap();
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("cuLaunchKernel: ok"),
        "{}",
        stderr(&output)
    );
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 2, "{text}");
    for line in &lines {
        for part in [
            r#""kernel":"saxpy""#,
            r#""grid":[2,1,1]"#,
            r#""block":[32,1,1]"#,
            r#""global_load_bytes":512"#,
            r#""global_store_bytes":256"#,
            r#""distinct_bytes_read":512"#,
        ] {
            assert!(line.contains(part), "no {part} in {line}");
        }
        assert!(line.starts_with('{') && line.ends_with('}'));
    }
    assert_eq!(lines[0], lines[1], "counts do not depend on the run");
}

#[test]
#[ignore = "run by counters_are_written in a process of its own"]
fn counting() {
    let _context = Context::new();
    let (x, y, out) = (
        Buffer::of(&[1.0_f32; 64]),
        Buffer::of(&[1.0_f32; 64]),
        Buffer::new(256),
    );
    let saxpy_kernel = kernel("saxpy");
    for _ in 0..2 {
        ok(saxpy(saxpy_kernel, 2, 32, [&out, &x, &y], 1.0, 64));
    }
}

#[test]
fn threads_share_a_device() {
    let context = Context::new();
    let shared = context.0 as usize;
    std::thread::scope(|scope| {
        for number in 0..4_u32 {
            scope.spawn(move || {
                // SAFETY: a handle is looked up, not followed.
                ok(unsafe { cuCtxSetCurrent(shared as Handle) });
                let count = 512;
                let x = vec![number as f32; count];
                let (x, y, out) = (
                    Buffer::of(&x),
                    Buffer::of(&vec![1.0_f32; count]),
                    Buffer::new(count * 4),
                );
                let saxpy_kernel = kernel("saxpy");
                for _ in 0..10 {
                    ok(saxpy(
                        saxpy_kernel,
                        4,
                        128,
                        [&out, &x, &y],
                        2.0,
                        count as u32,
                    ));
                    assert!(
                        out.read::<f32>()
                            .iter()
                            .all(|value| *value == 2.0 * number as f32 + 1.0)
                    );
                }
            });
        }
    });
}
