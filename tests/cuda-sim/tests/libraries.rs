//! cuBLAS, cuRAND and the runtime through the C interface.

mod support;

use std::ffi::{CStr, c_char, c_int, c_void};
use std::ptr::{null, null_mut};

use half::{bf16, f16};
use support::*;

unsafe extern "C" {
    fn cublasCreate_v2(handle: *mut Handle) -> u32;
    fn cublasDestroy_v2(handle: Handle) -> u32;
    fn cublasSetStream_v2(handle: Handle, stream: Handle) -> u32;
    fn cublasSetMathMode(handle: Handle, mode: u32) -> u32;
    fn cublasSetPointerMode_v2(handle: Handle, mode: u32) -> u32;
    fn cublasGetStatusName(status: u32) -> *const c_char;
    fn cublasSgemm_v2(
        handle: Handle,
        transpose_a: u32,
        transpose_b: u32,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: *const f32,
        a: u64,
        lda: c_int,
        b: u64,
        ldb: c_int,
        beta: *const f32,
        c: u64,
        ldc: c_int,
    ) -> u32;
    fn cublasDgemmStridedBatched(
        handle: Handle,
        transpose_a: u32,
        transpose_b: u32,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: *const f64,
        a: u64,
        lda: c_int,
        stride_a: i64,
        b: u64,
        ldb: c_int,
        stride_b: i64,
        beta: *const f64,
        c: u64,
        ldc: c_int,
        stride_c: i64,
        batch: c_int,
    ) -> u32;
    fn cublasGemmStridedBatchedEx(
        handle: Handle,
        transpose_a: u32,
        transpose_b: u32,
        m: c_int,
        n: c_int,
        k: c_int,
        alpha: *const c_void,
        a: u64,
        a_type: u32,
        lda: c_int,
        stride_a: i64,
        b: u64,
        b_type: u32,
        ldb: c_int,
        stride_b: i64,
        beta: *const c_void,
        c: u64,
        c_type: u32,
        ldc: c_int,
        stride_c: i64,
        batch: c_int,
        compute: u32,
        algorithm: c_int,
    ) -> u32;

    fn curandCreateGenerator(generator: *mut Handle, kind: u32) -> u32;
    fn curandDestroyGenerator(generator: Handle) -> u32;
    fn curandSetStream(generator: Handle, stream: Handle) -> u32;
    fn curandSetPseudoRandomGeneratorSeed(generator: Handle, seed: u64) -> u32;
    fn curandSetGeneratorOffset(generator: Handle, offset: u64) -> u32;
    fn curandGenerateUniform(generator: Handle, place: u64, count: usize) -> u32;
    fn curandGenerateUniformDouble(generator: Handle, place: u64, count: usize) -> u32;
    fn curandGenerateNormal(
        generator: Handle,
        place: u64,
        count: usize,
        mean: f32,
        deviation: f32,
    ) -> u32;
    fn curandGenerateNormalDouble(
        generator: Handle,
        place: u64,
        count: usize,
        mean: f64,
        deviation: f64,
    ) -> u32;

    fn cudaGetDevice(device: *mut c_int) -> u32;
    fn cudaMalloc(address: *mut u64, bytes: usize) -> u32;
    safe fn cudaFree(address: u64) -> u32;
    safe fn cudaGetLastError() -> u32;
    fn cudaLaunchKernel(function: *const c_void) -> u32;
    fn __cudaRegisterFatBinary(binary: *const c_void) -> *mut *mut c_void;
    fn __cudaRegisterFunction(
        binary: *mut *mut c_void,
        function: *const c_void,
        device_function: *const c_char,
        name: *const c_char,
        thread_limit: c_int,
        thread: *const c_void,
        block: *const c_void,
        block_size: *const c_void,
        grid_size: *const c_void,
        warp_size: *const c_void,
    );
}

struct Blas(Handle);

impl Blas {
    fn new() -> Self {
        let mut handle = null_mut();
        // SAFETY: the place is valid.
        ok(unsafe { cublasCreate_v2(&mut handle) });
        Self(handle)
    }
}

