//! cuRAND's host interface: uniform, normal and log-normal numbers, and plain bits, into device memory.
//!
//! The numbers are not those of cuRAND's own generators: every kind of pseudo-random generator is Philox4x32-10 here.
//! Range, distribution, seeding and the rule on even lengths are cuRAND's.

mod philox;

use std::sync::{Arc, Mutex, OnceLock};

use crate::call::{guarded, trace};
use crate::error::Error;
use crate::ffi::Out;
use crate::handles::{Handle, Table, lock};
use crate::report;
use crate::sim;
use crate::state;

use philox::Philox;

/// What a call of cuRAND returns in C.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Status {
    NotInitialized = 101,
    TypeError = 103,
    OutOfRange = 104,
    LengthNotMultiple = 105,
    LaunchFailure = 201,
    PreexistingFailure = 202,
    InternalError = 999,
}

type Result<T = ()> = std::result::Result<T, Status>;

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        match error {
            Error::InvalidValue | Error::InvalidHandle => Self::OutOfRange,
            Error::InvalidContext | Error::NotInitialized => Self::NotInitialized,
            _ => Self::PreexistingFailure,
        }
    }
}

fn call(name: &str, body: impl FnOnce() -> Result) -> u32 {
    let result = guarded(name, body).unwrap_or(Err(Status::InternalError));
    trace(name, || format!("{result:?}"));
    result.map_or_else(|status| status as u32, |()| 0)
}

/// cuRAND 10.4.
const VERSION: [i32; 3] = [10, 4, 0];

/// A generator: its seed, where in its sequence it is, and its stream.
struct Generator {
    settings: Mutex<Settings>,
}

struct Settings {
    philox: Philox,
    stream: Handle,
}

fn table() -> &'static Table<Generator> {
    static TABLE: OnceLock<Table<Generator>> = OnceLock::new();
    TABLE.get_or_init(Table::new)
}

fn known(generator: Handle) -> Result<Arc<Generator>> {
    table().get(generator).ok_or(Status::NotInitialized)
}

/// Makes a generator.
///
/// # Safety
/// `generator` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandCreateGenerator(generator: Out<Handle>, kind: u32) -> u32 {
    call("curandCreateGenerator", || {
        state::current()?;
        // 100 and 101 are the default and XORWOW, 121 MRG32k3a, 141 and 142 Mersenne twisters, 161 Philox.
        if !matches!(kind, 100 | 101 | 121 | 141 | 142 | 161) {
            report::problem(format_args!(
                "cuRAND: a generator of kind {kind} is not simulated"
            ));
            return Err(Status::TypeError);
        }
        if generator.is_null() {
            return Err(Status::OutOfRange);
        }
        let settings = Settings {
            philox: Philox::new(0),
            stream: 0,
        };
        Ok(generator.set(table().insert(Generator {
            settings: Mutex::new(settings),
        }))?)
    })
}

/// Ends a generator.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandDestroyGenerator(generator: Handle) -> u32 {
    call("curandDestroyGenerator", || {
        table()
            .remove(generator)
            .map(drop)
            .ok_or(Status::NotInitialized)
    })
}

/// Sets the stream of the calls that follow.
///
/// # Safety
/// None beyond the C calling convention: handles are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetStream(generator: Handle, stream: Handle) -> u32 {
    call("curandSetStream", || {
        let generator = known(generator)?;
        state::get().stream(stream)?;
        lock(&generator.settings).stream = stream;
        Ok(())
    })
}

/// Sets the seed, and begins its sequence.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetPseudoRandomGeneratorSeed(generator: Handle, seed: u64) -> u32 {
    call("curandSetPseudoRandomGeneratorSeed", || {
        lock(&known(generator)?.settings).philox = Philox::new(seed);
        Ok(())
    })
}

/// Sets the place in the sequence.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetGeneratorOffset(generator: Handle, offset: u64) -> u32 {
    call("curandSetGeneratorOffset", || {
        lock(&known(generator)?.settings).philox.skip_to(offset);
        Ok(())
    })
}

/// Sets how a sequence is dealt out, which is one way here.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandSetGeneratorOrdering(generator: Handle, _order: u32) -> u32 {
    call("curandSetGeneratorOrdering", || known(generator).map(drop))
}

/// Prepares a generator, which it is.
///
/// # Safety
/// None beyond the C calling convention: a handle is looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateSeeds(generator: Handle) -> u32 {
    call("curandGenerateSeeds", || known(generator).map(drop))
}

