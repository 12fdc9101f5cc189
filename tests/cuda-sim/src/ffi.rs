//! Pointers that C callers hand in, as types with checked access.
//!
//! A value of one of these types exists only as an argument of an exported function. Its caller has promised, by
//! that function's safety section, that the pointer is null or fit for the use that the CUDA call documents; on this
//! promise stand the `unsafe` blocks of this file. Null, which CUDA answers with an error, is one here too.

use std::ffi::{CStr, c_char, c_void};
use std::slice;

use crate::error::{Error, Result};

/// Where a call leaves a value.
#[repr(transparent)]
pub struct Out<T>(*mut T);

impl<T> Clone for Out<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Copy for Out<T> {}

impl<T> Out<T> {
    /// Leaves the value, or reports a null or misaligned place.
    pub fn set(self, value: T) -> Result {
        if self.0.is_null() || !self.0.is_aligned() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, aligned, and promised to be writable (see above). Nothing is dropped in its place.
        unsafe { self.0.write(value) };
        Ok(())
    }

    /// Leaves the value if the caller wants it.
    pub fn set_if_wanted(self, value: T) -> Result {
        if self.0.is_null() {
            return Ok(());
        }
        self.set(value)
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// Leaves the values one after the other.
    pub fn set_all(self, values: impl IntoIterator<Item = T>) -> Result {
        for (index, value) in values.into_iter().enumerate() {
            Self(self.0.wrapping_add(index)).set(value)?;
        }
        Ok(())
    }
}

/// A value, or an array of values, that a call reads.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct In<T>(*const T);

impl<T: Copy> In<T> {
    pub fn get(self) -> Result<T> {
        self.at(0)
    }

    pub fn null() -> Self {
        Self(std::ptr::null())
    }

    /// The element at an index, for arrays whose length the caller states.
    pub fn at(self, index: usize) -> Result<T> {
        if self.0.is_null() || !self.0.is_aligned() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, aligned, and promised to be readable (see above) for as many elements as the call documents.
        Ok(unsafe { self.0.add(index).read() })
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }
}

/// Host memory of any type that a call reads, its size being another argument.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct HostIn(*const c_void);

impl HostIn {
    pub fn from_address(address: u64) -> Self {
        Self(address as usize as *const c_void)
    }

    pub fn address(self) -> u64 {
        self.0 as usize as u64
    }

    pub fn is_null(self) -> bool {
        self.0.is_null()
    }

    /// The bytes. They are only borrowed for the call, whose frame the caller must name.
    pub fn bytes<'call>(self, count: usize) -> Result<&'call [u8]> {
        if count == 0 {
            return Ok(&[]);
        }
        if self.0.is_null() || isize::try_from(count).is_err() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, of a size that a slice may have, and promised to be readable (see above).
        Ok(unsafe { slice::from_raw_parts(self.0.cast(), count) })
    }

    pub fn offset(self, bytes: usize) -> Self {
        Self(self.0.wrapping_byte_add(bytes))
    }

    /// The value at an address of any alignment.
    pub fn read<T: Plain>(self) -> Result<T> {
        if self.0.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, promised to be readable (see above), and any bytes are a value of a plain type.
        Ok(unsafe { self.0.cast::<T>().read_unaligned() })
    }

    /// The text up to the first zero byte.
    pub fn text<'call>(self) -> Result<&'call CStr> {
        Text(self.0.cast()).get()
    }
}

/// Types that any bytes are a value of.
pub trait Plain: Copy {}

impl Plain for u8 {}
impl Plain for u16 {}
impl Plain for u32 {}
impl Plain for u64 {}
impl Plain for f32 {}
impl Plain for f64 {}

/// Host memory of any type that a call writes, its size being another argument.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct HostOut(*mut c_void);

impl HostOut {
    pub fn from_address(address: u64) -> Self {
        Self(address as usize as *mut c_void)
    }

    /// The bytes. They are only borrowed for the call, whose frame the caller must name.
    pub fn bytes<'call>(self, count: usize) -> Result<&'call mut [u8]> {
        if count == 0 {
            return Ok(&mut []);
        }
        if self.0.is_null() || isize::try_from(count).is_err() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, of a size that a slice may have, and promised to be writable (see above). Device memory is
        // never host memory, so nothing else of this library refers to it.
        Ok(unsafe { slice::from_raw_parts_mut(self.0.cast(), count) })
    }

    /// Leaves a value at an address of any alignment.
    pub fn write<T: Plain>(self, value: T) -> Result {
        if self.0.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null and promised to be writable (see above).
        unsafe { self.0.cast::<T>().write_unaligned(value) };
        Ok(())
    }
}

/// A zero-terminated text.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub struct Text(*const c_char);

impl Text {
    pub fn get<'call>(self) -> Result<&'call CStr> {
        if self.0.is_null() {
            return Err(Error::InvalidValue);
        }
        // SAFETY: not null, and promised to be readable up to a zero byte (see above).
        Ok(unsafe { CStr::from_ptr(self.0) })
    }

    pub fn as_str<'call>(self) -> Result<&'call str> {
        self.get()?.to_str().map_err(|_| Error::InvalidValue)
    }
}

/// Copies a text and its end into a buffer of the caller's, cut to fit.
pub fn set_text(place: HostOut, capacity: i32, text: &str) -> Result {
    let capacity = usize::try_from(capacity).map_err(|_| Error::InvalidValue)?;
    if capacity == 0 {
        return Err(Error::InvalidValue);
    }
    let buffer = place.bytes(capacity)?;
    let length = text.len().min(capacity - 1);
    buffer[..length].copy_from_slice(&text.as_bytes()[..length]);
    buffer[length] = 0;
    Ok(())
}