impl Drop for Blas {
    fn drop(&mut self) {
        // SAFETY: a handle is looked up, not followed.
        ok(unsafe { cublasDestroy_v2(self.0) });
    }
}

/// `alpha op(A) op(B) + beta C` as the definition has it, in f64; all matrices by columns.
#[derive(Clone, Copy)]
struct Shape {
    m: usize,
    n: usize,
    k: usize,
    turn_a: bool,
    turn_b: bool,
    lda: usize,
    ldb: usize,
    ldc: usize,
}

fn reference(shape: Shape, alpha: f64, a: &[f64], b: &[f64], beta: f64, c: &[f64]) -> Vec<f64> {
    let mut result = c.to_vec();
    for j in 0..shape.n {
        for i in 0..shape.m {
            let sum: f64 = (0..shape.k)
                .map(|p| {
                    let left = if shape.turn_a {
                        a[i * shape.lda + p]
                    } else {
                        a[p * shape.lda + i]
                    };
                    let right = if shape.turn_b {
                        b[p * shape.ldb + j]
                    } else {
                        b[j * shape.ldb + p]
                    };
                    left * right
                })
                .sum();
            let place = j * shape.ldc + i;
            result[place] = alpha * sum + if beta == 0.0 { 0.0 } else { beta * c[place] };
        }
    }
    result
}

/// Small integers, of which all sums are exact.
fn integers(count: usize, salt: usize) -> Vec<f64> {
    (0..count)
        .map(|i| ((i * 31 + salt) % 9) as f64 - 4.0)
        .collect()
}

#[test]
fn single_precision_products() {
    let _context = Context::new();
    let blas = Blas::new();
    for (turn_a, turn_b) in [(false, false), (true, false), (false, true), (true, true)] {
        let (m, n, k) = (7, 5, 9);
        // Leading dimensions larger than they must be: what lies between the columns is neither read nor written.
        let lda = if turn_a { k } else { m } + 2;
        let ldb = if turn_b { n } else { k } + 1;
        let shape = Shape {
            m,
            n,
            k,
            turn_a,
            turn_b,
            lda,
            ldb,
            ldc: m + 3,
        };
        let a = integers(lda * if turn_a { m } else { k }, 1);
        let b = integers(ldb * if turn_b { k } else { n }, 2);
        let c = integers(shape.ldc * n, 3);
        let single = |values: &[f64]| values.iter().map(|x| *x as f32).collect::<Vec<_>>();
        let (a_device, b_device, c_device) = (
            Buffer::of(&single(&a)),
            Buffer::of(&single(&b)),
            Buffer::of(&single(&c)),
        );
        for (alpha, beta) in [(1.0_f32, 0.0_f32), (0.5, 2.0), (0.0, 1.0)] {
            ok(cuMemcpyFrom(&c_device, &single(&c)));
            // SAFETY: the factors are valid, the rest numbers that are looked up.
            ok(unsafe {
                cublasSgemm_v2(
                    blas.0,
                    u32::from(turn_a),
                    u32::from(turn_b),
                    m as c_int,
                    n as c_int,
                    k as c_int,
                    &alpha,
                    a_device.address,
                    lda as c_int,
                    b_device.address,
                    ldb as c_int,
                    &beta,
                    c_device.address,
                    shape.ldc as c_int,
                )
            });
            let wanted = reference(shape, f64::from(alpha), &a, &b, f64::from(beta), &c);
            assert_eq!(
                c_device.read::<f32>(),
                single(&wanted),
                "{turn_a} {turn_b} {alpha} {beta}"
            );
        }
    }
}

#[allow(non_snake_case, reason = "reads like the calls that it stands among")]
fn cuMemcpyFrom<T>(buffer: &Buffer, values: &[T]) -> u32 {
    // SAFETY: as many bytes as the slice has.
    unsafe { cuMemcpyHtoD_v2(buffer.address, values.as_ptr().cast(), size_of_val(values)) }
}

