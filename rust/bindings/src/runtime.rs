//! What is asked of the library as a whole: version, CPU level, threads.

use pyo3::prelude::*;
use zerocost_kernels::arch::Level;
use zerocost_kernels::parallel;

use crate::error::{KernelError, detached};
use crate::options;

/// How many threads kernels use.
#[pyfunction]
fn num_threads() -> usize {
    parallel::num_threads()
}

/// Sets how many threads kernels use from now on; 1 keeps everything on the calling thread.
#[pyfunction]
fn set_num_threads(num_threads: &Bound<'_, PyAny>) -> PyResult<()> {
    let num_threads = options::num_threads(num_threads)?;
    Ok(parallel::set_num_threads(num_threads).map_err(KernelError::from)?)
}

/// The CPU level in use: "scalar", "avx2", "avx512" or "neon".
#[pyfunction]
fn cpu_level() -> Result<&'static str, KernelError> {
    Ok(Level::current()?.name())
}

/// The CPU levels that this machine has, in ascending order.
#[pyfunction]
fn cpu_levels() -> Vec<&'static str> {
    Level::available().map(Level::name).collect()
}

/// Panics in the middle of a kernel's work, on a thread of the pool. For the tests of what survives it.
#[pyfunction]
#[pyo3(name = "_panic")]
fn panic_in_a_kernel(py: Python<'_>) -> PyResult<()> {
    detached(py, || {
        parallel::for_each(64, true, |index| assert_ne!(index, 40, "a test asked for it"));
        Ok(())
    })
}

/// Reads the environment, and asks multiprocessing, if it is in use, whether this process is one of its workers.
fn configure(py: Python<'_>) -> PyResult<()> {
    parallel::configure_from_environment().map_err(KernelError::from)?;
    let modules = py.import("sys")?.getattr("modules")?;
    let multiprocessing = modules.call_method1("get", ("multiprocessing.process",))?;
    if !multiprocessing.is_none() && !multiprocessing.call_method0("parent_process")?.is_none() {
        parallel::in_worker_process();
    }
    Ok(())
}

pub fn register(module: &Bound<'_, PyModule>) -> PyResult<()> {
    configure(module.py())?;
    module.add("__version__", env!("CARGO_PKG_VERSION"))?;
    module.add_function(wrap_pyfunction!(num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(set_num_threads, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_level, module)?)?;
    module.add_function(wrap_pyfunction!(cpu_levels, module)?)?;
    module.add_function(wrap_pyfunction!(panic_in_a_kernel, module)?)?;
    Ok(())
}
