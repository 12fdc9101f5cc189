//! The order in which a function's blocks are laid out, on which divergence and reconvergence rest.
//!
//! A warp whose lanes took different ways always runs the way that is least far in the code, and merges ways that meet
//! (thread frontiers: Diamos et al. 2011). If every block comes before what follows it, back edges of loops aside, and
//! every loop lies in one piece, ways wait at or before the branch's immediate post-dominator until all have come, as on
//! a stack of post-dominators; and code that leaves a loop or a function early meets its fellows sooner than there.

use crate::fault::{Fault, FaultKind};
use crate::ir::{Inst, Op};

struct Block {
    start: usize,
    end: usize,
    successors: Vec<usize>,
    /// The block that follows without a branch.
    falls_to: Option<usize>,
}

/// Splits code into basic blocks. Branch targets are instruction numbers; the number past the end is allowed nowhere.
fn blocks(insts: &[Inst]) -> Result<Vec<Block>, Fault> {
    let n = insts.len();
    let mut leader = vec![false; n + 1];
    leader[0] = true;
    for (i, inst) in insts.iter().enumerate() {
        let mut mark = |t: u32| -> Result<(), Fault> {
            match leader.get_mut(t as usize) {
                Some(l) if (t as usize) < n => {
                    *l = true;
                    Ok(())
                }
                _ => Err(
                    Fault::new(FaultKind::Parse, "a branch to a label past the end")
                        .at_line(inst.line, ""),
                ),
            }
        };
        match &inst.op {
            Op::Bra(t) => mark(*t)?,
            Op::Brx(_, targets) => targets.iter().try_for_each(|&t| mark(t))?,
            Op::Exit | Op::Trap(_) => {}
            _ => continue,
        }
        leader[i + 1] = true;
    }
    let starts: Vec<usize> = (0..n).filter(|&i| leader[i]).collect();
    let block_at = |t: u32| starts.partition_point(|&s| s < t as usize);
    let mut out = Vec::with_capacity(starts.len());
    for (b, &start) in starts.iter().enumerate() {
        let end = starts.get(b + 1).copied().unwrap_or(n);
        let last = &insts[end - 1];
        let guarded = last.guard != crate::ir::P_TRUE || last.negate != 0;
        let next = (b + 1 < starts.len()).then_some(b + 1);
        let (mut successors, falls) = match &last.op {
            Op::Bra(t) => (vec![block_at(*t)], guarded),
            Op::Brx(_, targets) => (targets.iter().map(|&t| block_at(t)).collect(), guarded),
            Op::Exit | Op::Trap(_) => (Vec::new(), guarded),
            _ => (Vec::new(), true),
        };
        let falls_to = if falls { next } else { None };
        if falls && next.is_none() {
            return Err(
                Fault::new(FaultKind::Parse, "the function does not end in a return")
                    .at_line(last.line, ""),
            );
        }
        successors.extend(falls_to);
        successors.dedup();
        out.push(Block {
            start,
            end,
            successors,
            falls_to,
        });
    }
    Ok(out)
}

/// Strongly connected components of a subgraph, in topological order (Tarjan, without recursion).
fn components(
    nodes: &[usize],
    edges: &dyn Fn(usize) -> Vec<usize>,
    size: usize,
) -> Vec<Vec<usize>> {
    const NONE: usize = usize::MAX;
    let mut index = vec![NONE; size];
    let mut low = vec![0; size];
    let mut on_stack = vec![false; size];
    let mut stack = Vec::new();
    let mut out = Vec::new();
    let mut counter = 0;
    for &root in nodes {
        if index[root] != NONE {
            continue;
        }
        let mut work: Vec<(usize, Vec<usize>, usize)> = Vec::new();
        index[root] = counter;
        low[root] = counter;
        counter += 1;
        stack.push(root);
        on_stack[root] = true;
        work.push((root, edges(root), 0));
        while let Some((v, next, at)) = work.last_mut() {
            let v = *v;
            if let Some(&w) = next.get(*at) {
                *at += 1;
                if index[w] == NONE {
                    index[w] = counter;
                    low[w] = counter;
                    counter += 1;
                    stack.push(w);
                    on_stack[w] = true;
                    work.push((w, edges(w), 0));
                } else if on_stack[w] {
                    low[v] = low[v].min(index[w]);
                }
                continue;
            }
            work.pop();
            if let Some((parent, ..)) = work.last() {
                low[*parent] = low[*parent].min(low[v]);
            }
            if low[v] == index[v] {
                let mut component = Vec::new();
                while let Some(w) = stack.pop() {
                    on_stack[w] = false;
                    component.push(w);
                    if w == v {
                        break;
                    }
                }
                out.push(component);
            }
        }
    }
    out.reverse();
    out
}

