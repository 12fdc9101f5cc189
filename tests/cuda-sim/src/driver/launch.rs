//! Launches. The kernel has run when the call returns, and its faults are this call's result.

use std::sync::atomic::Ordering;

use crate::call::{driver, trace};
use crate::error::{CUresult, Error, Result};
use crate::ffi::{HostIn, In};
use crate::handles::Handle;
use crate::model::Model;
use crate::report;
use crate::sim::{self, Launch};
use crate::state::{self, Kernel};

use super::function::{known, max_threads};

/// What a launch is given besides its parameters.
struct Shape {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    stream: Handle,
}

/// Refuses what a device refuses before it runs anything, and says why.
fn check(kernel: &Kernel, shape: &Shape) -> Result {
    let name = kernel.function.name();
    let refuse = |reason: std::fmt::Arguments<'_>, error: Error| {
        report::problem(format_args!(
            "launch of {name}: {reason} [{}]",
            error.name()
        ));
        Err(error)
    };
    for (what, size, most) in [
        ("grid", shape.grid, Model::GRID),
        ("block", shape.block, Model::BLOCK),
    ] {
        if (0..3).any(|axis| size[axis] == 0 || size[axis] > most[axis]) {
            return refuse(
                format_args!("the {what} is {size:?}, where 1 to {most:?} are allowed"),
                Error::InvalidValue,
            );
        }
    }
    let threads: u64 = shape.block.iter().copied().map(u64::from).product();
    if threads > u64::from(Model::THREADS_PER_BLOCK) {
        return refuse(
            format_args!(
                "{threads} threads a block, where {} are allowed",
                Model::THREADS_PER_BLOCK
            ),
            Error::InvalidValue,
        );
    }
    // Compiled for fewer threads, a kernel may use more registers than a larger block has.
    let most = max_threads(kernel);
    if threads > u64::from(most) {
        return refuse(
            format_args!("{threads} threads a block, where the kernel was compiled for {most}"),
            Error::LaunchOutOfResources,
        );
    }
    let most = kernel.dynamic_shared_limit.load(Ordering::Relaxed);
    if shape.dynamic_shared > most {
        return refuse(
            format_args!(
                "{} bytes of dynamic shared memory beside {} static ones, where {most} are allowed (cuFuncSetAttribute \
                 raises this)",
                shape.dynamic_shared,
                sim::static_shared(&kernel.function)
            ),
            Error::InvalidValue,
        );
    }
    Ok(())
}

/// The parameters as one buffer, from a pointer to each.
fn gather(kernel: &Kernel, pointers: In<HostIn>) -> Result<Vec<u8>> {
    let mut buffer = vec![0; kernel.function.param_bytes()];
    for (index, (offset, size)) in sim::parameters(&kernel.function).enumerate() {
        buffer[offset..offset + size].copy_from_slice(pointers.at(index)?.bytes(size)?);
    }
    Ok(buffer)
}

/// The parameters from a buffer, given with its size in a list of names and values.
fn unpack(kernel: &Kernel, extra: In<HostIn>) -> Result<Vec<u8>> {
    const END: u64 = 0;
    const POINTER: u64 = 1;
    const SIZE: u64 = 2;

    let (mut buffer, mut size) = (None, None);
    let mut index = 0;
    loop {
        match extra.at(index)?.address() {
            END => break,
            POINTER => buffer = Some(extra.at(index + 1)?),
            SIZE => size = Some(extra.at(index + 1)?.read::<u64>()? as usize),
            _ => return Err(Error::InvalidValue),
        }
        index += 2;
    }
    let (buffer, size) = buffer.zip(size).ok_or(Error::InvalidValue)?;
    let wanted = kernel.function.param_bytes();
    if size < wanted {
        return Err(Error::InvalidValue);
    }
    Ok(buffer.bytes(wanted)?.to_vec())
}

