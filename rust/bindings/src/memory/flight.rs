//! A computation in progress: who leads it, who waits for it, and who must not.
//!
//! Nothing here can be interrupted between two steps that belong together: signal handlers and destructors run Python
//! code, and none runs while the state of a flight or the graph of who waits for whom is looked at.

use std::cell::Cell;
use std::collections::{HashMap, HashSet};
use std::ffi::{c_int, c_longlong, c_void};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::thread::{self, ThreadId};

use pyo3::PyTraverseError;
use pyo3::exceptions::{PyBaseException, PyException, PyMemoryError, PyRecursionError, PyRuntimeError};
use pyo3::gc::PyVisit;
use pyo3::prelude::*;

use super::guard::Guarded;

/// Who leads a flight or waits for one: a thread, or a task on the thread of its loop.
#[derive(Debug, Clone, Copy)]
pub(super) struct Owner {
    thread: ThreadId,
    /// By address: a task lives as long as it leads or waits.
    task: Option<usize>,
}

impl Owner {
    pub(super) fn new(task: Option<&Bound<'_, PyAny>>) -> Self {
        Self { thread: thread::current().id(), task: task.map(|task| task.as_ptr() as usize) }
    }

    /// Whose going on waits for what this one waits for.
    fn nodes(self) -> impl Iterator<Item = Node> {
        let own = self.task.map_or(Node::Thread(self.thread), Node::Task);
        let below = self.task.is_some() && COMPUTING.get() > 0;
        std::iter::once(own).chain(below.then_some(Node::Below(self.thread)))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Node {
    Thread(ThreadId),
    Task(usize),
    /// The computations of a thread that runs a loop inside of them: they may wait for what its tasks wait for.
    Below(ThreadId),
}

thread_local! {
    /// How many computations are on this thread's stack.
    static COMPUTING: Cell<usize> = const { Cell::new(0) };
}

/// While it exists, this thread computes.
pub(super) struct Computing;

impl Computing {
    pub(super) fn new() -> Self {
        COMPUTING.set(COMPUTING.get() + 1);
        Self
    }
}

impl Drop for Computing {
    fn drop(&mut self) {
        COMPUTING.set(COMPUTING.get() - 1);
    }
}

/// How a flight ended.
pub(super) enum Outcome {
    Value(Py<PyAny>),
    Error(Py<PyBaseException>),
    /// An interrupt or a cancellation is the leader's own; somebody who waits takes over.
    GivenUp,
}

impl Outcome {
    pub(super) fn of(py: Python<'_>, result: &PyResult<Py<PyAny>>) -> Self {
        match result {
            Ok(value) => Self::Value(value.clone_ref(py)),
            Err(error) if error.is_instance_of::<PyException>(py) => Self::Error(error.clone_ref(py).into_value(py)),
            Err(_) => Self::GivenUp,
        }
    }
}

enum Wake {
    Thread(Arc<Latch>),
    Task(Py<PyAny>),
}

#[derive(Default)]
struct State {
    outcome: Option<Outcome>,
    waiting: Vec<Wake>,
}

/// The computation of one key's value. Its result is not stored if the key was put or deleted meanwhile.
#[pyclass(frozen, module = "zerocost._kernels")]
pub(crate) struct Flight {
    leader: Owner,
    superseded: AtomicBool,
    state: Guarded<State>,
}

impl Flight {
    pub(super) fn new(leader: Owner) -> Self {
        Self { leader, superseded: AtomicBool::new(false), state: Guarded::new(State::default()) }
    }

    /// True for one that others may wait for.
    pub(super) fn is_open(&self, py: Python<'_>) -> bool {
        !self.superseded() && !self.is_done(py)
    }

    pub(super) fn superseded(&self) -> bool {
        self.superseded.load(Ordering::SeqCst)
    }

    pub(super) fn supersede(&self) {
        self.superseded.store(true, Ordering::SeqCst);
    }

    fn is_done(&self, py: Python<'_>) -> bool {
        self.state.with(py, |state| state.outcome.is_some())
    }

    /// Ends the flight, if it has not ended yet, and wakes everyone who waits. What is raised is for the leader only.
    pub(super) fn finish(&self, py: Python<'_>, outcome: Outcome) -> PyResult<()> {
        let (waiting, _late) = self.state.with(py, |state| match state.outcome {
            Some(_) => (Vec::new(), Some(outcome)),
            None => {
                state.outcome = Some(outcome);
                (std::mem::take(&mut state.waiting), None)
            }
        });
        let mut interrupted = Ok(());
        for wake in waiting {
            match wake {
                Wake::Thread(latch) => latch.open(),
                Wake::Task(call) => {
                    let Err(error) = call.call0(py) else { continue };
                    // A signal's exception, or the bottom of the stack: neither is a reason to leave others waiting.
                    let again = move || Python::attach(|py| call.call0(py).map(drop).unwrap_or_else(|e| e.print(py)));
                    if let Err(failed) = thread::Builder::new().spawn(again) {
                        interrupted = Err(failed.into());
                    }
                    if !error.is_instance_of::<PyRecursionError>(py) {
                        interrupted = Err(error);
                    }
                }
            }
        }
        interrupted
    }

    /// What a waiter gets; None if the leader gave up.
    pub(super) fn outcome(&self, py: Python<'_>) -> PyResult<Option<Py<PyAny>>> {
        self.state
            .with(py, |state| match &state.outcome {
                Some(Outcome::Value(value)) => Ok(Some(value.clone_ref(py))),
                Some(Outcome::Error(error)) => Err(error.clone_ref(py)),
                Some(Outcome::GivenUp) | None => Ok(None),
            })
            .map_err(|error| PyErr::from_value(error.into_bound(py).into_any()))
    }

    /// Blocks this thread until the flight is done; for what is returned see [`Flight::outcome`].
    pub(super) fn wait(slf: &Bound<'_, Self>) -> PyResult<Option<Py<PyAny>>> {
        let py = slf.py();
        let latch = Arc::new(Latch::new()?);
        let _edge = Edge::new(slf, Owner::new(None))?;
        if slf.get().when_done(py, Wake::Thread(latch.clone())) {
            latch.wait(py)?;
        }
        slf.get().outcome(py)
    }

    /// Has `call` called once the flight is done; false if it is done already.
    pub(super) fn call_when_done(&self, call: &Bound<'_, PyAny>) -> bool {
        self.when_done(call.py(), Wake::Task(call.clone().unbind()))
    }

    fn when_done(&self, py: Python<'_>, wake: Wake) -> bool {
        let late = self.state.with(py, |state| match state.outcome {
            Some(_) => Some(wake),
            None => {
                state.waiting.push(wake);
                None
            }
        });
        late.is_none()
    }
}

#[pymethods]
impl Flight {
    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let look = |state: &State| {
            match &state.outcome {
                Some(Outcome::Value(value)) => visit.call(value)?,
                Some(Outcome::Error(error)) => visit.call(error)?,
                Some(Outcome::GivenUp) | None => {}
            }
            state.waiting.iter().try_for_each(|wake| match wake {
                Wake::Task(call) => visit.call(call),
                Wake::Thread(_) => Ok(()),
            })
        };
        // SAFETY: this is `tp_traverse`, and the closure only visits.
        unsafe { self.state.traverse(look) }
    }

    fn __clear__(&self) {
        Python::attach(|py| {
            // Out of the flight first, dropped when the lock is free. Nobody can reach it who waits.
            let _dropped = self.state.with(py, std::mem::take);
        });
    }
}

/// Who waits for which flights, in this process: a fork leaves the parent's threads behind.
#[derive(Default)]
struct Graph {
    process: u32,
    waits: HashMap<Node, Vec<Py<Flight>>>,
}

impl Graph {
    fn with<R>(py: Python<'_>, work: impl FnOnce(&mut Self) -> R) -> R {
        static GRAPH: OnceLock<Guarded<Graph>> = OnceLock::new();
        let process = std::process::id();
        let (result, _parents) = GRAPH.get_or_init(|| Guarded::new(Self::default())).with(py, |graph| {
            let parents = (graph.process != process).then(|| std::mem::take(&mut graph.waits));
            graph.process = process;
            (work(graph), parents)
        });
        result
    }

