//! The results of the driver's calls.

mod names;

pub use names::CODES;

/// What a call of the driver returns in C.
pub type CUresult = u32;

/// The errors that the simulated driver returns; the numbers are the driver's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Error {
    InvalidValue = 1,
    OutOfMemory = 2,
    NotInitialized = 3,
    NoDevice = 100,
    InvalidDevice = 101,
    InvalidImage = 200,
    InvalidContext = 201,
    NoBinaryForGpu = 209,
    UnsupportedLimit = 215,
    InvalidPtx = 218,
    UnsupportedPtxVersion = 222,
    FileNotFound = 301,
    InvalidHandle = 400,
    NotFound = 500,
    IllegalAddress = 700,
    LaunchOutOfResources = 701,
    LaunchTimeout = 702,
    ContextIsDestroyed = 709,
    HostMemoryAlreadyRegistered = 712,
    HostMemoryNotRegistered = 713,
    MisalignedAddress = 716,
    LaunchFailed = 719,
    NotSupported = 801,
    Unknown = 999,
}

pub type Result<T = ()> = std::result::Result<T, Error>;

impl Error {
    pub fn code(self) -> CUresult {
        self as CUresult
    }

    /// The name that C code knows the error by.
    pub fn name(self) -> &'static str {
        lookup(self.code()).map_or("CUDA_ERROR_UNKNOWN", |(name, _)| {
            name.to_str().unwrap_or_default()
        })
    }
}

/// Name and description of a result code.
pub fn lookup(code: CUresult) -> Option<(&'static std::ffi::CStr, &'static std::ffi::CStr)> {
    let place = CODES.binary_search_by_key(&code, |entry| entry.0).ok()?;
    let (_, name, text) = CODES[place];
    Some((name, text))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_in_order_and_named() {
        assert!(CODES.is_sorted_by_key(|entry| entry.0));
        assert_eq!(Error::InvalidPtx.name(), "CUDA_ERROR_INVALID_PTX");
        assert_eq!(Error::LaunchTimeout.name(), "CUDA_ERROR_LAUNCH_TIMEOUT");
        assert!(lookup(12345).is_none());
    }
}
