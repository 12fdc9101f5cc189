//! A CUDA device as a bench sees it: its clock, its caches, and what it can copy.

use std::{
    cell::OnceCell,
    env,
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use candle_core::{
    CudaDevice, Device,
    cuda_backend::cudarc::driver::{
        CudaContext, CudaStream, DriverError,
        sys::{CUdevice_attribute, CUevent_flags, CUresult},
    },
};

use crate::support::{duel::Routine, timing::Spread};

/// What the run was built with: the bundle's `run.sh` says so, where there is no nvcc to ask.
const TOOLKIT: &str = "REPARAM_TOOLKIT";

pub struct Card {
    device: CudaDevice,
    stream: Arc<CudaStream>,
    context: Arc<CudaContext>,
    conditions: OnceCell<Conditions>,
}

/// What the figures were taken on.
pub struct Conditions {
    pub name: String,
    pub driver: String,
    /// MHz, while the card copies.
    pub sm_clock: String,
    pub memory_clock: String,
    pub toolkit: String,
    pub date: String,
    /// Bytes per second, read and written together, of a copy that no cache can hold.
    pub copy: f64,
}

impl Card {
    /// Device 0, or None where there is no device; says which.
    pub fn find() -> Result<Option<Self>> {
        let count = match CudaContext::device_count() {
            Err(DriverError(CUresult::CUDA_ERROR_NO_DEVICE)) => 0,
            count => count.context("CUDA's driver does not start")?,
        };
        if count == 0 {
            println!("CUDA: no device");
            return Ok(None);
        }
        let device = Device::new_cuda(0)?.as_cuda_device()?.clone();
        let stream = device.cuda_stream();
        let card = Self {
            context: stream.context().clone(),
            stream,
            device,
            conditions: OnceCell::new(),
        };
        println!("CUDA: {}", card.context.name()?);
        Ok(Some(card))
    }

    pub fn device(&self) -> Device {
        Device::Cuda(self.device.clone())
    }

    /// Bytes of the last level of cache.
    pub fn cache(&self) -> Result<u64> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE;
        Ok(u64::try_from(self.context.attribute(attribute)?)?)
    }

    pub fn free_memory(&self) -> Result<u64> {
        // What was freed counts as free when the work that used it is done.
        self.stream.synchronize()?;
        Ok(self.context.mem_get_info()?.0 as u64)
    }

    /// The device's own time for `iters` runs.
    ///
    /// One more run goes before them, untimed: what the driver does after each wait (it gives unused memory back, which the
    /// next allocations then have to map again) is over when the first event is recorded, and the device has work while the
    /// host enqueues what is timed.
    pub fn time(&self, iters: u64, routine: &mut Routine) -> Result<Duration> {
        routine()?;
        let timed = Some(CUevent_flags::CU_EVENT_DEFAULT);
        let start = self.stream.record_event(timed)?;
        for _ in 0..iters {
            routine()?;
        }
        let end = self.stream.record_event(timed)?;
        Ok(Duration::from_secs_f64(
            f64::from(start.elapsed_ms(&end)?) * 1e-3,
        ))
    }

    /// Seconds that the host needs to enqueue a run: an upper bound of what it costs, and where the device is not slower,
    /// what the case is bound by. Warms up, too.
    pub fn enqueue_time(&self, routine: &mut Routine) -> Result<f64> {
        /// Few enough that the device's queue takes them all, whatever the op launches.
        const RUNS: u32 = 4;
        let mut best = Duration::MAX;
        for _ in 0..3 {
            let start = Instant::now();
            for _ in 0..RUNS {
                routine()?;
            }
            best = best.min(start.elapsed() / RUNS);
        }
        self.stream.synchronize()?;
        Ok(best.as_secs_f64())
    }

    /// Measured once, when the first figure needs it.
    pub fn conditions(&self) -> Result<&Conditions> {
        if self.conditions.get().is_none() {
            let conditions = self
                .measure()
                .context("measuring the card's copy bandwidth")?;
            println!("\n{conditions}\n");
            self.conditions.get_or_init(|| conditions);
        }
        self.conditions.get().context("set above")
    }

    fn measure(&self) -> Result<Conditions> {
        let bytes = (1 << 30).min(self.free_memory()? / 8) as usize;
        let from = self.stream.alloc_zeros::<u8>(bytes)?;
        let mut to = self.stream.alloc_zeros::<u8>(bytes)?;
        let stream = self.stream.clone();
        let mut copy: Routine = Box::new(move || Ok(stream.memcpy_dtod(&from, &mut to)?));
        let mut seconds = Vec::new();
        for _ in 0..11 {
            seconds.push(self.time(4, &mut copy)?.as_secs_f64() / 4.);
        }
        let seconds = Spread::of(seconds.into_iter()).median;
        ensure!(seconds > 0., "a copy of {bytes} bytes took no time");
        // Clocks fall as soon as a card has nothing to do: about a second of work while they are read.
        for _ in 0..(1. / seconds).min(500.) as u32 {
            copy()?;
        }
        let [driver, sm_clock, memory_clock] = self.smi();
        self.stream.synchronize()?;
        Ok(Conditions {
            name: self.context.name()?,
            driver,
            sm_clock,
            memory_clock,
            toolkit: toolkit(),
            date: output("date", &["-u", "+%Y-%m-%dT%H:%MZ"]).unwrap_or_default(),
            copy: 2. * bytes as f64 / seconds,
        })
    }

    /// Driver version and clocks, empty where nvidia-smi does not say.
    fn smi(&self) -> [String; 3] {
        let ask = || {
            let id = self
                .context
                .uuid()
                .ok()?
                .bytes
                .map(|byte| format!("{:02x}", byte as u8));
            let [a, b, c, d, e] = [0..4, 4..6, 6..8, 8..10, 10..16].map(|part| id[part].concat());
            let line = output(
                "nvidia-smi",
                &[
                    &format!("--id=GPU-{a}-{b}-{c}-{d}-{e}"),
                    "--query-gpu=driver_version,clocks.sm,clocks.mem",
                    "--format=csv,noheader,nounits",
                ],
            )?;
            let fields: Vec<String> = line.split(',').map(|x| x.trim().to_string()).collect();
            fields.try_into().ok()
        };
        ask().unwrap_or_default()
    }
}

impl std::fmt::Display for Conditions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let or = |x: &str| {
            if x.is_empty() {
                "unknown".into()
            } else {
                x.to_string()
            }
        };
        write!(
            f,
            "{}, driver {}, clocks {} / {} MHz (SM / memory), toolkit {}, {}; a copy moves {:.1} GB/s, read and written",
            self.name,
            or(&self.driver),
            or(&self.sm_clock),
            or(&self.memory_clock),
            or(&self.toolkit),
            or(&self.date),
            self.copy * 1e-9
        )
    }
}

fn toolkit() -> String {
    let nvcc = || {
        let text = output("nvcc", &["--version"])?;
        let version = text.split_once("release ")?.1.split(',').next()?;
        Some(version.to_string())
    };
    env::var(TOOLKIT).ok().or_else(nvcc).unwrap_or_default()
}

/// What a program prints, None where it is not there or fails.
fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_string())
}
