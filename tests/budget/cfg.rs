//! A kernel's control flow, and on it the hot path: the cheapest path on which the promised work is done.
//!
//! Nothing is marked by hand. On the graph of basic blocks, loops are natural loops, and one trip through a loop, or the
//! way from the entry to an exit, is a path in the graph without the edges that lead back. Of all such paths that one
//! counts
//! - which makes the most accesses of the promised width (which rules out edges of a tensor and what is not aligned),
//! - and of those, the cheapest that leaves no work out. Work is code of which at least a third handles data, that is,
//!   what those loads brought or random words; it may not be passed by where the way round makes as many accesses. This
//!   rules out combinations of branches that no thread takes, such as a group that is loaded, and then taken for one past
//!   the end.
//!
//! A branch that looks at data itself - a word so small that it is refined, a bound that a score undercuts, a NaN - is
//! taken to the cheaper side: what lies behind it counts as no data. Instructions under a predicate count whether it holds
//! or not, since they are issued.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use anyhow::{Result, bail};

use crate::sass::{Access, Function, Instruction, REGISTERS};

/// Bytes of an access that is promised.
#[derive(Clone, Copy, Debug)]
pub struct Widths {
    pub load: u32,
    pub store: u32,
}

/// What a path costs and what it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub instructions: u32,
    pub wide: u32,
    pub mufu: u32,
    /// Instructions of the special functions' pipe, MUFU among them.
    pub special: u32,
    pub fp64: u32,
    /// Accesses to global memory of the promised width, and all others.
    pub loads: u32,
    pub stores: u32,
    pub other: u32,
}

impl Counts {
    fn add(self, b: Self) -> Self {
        Self {
            instructions: self.instructions + b.instructions,
            wide: self.wide + b.wide,
            mufu: self.mufu + b.mufu,
            special: self.special + b.special,
            fp64: self.fp64 + b.fp64,
            loads: self.loads + b.loads,
            stores: self.stores + b.stores,
            other: self.other + b.other,
        }
    }
}

/// One trip through a loop, or the way from the entry to an exit.
pub struct Path {
    /// Where the loop's header lies; nothing for the way through the kernel.
    pub header: Option<u32>,
    pub counts: Counts,
    /// How often each opcode is issued, the most frequent first.
    pub opcodes: Vec<(String, u32)>,
    /// The addresses of the blocks that it consists of, first and last instruction.
    pub blocks: Vec<(u32, u32)>,
    /// Headers of the loops that may run after this one, without another turn of a loop around both.
    pub before: Vec<u32>,
}

/// How an instruction hands on.
enum Flow {
    Next,
    /// To these labels, or on to the next instruction if `falls`.
    Jump {
        falls: bool,
    },
    /// To where the barrier was set up for.
    Sync {
        falls: bool,
    },
    Exit {
        falls: bool,
    },
}

fn flow(i: &Instruction) -> Flow {
    let guarded = i.guard.is_some();
    match i.base() {
        // Taken by warps whose threads have parted, which those of a hot path have not.
        "BRA" if i.has("DIV") || i.has("CONV") => Flow::Next,
        "BRA" | "JMP" | "BRX" | "JMX" => Flow::Jump {
            falls: guarded || i.reads.iter().any(|&r| r >= 512),
        },
        // A call of a label inside the kernel is a jump; one of a routine with a name comes back.
        "CALL" if i.labels.iter().any(|l| l.starts_with(".L")) => Flow::Jump { falls: guarded },
        "BSYNC" => Flow::Sync { falls: guarded },
        "EXIT" | "RET" | "KILL" => Flow::Exit { falls: guarded },
        _ => Flow::Next,
    }
}

#[derive(Default)]
struct Block {
    first: usize,
    /// One past the last instruction.
    end: usize,
    next: BTreeSet<usize>,
    exits: bool,
}

/// The blocks that an entry reaches, in an order in which every edge that does not lead back leads forward.
struct Graph<'a> {
    code: &'a [Instruction],
    blocks: Vec<Block>,
    loops: Vec<Loop>,
    /// The smallest loop around each block.
    innermost: Vec<Option<usize>>,
}