fn launch(function: Handle, shape: Shape, pointers: In<HostIn>, extra: In<HostIn>) -> Result {
    let context = state::get().submit(shape.stream)?;
    let kernel = known(function)?;
    if kernel.context != context.number {
        return Err(Error::InvalidHandle);
    }
    check(&kernel, &shape)?;
    let params = match (pointers.is_null(), extra.is_null()) {
        (false, true) => gather(&kernel, pointers)?,
        (true, false) => unpack(&kernel, extra)?,
        (true, true) if kernel.function.param_bytes() == 0 => Vec::new(),
        _ => return Err(Error::InvalidValue),
    };
    trace("launch", || {
        format!(
            "{} grid {:?} block {:?}",
            kernel.function.name(),
            shape.grid,
            shape.block
        )
    });
    let launch = Launch {
        grid: shape.grid,
        block: shape.block,
        dynamic_shared: shape.dynamic_shared,
        params,
    };
    sim::run(&kernel.function, &launch)
}

/// Runs a kernel.
///
/// # Safety
/// `parameters` is null or points to a pointer to each of the function's parameters; `extra` is null or a list of names
/// and values as the CUDA driver API defines it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    dynamic_shared: u32,
    stream: Handle,
    parameters: In<HostIn>,
    extra: In<HostIn>,
) -> CUresult {
    driver("cuLaunchKernel", || {
        let shape = Shape {
            grid: [grid_x, grid_y, grid_z],
            block: [block_x, block_y, block_z],
            dynamic_shared,
            stream,
        };
        launch(function, shape, parameters, extra)
    })
}

/// `CUlaunchConfig`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LaunchConfig {
    grid: [u32; 3],
    block: [u32; 3],
    dynamic_shared: u32,
    stream: Handle,
    attributes: In<LaunchAttribute>,
    attribute_count: u32,
}

/// `CUlaunchAttribute`; the value is a union of 64 bytes.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct LaunchAttribute {
    id: u32,
    pad: u32,
    value: [u64; 8],
}

/// Refuses the attributes that would change what the kernel sees; hints pass.
fn check_attribute(attribute: &LaunchAttribute) -> Result {
    const COOPERATIVE: u32 = 2;
    const CLUSTER: u32 = 4;
    const HINTS: [u32; 10] = [0, 1, 3, 5, 6, 8, 9, 10, 11, 14];

    let first = attribute.value[0] as u32;
    let cluster = [
        first,
        (attribute.value[0] >> 32) as u32,
        attribute.value[1] as u32,
    ];
    match attribute.id {
        COOPERATIVE if first == 0 => Ok(()),
        CLUSTER if cluster == [1; 3] => Ok(()),
        id if HINTS.contains(&id) => Ok(()),
        id => {
            report::problem(format_args!(
                "cuLaunchKernelEx: launch attribute {id} is not simulated"
            ));
            Err(Error::NotSupported)
        }
    }
}

/// Runs a kernel, with attributes.
///
/// # Safety
/// `config` is null or a valid configuration, with as many attributes as it says; `parameters` and `extra` as for
/// [`cuLaunchKernel`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchKernelEx(
    config: In<LaunchConfig>,
    function: Handle,
    parameters: In<HostIn>,
    extra: In<HostIn>,
) -> CUresult {
    driver("cuLaunchKernelEx", || {
        let config = config.get()?;
        for index in 0..config.attribute_count as usize {
            check_attribute(&config.attributes.at(index)?)?;
        }
        let shape = Shape {
            grid: config.grid,
            block: config.block,
            dynamic_shared: config.dynamic_shared,
            stream: config.stream,
        };
        launch(function, shape, parameters, extra)
    })
}

/// Runs a kernel whose blocks may wait for each other, which blocks here cannot do unless there is one.
///
/// # Safety
/// As for [`cuLaunchKernel`].
#[unsafe(no_mangle)]
pub unsafe extern "C" fn cuLaunchCooperativeKernel(
    function: Handle,
    grid_x: u32,
    grid_y: u32,
    grid_z: u32,
    block_x: u32,
    block_y: u32,
    block_z: u32,
    dynamic_shared: u32,
    stream: Handle,
    parameters: In<HostIn>,
) -> CUresult {
    driver("cuLaunchCooperativeKernel", || {
        let grid = [grid_x, grid_y, grid_z];
        if grid != [1; 3] {
            report::problem(format_args!(
                "cuLaunchCooperativeKernel: blocks that wait for each other are not simulated"
            ));
            return Err(Error::NotSupported);
        }
        let shape = Shape {
            grid,
            block: [block_x, block_y, block_z],
            dynamic_shared,
            stream,
        };
        launch(function, shape, parameters, In::null())
    })
}
