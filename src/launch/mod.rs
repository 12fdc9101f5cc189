//! The CUDA side of every op: its module, the kernel of a dtype, the arguments and the launch.
//!
//! This is the only host code of the CUDA side with `unsafe`: rooms give it argument lists.

mod elementwise;
mod extreme;
mod operands;
mod plan;
mod race;
mod rows;
mod top_k;
mod view;

pub(crate) use elementwise::elementwise;
pub(crate) use extreme::extreme;
pub(crate) use operands::Operands;
pub(crate) use plan::{Grid, Path, WARP, columns, looped, over_groups};
pub(crate) use race::{Winner, drawn_one_hot, race};
pub(crate) use rows::{Forward, Operand, gradient, held_path, softmax, tau_gradient};
pub(crate) use top_k::top_k;
pub(crate) use view::KeyArg;

use crate::rng::KeySource;
use crate::rowwise::Rows;
use candle_core::backend::{BackendDevice, BackendStorage};
use candle_core::cuda_backend::cudarc::driver::{
    CudaSlice, CudaStream, DevicePtr, DevicePtrMut, DeviceRepr, LaunchConfig, PushKernelArg,
    SyncOnDrop, sys::CUdevice_attribute,
};
use candle_core::cuda_backend::{CudaStorageSlice, WrapErr};
use candle_core::{CudaDevice, CudaStorage, DType, Error, Layout, Result, Shape, Storage, bail};
use std::ops::Deref;
use std::sync::Arc;
use view::{Numbers, RowsArg, TauArg, View};

// `text(module, dtype)`: the PTX of a kernel file compiled for a dtype; `MODULES`: the files' names.
include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// The PTX of every kernel file, for every dtype.
pub(crate) fn modules() -> Vec<(&'static str, DType, &'static str)> {
    let dtypes = [DType::F32, DType::F64, DType::F16, DType::BF16];
    let of = |module| {
        let text = move |dtype: DType| Some((module, dtype, text(module, dtype.as_str())?));
        dtypes.into_iter().filter_map(text)
    };
    MODULES.into_iter().flat_map(of).collect()
}

/// What one op launches on one device.
pub(crate) struct Context {
    op: &'static str,
    module: &'static str,
    dtype: DType,
    shape: Shape,
    device: CudaDevice,
    stream: Arc<CudaStream>,
}

impl Context {
    /// The kernels of file `module` for `dtype`; `shape` is for messages.
    pub(crate) fn new(
        op: &'static str,
        module: &'static str,
        dtype: DType,
        shape: &Shape,
        device: &CudaDevice,
    ) -> Self {
        Self {
            op,
            module,
            dtype,
            shape: shape.clone(),
            device: device.clone(),
            stream: device.cuda_stream(),
        }
    }

    /// The kernels of another file, for the same op.
    pub(crate) fn with_module(&self, module: &'static str) -> Self {
        Self::new(self.op, module, self.dtype, &self.shape, &self.device)
    }

    /// Elements that a thread of these kernels works on side by side.
    pub(crate) fn group(&self) -> usize {
        plan::group(self.dtype.size_in_bytes())
    }

    /// Elements that a thread of these kernels holds in registers.
    fn share(&self) -> usize {
        plan::share(self.dtype.size_in_bytes())
    }

    /// The dtype that a temperature, and its gradient, have here.
    pub(crate) fn wide(&self) -> DType {
        match self.dtype {
            DType::F64 => DType::F64,
            _ => DType::F32,
        }
    }

    /// The device's multiprocessors.
    pub(crate) fn processors(&self) -> Result<usize> {
        let attribute = CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
        let count = self.stream.context().attribute(attribute).w()?;
        Ok(usize::try_from(count).unwrap_or(1).max(1))
    }

    /// A new storage that a kernel of this op is about to fill.
    pub(crate) fn output(&self, dtype: DType, count: usize) -> Result<CudaStorage> {
        // SAFETY: what comes from here is handed to a kernel that writes every element, or is scratch of which a kernel
        // reads what one before it wrote; nothing else sees it before.
        unsafe { self.device.alloc_uninit(&Shape::from(count), dtype) }
    }

    /// Scratch memory of so many values of 8 bytes.
    pub(crate) fn scratch(&self, count: usize) -> Result<CudaStorage> {
        self.output(DType::I64, count)
    }

    /// An empty argument list.
    pub(crate) fn args(&self) -> Args<'_> {
        Args {
            context: self,
            values: Vec::with_capacity(12),
            guards: Vec::with_capacity(5),
        }
    }
}

/// A kernel's argument, by value.
enum Value {
    U32(u32),
    U64(u64),
    View(View),
    Rows(RowsArg),
    Key(KeyArg),
    Tau32(TauArg<f32>),
    Tau64(TauArg<f64>),
    Numbers32(Numbers<f32>),
    Numbers64(Numbers<f64>),
}