#[test]
fn batches_of_each_type() {
    let _context = Context::new();
    let blas = Blas::new();
    let (m, n, k, batch) = (4, 3, 5, 3);
    let shape = Shape {
        m,
        n,
        k,
        turn_a: false,
        turn_b: false,
        lda: m,
        ldb: k,
        ldc: m,
    };
    let a = integers(m * k * batch, 1);
    // One right matrix for the whole batch: a stride of zero.
    let b = integers(k * n, 2);
    let wanted: Vec<f64> = (0..batch)
        .flat_map(|i| reference(shape, 1.0, &a[i * m * k..], &b, 0.0, &vec![0.0; m * n]))
        .collect();

    let run = |a: &Buffer,
               b: &Buffer,
               c: &Buffer,
               code: u32,
               alpha: *const c_void,
               beta: *const c_void,
               compute: u32| {
        // SAFETY: the factors are of the compute type, the rest numbers that are looked up.
        unsafe {
            cublasGemmStridedBatchedEx(
                blas.0,
                0,
                0,
                m as c_int,
                n as c_int,
                k as c_int,
                alpha,
                a.address,
                code,
                m as c_int,
                (m * k) as i64,
                b.address,
                code,
                k as c_int,
                0,
                beta,
                c.address,
                code,
                m as c_int,
                (m * n) as i64,
                batch as c_int,
                compute,
                99,
            )
        }
    };
    let (one, zero) = (1.0_f32, 0.0_f32);
    let (single_one, single_zero) = ((&raw const one).cast(), (&raw const zero).cast());

    macro_rules! check {
        ($type:ty, $from:expr, $to:expr, $code:expr, $compute:expr, $one:expr, $zero:expr) => {{
            let upload =
                |values: &[f64]| Buffer::of(&values.iter().map($from).collect::<Vec<$type>>());
            let c = Buffer::new(wanted.len() * size_of::<$type>());
            ok(run(
                &upload(&a),
                &upload(&b),
                &c,
                $code,
                $one,
                $zero,
                $compute,
            ));
            let result: Vec<f64> = c.read::<$type>().into_iter().map($to).collect();
            assert_eq!(result, wanted, stringify!($type));
        }};
    }
    check!(
        f32,
        |x| *x as f32,
        f64::from,
        0,
        68,
        single_one,
        single_zero
    );
    check!(
        f32,
        |x| *x as f32,
        f64::from,
        0,
        77,
        single_one,
        single_zero
    );
    check!(
        f16,
        |x| f16::from_f64(*x),
        f16::to_f64,
        2,
        68,
        single_one,
        single_zero
    );
    check!(
        bf16,
        |x| bf16::from_f64(*x),
        bf16::to_f64,
        14,
        75,
        single_one,
        single_zero
    );
    let (half_one, half_zero) = (f16::ONE, f16::ZERO);
    let (half_one, half_zero) = ((&raw const half_one).cast(), (&raw const half_zero).cast());
    check!(
        f16,
        |x| f16::from_f64(*x),
        f16::to_f64,
        2,
        64,
        half_one,
        half_zero
    );

    let (a, b, c) = (
        Buffer::of(&a),
        Buffer::of(&b),
        Buffer::new(wanted.len() * 8),
    );
    let (one, zero) = (1.0_f64, 0.0_f64);
    let sizes = [m, n, k, m, k, m].map(|x| x as c_int);
    // SAFETY: the factors are valid, the rest numbers that are looked up.
    unsafe {
        ok(cublasDgemmStridedBatched(
            blas.0,
            0,
            0,
            sizes[0],
            sizes[1],
            sizes[2],
            &one,
            a.address,
            sizes[3],
            (m * k) as i64,
            b.address,
            sizes[4],
            0,
            &zero,
            c.address,
            sizes[5],
            (m * n) as i64,
            batch as c_int,
        ));
    }
    assert_eq!(c.read::<f64>(), wanted);

    const NOT_SUPPORTED_BY_CUBLAS: u32 = 15;
    assert_eq!(
        run(&a, &b, &c, 3, single_one, single_zero, 68),
        NOT_SUPPORTED_BY_CUBLAS,
        "int8"
    );
    assert_eq!(
        run(&a, &b, &c, 0, single_one, single_zero, 72),
        NOT_SUPPORTED_BY_CUBLAS,
        "int32 sums"
    );
    assert_eq!(
        run(&a, &b, &c, 1, single_one, single_zero, 68),
        NOT_SUPPORTED_BY_CUBLAS,
        "f64 in f32"
    );
}

