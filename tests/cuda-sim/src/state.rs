//! All that the driver holds: contexts and what was made in them.

use std::cell::Cell;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Instant;

use crate::config;
use crate::error::{Error, Result};
use crate::handles::{Handle, Table, lock};
use crate::model;
use crate::process;
use crate::report;
use crate::sim::{Function, Memory, Module};

/// The driver's state. There is one address space for all devices, as unified addressing has it.
pub struct State {
    pub memory: Arc<Memory>,
    pub contexts: Table<Context>,
    pub streams: Table<Stream>,
    pub events: Table<Event>,
    pub modules: Table<LoadedModule>,
    pub kernels: Table<Kernel>,
    pub pools: Table<Pool>,
    /// The primary context of each device, and how often it is retained.
    pub primary: Mutex<HashMap<i32, (Handle, usize)>>,
    /// Device memory by address.
    pub allocations: Mutex<BTreeMap<u64, Allocation>>,
    /// Host memory that the driver allocated or registered, by address.
    pub host: Mutex<BTreeMap<usize, HostBlock>>,
    /// One kernel runs at a time: the interpreter uses all processors for it.
    pub engine: Mutex<()>,
    pub used_bytes: AtomicUsize,
}

/// A context: what a device does on behalf of this process.
pub struct Context {
    pub device: i32,
    pub primary: bool,
    pub flags: AtomicU32,
    /// The error that made this context useless, as on a device.
    pub sticky: Mutex<Option<Error>>,
    pub limits: Mutex<HashMap<u32, usize>>,
    pub cache_config: AtomicU32,
    pub number: u64,
    /// The default streams: work without a stream, and work of a thread without a stream.
    pub legacy_stream: Arc<Stream>,
}

/// A stream. Work is done when it is submitted, so that a stream has nothing to wait for.
pub struct Stream {
    pub context: u64,
    pub flags: u32,
    pub priority: i32,
    pub number: u64,
}

/// An event, and when it was recorded.
pub struct Event {
    pub context: u64,
    pub timed: bool,
    pub recorded: Mutex<Option<Instant>>,
}

/// A module, and the handles that were given out for its functions.
pub struct LoadedModule {
    pub context: u64,
    pub module: Arc<Module>,
    pub kernels: Mutex<HashMap<String, Handle>>,
}

/// A function of a module.
pub struct Kernel {
    pub context: u64,
    pub function: Arc<Function>,
    pub module: Handle,
    /// The name with its zero byte, for cuFuncGetName.
    pub c_name: std::ffi::CString,
    /// Dynamic shared memory that a launch may ask for.
    pub dynamic_shared_limit: AtomicU32,
    pub carveout: AtomicI32,
}

/// A memory pool. Nothing is kept back in it: freed memory is free at once, so that its use is found.
pub struct Pool {
    pub device: i32,
    pub default: bool,
    pub attributes: Mutex<HashMap<u32, u64>>,
}

/// A piece of device memory.
#[derive(Clone, Copy)]
pub struct Allocation {
    pub bytes: usize,
    pub context: u64,
    pub number: u64,
}

/// A piece of host memory that the driver knows.
pub struct HostBlock {
    pub bytes: usize,
    pub flags: u32,
    /// Owned by the driver, unless it was only registered.
    pub owned: Option<std::alloc::Layout>,
}

/// The driver's state.
pub fn get() -> &'static State {
    static STATE: OnceLock<State> = OnceLock::new();
    STATE.get_or_init(|| {
        process::at_exit();
        process::keep_freed_memory();
        State {
            memory: Arc::new(Memory::new()),
            contexts: Table::new(),
            streams: Table::new(),
            events: Table::new(),
            modules: Table::new(),
            kernels: Table::new(),
            pools: Table::new(),
            primary: Mutex::default(),
            allocations: Mutex::default(),
            host: Mutex::default(),
            engine: Mutex::default(),
            used_bytes: AtomicUsize::new(0),
        }
    })
}

/// A thread's stack of contexts; the topmost is current. Made of cells, with nothing to drop: the destructors of other
/// thread-local variables call the driver too, and may run after a destructor of this one would have.
struct Stack {
    depth: Cell<usize>,
    handles: [Cell<Handle>; Stack::DEPTH],
}

impl Stack {
    const DEPTH: usize = 64;
}

thread_local! {
    static CURRENT: Stack = const {
        Stack { depth: Cell::new(0), handles: [const { Cell::new(0) }; Stack::DEPTH] }
    };
}

/// The context that is current in this thread, whatever state it is in; null if there is none.
pub fn current_handle() -> Handle {
    CURRENT.with(|stack| match stack.depth.get() {
        0 => 0,
        depth => stack.handles[depth - 1].get(),
    })
}

/// Makes a context current in this thread, in place of the topmost; null takes that away.
pub fn set_current(handle: Handle) -> Result {
    pop_current();
    if handle == 0 {
        Ok(())
    } else {
        push_current(handle)
    }
}

pub fn push_current(handle: Handle) -> Result {
    CURRENT.with(|stack| {
        let depth = stack.depth.get();
        stack
            .handles
            .get(depth)
            .ok_or(Error::OutOfMemory)?
            .set(handle);
        stack.depth.set(depth + 1);
        Ok(())
    })
}

pub fn pop_current() -> Option<Handle> {
    CURRENT.with(|stack| {
        let depth = stack.depth.get().checked_sub(1)?;
        stack.depth.set(depth);
        Some(stack.handles[depth].get())
    })
}

