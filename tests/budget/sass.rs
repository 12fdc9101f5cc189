//! nvdisasm's listing as instructions: what each one reads, writes and costs.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail};

/// The two multipliers of Philox4x32: a value that went through one of them is a random word.
const PHILOX: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];

/// A register, uniform register, predicate or uniform predicate, numbered in one space.
pub type Register = u16;
pub const REGISTERS: usize = 528;

pub struct Instruction {
    pub address: u32,
    /// The predicate it runs under, and whether that has to be false.
    pub guard: Option<(Register, bool)>,
    /// With its modifiers: `LDG.E.128`.
    pub opcode: String,
    pub operands: Vec<String>,
    /// Labels that it names.
    pub labels: Vec<String>,
    pub reads: Vec<Register>,
    pub writes: Vec<Register>,
}

/// An entry function, with the out-of-line routines that it calls.
pub struct Function {
    pub name: String,
    pub code: Vec<Instruction>,
    /// Where in `code` a label stands.
    pub labels: BTreeMap<String, usize>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    Load,
    Store,
}

impl Instruction {
    fn parse(line: &str) -> Result<Self> {
        let bad = || format!("not an instruction: {line}");
        let (address, rest) = line
            .trim()
            .strip_prefix("/*")
            .and_then(|l| l.split_once("*/"))
            .with_context(bad)?;
        let address = u32::from_str_radix(address, 16).with_context(bad)?;
        let text = rest
            .split(';')
            .next()
            .unwrap_or("")
            .trim()
            .trim_start_matches('{')
            .trim();
        let (guard, text) = match text.strip_prefix('@') {
            Some(guarded) => {
                let (guard, text) = guarded.split_once(char::is_whitespace).with_context(bad)?;
                let name = guard.trim_start_matches('!');
                // `@PT` always holds; `@!PT` never does, but the instruction is issued all the same.
                (
                    register(name).map(|r| (r, guard.starts_with('!'))),
                    text.trim(),
                )
            }
            None => (None, text),
        };
        let (opcode, operands) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        let opcode = opcode.to_owned();
        let labels = labels(operands);
        let operands: Vec<String> = operands
            .split(',')
            .map(|o| o.trim().to_owned())
            .filter(|o| !o.is_empty())
            .collect();
        let mut this = Self {
            address,
            guard,
            opcode,
            operands,
            labels,
            reads: vec![],
            writes: vec![],
        };
        this.find_registers();
        Ok(this)
    }

    /// `LDG` of `LDG.E.128`.
    pub fn base(&self) -> &str {
        self.opcode.split('.').next().unwrap_or("")
    }

    pub fn has(&self, modifier: &str) -> bool {
        self.opcode.split('.').skip(1).any(|m| m == modifier)
    }

    fn width(&self) -> u32 {
        let widths = [
            ("256", 32),
            ("128", 16),
            ("64", 8),
            ("U16", 2),
            ("S16", 2),
            ("16", 2),
            ("U8", 1),
            ("S8", 1),
        ];
        widths
            .iter()
            .find(|(name, _)| self.has(name))
            .map_or(4, |&(_, bytes)| bytes)
    }

    /// A read or write of global memory, and its bytes per thread.
    pub fn global_access(&self) -> Option<(Access, u32)> {
        match self.base() {
            // Generic accesses count as global ones: no kernel takes a pointer to anything else.
            "LDG" | "LD" | "LDGSTS" => Some((Access::Load, self.width())),
            "STG" | "ST" | "RED" | "REDG" | "ATOM" | "ATOMG" => Some((Access::Store, self.width())),
            _ => None,
        }
    }

    /// Of the thread's own memory: spills, and arrays that did not fit into registers.
    pub fn is_local(&self) -> bool {
        matches!(self.base(), "LDL" | "STL")
    }

    pub fn is_fp64(&self) -> bool {
        match self.base() {
            "DADD" | "DMUL" | "DFMA" | "DSETP" | "DMNMX" | "DMMA" => true,
            "MUFU" => self.has("RCP64H") || self.has("RSQ64H"),
            "F2F" | "I2F" | "F2I" | "FRND" => self.has("F64"),
            _ => false,
        }
    }

    /// A multiply with a 64-bit result or the upper half of one. The uniform ones run beside and are not counted.
    pub fn is_wide_multiply(&self) -> bool {
        self.base() == "IMAD" && (self.has("WIDE") || self.has("HI"))
    }

    pub fn is_mufu(&self) -> bool {
        self.base() == "MUFU"
    }

    /// Takes the narrow pipe of the special functions, which conversions share.
    pub fn is_special(&self) -> bool {
        matches!(
            self.base(),
            "MUFU" | "I2F" | "F2I" | "F2F" | "FRND" | "POPC" | "FLO" | "BREV"
        )
    }