struct Loop {
    header: usize,
    body: BTreeSet<usize>,
}

impl<'a> Graph<'a> {
    fn new(function: &'a Function, entry: usize) -> Result<Self> {
        let blocks = reachable_blocks(function, entry)?;
        let mut this = Self {
            code: &function.code,
            loops: vec![],
            innermost: vec![None; blocks.len()],
            blocks,
        };
        this.find_loops();
        Ok(this)
    }

    fn predecessors(&self) -> Vec<Vec<usize>> {
        let mut result = vec![vec![]; self.blocks.len()];
        for (at, block) in self.blocks.iter().enumerate() {
            for &next in &block.next {
                result[next].push(at);
            }
        }
        result
    }

    fn find_loops(&mut self) {
        let before = self.predecessors();
        let next: Vec<Vec<usize>> = self
            .blocks
            .iter()
            .map(|b| b.next.iter().copied().collect())
            .collect();
        let above = dominators(0, &next);
        // Dominators have smaller numbers, which are a reverse postorder.
        let dominates = |a: usize, mut b: usize| {
            while b > a {
                b = above[b];
            }
            a == b
        };
        let mut bodies: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
        for latch in 0..self.blocks.len() {
            for &header in self.blocks[latch]
                .next
                .iter()
                .filter(|&&next| dominates(next, latch))
            {
                let body = bodies.entry(header).or_default();
                body.insert(header);
                let mut pending = vec![latch];
                while let Some(at) = pending.pop() {
                    if body.insert(at) {
                        pending.extend(&before[at]);
                    }
                }
            }
        }
        self.loops = bodies
            .into_iter()
            .map(|(header, body)| Loop { header, body })
            .collect();
        for at in 0..self.blocks.len() {
            let around = (0..self.loops.len()).filter(|&l| self.loops[l].body.contains(&at));
            self.innermost[at] = around.min_by_key(|&l| self.loops[l].body.len());
        }
    }

    fn instructions(&self, block: usize) -> &'a [Instruction] {
        &self.code[self.blocks[block].first..self.blocks[block].end]
    }

    /// For each instruction whether it works on data: on what loads of the promised width brought, on random words, or on
    /// shared memory, through which data is reduced. And which registers may hold data at the end, if `before` do at first.
    fn data(
        &self,
        function: &'a Function,
        widths: Widths,
        before: &Tainted,
    ) -> Result<(Vec<bool>, Tainted)> {
        let mut data = vec![false; self.code.len()];
        let mut tainted = vec![before.clone(); self.blocks.len()];
        for block in &mut tainted[1..] {
            block.fill(false);
        }
        let mut at_exit = vec![false; REGISTERS];
        let mut routines: BTreeMap<usize, Graph> = BTreeMap::new();
        let mut pending: BTreeSet<usize> = (0..self.blocks.len()).collect();
        while let Some(at) = pending.pop_first() {
            let mut state = tainted[at].clone();
            for (i, flag) in self
                .instructions(at)
                .iter()
                .zip(&mut data[self.blocks[at].first..])
            {
                let source = i.is_philox()
                    || i.base() == "LDS"
                    || i.global_access() == Some((Access::Load, widths.load));
                *flag = source || i.reads.iter().any(|&r| state[usize::from(r)]);
                for &result in &i.writes {
                    let kept = i.guard.is_some() && state[usize::from(result)];
                    state[usize::from(result)] = *flag || kept;
                }
                if let Some(entry) = routine(function, i) {
                    // Its results lie where the data of others did before.
                    if let Entry::Vacant(new) = routines.entry(entry) {
                        new.insert(Graph::new(function, entry)?);
                    }
                    let after = routines[&entry].data(function, widths, &state)?.1;
                    state = if i.guard.is_some() {
                        joined(&state, &after)
                    } else {
                        after
                    };
                }
            }
            for &next in &self.blocks[at].next {
                let both = joined(&tainted[next], &state);
                if both != tainted[next] {
                    tainted[next] = both;
                    pending.insert(next);
                }
            }
            if self.blocks[at].exits {
                at_exit = joined(&at_exit, &state);
            }
        }
        Ok((data, at_exit))
    }

    /// The blocks that run or not depending on data.
    fn depend_on_data(&self, data: &[bool]) -> Vec<bool> {
        // On the graph turned round, from an exit behind all others, a block's dominator is where its ways join again.
        let count = self.blocks.len();
        let mut turned = self.predecessors();
        turned.push((0..count).filter(|&at| self.blocks[at].exits).collect());
        let join = dominators(count, &turned);
        let mut result = vec![false; count];
        for (at, block) in self.blocks.iter().enumerate() {
            let branch = block.end - 1;
            let ways = block.next.len() + usize::from(block.exits);
            if ways < 2 || !data[branch] {
                continue;
            }
            let mut pending: Vec<usize> = block
                .next
                .iter()
                .copied()
                .filter(|&next| next > at)
                .collect();
            let join = join[at];
            while let Some(at) = pending.pop() {
                if at != join && !result[at] {
                    result[at] = true;
                    pending.extend(self.blocks[at].next.iter().filter(|&&next| next > at));
                }
            }
        }
        result
    }
}