/// Fills device memory with numbers, each made of one or more words of the sequence.
fn generate<const N: usize>(
    generator: Handle,
    address: u64,
    count: usize,
    mut next: impl FnMut(&mut Philox) -> [u8; N],
) -> Result {
    let generator = known(generator)?;
    let mut settings = lock(&generator.settings);
    state::get().submit(settings.stream)?;
    let length = count.checked_mul(N).ok_or(Status::OutOfRange)?;
    let mut bytes = Vec::with_capacity(length);
    for _ in 0..count {
        bytes.extend(next(&mut settings.philox));
    }
    if bytes.is_empty() {
        return Ok(());
    }
    state::get().memory.write(address, &bytes).map_err(|fault| {
        sim::fault_in_kernel("cuRAND", &fault);
        Status::LaunchFailure
    })
}

/// Normal numbers come in pairs.
fn pairs(count: usize) -> Result<usize> {
    if count.is_multiple_of(2) {
        Ok(count / 2)
    } else {
        Err(Status::LengthNotMultiple)
    }
}

/// Two numbers as bytes.
fn both<const N: usize, const M: usize>(first: [u8; N], second: [u8; N]) -> [u8; M] {
    let mut bytes = [0; M];
    bytes[..N].copy_from_slice(&first);
    bytes[N..].copy_from_slice(&second);
    bytes
}

/// Plain words.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerate(generator: Handle, address: u64, count: usize) -> u32 {
    call("curandGenerate", || {
        generate(generator, address, count, |philox| {
            philox.word().to_ne_bytes()
        })
    })
}

/// Numbers uniform in (0, 1].
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniform(
    generator: Handle,
    address: u64,
    count: usize,
) -> u32 {
    call("curandGenerateUniform", || {
        generate(generator, address, count, |philox| {
            philox.uniform().to_ne_bytes()
        })
    })
}

/// Numbers uniform in (0, 1].
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateUniformDouble(
    generator: Handle,
    address: u64,
    count: usize,
) -> u32 {
    call("curandGenerateUniformDouble", || {
        generate(generator, address, count, |philox| {
            philox.uniform_double().to_ne_bytes()
        })
    })
}

/// Normal numbers, an even count of them.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormal(
    generator: Handle,
    address: u64,
    count: usize,
    mean: f32,
    deviation: f32,
) -> u32 {
    call("curandGenerateNormal", || {
        generate(generator, address, pairs(count)?, |philox| -> [u8; 8] {
            let [x, y] = philox.normals().map(|z| mean + deviation * z as f32);
            both(x.to_ne_bytes(), y.to_ne_bytes())
        })
    })
}

/// Normal numbers, an even count of them.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateNormalDouble(
    generator: Handle,
    address: u64,
    count: usize,
    mean: f64,
    deviation: f64,
) -> u32 {
    call("curandGenerateNormalDouble", || {
        generate(generator, address, pairs(count)?, |philox| -> [u8; 16] {
            let [x, y] = philox.normals().map(|z| mean + deviation * z);
            both(x.to_ne_bytes(), y.to_ne_bytes())
        })
    })
}

/// Numbers whose logarithms are normal, an even count of them.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateLogNormal(
    generator: Handle,
    address: u64,
    count: usize,
    mean: f32,
    deviation: f32,
) -> u32 {
    call("curandGenerateLogNormal", || {
        generate(generator, address, pairs(count)?, |philox| -> [u8; 8] {
            let [x, y] = philox
                .normals()
                .map(|z| (mean + deviation * z as f32).exp());
            both(x.to_ne_bytes(), y.to_ne_bytes())
        })
    })
}

/// Numbers whose logarithms are normal, an even count of them.
///
/// # Safety
/// None beyond the C calling convention: handles and device addresses are looked up, not followed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGenerateLogNormalDouble(
    generator: Handle,
    address: u64,
    count: usize,
    mean: f64,
    deviation: f64,
) -> u32 {
    call("curandGenerateLogNormalDouble", || {
        generate(generator, address, pairs(count)?, |philox| -> [u8; 16] {
            let [x, y] = philox.normals().map(|z| (mean + deviation * z).exp());
            both(x.to_ne_bytes(), y.to_ne_bytes())
        })
    })
}

/// The version of the library.
///
/// # Safety
/// `version` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGetVersion(version: Out<i32>) -> u32 {
    let [major, minor, patch] = VERSION;
    call("curandGetVersion", || {
        Ok(version.set(major * 1000 + minor * 100 + patch)?)
    })
}

/// A part of the version of the library: 0 major, 1 minor, 2 patch.
///
/// # Safety
/// `value` is null or valid for a write.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn curandGetProperty(part: u32, value: Out<i32>) -> u32 {
    call("curandGetProperty", || {
        Ok(value.set(*VERSION.get(part as usize).ok_or(Status::OutOfRange)?)?)
    })
}