    /// Multiplies by a constant of Philox.
    pub fn is_philox(&self) -> bool {
        self.operands.iter().any(|operand| {
            let (negative, digits) = operand
                .strip_prefix('-')
                .map_or((false, operand.as_str()), |d| (true, d));
            let value = digits
                .strip_prefix("0x")
                .and_then(|d| u32::from_str_radix(d, 16).ok());
            value.is_some_and(|v| PHILOX.contains(&if negative { v.wrapping_neg() } else { v }))
        })
    }

    /// Works on pairs of registers throughout.
    fn is_paired(&self) -> bool {
        match self.base() {
            "FADD2" | "FMUL2" | "FFMA2" => true,
            "IADD" | "UIADD" | "IADD3" | "UIADD3" | "MOV" | "UMOV" => self.has("64"),
            base => base.starts_with('D') && self.is_fp64(),
        }
    }

    fn find_registers(&mut self) {
        let stores = [
            "ST", "RED", "BRA", "EXIT", "BS", "BAR", "WARPSYNC", "MEMBAR", "CALL", "RET", "NOP",
            "BRX", "YIELD",
        ]
        .iter()
        .chain(&[
            "JM",
            "BREAK",
            "BMOV",
            "DEPBAR",
            "ERRBAR",
            "CCTL",
            "NANOSLEEP",
            "BPT",
            "KILL",
            "ARRIVES",
            "LDGDEPBAR",
        ])
        .chain(&["UST", "ACQBULK", "FENCE", "SYNCS", "USETMAXREG"])
        .any(|prefix| self.base().starts_with(prefix))
            && self.base() != "REDUX";
        let mut results = usize::from(!stores && !self.operands.is_empty());
        if results > 0 {
            // Predicates that follow the first result are results too: comparisons have two, sums up to two carries.
            let predicate = |o: Option<&String>| o.is_some_and(|o| is_predicate(o));
            let most = if self.base().starts_with("VOTE") {
                2
            } else {
                3
            };
            let most = if predicate(self.operands.first()) {
                2
            } else {
                most
            };
            // Those whose main result comes second, after a predicate.
            let second = matches!(
                self.base(),
                "SHFL" | "LOP3" | "ULOP3" | "ATOM" | "ATOMG" | "ATOMS" | "ELECT" | "MATCH"
            );
            while results < most && results + 1 < self.operands.len() {
                let behind_predicate = second && results == 1 && predicate(self.operands.first());
                if !(predicate(self.operands.get(results)) || behind_predicate) {
                    break;
                }
                results += 1;
            }
        }
        let (mut reads, mut writes) = (BTreeSet::new(), BTreeSet::new());
        reads.extend(self.guard.map(|(r, _)| r));
        for (position, operand) in self.operands.iter().enumerate() {
            if position < results {
                writes.extend(spread(operand, self.result_registers()));
            } else {
                reads.extend(spread(operand, self.source_registers(position)));
            }
        }
        self.reads = reads.into_iter().collect();
        self.writes = writes.into_iter().collect();
    }

    fn result_registers(&self) -> u16 {
        match self.base() {
            "LDG" | "LD" | "LDS" | "LDC" | "ULDC" | "LDCU" | "LDL" => {
                self.width().div_ceil(4) as u16
            }
            "IMAD" | "UIMAD" if self.has("WIDE") => 2,
            "CS2R" if !self.has("32") => 2,
            // The result's type comes first.
            "F2F" if self.opcode.starts_with("F2F.F64") => 2,
            "I2F" if self.has("F64") => 2,
            "F2I" if self.has("S64") || self.has("U64") => 2,
            _ if self.is_paired() => 2,
            _ => 1,
        }
    }

    fn source_registers(&self, position: usize) -> u16 {
        match self.base() {
            "STG" | "ST" | "STS" if position > 0 => self.width().div_ceil(4) as u16,
            "IMAD" | "UIMAD" if self.has("WIDE") && position + 1 == self.operands.len() => 2,
            "F2F" if self.has("F64") && !self.opcode.starts_with("F2F.F64") => 2,
            "F2I" if self.has("F64") => 2,
            "I2F" if self.has("S64") || self.has("U64") => 2,
            _ if self.is_paired() => 2,
            _ => 1,
        }
    }
}

fn is_predicate(operand: &str) -> bool {
    matches!(operand, "PT" | "UPT") || register(operand).is_some_and(|r| r >= 512)
}

/// `R7`, `UR7`, `P3`, `UP3`; nothing for those that are constant (`RZ`, `PT`) and for what is no register.
fn register(name: &str) -> Option<Register> {
    let number = |prefix: &str, below: u16, from: u16| {
        name.strip_prefix(prefix)
            .and_then(|n| n.parse::<u16>().ok())
            .filter(|&n| n < below)
            .map(|n| n + from)
    };
    number("R", 256, 0)
        .or_else(|| number("UR", 256, 256))
        .or_else(|| number("P", 8, 512))
        .or_else(|| number("UP", 8, 520))
}

