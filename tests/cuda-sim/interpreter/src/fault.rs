//! What went wrong, where: every error of this crate is a [`Fault`].

use std::fmt;
use std::ops::Deref;

/// The kind of a [`Fault`], for programs; the message is for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FaultKind {
    /// The PTX text is not well formed.
    Parse,
    /// An instruction, modifier, special register or directive that is not implemented.
    Unsupported,
    /// No function or variable of that name.
    UnknownSymbol,
    /// A launch outside the device's limits, or with the wrong parameters.
    InvalidLaunch,
    /// No memory left in the simulated address space.
    OutOfMemory,
    /// `free` of an address that is not the start of a live allocation.
    InvalidFree,
    /// An access outside every live allocation, or outside shared, local or parameter space.
    OutOfBounds,
    /// An access to an allocation that was freed.
    UseAfterFree,
    /// An address that is not a multiple of the access's size.
    Misaligned,
    /// A read of bytes that nothing wrote.
    Uninitialised,
    /// A write to constant memory.
    ReadOnly,
    /// Two threads of a block touch one byte of shared memory, one writes, no barrier between.
    SharedRace,
    /// Two blocks of a launch touch one byte of global memory, one writes it non-atomically.
    GlobalRace,
    /// A barrier that not all threads reach, or reached by part of a warp.
    Barrier,
    /// A `.sync` mask that names a lane that does not arrive, or not the lane that executes.
    SyncMask,
    /// `trap`, a failed device assertion, or falling off the end of a function.
    Trap,
    /// A block ran for more instructions than the limit: probably an endless loop.
    StepLimit,
}

/// An allocation as named in a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AllocationInfo {
    /// First address.
    pub base: u64,
    /// Size in bytes.
    pub size: usize,
    /// Number of the allocation, counted from 1.
    pub serial: u64,
    /// Name of the module-scope variable it holds, if it holds one.
    pub name: Option<String>,
}

/// Everything known about a fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FaultDetail {
    /// What kind of fault.
    pub kind: FaultKind,
    /// One sentence on what happened.
    pub message: String,
    /// The kernel that ran, or the function that was decoded.
    pub kernel: Option<String>,
    /// Block index.
    pub block: Option<[u32; 3]>,
    /// Thread index within the block.
    pub thread: Option<[u32; 3]>,
    /// Line in the PTX text, counted from 1.
    pub line: Option<u32>,
    /// That line.
    pub text: Option<String>,
    /// Device address.
    pub address: Option<u64>,
    /// The allocation that the address belongs or is nearest to.
    pub allocation: Option<AllocationInfo>,
}

/// An error of the simulated device. Dereferences to [`FaultDetail`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault(Box<FaultDetail>);

impl Fault {
    /// A fault with a message and nothing else known yet.
    pub fn new(kind: FaultKind, message: impl Into<String>) -> Self {
        Self(Box::new(FaultDetail {
            kind,
            message: message.into(),
            kernel: None,
            block: None,
            thread: None,
            line: None,
            text: None,
            address: None,
            allocation: None,
        }))
    }

    /// Fills in the line and its text, unless a line is known already.
    #[must_use]
    pub(crate) fn at_line(mut self, line: u32, text: &str) -> Self {
        if self.0.line.is_none() {
            self.0.line = Some(line);
            self.0.text = Some(text.trim().to_owned());
        }
        self
    }

    /// Fills in the text of a line that is known by its number alone.
    #[must_use]
    pub(crate) fn with_text<'t>(mut self, text: impl Fn(u32) -> &'t str) -> Self {
        if let (Some(line), Some("") | None) = (self.0.line, self.0.text.as_deref()) {
            self.0.text = Some(text(line).trim().to_owned());
        }
        self
    }

    #[must_use]
    pub(crate) fn in_kernel(mut self, name: &str) -> Self {
        self.0.kernel.get_or_insert_with(|| name.to_owned());
        self
    }

    #[must_use]
    pub(crate) fn at_block(mut self, block: [u32; 3]) -> Self {
        self.0.block.get_or_insert(block);
        self
    }

    #[must_use]
    pub(crate) fn at_thread(mut self, thread: [u32; 3]) -> Self {
        self.0.thread.get_or_insert(thread);
        self
    }

    #[must_use]
    pub(crate) fn at_address(mut self, address: u64) -> Self {
        self.0.address.get_or_insert(address);
        self
    }

    #[must_use]
    pub(crate) fn in_allocation(mut self, info: AllocationInfo) -> Self {
        self.0.allocation.get_or_insert(info);
        self
    }
}

impl Deref for Fault {
    type Target = FaultDetail;

    fn deref(&self) -> &FaultDetail {
        &self.0
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.kind, self.message)?;
        if let Some(kernel) = &self.kernel {
            write!(f, "\n  in {kernel}")?;
        }
        if let Some([x, y, z]) = self.block {
            write!(f, ", block ({x}, {y}, {z})")?;
        }
        if let Some([x, y, z]) = self.thread {
            write!(f, ", thread ({x}, {y}, {z})")?;
        }
        if let (Some(line), Some(text)) = (self.line, &self.text) {
            write!(f, "\n  at PTX line {line}: {text}")?;
        }
        if let Some(address) = self.address {
            write!(f, "\n  address {address:#x}")?;
        }
        if let Some(a) = &self.allocation {
            write!(f, "\n  allocation {}", a.serial)?;
            if let Some(name) = &a.name {
                write!(f, " ({name})")?;
            }
            write!(f, ": {} bytes at {:#x}", a.size, a.base)?;
            if let Some(address) = self.address {
                let offset = i128::from(address) - i128::from(a.base);
                write!(f, ", offset {offset}")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Fault {}