#[test]
fn products_that_are_refused() {
    const INVALID: u32 = 7;
    const UNKNOWN_HANDLE: u32 = 1;
    const FAILED: u32 = 13;
    let _context = Context::new();
    let blas = Blas::new();
    let matrix = Buffer::of(&[1.0_f32; 4]);
    let (one, zero) = (1.0_f32, 0.0_f32);
    let gemm = |handle: Handle, m: c_int, lda: c_int, alpha: *const f32, a: u64| {
        // SAFETY: the factors are null or valid, the rest numbers that are looked up.
        unsafe {
            cublasSgemm_v2(
                handle,
                0,
                0,
                m,
                2,
                2,
                alpha,
                a,
                lda,
                matrix.address,
                2,
                &zero,
                matrix.address,
                2,
            )
        }
    };
    ok(gemm(blas.0, 2, 2, &one, matrix.address));
    assert_eq!(matrix.read::<f32>(), [2.0; 4]);
    assert_eq!(gemm(blas.0, -1, 2, &one, matrix.address), INVALID);
    assert_eq!(gemm(blas.0, 2, 1, &one, matrix.address), INVALID);
    assert_eq!(gemm(blas.0, 2, 2, null(), matrix.address), INVALID);
    assert_eq!(
        gemm(bad_handle(), 2, 2, &one, matrix.address),
        UNKNOWN_HANDLE
    );
    // SAFETY: handles are looked up; the text lasts as long as the library.
    unsafe {
        assert_eq!(cublasSetStream_v2(blas.0, bad_handle()), INVALID);
        ok(cublasSetMathMode(blas.0, 3));
        assert_eq!(
            CStr::from_ptr(cublasGetStatusName(7)),
            c"CUBLAS_STATUS_INVALID_VALUE"
        );
        // Factors in device memory.
        let factors = Buffer::of(&[2.0_f32, 0.0]);
        let twice = Buffer::of(&[1.0_f32; 4]);
        ok(cublasSetPointerMode_v2(blas.0, 1));
        let (alpha, beta) = (
            factors.address as *const f32,
            (factors.address + 4) as *const f32,
        );
        ok(cublasSgemm_v2(
            blas.0,
            0,
            0,
            2,
            2,
            2,
            alpha,
            twice.address,
            2,
            twice.address,
            2,
            beta,
            matrix.address,
            2,
        ));
        assert_eq!(matrix.read::<f32>(), [4.0; 4]);
        ok(cublasSetPointerMode_v2(blas.0, 0));
    }
    // On a device, a kernel would have faulted, and the context been lost.
    assert_eq!(
        gemm(blas.0, 2, 2, &one, matrix.address + 4),
        FAILED,
        "past the end"
    );
    assert_eq!(gemm(blas.0, 2, 2, &one, matrix.address), FAILED);
    assert_eq!(cuCtxSynchronize(), ILLEGAL_ADDRESS);
}

