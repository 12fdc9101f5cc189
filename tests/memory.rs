//! An op allocates its output and at most O(rows) scratch. A counting allocator sees every allocation of the process,
//! so this is a binary of its own and its tests take turns.
//!
//! The bound: at its peak an op holds its output, 64 bytes a row, 32 bytes for every 4,096 elements (statistics of the
//! tiles of wide rows), and 64 KiB a thread.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Layout as View, Result, Shape, Tensor, Var,
};
use candle_reparam::{
    Key, categorical, gaussian, gaussian_kl, gumbel, gumbel_max, gumbel_softmax, gumbel_softmax_st,
    normal, tempered_log_softmax, tempered_softmax, uniform,
};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    let now = NOW.fetch_add(bytes, Ordering::Relaxed) + bytes;
    PEAK.fetch_max(now, Ordering::Relaxed);
}

// SAFETY: every call goes to the system's allocator unchanged; the counters touch no memory of the caller.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        grown(layout.size());
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
    unsafe fn realloc(&self, ptr: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // both blocks may exist while the contents move
        grown(size);
        NOW.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: the caller's promise, passed on.
        unsafe { System.realloc(ptr, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Bytes beyond those at the start: at the peak, and still held when `f` has returned (its result alive).
fn measured<T>(f: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = NOW.load(Ordering::SeqCst);
    PEAK.store(before, Ordering::SeqCst);
    let result = f();
    let (peak, after) = (PEAK.load(Ordering::SeqCst), NOW.load(Ordering::SeqCst));
    (result, peak - before, after.saturating_sub(before))
}

fn scratch(elements: usize, rows: usize) -> usize {
    64 * rows + elements / 4096 * 32 + rayon::current_num_threads() * 64 * 1024
}

fn bytes(t: &Tensor) -> usize {
    t.elem_count() * t.dtype().size_in_bytes()
}

const KEY: Key = Key::new(1, 2);

type Op = fn(&Tensor, usize) -> Result<Tensor>;
const OPS: [(&str, Op); 8] = [
    ("tempered_softmax", |x, d| tempered_softmax(x, 0.5, d)),
    ("tempered_log_softmax", |x, d| {
        tempered_log_softmax(x, 0.5, d)
    }),
    ("gumbel_softmax", |x, d| gumbel_softmax(x, 0.5, d, KEY)),
    ("gumbel_softmax_st", |x, d| {
        gumbel_softmax_st(x, 0.5, d, KEY)
    }),
    ("gumbel_max", |x, d| gumbel_max(x, d, KEY)),
    ("categorical", |x, d| categorical(x, d, KEY)),
    ("gaussian", |x, _| gaussian(x, x, KEY)),
    ("gaussian_kl", |x, d| gaussian_kl(x, x, d)),
];

/// 4 M elements each: many short rows, middling ones, long ones, a single one, and dims that are not last.
const SHAPES: [(&[usize], usize); 6] = [
    (&[400_000, 10], 1),
    (&[4096, 1024], 1),
    (&[32, 131_072], 1),
    (&[1, 4_194_304], 1),
    (&[64, 64, 1024], 1),
    (&[4096, 1024], 0),
];

fn filled(shape: &[usize], dtype: DType) -> Tensor {
    normal(shape, dtype, &Device::Cpu, KEY).unwrap()
}

/// Threads of the pool, lazy statics and the like are not an op's doing.
fn warm_up() {
    for dtype in [DType::F32, DType::BF16] {
        let x = Var::from_tensor(&filled(&[64, 512], dtype)).unwrap();
        for (_, op) in OPS {
            let y = op(x.as_tensor(), 1).unwrap();
            if y.dtype() == dtype {
                y.sum_all().unwrap().backward().unwrap();
            }
        }
        let wide = filled(&[8, 65_536], dtype);
        OPS.iter().for_each(|(_, op)| drop(op(&wide, 1).unwrap()));
    }
}

fn rows_of(x: &Tensor, dim: usize) -> usize {
    x.elem_count() / x.dims()[dim]
}

#[test]
fn the_counter_counts() {
    let _turn = turn();
    let (v, peak, held) = measured(|| {
        drop(vec![0_u8; 3 << 20]);
        vec![1_u8; 1 << 20]
    });
    assert!((3 << 20..4 << 20).contains(&peak), "{peak}");
    assert!((1 << 20..2 << 20).contains(&held), "{held}");
    drop(v);
    let (_, peak, held) = measured(|| ());
    assert!(peak < 4096 && held < 4096, "{peak} {held}");
}

#[test]
fn noise_allocates_its_output() {
    let _turn = turn();
    warm_up();
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        type Noise = fn(usize, DType) -> Result<Tensor>;
        let maps: [(&str, Noise); 3] = [
            ("uniform", |n, t| uniform(n, t, &Device::Cpu, KEY)),
            ("gumbel", |n, t| gumbel(n, t, &Device::Cpu, KEY)),
            ("normal", |n, t| normal(n, t, &Device::Cpu, KEY)),
        ];
        for (name, noise) in maps {
            let (t, peak, held) = measured(|| noise(4_000_003, dtype).unwrap());
            let allowed = bytes(&t) + scratch(0, 0);
            println!(
                "{name} {dtype:?}: {} beyond its output",
                peak as i64 - bytes(&t) as i64
            );
            assert!(
                peak >= bytes(&t) && peak <= allowed,
                "{name} {dtype:?}: {peak}, allowed {allowed}"
            );
            assert!(held <= bytes(&t) + 4096, "{name} {dtype:?}: {held} held");
        }
    }
}

#[test]
fn forward_allocates_its_output_and_a_little_per_row() {
    let _turn = turn();
    warm_up();
    for (shape, dim) in SHAPES {
        for dtype in [DType::F32, DType::BF16] {
            let contiguous = filled(shape, dtype);
            let rank = shape.len();
            let transposed = contiguous
                .transpose(0, rank - 1)
                .unwrap()
                .contiguous()
                .unwrap()
                .transpose(0, rank - 1)
                .unwrap();
            let broadcast = contiguous
                .narrow(0, 0, 1)
                .unwrap()
                .broadcast_as(shape)
                .unwrap();
            for (layout, x) in [
                ("contiguous", &contiguous),
                ("transposed", &transposed),
                ("broadcast", &broadcast),
            ] {
                for (name, op) in OPS {
                    let (y, peak, held) = measured(|| op(x, dim).unwrap());
                    let spare = scratch(x.elem_count(), rows_of(x, dim));
                    let label = format!("{name} {shape:?} over {dim}, {dtype:?}, {layout}");
                    println!(
                        "{label}: {} of {spare} beyond its output",
                        peak as i64 - bytes(&y) as i64
                    );
                    assert!(
                        peak <= bytes(&y) + spare,
                        "{label}: {peak}, allowed {} + {spare}",
                        bytes(&y)
                    );
                    assert!(
                        held <= bytes(&y) + 4096,
                        "{label}: {held} held of {}",
                        bytes(&y)
                    );
                }
            }
        }
    }
}

#[test]
fn a_tracked_result_keeps_its_output_and_nothing_else() {
    // a kept softmax or kept noise would be another 16 MiB
    let _turn = turn();
    warm_up();
    for (shape, dim) in SHAPES {
        let x = Var::from_tensor(&filled(shape, DType::F32)).unwrap();
        for (name, op) in OPS {
            let (y, _, held) = measured(|| op(x.as_tensor(), dim).unwrap());
            assert!(
                held <= bytes(&y) + 4096,
                "{name} {shape:?}: {held} held of {}",
                bytes(&y)
            );
        }
    }
}

/// The cheapest op with a gradient: copies forward, copies backward. What `backward()` allocates around it is candle's.
struct Copy;

/// Where element `i`, in logical order, is stored.
fn place(view: &View, mut i: usize) -> usize {
    let mut at = view.start_offset();
    for (n, stride) in view.dims().iter().zip(view.stride()).rev() {
        at += i % n * stride;
        i /= n;
    }
    at
}

impl CustomOp1 for Copy {
    fn name(&self) -> &'static str {
        "copy"
    }
    fn cpu_fwd(&self, storage: &CpuStorage, view: &View) -> Result<(CpuStorage, Shape)> {
        let shape = view.shape().clone();
        macro_rules! copy {
            ($variant:ident, $data:expr) => {
                CpuStorage::$variant(match view.contiguous_offsets() {
                    Some((from, to)) => $data[from..to].to_vec(),
                    None => (0..shape.elem_count())
                        .map(|i| $data[place(view, i)])
                        .collect(),
                })
            };
        }
        let out = match storage {
            CpuStorage::F32(data) => copy!(F32, data),
            CpuStorage::BF16(data) => copy!(BF16, data),
            _ => candle_core::bail!("dtype"),
        };
        Ok((out, shape))
    }
    fn bwd(&self, _: &Tensor, _: &Tensor, grad: &Tensor) -> Result<Option<Tensor>> {
        Ok(Some(grad.force_contiguous()?))
    }
}

#[test]
fn backward_allocates_its_gradient_and_a_little_per_row() {
    let _turn = turn();
    warm_up();
    for (shape, dim) in SHAPES {
        for dtype in [DType::F32, DType::BF16] {
            let x = Var::from_tensor(&filled(shape, dtype)).unwrap();
            let rank = shape.len();
            let stored = x
                .as_tensor()
                .transpose(0, rank - 1)
                .unwrap()
                .contiguous()
                .unwrap();
            let turned = Var::from_tensor(&stored).unwrap();
            for transposed in [false, true] {
                let arg = || {
                    if transposed {
                        turned.as_tensor().transpose(0, rank - 1).unwrap()
                    } else {
                        x.as_tensor().clone()
                    }
                };
                let run = |y: Tensor| {
                    let loss = y.sum_all().unwrap();
                    let (store, peak, held) = measured(|| loss.backward().unwrap());
                    drop(store);
                    (peak, held)
                };
                let (base_peak, base_held) = run(arg().apply_op1(Copy).unwrap());
                for (name, op) in &OPS[..4] {
                    let y = op(&arg(), dim).unwrap();
                    let (peak, held) = run(y);
                    let spare = scratch(x.elem_count(), rows_of(&x, dim));
                    let label =
                        format!("{name} {shape:?} over {dim}, {dtype:?}, transposed {transposed}");
                    println!(
                        "{label}: {} of {spare} beyond a copy's",
                        peak as i64 - base_peak as i64
                    );
                    assert!(
                        peak <= base_peak + spare,
                        "{label}: {peak}, a copy's {base_peak}, allowed {spare} more"
                    );
                    assert!(
                        held <= base_held + 4096,
                        "{label}: {held} held, a copy's {base_held}"
                    );
                }
            }
        }
    }
}

#[test]
fn backward_of_a_temperature_needs_no_second_gradient() {
    let _turn = turn();
    warm_up();
    let (shape, dim) = SHAPES[1];
    let x = filled(shape, DType::F32);
    for (name, op) in [("tempered", false), ("gumbel", true)] {
        let tau =
            Var::from_tensor(&Tensor::full(0.5_f32, (shape[0], 1), &Device::Cpu).unwrap()).unwrap();
        let y = if op {
            gumbel_softmax(&x, tau.as_tensor(), dim, KEY)
        } else {
            tempered_softmax(&x, tau.as_tensor(), dim)
        };
        let loss = y.unwrap().sum_all().unwrap();
        let (_, peak, _) = measured(|| loss.backward().unwrap());
        // candle: the ones of the sum and their sum with zeros; the gradient to tau is one number a row
        let allowed = 3 * bytes(&x) + scratch(x.elem_count(), rows_of(&x, dim));
        assert!(peak <= allowed, "{name}: {peak}, allowed {allowed}");
    }
}

#[test]
fn backward_of_gaussian_allocates_two_gradients() {
    let _turn = turn();
    warm_up();
    let n = 4_000_000;
    let (m, l) = (
        Var::from_tensor(&filled(&[n], DType::F32)).unwrap(),
        Var::from_tensor(&filled(&[n], DType::F32)).unwrap(),
    );
    let ours = gaussian(m.as_tensor(), l.as_tensor(), KEY)
        .unwrap()
        .sum_all()
        .unwrap();
    let (_, peak, held) = measured(|| ours.backward().unwrap());
    let plain = (m.as_tensor() + l.as_tensor()).unwrap().sum_all().unwrap();
    let (_, plain_peak, plain_held) = measured(|| plain.backward().unwrap());
    println!("peak {peak}, of an addition {plain_peak}");
    // an addition hands its gradient on; gaussian writes one of its own for log_var, and a copy for the mean
    assert!(
        peak <= plain_peak + 2 * 4 * n + scratch(0, 0),
        "{peak} {plain_peak}"
    );
    assert!(held <= plain_held + 4096, "{held} {plain_held}");
}

#[test]
fn the_bound_rejects_a_copy_of_the_input() {
    // what a kernel that first makes its input contiguous would cost
    let _turn = turn();
    warm_up();
    let x = filled(&[4096, 1024], DType::F32).t().unwrap();
    let (y, peak, _) = measured(|| tempered_softmax(&x.contiguous().unwrap(), 0.5, 1).unwrap());
    assert!(
        peak > bytes(&y) + scratch(x.elem_count(), rows_of(&x, 1)),
        "{peak}"
    );
}