// SAFETY: plain data of fixed layout (`repr(C)`, tested against the kernels' declarations), without references.
unsafe impl DeviceRepr for View {}
// SAFETY: as above.
unsafe impl DeviceRepr for RowsArg {}
// SAFETY: as above; the address in it is kept alive by the guards of the argument list that it is pushed to.
unsafe impl DeviceRepr for KeyArg {}
// SAFETY: as above.
unsafe impl DeviceRepr for TauArg<f32> {}
// SAFETY: as above.
unsafe impl DeviceRepr for TauArg<f64> {}
// SAFETY: as above; a kernel takes as many of the numbers as it declares, never more than there are.
unsafe impl DeviceRepr for Numbers<f32> {}
// SAFETY: as above.
unsafe impl DeviceRepr for Numbers<f64> {}

/// The arguments of one launch, in the order of the kernel's parameters.
pub(crate) struct Args<'a> {
    context: &'a Context,
    values: Vec<Value>,
    /// Kept until after the launch: they order it among the uses of each storage on other streams.
    guards: Vec<SyncOnDrop<'a>>,
}

/// Does `$body` with `$slice` standing for the typed slice of a storage.
macro_rules! any_slice {
    ($op:expr, $storage:expr, $slice:ident => $body:expr) => {
        match $storage {
            CudaStorageSlice::F32($slice) => $body,
            CudaStorageSlice::F64($slice) => $body,
            CudaStorageSlice::F16($slice) => $body,
            CudaStorageSlice::BF16($slice) => $body,
            CudaStorageSlice::U8($slice) => $body,
            CudaStorageSlice::U32($slice) => $body,
            CudaStorageSlice::I64($slice) => $body,
            _ => bail!("{}: a storage of an unexpected dtype", $op),
        }
    };
}