/// The registers that an operand names; `count` neighbours each where it is no address.
fn spread(operand: &str, count: u16) -> Vec<Register> {
    let mut found = vec![];
    for token in operand.split(|c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '_')) {
        let mut parts = token.split('.');
        let Some(first) = parts.next().and_then(register) else {
            continue;
        };
        let pair = parts.any(|part| part == "64");
        let count = if first >= 512 {
            1
        } else if operand.contains('[') {
            1 + u16::from(pair)
        } else {
            count
        };
        found.extend(first..first + count);
    }
    found
}

fn labels(operands: &str) -> Vec<String> {
    let named = operands
        .split("`(")
        .skip(1)
        .filter_map(|part| part.split(')').next());
    // Of an indirect branch: (*"BRANCH_TARGETS .L_x_1,.L_x_2"*)
    let listed = operands
        .split("BRANCH_TARGETS")
        .skip(1)
        .flat_map(|part| part.split('"').next().unwrap_or("").split(','));
    named
        .chain(listed)
        .map(|label| label.trim().to_owned())
        .collect()
}

/// The entry functions of a listing made with `nvdisasm -c`.
pub fn parse(listing: &str) -> Result<Vec<Function>> {
    let mut functions: Vec<Function> = vec![];
    let mut inside = false;
    for line in listing.lines() {
        let trimmed = line.trim();
        if let Some((".section", section)) = trimmed.split_once(char::is_whitespace) {
            let name = section.trim().split(',').next().unwrap_or("");
            inside = false;
            if let Some(name) = name.strip_prefix(".text.") {
                inside = true;
                functions.push(Function {
                    name: name.to_owned(),
                    code: vec![],
                    labels: BTreeMap::new(),
                });
            }
        } else if let (true, Some(function)) = (inside, functions.last_mut()) {
            if trimmed.starts_with("/*") {
                function.code.push(
                    Instruction::parse(line).with_context(|| format!("in {}", function.name))?,
                );
            } else if let Some(label) = trimmed.strip_suffix(':') {
                function
                    .labels
                    .insert(label.to_owned(), function.code.len());
            }
        }
    }
    if functions.is_empty() || functions.iter().any(|f| f.code.is_empty()) {
        bail!("the listing holds no function, or one without code");
    }
    Ok(functions)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Instruction {
        Instruction::parse(&format!("        /*0250*/  {text} ;")).unwrap()
    }

    fn names(registers: &[Register]) -> Vec<String> {
        let name = |&r: &Register| match r {
            0..256 => format!("R{r}"),
            256..512 => format!("UR{}", r - 256),
            512..520 => format!("P{}", r - 512),
            _ => format!("UP{}", r - 520),
        };
        registers.iter().map(name).collect()
    }

    #[test]
    fn registers_read_and_written() {
        let cases = [
            (
                "LDG.E.128.CONSTANT R4, desc[UR10][R22.64+0x10]",
                "R4 R5 R6 R7",
                "R22 R23 UR10",
            ),
            ("STG.E.64 desc[UR4][R2.64], R8", "", "R2 R3 R8 R9 UR4"),
            (
                "@!P1 IMAD.WIDE.U32 R34, R36.reuse, -0x326172a9, R2",
                "R34 R35",
                "R2 R3 R36 P1",
            ),
            (
                "ISETP.GE.U32.AND P0, PT, R21.reuse, UR6, PT",
                "P0",
                "R21 UR6",
            ),
            ("IADD3 R0, P1, R30, 0x4, RZ", "R0 P1", "R30"),
            ("IADD3.X R2, R25, UR15, RZ, P2, !PT", "R2", "R25 UR15 P2"),
            ("LOP3.LUT P0, RZ, R4, 0xff, RZ, 0xc0, !PT", "P0", "R4"),
            ("LOP3.LUT P0, R7, R4, 0xff, RZ, 0xc0, !PT", "R7 P0", "R4"),
            ("VOTE.ANY R3, PT, P2", "R3", "P2"),
            ("SHFL.BFLY PT, R3, R0, 0x8, 0x1f", "R3", "R0"),
            ("DFMA R4, R2, R6, -R8", "R4 R5", "R2 R3 R6 R7 R8 R9"),
            ("SEL R0, R3, R2, P0", "R0", "R2 R3 P0"),
            ("LDC.64 R8, c[0x0][0x228]", "R8 R9", ""),
            ("STS [R5+0x10], R9", "", "R5 R9"),
            ("F2F.F32.F64 R23, R22", "R23", "R22 R23"),
            ("F2F.F64.F32 R6, R22", "R6 R7", "R22"),
            ("FCHK P0, R2, R3", "P0", "R2 R3"),
            ("REDUX.MAX UR4, R2", "UR4", "R2"),
            ("FFMA2 R2, R4, R6, R8", "R2 R3", "R4 R5 R6 R7 R8 R9"),
            ("@P0 BRA P1, `(.L_x_3)", "", "P0 P1"),
        ];
        for (text, writes, reads) in cases {
            let instruction = one(text);
            assert_eq!(
                names(&instruction.writes).join(" "),
                writes,
                "results of {text}"
            );
            assert_eq!(
                names(&instruction.reads).join(" "),
                reads,
                "sources of {text}"
            );
        }
    }

    #[test]
    fn accesses_and_kinds() {
        assert_eq!(
            one("LDG.E.128.CONSTANT R4, desc[UR10][R22.64]").global_access(),
            Some((Access::Load, 16))
        );
        assert_eq!(
            one("LDG.E.U16 R4, [R22.64]").global_access(),
            Some((Access::Load, 2))
        );
        assert_eq!(
            one("STG.E desc[UR4][R2.64], R8").global_access(),
            Some((Access::Store, 4))
        );
        assert_eq!(
            one("LDG.E.LTC128B R4, [R22.64]").global_access(),
            Some((Access::Load, 4)),
            "a prefetch size is no width"
        );
        assert_eq!(one("LDS.128 R4, [R22]").global_access(), None);
        assert!(one("STL.64 [R1], R4").is_local());
        for fp64 in [
            "DADD R2, R4, R6",
            "F2F.F64.F32 R2, R5",
            "MUFU.RCP64H R3, R5",
            "I2F.F64.U32 R2, R3",
            "DSETP.GEU.AND P0, PT, R2, R4, PT",
        ] {
            assert!(one(fp64).is_fp64(), "{fp64}");
        }
        for other in [
            "FADD R2, R4, R6",
            "MUFU.RCP R3, R5",
            "IMAD.WIDE R2, R3, R4, R6",
            "SHF.R.S64 R8, R8, 0x2, R3",
            "I2FP.F32.U32 R2, R3",
        ] {
            assert!(!one(other).is_fp64(), "{other}");
        }
        assert!(one("IMAD.WIDE.U32 R2, R3, R4, RZ").is_wide_multiply());
        assert!(one("IMAD.HI.U32 R2, R3, R4, RZ").is_wide_multiply());
        assert!(!one("IMAD.MOV.U32 R2, RZ, RZ, R4").is_wide_multiply());
        assert!(!one("UIMAD.WIDE.U32 UR8, UR5, UR6, URZ").is_wide_multiply());
        assert!(one("IMAD.WIDE.U32 R2, R3, -0x2daee0ad, RZ").is_philox());
        assert!(one("IMAD.WIDE.U32 R2, R3, 0xcd9e8d57, RZ").is_philox());
        assert!(!one("IMAD.WIDE.U32 R2, R3, 0x10, RZ").is_philox());
        assert!(one("I2F.U32 R2, R3").is_special() && !one("I2FP.F32.U32 R2, R3").is_special());
    }

    #[test]
    fn labels_of_branches() {
        assert_eq!(one("@P0 BRA `(.L_x_12)").labels, [".L_x_12"]);
        assert_eq!(
            one("BRX R2 -0x10 (*\"BRANCH_TARGETS .L_x_1,.L_x_2\"*)").labels,
            [".L_x_1", ".L_x_2"]
        );
        let call = one("CALL.REL.NOINC `($__internal_0_$__cuda_sm20_rcp_rn_f32_slowpath)");
        assert_eq!(
            call.labels,
            ["$__internal_0_$__cuda_sm20_rcp_rn_f32_slowpath"]
        );
    }

    #[test]
    fn sections_and_labels() {
        let listing = "\t.section\t.text.a_f32,\"ax\",@progbits\n\t.sectionflags\t@\"SHF_BARRIERS=1\"\n        .size  a_f32,(.L_x_9 - a_f32)\na_f32:\n.text.a_f32:\n  /*0000*/  NOP ;\n\
                       .L_x_0:\n  /*0010*/  EXIT ;\n\t.section\t.nv.info.a,\"\"\n\t.section\t.text.b_f32,\"ax\"\n  /*0000*/  @P0 EXIT ;\n";
        let functions = parse(listing).unwrap();
        assert_eq!(
            functions
                .iter()
                .map(|f| (f.name.as_str(), f.code.len()))
                .collect::<Vec<_>>(),
            [("a_f32", 2), ("b_f32", 1)]
        );
        assert_eq!(functions[0].labels[".L_x_0"], 1);
        assert_eq!(functions[1].code[0].guard, Some((512, false)));
        assert!(parse("nothing here").is_err());
    }
}