/// Whether each register may hold data.
type Tainted = Vec<bool>;

fn joined(a: &Tainted, b: &Tainted) -> Tainted {
    a.iter().zip(b).map(|(a, b)| a | b).collect()
}

/// Where the routine that a call comes back from begins.
fn routine(function: &Function, i: &Instruction) -> Option<usize> {
    let name = i
        .labels
        .first()
        .filter(|l| i.base() == "CALL" && !l.starts_with(".L"))?;
    function.labels.get(name).copied()
}

/// Cuts the code into blocks and numbers those that `entry` reaches in reverse postorder.
fn reachable_blocks(function: &Function, entry: usize) -> Result<Vec<Block>> {
    let code = &function.code;
    let place = |label: &String| match function.labels.get(label) {
        Some(&at) if at < code.len() => Ok(at),
        _ => bail!("{}: no code at {label}", function.name),
    };
    let mut starts: BTreeSet<usize> = function
        .labels
        .values()
        .copied()
        .filter(|&at| at < code.len())
        .collect();
    starts.insert(entry);
    for (at, i) in code.iter().enumerate() {
        if !matches!(flow(i), Flow::Next) && at + 1 < code.len() {
            starts.insert(at + 1);
        }
    }
    let end_of = |start: usize| {
        starts
            .range(start + 1..)
            .next()
            .copied()
            .unwrap_or(code.len())
    };

    // Where a barrier leads is known only from the instructions on the way to it, so edges and barriers are found together.
    type Barriers = BTreeMap<String, BTreeSet<usize>>;
    let mut found: HashMap<usize, (Block, Barriers)> = HashMap::new();
    found.insert(entry, (Block::default(), Barriers::new()));
    let mut pending = vec![entry];
    while let Some(start) = pending.pop() {
        let end = end_of(start);
        let mut barriers = found[&start].1.clone();
        for i in code[start..end].iter().filter(|i| i.base() == "BSSY") {
            if let (Some(name), Some(label)) = (i.operands.first(), i.labels.first()) {
                barriers.insert(name.clone(), BTreeSet::from([place(label)?]));
            }
        }
        let last = &code[end - 1];
        let (mut next, mut exits) = (BTreeSet::new(), false);
        let falls = match flow(last) {
            Flow::Next => true,
            Flow::Jump { falls } => {
                for label in &last.labels {
                    next.insert(place(label)?);
                }
                falls
            }
            Flow::Sync { falls } => match last.operands.first().and_then(|name| barriers.get(name))
            {
                Some(targets) => {
                    next.extend(targets);
                    falls
                }
                None => true,
            },
            Flow::Exit { falls } => {
                exits = true;
                falls
            }
        };
        if falls {
            if end == code.len() {
                bail!("{}: control runs past the end", function.name);
            }
            next.insert(end);
        }
        for &next in &next {
            let new = !found.contains_key(&next);
            let known = &mut found.entry(next).or_default().1;
            let mut grew = new;
            for (name, targets) in &barriers {
                let known = known.entry(name.clone()).or_default();
                let before = known.len();
                known.extend(targets);
                grew |= known.len() > before;
            }
            if grew {
                pending.push(next);
            }
        }
        found.entry(start).or_default().0 = Block {
            first: start,
            end,
            next,
            exits,
        };
    }

    let order = reverse_postorder(entry, |start| {
        found[&start].0.next.iter().copied().collect()
    });
    let number: HashMap<usize, usize> = order
        .iter()
        .enumerate()
        .map(|(n, &start)| (start, n))
        .collect();
    let mut blocks = vec![];
    for start in &order {
        let mut block = found
            .remove(start)
            .map(|(block, _)| block)
            .unwrap_or_default();
        block.next = block.next.iter().map(|next| number[next]).collect();
        blocks.push(block);
    }
    Ok(blocks)
}

