//! PTX's types and state spaces.

/// A type suffix of an instruction or declaration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub(crate) enum Ty {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    BF16,
    BF16x2,
    F32,
    F64,
    U16x2,
    S16x2,
    E4M3x2,
    E5M2x2,
}

impl Ty {
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "pred" => Self::Pred,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::BF16,
            "bf16x2" => Self::BF16x2,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "u16x2" => Self::U16x2,
            "s16x2" => Self::S16x2,
            "e4m3x2" => Self::E4M3x2,
            "e5m2x2" => Self::E5M2x2,
            _ => return None,
        })
    }

    /// Size in bytes; predicates have none and count as 1.
    pub fn bytes(self) -> u32 {
        match self {
            Self::Pred | Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16
            | Self::U16
            | Self::S16
            | Self::F16
            | Self::BF16
            | Self::E4M3x2
            | Self::E5M2x2 => 2,
            Self::B32
            | Self::U32
            | Self::S32
            | Self::F32
            | Self::F16x2
            | Self::BF16x2
            | Self::U16x2
            | Self::S16x2 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
            Self::B128 => 16,
        }
    }

    pub fn signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }

    pub fn float(self) -> bool {
        matches!(self, Self::F16 | Self::BF16 | Self::F32 | Self::F64)
    }

    pub fn integer(self) -> bool {
        matches!(
            self,
            Self::U8
                | Self::U16
                | Self::U32
                | Self::U64
                | Self::S8
                | Self::S16
                | Self::S32
                | Self::S64
        )
    }

    /// The register file that holds values of this type.
    pub fn file(self) -> File {
        match self {
            Self::Pred => File::Pred,
            t if t.bytes() == 8 => File::R64,
            _ => File::R32,
        }
    }
}

/// A register file: predicates are bit masks over the lanes, everything up to 32 bits shares one file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum File {
    Pred,
    R32,
    R64,
}

/// A state space.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Space {
    Generic,
    Global,
    Const,
    Shared,
    Local,
    Param,
}

impl Space {
    pub fn parse(s: &str) -> Option<Self> {
        Some(match s {
            "global" => Self::Global,
            "const" => Self::Const,
            "shared" | "shared::cta" => Self::Shared,
            "local" => Self::Local,
            "param" | "param::entry" | "param::func" => Self::Param,
            _ => return None,
        })
    }
}

/// Where shared, local and parameter memory lie in the generic address space. Global (and constant) memory keep their
/// own addresses, far from these windows.
pub(crate) const SHARED_WINDOW: u64 = 0x5000_0000_0000;
pub(crate) const LOCAL_WINDOW: u64 = 0x4000_0000_0000;
pub(crate) const PARAM_WINDOW: u64 = 0x3000_0000_0000;
/// Size of each window: no block or thread has more memory than this in one of them.
pub(crate) const WINDOW_SIZE: u64 = 0x0100_0000_0000;

/// A base-2 floating-point or integer rounding modifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Round {
    /// To nearest, ties to even.
    Near,
    Zero,
    Down,
    Up,
}

impl Round {
    pub fn float(s: &str) -> Option<Self> {
        Some(match s {
            "rn" => Self::Near,
            "rz" => Self::Zero,
            "rm" => Self::Down,
            "rp" => Self::Up,
            _ => return None,
        })
    }

    pub fn integer(s: &str) -> Option<Self> {
        Some(match s {
            "rni" => Self::Near,
            "rzi" => Self::Zero,
            "rmi" => Self::Down,
            "rpi" => Self::Up,
            _ => return None,
        })
    }
}