impl<'a> Args<'a> {
    /// The address of a storage's element `offset`.
    fn read(&mut self, storage: &'a CudaStorage, offset: usize) -> Result<u64> {
        fn pointer<'a, T>(
            slice: &'a CudaSlice<T>,
            stream: &'a CudaStream,
        ) -> (u64, SyncOnDrop<'a>) {
            slice.device_ptr(stream)
        }
        let (address, guard) =
            any_slice!(self.context.op, &storage.slice, s => pointer(s, &self.context.stream));
        self.guards.push(guard);
        Ok(address + (offset * storage.dtype().size_in_bytes()) as u64)
    }

    /// A tensor that the kernel reads, and its view along `dim`; whether it is a vector.
    pub(crate) fn input(
        &mut self,
        (storage, layout): (&'a CudaStorage, &Layout),
        dim: Option<usize>,
    ) -> Result<bool> {
        let address = self.read(storage, layout.start_offset())?;
        let view = View::new(self.context.op, layout, dim, address)?;
        self.values.extend([Value::U64(address), Value::View(view)]);
        Ok(view.is_vector())
    }

    /// Memory that the kernel reads.
    pub(crate) fn scratch(&mut self, storage: &'a CudaStorage) -> Result<()> {
        let address = self.read(storage, 0)?;
        self.values.push(Value::U64(address));
        Ok(())
    }

    /// The same, where there is some.
    pub(crate) fn scratch_if(&mut self, storage: Option<&'a CudaStorage>) -> Result<()> {
        storage.map_or(Ok(()), |storage| self.scratch(storage))
    }

    /// Memory that the kernel writes; its address.
    pub(crate) fn output(&mut self, storage: &'a mut CudaStorage) -> Result<u64> {
        fn pointer<'a, T>(
            slice: &'a mut CudaSlice<T>,
            stream: &'a CudaStream,
        ) -> (u64, SyncOnDrop<'a>) {
            slice.device_ptr_mut(stream)
        }
        let (address, guard) =
            any_slice!(self.context.op, &mut storage.slice, s => pointer(s, &self.context.stream));
        self.guards.push(guard);
        self.values.push(Value::U64(address));
        Ok(address)
    }

    /// Memory that the kernel writes and also reads as a contiguous tensor: the tensor and its view come first.
    pub(crate) fn in_place(
        &mut self,
        storage: &'a mut CudaStorage,
        layout: &Layout,
        dim: usize,
    ) -> Result<InPlace> {
        let address = self.output(storage)?;
        self.values.pop();
        let view = View::new(self.context.op, layout, Some(dim), address)?;
        self.values.extend([Value::U64(address), Value::View(view)]);
        Ok(InPlace(address))
    }

    /// The place where the output comes among the arguments.
    pub(crate) fn again(&mut self, place: &InPlace) {
        self.values.push(Value::U64(place.0));
    }

    pub(crate) fn rows(&mut self, rows: Rows) {
        self.values.push(Value::Rows(rows.into()));
    }

    pub(crate) fn number(&mut self, n: usize) -> Result<()> {
        let Ok(n) = u32::try_from(n) else {
            bail!(
                "{}: shape {:?} is too large",
                self.context.op,
                self.context.shape
            )
        };
        self.values.push(Value::U32(n));
        Ok(())
    }

    pub(crate) fn count(&mut self, n: usize) {
        self.values.push(Value::U64(n as u64));
    }

    /// A key by value, or where it lies.
    pub(crate) fn key(&mut self, key: &'a KeyStorage) -> Result<()> {
        let arg = match key {
            KeyStorage::Value(arg) => *arg,
            KeyStorage::Device(storage) => match &***storage {
                Storage::Cuda(storage) => KeyArg::at(self.read(storage, 0)?),
                _ => bail!(
                    "{}: the key does not lie on the tensor's device",
                    self.context.op
                ),
            },
        };
        self.values.push(Value::Key(arg));
        Ok(())
    }

    /// Numbers in the scalar that the kernel computes in.
    pub(crate) fn parameters(&mut self, numbers: &[f64]) {
        self.values.push(if self.context.dtype == DType::F64 {
            Value::Numbers64(Numbers::new(numbers))
        } else {
            Value::Numbers32(Numbers::new(numbers))
        });
    }

    /// A temperature: a number, or one value a row.
    pub(crate) fn tau(&mut self, tau: Tau<'a>, dim: usize) -> Result<()> {
        let wide = self.context.dtype == DType::F64;
        let value = match tau {
            Tau::Fixed(tau) if wide => Value::Tau64(TauArg::fixed(tau)),
            Tau::Fixed(tau) => Value::Tau32(TauArg::fixed(tau)),
            Tau::Rows(storage, layout) => {
                let address = self.read(storage, layout.start_offset())?;
                let view = View::new(self.context.op, layout, Some(dim), address)?;
                if wide {
                    Value::Tau64(TauArg::each(address, view))
                } else {
                    Value::Tau32(TauArg::each(address, view))
                }
            }
        };
        self.values.push(value);
        Ok(())
    }

    /// Launches kernel `name` of this dtype on these arguments.
    pub(crate) fn launch(self, name: &str, grid: Grid) -> Result<()> {
        let Context {
            op,
            module,
            dtype,
            shape,
            device,
            ..
        } = self.context;
        let failed = |error: Error| {
            Error::Msg(format!(
                "{op}: kernel {name} on shape {:?}, dtype {dtype:?}: {error}",
                shape.dims()
            ))
        };
        let dtype_name = dtype.as_str();
        let Some(ptx) = text(module, dtype_name) else {
            bail!("{op}: there are no CUDA kernels {module} for dtype {dtype:?}")
        };
        let (Ok(blocks), Ok(x), Ok(y)) = (
            i32::try_from(grid.blocks),
            u32::try_from(grid.x),
            u32::try_from(grid.y),
        ) else {
            bail!("{op}: shape {:?} is too large for a launch", shape.dims())
        };
        let module = format!(
            "{}-{}-{module}-{dtype_name}",
            env!("CARGO_PKG_NAME"),
            env!("CARGO_PKG_VERSION")
        );
        let kernel = device
            .get_or_load_custom_func(&format!("{name}_{dtype_name}"), &module, ptx)
            .map_err(failed)?;
        let mut builder = kernel.builder();
        for value in &self.values {
            match value {
                Value::U32(x) => builder.arg(x),
                Value::U64(x) => builder.arg(x),
                Value::View(x) => builder.arg(x),
                Value::Rows(x) => builder.arg(x),
                Value::Key(x) => builder.arg(x),
                Value::Tau32(x) => builder.arg(x),
                Value::Tau64(x) => builder.arg(x),
                Value::Numbers32(x) => builder.arg(x),
                Value::Numbers64(x) => builder.arg(x),
            };
        }
        let config = LaunchConfig {
            grid_dim: (blocks as u32, 1, 1),
            block_dim: (x, y, 1),
            shared_mem_bytes: 0,
        };
        // SAFETY: the argument list is that of the kernel (tests run every kernel by every path, and compare the layouts of
        // what goes by value), addresses belong to storages that live until after the launch, which the guards see to, and
        // the kernels stay within the rows and views that describe them.
        unsafe { builder.launch(config) }.w().map_err(failed)?;
        Ok(())
    }
}

/// A storage that is read and written by one kernel.
pub(crate) struct InPlace(u64);

/// A temperature as a custom op is handed it.
#[derive(Clone, Copy)]
pub(crate) enum Tau<'a> {
    Fixed(f64),
    Rows(&'a CudaStorage, &'a Layout),
}

/// A key that can be handed to kernels.
pub(crate) enum KeyStorage<'a> {
    Value(KeyArg),
    /// Read locked, so that nothing writes to it before the launch.
    Device(Box<dyn Deref<Target = Storage> + 'a>),
}

impl<'a> KeyStorage<'a> {
    pub(crate) fn new(op: &str, key: &'a KeySource) -> Result<Self> {
        match key {
            KeySource::Value(key) => Ok(Self::Value(KeyArg::value(*key))),
            KeySource::Device(key) => {
                let (storage, layout) = key.tensor().storage_and_layout();
                if !matches!(&*storage, Storage::Cuda(_)) || layout.start_offset() != 0 {
                    bail!("{op}: the key does not lie on the tensor's device")
                }
                Ok(Self::Device(Box::new(storage)))
            }
        }
    }
}