fn reverse_postorder(root: usize, next: impl Fn(usize) -> Vec<usize>) -> Vec<usize> {
    let mut order = vec![];
    let mut seen = BTreeSet::from([root]);
    let mut stack = vec![(root, next(root))];
    while let Some((node, ahead)) = stack.last_mut() {
        match ahead.pop() {
            Some(to) if seen.insert(to) => stack.push((to, next(to))),
            Some(_) => {}
            None => {
                order.push(*node);
                stack.pop();
            }
        }
    }
    order.reverse();
    order
}

const UNKNOWN: usize = usize::MAX;

/// The immediate dominator of each node that `root` reaches (Cooper, Harvey and Kennedy 2001); the root's is itself.
fn dominators(root: usize, next: &[Vec<usize>]) -> Vec<usize> {
    let order = reverse_postorder(root, |node| next[node].clone());
    let mut place = vec![UNKNOWN; next.len()];
    let mut before = vec![vec![]; next.len()];
    for (at, &node) in order.iter().enumerate() {
        place[node] = at;
        for &to in &next[node] {
            before[to].push(node);
        }
    }
    let mut above = vec![UNKNOWN; next.len()];
    above[root] = root;
    let mut changed = true;
    while changed {
        changed = false;
        for &node in &order[1..] {
            let mut meet = UNKNOWN;
            for &from in before[node].iter().filter(|&&from| above[from] != UNKNOWN) {
                let (mut a, mut b) = (from, if meet == UNKNOWN { from } else { meet });
                while a != b {
                    if place[a] > place[b] {
                        a = above[a];
                    } else {
                        b = above[b];
                    }
                }
                meet = a;
            }
            changed |= meet != above[node];
            above[node] = meet;
        }
    }
    above
}

/// A path's worth while it is searched: accesses of the promised width; and instructions on data, each counted `WORK` times,
/// less all instructions.
type Worth = (u32, i64);

/// Code is work where at least one instruction in so many handles data. A reduction through shared memory, half of which is
/// finding places, is; reading a row's own temperature and dividing by it is not.
const WORK: i64 = 3;