/// Appends the blocks of a subgraph in layout order. `header`, if any, is the entry of the loop that the subgraph is:
/// edges back to it are left out.
fn order(all: &[Block], nodes: &[usize], header: Option<usize>, out: &mut Vec<usize>) {
    let mut inside = vec![false; all.len()];
    for &n in nodes {
        inside[n] = true;
    }
    let edges = |n: usize| -> Vec<usize> {
        all[n]
            .successors
            .iter()
            .copied()
            .filter(|&s| inside[s] && Some(s) != header)
            .collect()
    };
    for mut component in components(nodes, &edges, all.len()) {
        if component.len() == 1 {
            out.push(component[0]);
            continue;
        }
        component.sort_unstable();
        // The loop's entry: where edges from outside arrive; the first in the text if there are several.
        let entry = component
            .iter()
            .copied()
            .find(|c| {
                nodes
                    .iter()
                    .any(|n| component.binary_search(n).is_err() && all[*n].successors.contains(c))
                    || *c == 0
            })
            .unwrap_or(component[0]);
        // The entry first, so that the search starts there.
        let at = component.iter().position(|&c| c == entry).unwrap_or(0);
        component.swap(0, at);
        order(all, &component, Some(entry), out);
    }
}

/// Lays out code whose branch targets are instruction numbers; the result's targets are numbers in the new order.
pub(crate) fn lay_out(insts: &[Inst]) -> Result<Vec<Inst>, Fault> {
    if insts.is_empty() {
        return Err(Fault::new(
            FaultKind::Parse,
            "a function without instructions",
        ));
    }
    let blocks = blocks(insts)?;
    let mut reached = vec![false; blocks.len()];
    let mut work = vec![0];
    while let Some(b) = work.pop() {
        if !std::mem::replace(&mut reached[b], true) {
            work.extend(&blocks[b].successors);
        }
    }
    let nodes: Vec<usize> = (0..blocks.len()).filter(|&b| reached[b]).collect();
    let mut sequence = Vec::with_capacity(nodes.len());
    order(&blocks, &nodes, None, &mut sequence);

    let mut out = Vec::with_capacity(insts.len() + 16);
    let mut position = vec![u32::MAX; blocks.len()];
    for (i, &b) in sequence.iter().enumerate() {
        position[b] = out.len() as u32;
        let block = &blocks[b];
        for inst in &insts[block.start..block.end] {
            let mut inst = inst.clone();
            let to_block = |t: u32| blocks.partition_point(|x| x.start < t as usize) as u32;
            match &mut inst.op {
                Op::Bra(t) => *t = to_block(*t),
                Op::Brx(_, targets) => targets.iter_mut().for_each(|t| *t = to_block(*t)),
                _ => {}
            }
            out.push(inst);
        }
        if let Some(next) = block.falls_to
            && sequence.get(i + 1) != Some(&next)
        {
            let line = out.last().map_or(0, |x| x.line);
            out.push(Inst {
                op: Op::Bra(next as u32),
                guard: crate::ir::P_TRUE,
                negate: 0,
                line,
                class: crate::counters::Class::Control,
            });
        }
    }
    for inst in &mut out {
        match &mut inst.op {
            Op::Bra(t) => *t = position[*t as usize],
            Op::Brx(_, targets) => targets.iter_mut().for_each(|t| *t = position[*t as usize]),
            _ => {}
        }
    }
    Ok(out)
}
