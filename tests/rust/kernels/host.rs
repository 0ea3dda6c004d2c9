//! The library that `tests/fakes/build.sh` makes of the kernels, and launches of them.

use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::{LazyLock, Mutex};

#[repr(C)]
#[derive(Clone, Copy)]
pub struct Dim3 {
    x: u32,
    y: u32,
    z: u32,
}

#[repr(C)]
struct Kernel {
    name: *const c_char,
    parameters: usize,
    parameter_bytes: [usize; 8],
    run: extern "C" fn(*mut *mut c_void, Dim3, Dim3) -> bool,
}

/// One launch runs at a time: blocks share what the library keeps of them.
static LIBRARY: LazyLock<Mutex<libloading::Library>> = LazyLock::new(|| {
    let library = crate::built::fakes().join("libkernels_on_host.so");
    // SAFETY: the library's initialisers only fill its tables.
    Mutex::new(unsafe { libloading::Library::new(library) }.unwrap())
});

/// An argument of a kernel, as bytes that outlive the launch.
pub enum Argument {
    Pointer(*mut u8),
    Int(i32),
    Long(i64),
}

/// Runs `name` over `grid` (x, y) with `threads` a block, in the order that `seed` draws.
///
/// # Safety
///
/// Pointers are of memory that the kernel may access as its source does.
pub unsafe fn launch(name: &str, seed: u64, grid: (u32, u32), threads: u32, given: &[Argument]) {
    let library = LIBRARY.lock().unwrap();
    let name = CString::new(name).unwrap();
    // SAFETY: these are the signatures in kernel_table.h.
    let (find, order) = unsafe {
        (
            library.get::<extern "C" fn(*const c_char) -> *const Kernel>("cuda_host_find").unwrap(),
            library.get::<extern "C" fn(u64)>("cuda_host_order").unwrap(),
        )
    };
    // SAFETY: null or an entry of the library's constant table.
    let kernel = unsafe { find(name.as_ptr()).as_ref() }.expect("a kernel of this name");
    // SAFETY: the table's names are literals.
    assert_eq!(unsafe { CStr::from_ptr(kernel.name) }, name.as_c_str());
    let bytes: Vec<usize> = given.iter().map(Argument::bytes).collect();
    assert_eq!(&kernel.parameter_bytes[..kernel.parameters], bytes, "parameters of {name:?}");
    let mut arguments: Vec<*mut c_void> = given.iter().map(Argument::address).collect();
    order(seed);
    let (grid, block) = (Dim3 { x: grid.0, y: grid.1, z: 1 }, Dim3 { x: threads, y: 1, z: 1 });
    assert!((kernel.run)(arguments.as_mut_ptr(), grid, block), "{name:?} hangs at a barrier");
}

impl Argument {
    fn bytes(&self) -> usize {
        match self {
            Self::Pointer(_) | Self::Long(_) => 8,
            Self::Int(_) => 4,
        }
    }

    fn address(&self) -> *mut c_void {
        match self {
            Self::Pointer(pointer) => std::ptr::from_ref(pointer).cast_mut().cast(),
            Self::Int(number) => std::ptr::from_ref(number).cast_mut().cast(),
            Self::Long(number) => std::ptr::from_ref(number).cast_mut().cast(),
        }
    }
}