/// The kernel's paths that make accesses of the promised `widths`: a trip through each loop that holds some of its own,
/// and the way from the entry to an exit if there are some outside of all loops.
pub fn hot_paths(function: &Function, widths: Widths) -> Result<Vec<Path>> {
    let graph = Graph::new(function, 0)?;
    let (data, _) = graph.data(function, widths, &vec![false; REGISTERS])?;
    let rare = graph.depend_on_data(&data);
    let mut calls = BTreeMap::new();
    let costs = (0..graph.blocks.len())
        .map(|at| graph.cost(function, at, widths, &mut calls))
        .collect::<Result<Vec<_>>>()?;

    let levels = (0..graph.loops.len()).map(Some).chain([None]);
    let mut paths = vec![];
    for level in levels {
        let own = |at: usize| graph.innermost[at] == level;
        let accesses = |at: usize| costs[at].loads + costs[at].stores;
        if !(0..graph.blocks.len()).any(|at| own(at) && accesses(at) > 0) {
            continue;
        }
        let worth = |at: usize| {
            let handled = data[graph.blocks[at].first..graph.blocks[at].end]
                .iter()
                .filter(|&&d| d)
                .count() as i64;
            let cost = i64::from(costs[at].instructions);
            // Beside a wide access under a predicate there may be a branch around the narrow ones that take its place.
            let narrow = costs[at].other > 0 && accesses(at) == 0;
            match own(at) {
                true if rare[at] || narrow => (accesses(at), -cost),
                true => (accesses(at), WORK * handled - cost),
                false => (0, -cost),
            }
        };
        let blocks = graph.best_path(level, worth);
        let counts = blocks
            .iter()
            .map(|&at| costs[at])
            .fold(Counts::default(), Counts::add);
        if counts.loads + counts.stores == 0 {
            continue;
        }
        let start = level.map_or(0, |l| graph.loops[l].header);
        let ahead = graph.reachable(start);
        let later = graph
            .loops
            .iter()
            .filter(|l| l.header != start && ahead.contains(&l.header));
        let mut opcodes: BTreeMap<String, u32> = BTreeMap::new();
        for i in blocks.iter().flat_map(|&at| graph.instructions(at)) {
            *opcodes.entry(i.opcode.clone()).or_default() += 1;
        }
        let mut opcodes: Vec<_> = opcodes.into_iter().collect();
        opcodes.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let address = |at: usize| graph.code[at].address;
        paths.push(Path {
            header: level.map(|_| address(graph.blocks[start].first)),
            before: later
                .map(|l| address(graph.blocks[l.header].first))
                .collect(),
            counts,
            opcodes,
            blocks: blocks
                .iter()
                .map(|&at| {
                    (
                        address(graph.blocks[at].first),
                        address(graph.blocks[at].end - 1),
                    )
                })
                .collect(),
        });
    }
    Ok(paths)
}

impl Graph<'_> {
    fn cost(
        &self,
        function: &Function,
        block: usize,
        widths: Widths,
        calls: &mut BTreeMap<usize, Counts>,
    ) -> Result<Counts> {
        let mut sum = Counts::default();
        for i in self.instructions(block) {
            sum.instructions += 1;
            sum.wide += u32::from(i.is_wide_multiply());
            sum.mufu += u32::from(i.is_mufu());
            sum.special += u32::from(i.is_special());
            sum.fp64 += u32::from(i.is_fp64());
            match i.global_access() {
                Some((Access::Load, bytes)) if bytes == widths.load => sum.loads += 1,
                Some((Access::Store, bytes)) if bytes == widths.store => sum.stores += 1,
                Some(_) => sum.other += 1,
                None => {}
            }
            if let Some(entry) = routine(function, i) {
                sum = sum.add(routine_cost(function, entry, widths, calls)?);
            }
        }
        Ok(sum)
    }

    /// The blocks that lie ahead of one, with no way back.
    fn reachable(&self, from: usize) -> BTreeSet<usize> {
        let mut ahead = BTreeSet::from([from]);
        for at in from..self.blocks.len() {
            if ahead.contains(&at) {
                ahead.extend(self.blocks[at].next.iter().filter(|&&next| next > at));
            }
        }
        ahead
    }

    /// From a loop's header to an edge back to it, or from the entry to an exit.
    fn best_path(&self, level: Option<usize>, worth: impl Fn(usize) -> Worth) -> Vec<usize> {
        let inside = |at: usize| level.is_none_or(|l| self.loops[l].body.contains(&at));
        let start = level.map_or(0, |l| self.loops[l].header);
        let ends = |at: usize| match level {
            Some(l) => self.blocks[at].next.contains(&self.loops[l].header),
            None => self.blocks[at].exits,
        };
        let mut best: Vec<Option<(Worth, usize)>> = vec![None; self.blocks.len()];
        best[start] = Some((worth(start), start));
        for at in start..self.blocks.len() {
            let Some((so_far, _)) = best[at] else {
                continue;
            };
            for &next in self.blocks[at]
                .next
                .iter()
                .filter(|&&next| next > at && inside(next))
            {
                let more = worth(next);
                let sum = (so_far.0 + more.0, so_far.1 + more.1);
                if best[next].is_none_or(|(old, _)| sum > old) {
                    best[next] = Some((sum, at));
                }
            }
        }
        let end = (0..self.blocks.len())
            .filter(|&at| inside(at) && ends(at))
            .filter_map(|at| Some((best[at]?.0, at)))
            .max();
        let mut path = vec![];
        if let Some((_, mut at)) = end {
            path.push(at);
            while let Some((_, from)) = best[at].filter(|&(_, from)| from != at) {
                path.push(from);
                at = from;
            }
        }
        path.reverse();
        path
    }
}

