//! The cases of an op on the card.

use std::{env, rc::Rc};

use anyhow::{Context, Result};
use candle_core::{DType, Tensor};
use candle_reparam::Rng;

use super::{card::Card, report::CardCase};
use crate::support::{
    duel::{Duel, Routine},
    op::{Op, vars},
    shapes::Shape,
    suite::{Direction, Suite},
};

const DTYPES: [DType; 2] = [DType::F32, DType::BF16];

/// What fills a card, beside the CPU's shapes.
const LARGE: [Shape; 4] = [
    Shape::new(8192, 4096),
    Shape::new(4096, 32_000),
    Shape::new(1024, 131_072),
    Shape::new(65_536, 10),
];

/// The only shapes, where it is set: `8192x4096,64x32000`.
const SHAPES: &str = "REPARAM_BENCH_SHAPES";

/// So many times the cache's size is what the inputs of a case come to, where so many sets of them suffice.
const CACHES: u64 = 4;
const SETS: u64 = 1024;

/// Tensors of the case's shape that the dearest case may keep: two sets of inputs with plain candle's graph of each.
const TENSORS: u64 = 64;

/// Forward, backward and both.
pub fn bench(op: &Op, suite: &mut Suite, shapes: &[Shape]) {
    bench_as(op, suite, shapes, Direction::Forward);
}

/// As [`bench`], with another name for what the op's forward pass is.
pub fn bench_as(op: &Op, suite: &mut Suite, shapes: &[Shape], forward: Direction) {
    let Some(card) = suite.card() else { return };
    let shapes = chosen(shapes).unwrap_or_else(|e| panic!("{SHAPES}: {e:#}"));
    let free = card
        .free_memory()
        .unwrap_or_else(|e| panic!("{}: {e:#}", op.name));
    for shape in shapes {
        for dtype in DTYPES {
            let size = dtype.size_in_bytes() as u64;
            if TENSORS * shape.elements() * size > free {
                println!(
                    "{} {shape} {}: left out, the card's memory is too small",
                    op.name,
                    dtype.as_str()
                );
                continue;
            }
            let mut inputs = Inputs {
                op,
                shape,
                dtype,
                card: card.clone(),
                tensors: None,
                gradient_verified: false,
            };
            let backward = [Direction::Backward, Direction::ForwardBackward];
            let backward = backward.into_iter().filter(|_| op.backward.is_some());
            for direction in [forward].into_iter().chain(backward) {
                let case = CardCase {
                    case: op.case(direction, shape, size),
                    dtype,
                };
                suite.run_on_card(&card, case, || inputs.prepare(direction));
            }
        }
    }
}

fn chosen(shapes: &[Shape]) -> Result<Vec<Shape>> {
    match env::var(SHAPES) {
        Err(env::VarError::NotPresent) => Ok([shapes, &LARGE].concat()),
        text => text?.split(',').map(str::parse).collect(),
    }
}

/// One shape and dtype of an op, made when the first of its cases is picked.
struct Inputs<'a> {
    op: &'a Op,
    shape: Shape,
    dtype: DType,
    card: Rc<Card>,
    tensors: Option<Vec<Tensor>>,
    gradient_verified: bool,
}

impl Inputs<'_> {
    /// Both sides of a case, verified, each with inputs and results enough that none is still in the cache when its turn
    /// comes again.
    fn prepare(&mut self, direction: Direction) -> Result<Prepared> {
        let inputs = self.tensors()?;
        match &self.op.backward {
            Some(backward) if direction != Direction::Forward => {
                if !self.gradient_verified {
                    (backward.verify)(&inputs)?;
                    self.gradient_verified = true;
                }
            }
            _ => (self.op.forward.verify)(&inputs)?,
        }
        let tracked = matches!(direction, Direction::Backward | Direction::ForwardBackward);
        let bytes: usize = inputs
            .iter()
            .map(|t| t.elem_count() * self.dtype.size_in_bytes())
            .sum();
        let sets = (CACHES * self.card.cache()?)
            .div_ceil(bytes as u64)
            .clamp(2, SETS);
        let sets = (0..sets)
            .map(|_| match tracked {
                true => vars(&inputs),
                false => inputs.iter().map(|t| Ok(t.copy()?)).collect(),
            })
            .collect::<Result<Vec<_>>>()?;

        let (fused, keys) = (self.op.fused, Rng::new(1));
        let mut fused = routine(direction, sets.clone(), move |x| fused(x, keys.next_key()))?;
        let fused_enqueue = self.card.enqueue_time(&mut fused)?;
        let plain = routine(direction, sets, self.op.plain).and_then(|mut plain| {
            let enqueue = self.card.enqueue_time(&mut plain)?;
            Ok((plain, enqueue))
        });
        let (plain, plain_enqueue) = match plain {
            Ok((plain, enqueue)) => (Some(plain), Ok(enqueue)),
            // A backtrace may follow.
            Err(error) => (None, Err(error.to_string().lines().take(1).collect())),
        };
        let card = self.card.clone();
        let clock = Box::new(move |iters, routine: &mut Routine| card.time(iters, routine));
        Ok(Prepared {
            duel: Duel::timed_by(clock, fused, plain),
            sides: Sides {
                fused_enqueue,
                plain_enqueue,
            },
        })
    }

    fn tensors(&mut self) -> Result<Vec<Tensor>> {
        if self.tensors.is_none() {
            let tensors = (self.op.inputs)(self.shape)?
                .iter()
                .map(|t| t.to_dtype(self.dtype)?.to_device(&self.card.device()))
                .collect::<candle_core::Result<_>>()?;
            self.tensors = Some(tensors);
        }
        self.tensors.clone().context("made above")
    }
}

/// A case that is ready to be timed.
pub struct Prepared {
    pub duel: Duel,
    pub sides: Sides,
}

/// What is known of the two sides before they are timed.
pub struct Sides {
    /// Seconds that the host needs to enqueue a run.
    pub fused_enqueue: f64,
    /// The same of plain candle, or why plain candle cannot do it.
    pub plain_enqueue: Result<f64, String>,
}

fn routine(
    direction: Direction,
    sets: Vec<Vec<Tensor>>,
    op: impl Fn(&[Tensor]) -> candle_core::Result<Tensor> + 'static,
) -> Result<Routine> {
    Ok(match direction {
        Direction::Forward | Direction::BackwardKernel => in_turn(sets, move |x| op(x)),
        Direction::ForwardBackward => in_turn(sets, move |x| op(x)?.backward()),
        Direction::Backward => {
            let results: Vec<Tensor> = sets
                .iter()
                .map(|x| op(x))
                .collect::<candle_core::Result<_>>()?;
            in_turn(results, Tensor::backward)
        }
    })
}

/// Applies `op` to one item after the other. What it returns lives until the item's next turn, so that the memory of one
/// result is not that of the next.
fn in_turn<I: 'static, O: 'static>(
    items: Vec<I>,
    op: impl Fn(&I) -> candle_core::Result<O> + 'static,
) -> Routine {
    let mut results: Vec<Option<O>> = items.iter().map(|_| None).collect();
    let mut turn = 0;
    Box::new(move || {
        results[turn] = None;
        results[turn] = Some(op(&items[turn])?);
        turn = (turn + 1) % items.len();
        Ok(())
    })
}