    /// Whether `flight` can only end after `who`, which is about to wait for it, has gone on.
    fn leads_to(&self, py: Python<'_>, flight: &Flight, who: Owner) -> bool {
        let (mut open, mut seen) = (vec![flight], HashSet::new());
        while let Some(here) = open.pop() {
            if here.is_done(py) || !seen.insert(std::ptr::from_ref(here)) {
                continue;
            }
            let leader = here.leader;
            let mut follow = |node| open.extend(self.waits.get(&node).into_iter().flatten().map(Py::get));
            match leader.task {
                // A thread's own computation, below on its stack.
                None if leader.thread == who.thread => return true,
                None => follow(Node::Below(leader.thread)),
                // A blocked thread runs none of its tasks; a task that awaits lets the others run.
                Some(task) if who.task.map_or(leader.thread == who.thread, |own| own == task) => return true,
                Some(task) => follow(Node::Task(task)),
            }
            follow(Node::Thread(leader.thread));
        }
        false
    }
}

/// While it exists, the graph knows that somebody waits for a flight.
pub(super) struct Edge {
    nodes: Vec<Node>,
    flight: Py<Flight>,
}

impl Edge {
    /// # Errors
    /// RuntimeError: who waits would wait for itself.
    pub(super) fn new(flight: &Bound<'_, Flight>, who: Owner) -> PyResult<Self> {
        let py = flight.py();
        let edge = Graph::with(py, |graph| {
            if graph.leads_to(py, flight.get(), who) {
                return None;
            }
            let nodes: Vec<Node> = who.nodes().collect();
            for &node in &nodes {
                graph.waits.entry(node).or_default().push(flight.clone().unbind());
            }
            Some(Self { nodes, flight: flight.clone().unbind() })
        });
        edge.ok_or_else(|| {
            PyRuntimeError::new_err("this computation would wait for itself, directly or through others")
        })
    }
}

impl Drop for Edge {
    fn drop(&mut self) {
        Python::attach(|py| {
            // Dropped when the graph is free.
            let _flights: Vec<_> = Graph::with(py, |graph| {
                let leave = |node: &Node| {
                    let flights = graph.waits.get_mut(node)?;
                    let found = flights.iter().position(|flight| flight.is(&self.flight));
                    let flight = found.map(|place| flights.swap_remove(place));
                    if flights.is_empty() {
                        graph.waits.remove(node);
                    }
                    flight
                };
                self.nodes.iter().filter_map(leave).collect()
            });
        });
    }
}

// In CPython's stable ABI, and not declared by pyo3.
unsafe extern "C" {
    fn PyThread_allocate_lock() -> *mut c_void;
    fn PyThread_free_lock(lock: *mut c_void);
    fn PyThread_acquire_lock_timed(lock: *mut c_void, microseconds: c_longlong, interruptible: c_int) -> c_int;
    fn PyThread_release_lock(lock: *mut c_void);
}

/// `PY_LOCK_ACQUIRED`.
const ACQUIRED: c_int = 1;

/// What a thread waits at. CPython's own lock, as waiting for it ends when a signal comes; opened without a Python
/// call, which may fail at the bottom of the stack.
struct Latch(NonNull<c_void>);

// SAFETY: CPython's locks are for use by several threads, and any may release one.
unsafe impl Send for Latch {}
// SAFETY: as above.
unsafe impl Sync for Latch {}

impl Latch {
    fn new() -> PyResult<Self> {
        // SAFETY: the new lock is free, so taking it does not wait.
        unsafe {
            let lock = NonNull::new(PyThread_allocate_lock()).ok_or_else(|| PyMemoryError::new_err("no lock"))?;
            PyThread_acquire_lock_timed(lock.as_ptr(), 0, 0);
            Ok(Self(lock))
        }
    }

    /// Called once, as a flight ends once.
    fn open(&self) {
        // SAFETY: the lock lives as long as `self`, and is held since `new`.
        unsafe { PyThread_release_lock(self.0.as_ptr()) }
    }

    /// # Errors
    /// What a signal handler raises.
    fn wait(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            // SAFETY: the lock lives as long as `self`.
            let got = py.detach(|| unsafe { PyThread_acquire_lock_timed(self.0.as_ptr(), -1, 1) });
            if got == ACQUIRED {
                return Ok(());
            }
            py.check_signals()?;
        }
    }
}

impl Drop for Latch {
    fn drop(&mut self) {
        // SAFETY: the lock lives until here, and nobody waits; it must be free to be destroyed, whoever held it.
        unsafe {
            PyThread_acquire_lock_timed(self.0.as_ptr(), 0, 0);
            PyThread_release_lock(self.0.as_ptr());
            PyThread_free_lock(self.0.as_ptr());
        }
    }
}
