//! The one place that knows the interpreter's options, faults and counters.

use std::ffi::CStr;
use std::sync::Arc;

pub use ptx_sim::{Counters, Fault, Function, Launch, Memory, Module};
use ptx_sim::{FaultKind, Limits, Options};

use crate::config;
use crate::error::{Error, Result};
use crate::handles::lock;
use crate::model::{self, Model};
use crate::report;
use crate::state;

/// The driver's result for a fault.
pub fn result_of(fault: &Fault) -> Error {
    match fault.kind {
        FaultKind::Parse | FaultKind::Unsupported => Error::InvalidPtx,
        FaultKind::UnknownSymbol => Error::NotFound,
        FaultKind::InvalidLaunch | FaultKind::InvalidFree => Error::InvalidValue,
        FaultKind::OutOfMemory => Error::OutOfMemory,
        FaultKind::OutOfBounds | FaultKind::UseAfterFree => Error::IllegalAddress,
        FaultKind::Misaligned => Error::MisalignedAddress,
        FaultKind::StepLimit => Error::LaunchTimeout,
        // A device traps with this one, reads what nothing wrote as it is, and gets the rest wrong or hangs.
        FaultKind::Trap => Error::LaunchFailed,
        FaultKind::Uninitialised
        | FaultKind::ReadOnly
        | FaultKind::SharedRace
        | FaultKind::GlobalRace
        | FaultKind::Barrier
        | FaultKind::SyncMask => Error::LaunchFailed,
    }
}

/// Whether a device, too, would have met an error and been lost to the context.
fn would_stop_a_device(fault: &Fault) -> bool {
    matches!(
        fault.kind,
        FaultKind::OutOfBounds
            | FaultKind::UseAfterFree
            | FaultKind::Misaligned
            | FaultKind::ReadOnly
            | FaultKind::Trap
            | FaultKind::StepLimit
    )
}

/// Reports a fault of a kernel in the current context, which is lost by it if that of a device were.
pub fn fault_in_kernel(what: &str, fault: &Fault) -> Error {
    let error = report::fault(what, fault);
    if would_stop_a_device(fault)
        && let Ok(context) = state::current_in_any_state()
    {
        context.note(error);
    }
    error
}

/// Reads a module of PTX text, after the questions that a driver's compiler asks first.
pub fn load(text: &CStr) -> Result<Arc<Module>> {
    let text = text.to_str().map_err(|_| {
        report::problem(format_args!(
            "the module is not PTX text; this device runs nothing else"
        ));
        Error::InvalidImage
    })?;
    accept(text)?;
    Module::parse(text, &state::get().memory).map_err(|fault| report::fault("module", &fault))
}

/// Checks version and target, which a real driver of this version and device would refuse.
fn accept(text: &str) -> Result {
    let directive = |name: &str| {
        text.lines()
            .map(str::trim_start)
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let (Some(version), Some(target)) = (directive(".version"), directive(".target")) else {
        report::problem(format_args!(
            "the module has no .version and .target: it is no PTX text, and this device runs nothing else"
        ));
        return Err(Error::InvalidImage);
    };
    let (major, minor) = version.split_once('.').unwrap_or((version, "0"));
    let version = (
        number(major).ok_or(Error::InvalidPtx)?,
        number(minor).ok_or(Error::InvalidPtx)?,
    );
    if version > model::PTX_VERSION {
        let (most_major, most_minor) = model::PTX_VERSION;
        report::problem(format_args!(
            "the module is PTX {}.{}, newer than the {most_major}.{most_minor} that this driver loads",
            version.0, version.1
        ));
        return Err(Error::UnsupportedPtxVersion);
    }
    let capability = model::get().capability;
    let target = target.split([',', ' ', '\t']).next().unwrap_or_default();
    if !runs_on(target, capability) {
        report::problem(format_args!(
            "the module is for {target}, which does not run on compute capability {}.{} (CUDA_SIM_CC sets it)",
            capability.0, capability.1
        ));
        return Err(Error::InvalidPtx);
    }
    Ok(())
}

/// `sm_80` runs there and on all later devices, `sm_90a` there only, `sm_100f` on later ones of the same family.
fn runs_on(target: &str, capability: (u32, u32)) -> bool {
    let Some(name) = target.strip_prefix("sm_") else {
        return false;
    };
    let digits = name.trim_end_matches(['a', 'f']);
    let Some(number) = number(digits).filter(|number| *number >= 10) else {
        return false;
    };
    let of_target = (number / 10, number % 10);
    match &name[digits.len()..] {
        "" => of_target <= capability,
        "a" => of_target == capability,
        "f" => of_target.0 == capability.0 && of_target <= capability,
        _ => false,
    }
}

fn number(text: &str) -> Option<u32> {
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..end].parse().ok()
}

/// Place and size of each parameter.
pub fn parameters(function: &Function) -> impl Iterator<Item = (usize, usize)> {
    function
        .params()
        .iter()
        .map(|param| (param.offset, param.size))
}

/// Shared memory that the kernel declares.
pub fn static_shared(function: &Function) -> u32 {
    u32::try_from(function.static_shared()).unwrap_or(u32::MAX)
}

/// Runs a kernel to its end.
pub fn run(function: &Function, launch: &Launch) -> Result {
    let state = state::get();
    let config = config::get();
    let options = Options {
        seed: config.seed,
        perturb_approx: config.perturb,
        checks: config.checks,
        limits: Limits {
            max_grid: Model::GRID,
            max_block: Model::BLOCK,
            max_threads: Model::THREADS_PER_BLOCK,
            max_shared: model::get().shared_per_block_opt_in as _,
            ..Limits::default()
        },
    };
    let outcome = {
        let _engine = lock(&state.engine);
        ptx_sim::launch(&state.memory, function, launch, &options)
    };
    match outcome {
        Ok(counters) => {
            report::append(|| counters_json(function, launch, &counters));
            Ok(())
        }
        Err(fault) => Err(fault_in_kernel(
            &format!("kernel {}", function.name()),
            &fault,
        )),
    }
}

fn counters_json(function: &Function, launch: &Launch, counters: &Counters) -> String {
    let list = |[x, y, z]: [u32; 3]| format!("[{x},{y},{z}]");
    format!(
        "{{\"kernel\":{},\"grid\":{},\"block\":{},\"dynamic_shared\":{},\"counters\":{}}}",
        report::json(function.name()),
        list(launch.grid),
        list(launch.block),
        launch.dynamic_shared,
        counters.to_json(),
    )
}

#[cfg(test)]
mod tests {
    use super::runs_on;

    #[test]
    fn targets() {
        assert!(runs_on("sm_80", (9, 0)));
        assert!(runs_on("sm_90", (9, 0)));
        assert!(runs_on("sm_90a", (9, 0)));
        assert!(runs_on("sm_100f", (10, 3)));
        assert!(!runs_on("sm_90a", (10, 0)));
        assert!(!runs_on("sm_100", (9, 0)));
        assert!(!runs_on("sm_100f", (12, 0)));
        assert!(!runs_on("compute_80", (9, 0)));
    }
}