#[test]
fn random_numbers() {
    let _context = Context::new();
    let count = 1 << 16;
    let mut generator = null_mut();
    let single = Buffer::new(count * 4);
    let double = Buffer::new(count * 8);
    let moments = |values: &[f64]| {
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let variance = values.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / values.len() as f64;
        (mean, variance)
    };
    let near = |(mean, variance): (f64, f64), wanted: (f64, f64)| {
        assert!(
            (mean - wanted.0).abs() < 0.02 && (variance - wanted.1).abs() < 0.05,
            "{mean} {variance}"
        );
    };
    // SAFETY: the place is valid, the rest numbers that are looked up.
    unsafe {
        ok(curandCreateGenerator(&mut generator, 100));
        ok(curandSetStream(generator, null_mut()));
        ok(curandSetPseudoRandomGeneratorSeed(generator, 42));
        ok(curandGenerateUniform(generator, single.address, count));
        let first = single.read::<f32>();
        assert!(first.iter().all(|x| *x > 0.0 && *x <= 1.0));
        near(
            moments(&first.iter().map(|x| f64::from(*x)).collect::<Vec<_>>()),
            (0.5, 1.0 / 12.0),
        );
        ok(curandGenerateUniform(generator, single.address, count));
        assert_ne!(single.read::<f32>(), first, "the sequence goes on");
        ok(curandSetPseudoRandomGeneratorSeed(generator, 42));
        ok(curandGenerateUniform(generator, single.address, count));
        assert_eq!(single.read::<f32>(), first, "the seed begins it anew");
        ok(curandSetGeneratorOffset(generator, 10));
        ok(curandGenerateUniform(generator, single.address, 100));
        assert_eq!(single.read::<f32>()[..100], first[10..110]);
        ok(curandGenerateUniformDouble(
            generator,
            double.address,
            count,
        ));
        near(moments(&double.read::<f64>()), (0.5, 1.0 / 12.0));
        ok(curandGenerateNormalDouble(
            generator,
            double.address,
            count,
            0.0,
            1.0,
        ));
        near(moments(&double.read::<f64>()), (0.0, 1.0));
        ok(curandGenerateNormal(
            generator,
            single.address,
            count,
            3.0,
            0.5,
        ));
        near(
            moments(
                &single
                    .read::<f32>()
                    .iter()
                    .map(|x| f64::from(*x))
                    .collect::<Vec<_>>(),
            ),
            (3.0, 0.25),
        );
        assert_eq!(
            curandGenerateNormal(generator, single.address, 7, 0.0, 1.0),
            105,
            "normal numbers come in pairs"
        );
        assert_eq!(curandGenerateUniform(bad_handle(), single.address, 1), 101);
        assert_eq!(
            curandCreateGenerator(&mut null_mut(), 201),
            103,
            "no quasi-random numbers"
        );
        assert_eq!(
            curandGenerateUniform(generator, single.address, count + 1),
            201,
            "past the end"
        );
        assert_eq!(
            curandGenerateUniform(generator, single.address, count),
            202,
            "the context is lost"
        );
        ok(curandDestroyGenerator(generator));
        assert_eq!(curandDestroyGenerator(generator), 101);
    }
}

#[test]
fn the_runtime() {
    let output = child("runtime_alone", &[]);
    assert!(output.status.success(), "{}", stderr(&output));
    assert!(
        stderr(&output).contains("_Z6kernelPf is machine code"),
        "{}",
        stderr(&output)
    );
}

#[test]
#[ignore = "run by the_runtime in a process of its own: the runtime needs no context and no cuInit"]
fn runtime_alone() {
    let mut device = -1;
    let mut address = 0;
    let function = 0_u8;
    let function: *const c_void = (&raw const function).cast();
    // SAFETY: the places are valid, the name is a text.
    unsafe {
        ok(cudaGetDevice(&mut device));
        assert_eq!(device, 0);
        ok(cudaMalloc(&mut address, 64));
        ok(cudaFree(address));
        assert_ne!(cudaFree(address), 0);
        assert_eq!(cudaGetLastError(), INVALID_VALUE);
        assert_eq!(cudaGetLastError(), 0);
        let binary = __cudaRegisterFatBinary(null());
        let name = c"_Z6kernelPf".as_ptr();
        let none = null();
        __cudaRegisterFunction(
            binary, function, name, name, -1, none, none, none, none, none,
        );
        assert_eq!(cudaLaunchKernel(function), NOT_SUPPORTED);
    }
}
