//! An op allocates its output and at most O(rows) scratch. A counting allocator sees every allocation of the process,
//! so this is a binary of its own and its tests take turns.
//!
//! The bound: at its peak an op holds its output, 64 bytes a row, 32 bytes for every 4,096 elements (statistics of the
//! tiles of wide rows), and 512 KiB a thread. The tensors here are 8 to 32 MB, so one more of them shows at once.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use candle_core::{
    CpuStorage, CustomOp1, DType, Device, Layout as View, Result, Shape, Tensor, Var,
};
use candle_reparam::{
    Key, Stretch, binary_concrete, binary_concrete_st, categorical, exponential, gaussian,
    gaussian_kl, gumbel, gumbel_max, gumbel_rao, gumbel_softmax, gumbel_softmax_st, hard_concrete,
    hard_concrete_l0, logistic, normal, reinmax, straight_through, subgradient,
    tempered_log_softmax, tempered_softmax, uniform,
};

struct Counting;

static NOW: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
static TOTAL: AtomicUsize = AtomicUsize::new(0);

fn grown(bytes: usize) {
    TOTAL.fetch_add(bytes, Ordering::Relaxed);
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

/// Bytes allocated in all, whether freed again or not.
fn allocated<T>(f: impl FnOnce() -> T) -> (T, usize) {
    let before = TOTAL.load(Ordering::SeqCst);
    let result = f();
    (result, TOTAL.load(Ordering::SeqCst) - before)
}

fn scratch(elements: usize, rows: usize) -> usize {
    64 * rows + elements / 4096 * 32 + rayon::current_num_threads() * 512 * 1024
}

fn bytes(t: &Tensor) -> usize {
    t.elem_count() * t.dtype().size_in_bytes()
}

const KEY: Key = Key::new(1, 2);

type Op = fn(&Tensor, usize) -> Result<Tensor>;
const OPS: &[(&str, Op)] = &[
    ("tempered_softmax", |x, d| tempered_softmax(x, 0.5, d)),
    ("tempered_log_softmax", |x, d| {
        tempered_log_softmax(x, 0.5, d)
    }),
    ("gumbel_softmax", |x, d| gumbel_softmax(x, 0.5, d, KEY)),
    ("gumbel_softmax_st", |x, d| {
        gumbel_softmax_st(x, 0.5, d, KEY)
    }),
    ("reinmax", |x, d| reinmax(x, 1.5, d, KEY)),
    ("gumbel_rao", |x, d| gumbel_rao(x, 0.5, 2, d, KEY)),
    ("gumbel_max", |x, d| gumbel_max(x, d, KEY)),
    ("categorical", |x, d| categorical(x, d, KEY)),
    ("gaussian", |x, _| gaussian(x, x, KEY)),
    ("gaussian_kl", |x, d| gaussian_kl(x, x, d)),
    ("binary_concrete", |x, _| binary_concrete(x, 0.5, KEY)),
    ("binary_concrete_st", |x, _| binary_concrete_st(x, 0.5, KEY)),
    ("hard_concrete", |x, _| {
        hard_concrete(x, 0.5, Stretch::default(), KEY)
    }),
    ("hard_concrete_l0", |x, _| {
        hard_concrete_l0(x, 0.5, Stretch::default())
    }),
    ("relu", |x, _| subgradient::relu(x, None)),
    ("maximum", |x, _| subgradient::maximum(x, x, None)),
    ("hinge", |x, _| subgradient::hinge(x, x, 1.0, None)),
    ("max", |x, d| subgradient::max(x, d)),
    ("round", |x, _| {
        straight_through::round(x, straight_through::Surrogate::Identity)
    }),
    ("one_hot", |x, d| straight_through::one_hot(x, d)),
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
        let maps: [(&str, Noise); 5] = [
            ("uniform", |n, t| uniform(n, t, &Device::Cpu, KEY)),
            ("gumbel", |n, t| gumbel(n, t, &Device::Cpu, KEY)),
            ("normal", |n, t| normal(n, t, &Device::Cpu, KEY)),
            ("exponential", |n, t| exponential(n, t, &Device::Cpu, KEY)),
            ("logistic", |n, t| logistic(n, t, &Device::Cpu, KEY)),
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
    let mut wrong = vec![];
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
                    if peak > bytes(&y) + spare {
                        wrong.push(format!("{label}: {peak}, allowed {} + {spare}", bytes(&y)));
                    }
                    if held > bytes(&y) + 4096 {
                        wrong.push(format!("{label}: {held} held of {}", bytes(&y)));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
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

/// What `backward()` of a sum allocates in all. Candle's own zeros and additions hide a peak inside an op's backward,
/// but not a tensor allocated there.
fn backward_total(y: &Tensor) -> usize {
    let loss = y.sum_all().unwrap();
    allocated(|| loss.backward().unwrap()).1
}

/// Scratch in all rather than at once: each task has its own, and there are at most four tasks a thread.
fn scratch_in_all(elements: usize, rows: usize) -> usize {
    scratch(elements, rows) + rayon::current_num_threads() * 3 * 512 * 1024
}

#[test]
fn backward_allocates_its_gradient_and_a_little_per_row() {
    let _turn = turn();
    warm_up();
    // rows of ten are left out: their scratch may be more than a tensor
    for (shape, dim) in &SHAPES[1..] {
        for dtype in [DType::F32, DType::BF16] {
            let x = Var::from_tensor(&filled(shape, dtype)).unwrap();
            let last = shape.len() - 1;
            let stored = x
                .as_tensor()
                .transpose(0, last)
                .unwrap()
                .contiguous()
                .unwrap();
            let turned = Var::from_tensor(&stored).unwrap();
            for transposed in [false, true] {
                let arg = || {
                    if transposed {
                        turned.transpose(0, last).unwrap()
                    } else {
                        x.as_tensor().clone()
                    }
                };
                let copy = backward_total(&arg().apply_op1(Copy).unwrap());
                let twice =
                    backward_total(&arg().apply_op1(Copy).unwrap().apply_op1(Copy).unwrap());
                let spare = scratch_in_all(x.elem_count(), rows_of(&x, *dim));
                assert!(twice > copy + spare, "one more copy would pass");
                for (name, op) in &OPS[..6] {
                    let total = backward_total(&op(&arg(), *dim).unwrap());
                    let label =
                        format!("{name} {shape:?} over {dim}, {dtype:?}, transposed {transposed}");
                    println!(
                        "{label}: {} of {spare} beyond a copy's",
                        total as i64 - copy as i64
                    );
                    assert!(
                        total <= copy + spare,
                        "{label}: {total}, a copy's {copy}, allowed {spare} more"
                    );
                }
            }
        }
    }
}

#[test]
fn backward_of_a_temperature_needs_no_gradient_to_the_logits() {
    let _turn = turn();
    warm_up();
    for (shape, dim) in [SHAPES[1], SHAPES[2], SHAPES[4]] {
        let x = filled(shape, DType::F32);
        let copy = backward_total(&Var::from_tensor(&x).unwrap().apply_op1(Copy).unwrap());
        let mut tau_shape = shape.to_vec();
        tau_shape[dim] = 1;
        let tau =
            Var::from_tensor(&Tensor::full(0.5_f32, tau_shape, &Device::Cpu).unwrap()).unwrap();
        for (name, y) in [
            (
                "tempered_softmax",
                tempered_softmax(&x, tau.as_tensor(), dim),
            ),
            (
                "tempered_log_softmax",
                tempered_log_softmax(&x, tau.as_tensor(), dim),
            ),
            (
                "gumbel_softmax",
                gumbel_softmax(&x, tau.as_tensor(), dim, KEY),
            ),
        ] {
            // the copy's gradient to its input is what is not computed here: candle's zeros and sum of it, and itself
            let total = backward_total(&y.unwrap());
            let allowed = copy - 3 * bytes(&x) + scratch_in_all(x.elem_count(), rows_of(&x, dim));
            println!("{name} {shape:?}: {total} of {allowed}");
            assert!(
                total <= allowed,
                "{name} {shape:?}: {total}, allowed {allowed}"
            );
        }
    }
}

#[test]
fn backward_of_gaussian_allocates_two_gradients() {
    let _turn = turn();
    warm_up();
    let n = 4_000_000;
    let arg = || Var::from_tensor(&filled(&[n], DType::F32)).unwrap();
    let ours = backward_total(&gaussian(arg().as_tensor(), arg().as_tensor(), KEY).unwrap());
    // candle's: zeros and a sum of them for the result and for each argument. The gradient to the mean is the upstream
    // one, handed on, so that only that to log_var is new
    let allowed = 7 * 4 * n + scratch_in_all(0, 0);
    println!("gaussian: {ours} of {allowed}");
    assert!(ours <= allowed, "{ours}, allowed {allowed}");

    let x = Var::from_tensor(&filled(&[4096, 1024], DType::F32)).unwrap();
    let y = Var::from_tensor(&filled(&[4096, 1024], DType::F32)).unwrap();
    let kl = backward_total(&gaussian_kl(x.as_tensor(), y.as_tensor(), 1).unwrap());
    // per argument: the gradient, candle's zeros and their sum
    let allowed = 6 * bytes(&x) + scratch_in_all(x.elem_count(), 4096);
    println!("gaussian_kl: {kl} of {allowed}");
    assert!(kl <= allowed, "{kl}, allowed {allowed}");
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