/// The context that is current in this thread, for work: it must exist, and no fault must have ended it.
pub fn current() -> Result<Arc<Context>> {
    let context = current_in_any_state()?;
    match *lock(&context.sticky) {
        Some(error) => Err(error),
        None => Ok(Arc::clone(&context)),
    }
}

/// The context that is current in this thread, even if a fault ended it.
pub fn current_in_any_state() -> Result<Arc<Context>> {
    match current_handle() {
        0 => Err(Error::InvalidContext),
        handle => get().contexts.get(handle).ok_or(Error::ContextIsDestroyed),
    }
}

fn number() -> u64 {
    static NEXT: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

impl Context {
    pub fn new(device: i32, primary: bool, flags: u32) -> Self {
        let context = number();
        Self {
            device,
            primary,
            flags: AtomicU32::new(flags),
            sticky: Mutex::new(None),
            limits: Mutex::default(),
            cache_config: AtomicU32::new(0),
            number: context,
            legacy_stream: Arc::new(Stream::new(context, 0, 0)),
        }
    }

    /// Takes note of the error that ends this context's use; the first one stays.
    pub fn note(&self, error: Error) {
        lock(&self.sticky).get_or_insert(error);
    }
}

impl Pool {
    pub fn new(device: i32, default: bool) -> Self {
        Self {
            device,
            default,
            attributes: Mutex::default(),
        }
    }
}

impl Stream {
    pub fn new(context: u64, flags: u32, priority: i32) -> Self {
        Self {
            context,
            flags,
            priority,
            number: number(),
        }
    }
}

impl State {
    /// A stream of a context by its handle; null, 1 and 2 name default streams.
    pub fn stream(&self, handle: Handle) -> Result<Arc<Stream>> {
        match handle {
            0..=2 => Ok(Arc::clone(&current()?.legacy_stream)),
            _ => self.streams.get(handle).ok_or(Error::InvalidHandle),
        }
    }

    /// Checks what every call that submits work to a stream needs: a usable context and a stream of one.
    pub fn submit(&self, stream: Handle) -> Result<Arc<Context>> {
        let context = current()?;
        self.stream(stream)?;
        Ok(context)
    }

    /// Takes a share in a device's primary context, which the first share makes.
    pub fn retain_primary(&self, device: i32) -> Handle {
        let mut primary = lock(&self.primary);
        let (handle, shares) = primary
            .entry(device)
            .or_insert_with(|| (self.contexts.insert(Context::new(device, true, 0)), 0));
        *shares += 1;
        *handle
    }

    /// Ends a context and what was made in it.
    pub fn destroy_context(&self, handle: Handle) -> Result {
        let context = self.contexts.remove(handle).ok_or(Error::InvalidContext)?;
        let gone = context.number;
        self.streams.retain(|stream| stream.context != gone);
        self.events.retain(|event| event.context != gone);
        self.kernels.retain(|kernel| kernel.context != gone);
        self.modules.retain(|module| module.context != gone);
        let left: Vec<u64> = {
            let allocations = lock(&self.allocations);
            let of_context = allocations
                .iter()
                .filter(|(_, piece)| piece.context == gone);
            report::leaks("when its context ended", of_context.clone());
            of_context.map(|(&address, _)| address).collect()
        };
        for address in left {
            self.release(address)?;
        }
        Ok(())
    }

    /// Device memory; as many bytes as the device has, and no more.
    pub fn allocate(&self, context: &Context, bytes: usize) -> Result<u64> {
        let total = model::get().memory;
        let taken = self.used_bytes.fetch_add(bytes, Ordering::Relaxed);
        if taken.checked_add(bytes).is_none_or(|sum| sum > total) {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            report::note(format_args!(
                "out of memory: {bytes} bytes asked for, {taken} of {total} in use (CUDA_SIM_MEMORY sets the size)"
            ));
            return Err(Error::OutOfMemory);
        }
        let address = self.memory.alloc(bytes).map_err(|fault| {
            self.used_bytes.fetch_sub(bytes, Ordering::Relaxed);
            report::fault("allocation", &fault)
        })?;
        if !config::get().checks {
            // Then what nothing wrote is as good as anything else.
            self.memory
                .fill(address, 0, bytes)
                .map_err(|fault| report::fault("allocation", &fault))?;
        }
        let piece = Allocation {
            bytes,
            context: context.number,
            number: number(),
        };
        lock(&self.allocations).insert(address, piece);
        Ok(address)
    }

    /// Gives device memory back.
    pub fn release(&self, address: u64) -> Result {
        let Some(piece) = lock(&self.allocations).remove(&address) else {
            report::problem(format_args!(
                "free of {address:#x}, which is not the start of an allocation: never allocated, or freed already"
            ));
            return Err(Error::InvalidValue);
        };
        self.used_bytes.fetch_sub(piece.bytes, Ordering::Relaxed);
        self.memory
            .free(address)
            .map_err(|fault| report::fault("free", &fault))
    }

    /// The allocation that holds an address, with its start.
    pub fn allocation(&self, address: u64) -> Option<(u64, Allocation)> {
        let allocations = lock(&self.allocations);
        let (&start, &piece) = allocations.range(..=address).next_back()?;
        (address - start < piece.bytes as u64).then_some((start, piece))
    }
}