/// The cheapest way through a routine that the compiler put out of line.
fn routine_cost(
    function: &Function,
    entry: usize,
    widths: Widths,
    calls: &mut BTreeMap<usize, Counts>,
) -> Result<Counts> {
    if let Some(&known) = calls.get(&entry) {
        return Ok(known);
    }
    // Against routines that call each other.
    calls.insert(entry, Counts::default());
    let graph = Graph::new(function, entry)?;
    let costs = (0..graph.blocks.len())
        .map(|at| graph.cost(function, at, widths, calls))
        .collect::<Result<Vec<_>>>()?;
    let path = graph.best_path(None, |at| (0, -i64::from(costs[at].instructions)));
    let cost = path
        .iter()
        .map(|&at| costs[at])
        .fold(Counts::default(), Counts::add);
    calls.insert(entry, cost);
    Ok(cost)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sass;

    /// A function of these lines; those that end in a colon are labels.
    fn function(lines: &[&str]) -> Function {
        let mut listing =
            "\t.section\t.text.fixture_f32,\"ax\",@progbits\n.text.fixture_f32:\n".to_owned();
        let mut address = 0;
        for line in lines {
            if line.ends_with(':') {
                listing += &format!("{line}\n");
            } else {
                listing += &format!("        /*{address:04x}*/  {line} ;\n");
                address += 16;
            }
        }
        sass::parse(&listing).unwrap().remove(0)
    }

    const WIDE: Widths = Widths {
        load: 16,
        store: 16,
    };

    fn paths(lines: &[&str]) -> Vec<Path> {
        hot_paths(&function(lines), WIDE).unwrap()
    }

    fn the_path(lines: &[&str]) -> Counts {
        let paths = paths(lines);
        assert_eq!(
            paths.len(),
            1,
            "paths from {:?}",
            paths.iter().map(|p| p.header).collect::<Vec<_>>()
        );
        paths[0].counts
    }

    #[test]
    fn a_straight_line() {
        let counts = the_path(&[
            "S2R R0, SR_TID.X",
            "IMAD.WIDE.U32 R2, R0, 0x10, R6",
            "LDG.E.128 R4, [R2.64]",
            "MUFU.EX2 R4, R4",
            "@P0 FADD R4, R4, R5",
            "I2F.U32 R9, R8",
            "DADD R10, R10, R12",
            "STG.E.128 [R2.64], R4",
            "STG.E [R2.64+0x10], R4",
            "EXIT",
        ]);
        let expected = Counts {
            instructions: 10,
            wide: 1,
            mufu: 1,
            special: 2,
            fp64: 1,
            loads: 1,
            stores: 1,
            other: 1,
        };
        assert_eq!(counts, expected);
    }

    #[test]
    fn wide_accesses_before_cheap_instructions() {
        // The scalar way round is shorter, and makes no wide access.
        let counts = the_path(&[
            "ISETP.NE.AND P0, PT, RZ, UR4, PT",
            "@P0 BRA `(.L_x_0)",
            "LDG.E R4, [R2.64]",
            "BRA `(.L_x_1)",
            ".L_x_0:",
            "NOP",
            "NOP",
            "NOP",
            "LDG.E.128 R4, [R2.64]",
            ".L_x_1:",
            "EXIT",
        ]);
        assert_eq!((counts.instructions, counts.loads, counts.other), (7, 1, 0));
    }

    #[test]
    fn branches_on_data_are_taken_to_the_cheaper_side() {
        // A bound that a score undercuts, a word that is refined: neither side is work.
        for source in [
            "LDG.E.128 R4, [R2.64]",
            "IMAD.WIDE.U32 R4, R3, -0x2daee0ad, RZ",
        ] {
            let counts = the_path(&[
                "LDG.E.128 R8, [R2.64]",
                source,
                "ISETP.GT.U32.AND P0, PT, R4, 0xff, PT",
                "BSSY B0, `(.L_x_1)",
                "@P0 BRA `(.L_x_0)",
                "FADD R4, R4, R8",
                "FADD R4, R4, R8",
                ".L_x_0:",
                "BSYNC B0",
                ".L_x_1:",
                "EXIT",
            ]);
            assert_eq!(counts.instructions, 7, "after {source}");
        }
    }

    #[test]
    fn a_group_that_was_loaded_is_not_left_out() {
        // Both branches look at the thread's place. No thread loads the group and then takes it for one past the end.
        let counts = the_path(&[
            "ISETP.GE.AND P0, PT, R0, UR4, PT",
            "@P0 BRA `(.L_x_0)",
            "LDG.E.128 R4, [R2.64]",
            ".L_x_0:",
            "ISETP.GE.AND P1, PT, R0, UR4, PT",
            "@P1 BRA `(.L_x_1)",
            "IMAD.WIDE.U32 R8, R3, -0x2daee0ad, RZ",
            "FADD R4, R4, R8",
            ".L_x_1:",
            "STG.E.128 [R2.64], R4",
            "EXIT",
        ]);
        assert_eq!((counts.instructions, counts.wide), (9, 1));
    }

    #[test]
    fn narrow_stores_in_place_of_a_wide_one() {
        let counts = the_path(&[
            "LDG.E.128 R4, [R2.64]",
            "@!P3 STG.E.128 [R2.64], R4",
            "@!P3 BRA `(.L_x_0)",
            "STG.E [R2.64], R4",
            "STG.E [R2.64+0x4], R5",
            ".L_x_0:",
            "EXIT",
        ]);
        assert_eq!(
            (counts.instructions, counts.stores, counts.other),
            (4, 1, 0)
        );
    }

    const UNROLLED: [&str; 17] = [
        "S2R R0, SR_TID.X",
        "@P2 BRA `(.L_x_2)",
        ".L_x_1:",
        "LDG.E.128 R4, [R2.64]",
        "LDG.E.128 R8, [R2.64+0x10]",
        "FADD R20, R20, R4",
        "FADD R20, R20, R8",
        "IADD3 R2, R2, 0x20, RZ",
        "@P0 BRA `(.L_x_1)",
        ".L_x_2:",
        "LDG.E.128 R4, [R2.64]",
        "FADD R20, R20, R4",
        "IADD3 R2, R2, 0x10, RZ",
        "@P1 BRA `(.L_x_2)",
        "STG.E [R6.64], R20",
        ".L_x_3:",
        "EXIT",
    ];

    #[test]
    fn every_loop_is_a_path() {
        let paths = paths(&UNROLLED);
        let found: Vec<_> = paths
            .iter()
            .map(|p| (p.header, p.counts.loads, p.counts.instructions))
            .collect();
        assert_eq!(found, [(Some(0x20), 2, 6), (Some(0x80), 1, 4)]);
        assert_eq!(paths[0].before, [0x80], "the second comes after the first");
        assert!(paths[1].before.is_empty());
    }

    #[test]
    fn inner_loops_and_rows() {
        // A loop over rows, each held in registers: its trip is the path, and the loop inside is passed at its cheapest.
        let paths = paths(&[
            "MOV R0, RZ",
            ".L_x_0:",
            "LDG.E.128 R4, [R2.64]",
            ".L_x_1:",
            "SHFL.BFLY PT, R5, R4, R9, 0x1f",
            "@P1 BRA `(.L_x_1)",
            "STG.E.128 [R2.64], R4",
            "@P0 BRA `(.L_x_0)",
            "EXIT",
        ]);
        let found: Vec<_> = paths
            .iter()
            .map(|p| (p.header, p.counts.instructions))
            .collect();
        assert_eq!(found, [(Some(0x10), 5)]);
    }

    #[test]
    fn barriers_lead_where_they_were_set_up_for() {
        // Two barriers of one name, one after the other, and one behind which the code goes on elsewhere.
        let counts = the_path(&[
            "BSSY.RECONVERGENT B0, `(.L_x_1)",
            "LDG.E.128 R4, [R2.64]",
            "BSYNC.RECONVERGENT B0",
            ".L_x_0:",
            "NOP",
            "NOP",
            "EXIT",
            ".L_x_1:",
            "BSSY B0, `(.L_x_2)",
            "BSYNC B0",
            ".L_x_2:",
            "EXIT",
        ]);
        assert_eq!(counts.instructions, 6);
    }

    #[test]
    fn calls_cost_what_the_routine_does_at_its_cheapest() {
        let counts = the_path(&[
            "LDG.E.128 R4, [R2.64]",
            "MOV R10, 0x30",
            "CALL.REL.NOINC `($__internal_0_$__division)",
            "EXIT",
            "$__internal_0_$__division:",
            "ISETP.GT.U32.AND P1, PT, R4, RZ, PT",
            "@P1 BRA `(.L_x_0)",
            "MUFU.RCP R4, R4",
            "MUFU.RCP R4, R4",
            "MUFU.RCP R4, R4",
            ".L_x_0:",
            "MUFU.RSQ R4, R4",
            "RET.REL.NODEC R10 `(fixture_f32)",
        ]);
        assert_eq!((counts.instructions, counts.mufu), (4 + 4, 1));
    }

    #[test]
    fn results_of_routines_are_not_what_lay_there_before() {
        // R4 held data before the call, and an index after it: the branch is not one on data, and its work is not left out.
        let counts = the_path(&[
            "LDG.E.128 R4, [R2.64]",
            "STG.E.128 [R2.64], R4",
            "CALL.REL.NOINC `($__internal_0_$__division)",
            "ISETP.GE.AND P0, PT, R4, UR4, PT",
            "@P0 BRA `(.L_x_0)",
            "IMAD.WIDE.U32 R8, R3, -0x2daee0ad, RZ",
            ".L_x_0:",
            "EXIT",
            "$__internal_0_$__division:",
            "MOV R4, R10",
            "RET.REL.NODEC R10 `(fixture_f32)",
        ]);
        assert_eq!((counts.instructions, counts.wide), (7 + 2, 1));
    }

    #[test]
    fn jumps_of_other_kinds() {
        // A call of a label in the kernel is a jump, warps that have parted are not on a hot path, and an indirect
        // branch has its targets beside it.
        let counts = the_path(&[
            "BRA.DIV UR4, `(.L_x_9)",
            "BRX R2 -0x10 (*\"BRANCH_TARGETS .L_x_0,.L_x_1\"*)",
            ".L_x_0:",
            "LDG.E.128 R4, [R2.64]",
            "@P0 CALL.REL.NOINC `(.L_x_2)",
            "NOP",
            ".L_x_1:",
            "NOP",
            ".L_x_2:",
            "@P3 EXIT",
            "BRA.U UP0, `(.L_x_3)",
            "NOP",
            ".L_x_3:",
            "EXIT",
            ".L_x_9:",
            "LDG.E.128 R4, [R2.64]",
            "LDG.E.128 R4, [R2.64]",
            "BRA `(.L_x_0)",
        ]);
        assert_eq!((counts.instructions, counts.loads), (5, 1));
    }

    #[test]
    fn broken_listings() {
        assert!(
            hot_paths(&function(&["BRA `(.L_x_7)"]), WIDE).is_err(),
            "a label that is nowhere"
        );
        assert!(
            hot_paths(&function(&["NOP", "NOP"]), WIDE).is_err(),
            "no end"
        );
    }
}
