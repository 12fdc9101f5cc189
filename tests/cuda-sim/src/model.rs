//! The device that is simulated: its limits, by compute capability, and what one may ask about it.

use crate::config::{self, Config};
use crate::error::{Error, Result};

/// CUDA 13.0, the version of the driver that is simulated.
pub const DRIVER_VERSION: i32 = 13_000;

/// The newest PTX that a driver of this version loads.
pub const PTX_VERSION: (u32, u32) = (9, 0);

const KIB: u32 = 1024;
/// Shared memory that the system keeps of each block, from compute capability 8.0 on.
const RESERVED_SHARED: u32 = KIB;

/// Limits of a device. All are NVIDIA's, from the table of technical specifications per compute capability in the CUDA
/// C++ programming guide; the number of multiprocessors is that of a common device.
#[derive(Clone, Debug)]
pub struct Model {
    pub capability: (u32, u32),
    pub multiprocessors: u32,
    pub threads_per_multiprocessor: u32,
    pub blocks_per_multiprocessor: u32,
    pub shared_per_multiprocessor: u32,
    pub shared_per_block_opt_in: u32,
    pub l2_bytes: u32,
    pub memory: usize,
}

impl Model {
    pub const WARP: u32 = 32;
    pub const THREADS_PER_BLOCK: u32 = 1024;
    pub const BLOCK: [u32; 3] = [1024, 1024, 64];
    pub const GRID: [u32; 3] = [0x7fff_ffff, 65_535, 65_535];
    pub const SHARED_PER_BLOCK: u32 = 48 * KIB;
    pub const REGISTERS_PER_MULTIPROCESSOR: u32 = 65_536;
    /// PTX has as many registers as it likes. This is what occupancy assumes that each thread takes.
    pub const REGISTERS_PER_THREAD: u32 = 32;

    pub fn new(config: &Config) -> Self {
        let capability = config.capability;
        let (multiprocessors, threads, blocks, shared, opt_in, l2_mib) = match capability {
            (..=6, _) => (56, 2048, 32, 64, 48, 4),
            (7, 0..=4) => (80, 2048, 32, 96, 96, 6),
            (7, _) => (72, 1024, 16, 64, 64, 6),
            (8, 0) => (108, 2048, 32, 164, 163, 40),
            (8, 7) => (16, 1536, 16, 164, 163, 4),
            (8, 9) => (128, 1536, 24, 100, 99, 72),
            (8, _) => (84, 1536, 16, 100, 99, 6),
            (9, _) => (132, 2048, 32, 228, 227, 50),
            (10 | 11, _) => (148, 2048, 32, 228, 227, 126),
            _ => (170, 1536, 24, 100, 99, 96),
        };
        Self {
            capability,
            multiprocessors: config.multiprocessors.unwrap_or(multiprocessors),
            threads_per_multiprocessor: threads,
            blocks_per_multiprocessor: blocks,
            shared_per_multiprocessor: shared * KIB,
            shared_per_block_opt_in: opt_in * KIB,
            l2_bytes: l2_mib * KIB * KIB,
            memory: config.memory,
        }
    }

    pub fn name(&self) -> String {
        let (major, minor) = self.capability;
        format!("Simulated CUDA device (compute capability {major}.{minor})")
    }

    /// What the system keeps of each block's shared memory.
    pub fn reserved_shared(&self) -> u32 {
        if self.capability.0 >= 8 {
            RESERVED_SHARED
        } else {
            0
        }
    }

    /// The value of an attribute of cuDeviceGetAttribute.
    pub fn attribute(&self, ordinal: i32, attribute: u32) -> Result<i32> {
        let value = match attribute {
            1 => Self::THREADS_PER_BLOCK,
            2..=4 => Self::BLOCK[attribute as usize - 2],
            5..=7 => Self::GRID[attribute as usize - 5],
            8 => Self::SHARED_PER_BLOCK,
            9 => 64 * KIB, // constant memory
            10 => Self::WARP,
            11 => 0x7fff_ffff,                             // pitch of a copy
            12 | 82 => Self::REGISTERS_PER_MULTIPROCESSOR, // per block, per multiprocessor
            13 => 1_000_000,                               // kHz
            14 => 512,                                     // texture alignment
            15 => 1,                                       // copies beside kernels
            16 => self.multiprocessors,
            19 => 0,                  // host memory cannot be mapped
            20 => 0,                  // any number of contexts
            31 => 1,                  // concurrent kernels
            33 => ordinal as u32 + 1, // PCI bus
            36 => 1_000_000,          // memory kHz
            37 => 4096,               // memory bus bits
            38 => self.l2_bytes,
            39 => self.threads_per_multiprocessor,
            40 => 1, // copy engines
            41 => 1, // unified addressing: no host address is a device address
            75 => self.capability.0,
            76 => self.capability.1,
            78 => 1,      // stream priorities
            79 | 80 => 1, // caches
            81 => self.shared_per_multiprocessor,
            87 => 2, // f32 to f64 speed
            90 => 1, // preemption
            97 => self.shared_per_block_opt_in,
            99 => 1, // host memory may be registered
            106 => self.blocks_per_multiprocessor,
            111 => self.reserved_shared(),
            115 => 1, // stream-ordered allocation
            // Textures, surfaces, managed memory, cooperative launches, clusters, sharing with other processes and with
            // graphics, and every attribute of a newer driver: this device has none of it.
            0 | 200.. => return Err(Error::InvalidValue),
            _ => 0,
        };
        i32::try_from(value).map_err(|_| Error::InvalidValue)
    }
}

/// The model that the environment asks for.
pub fn get() -> &'static Model {
    static MODEL: std::sync::OnceLock<Model> = std::sync::OnceLock::new();
    MODEL.get_or_init(|| Model::new(config::get()))
}

/// Checks a device ordinal.
pub fn ordinal(device: i32) -> Result<i32> {
    if (0..config::get().devices).contains(&device) {
        Ok(device)
    } else {
        Err(Error::InvalidDevice)
    }
}
