//! A gateway inside a server of Python's, and how an event loop hears of its answers.
//!
//! The gateway's threads never take the GIL. They put the numbers of exchanges of which something has
//! come into a mailbox, and where it was empty, one byte into a socket, which the loop watches: however
//! much comes until it looks is one wake.

use crate::errors::PromptError;
use crate::gateway::{closed, refused, reload, settings};
use crate::json;
use bytes::Bytes;
use llmd_bodies::gateway::{self, End, Head, News};
use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::{PyBytes, PyList};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// `(status, headers)`.
type AnswerHead<'py> = (u16, Bound<'py, PyList>);
/// `(head, body, is_over, fault)`.
type Taken<'py> = (Option<AnswerHead<'py>>, Bound<'py, PyBytes>, bool, Option<String>);

#[doc = stub_doc!("MountedGateway")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct MountedGateway {
    /// Gone once it is closed.
    mounted: Mutex<Option<gateway::MountedGateway>>,
    admin_url: Option<String>,
}

impl MountedGateway {
    fn with<T>(&self, work: impl FnOnce(&gateway::MountedGateway) -> T) -> PyResult<T> {
        self.mounted.lock().as_ref().map(work).ok_or_else(closed)
    }
}

#[pymethods]
impl MountedGateway {
    #[new]
    fn new(py: Python<'_>, config: &Bound<'_, PyAny>) -> PyResult<Self> {
        let (parsed, source) = settings(config)?;
        let mounted = py.detach(|| gateway::MountedGateway::start(parsed, source));
        let mounted = mounted.map_err(refused)?;
        let admin_url = mounted.admin_url();
        Ok(Self { mounted: Mutex::new(Some(mounted)), admin_url })
    }

    #[doc = stub_doc!("MountedGateway.admin_url")]
    #[getter]
    fn admin_url(&self) -> Option<&str> {
        self.admin_url.as_deref()
    }

    #[doc = stub_doc!("MountedGateway.endpoints")]
    fn endpoints<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let documents = self.with(|mounted| mounted.gateway().router().documents())?;
        json::document(py, &documents)
    }

    #[doc = stub_doc!("MountedGateway.reload")]
    #[pyo3(signature = (config=None))]
    fn reload(&self, py: Python<'_>, config: Option<&Bound<'_, PyAny>>) -> PyResult<()> {
        let gateway = self.with(|mounted| Arc::clone(mounted.gateway()))?;
        reload(py, &gateway, config)
    }

    #[doc = stub_doc!("MountedGateway.ask")]
    fn ask(
        &self,
        mailbox: &Mailbox,
        method: &str,
        target: &str,
        headers: Vec<[PyBackedBytes; 2]>,
    ) -> PyResult<Exchange> {
        let post = Arc::clone(&mailbox.post);
        let number = mailbox.next.fetch_add(1, Relaxed);
        let headers = headers.iter().map(|[name, value]| (&name[..], &value[..]));
        let head = Head { method, target, headers };
        let exchange = self.with(|mounted| mounted.ask(head, move || post.tell(number)))?;
        Ok(Exchange { exchange, number })
    }

    #[doc = stub_doc!("MountedGateway.drain")]
    fn drain(&self, py: Python<'_>) {
        let mounted = self.mounted.lock().take();
        py.detach(|| mounted.map(gateway::MountedGateway::drain));
    }

    #[doc = stub_doc!("MountedGateway.close")]
    fn close(&self, py: Python<'_>) {
        let mounted = self.mounted.lock().take();
        py.detach(|| drop(mounted));
    }
}

#[doc = stub_doc!("Exchange")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Exchange {
    exchange: gateway::Exchange,
    number: u64,
}

#[pymethods]
impl Exchange {
    #[doc = stub_doc!("Exchange.number")]
    #[getter]
    fn number(&self) -> u64 {
        self.number
    }

    #[doc = stub_doc!("Exchange.feed")]
    fn feed(&self, piece: &Bound<'_, PyAny>, is_last: bool) -> PyResult<bool> {
        let piece: PyBackedBytes = piece.extract().map_err(|_| {
            let kind = piece.get_type();
            PromptError::new_err(format!("a piece of a request's body is {kind}: give bytes"))
        })?;
        Ok(self.exchange.feed(Bytes::copy_from_slice(&piece), is_last))
    }

    #[doc = stub_doc!("Exchange.take")]
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Taken<'py>>> {
        let Some(News { head, pieces, end }) = self.exchange.take() else { return Ok(None) };
        let head = head.map(|(status, headers)| {
            let pairs = headers.iter().map(|(name, value)| {
                (PyBytes::new(py, name.as_ref()), PyBytes::new(py, value.as_bytes()))
            });
            PyList::new(py, pairs.collect::<Vec<_>>()).map(|headers| (status.as_u16(), headers))
        });
        let length = pieces.iter().map(Bytes::len).sum();
        let body = PyBytes::new_with(py, length, |mut room| {
            for piece in &pieces {
                let (here, rest) = room.split_at_mut(piece.len());
                here.copy_from_slice(piece);
                room = rest;
            }
            Ok(())
        })?;
        let (is_over, fault) = match end {
            None => (false, None),
            Some(End::Whole) => (true, None),
            Some(End::CutOff(why)) => (true, Some(why)),
        };
        Ok(Some((head.transpose()?, body, is_over, fault)))
    }

    #[doc = stub_doc!("Exchange.cancel")]
    fn cancel(&self) {
        self.exchange.cancel();
    }
}

#[doc = stub_doc!("Mailbox")]
#[pyclass(module = "llmd_sched", frozen)]
pub struct Mailbox {
    post: Arc<Post>,
    woken: UnixStream,
    next: AtomicU64,
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let pair = || {
            let (wake, woken) = UnixStream::pair()?;
            wake.set_nonblocking(true)?;
            woken.set_nonblocking(true)?;
            Ok((wake, woken))
        };
        let (wake, woken) =
            pair().map_err(|error: std::io::Error| PyOSError::new_err(error.to_string()))?;
        let post = Arc::new(Post { ready: Mutex::default(), wake });
        Ok(Self { post, woken, next: AtomicU64::new(0) })
    }

    #[doc = stub_doc!("Mailbox.fileno")]
    fn fileno(&self) -> i32 {
        self.woken.as_raw_fd()
    }

    #[doc = stub_doc!("Mailbox.collect")]
    fn collect(&self) -> Vec<u64> {
        // The bytes first: what comes after them finds the list as it was, or writes another.
        let mut bytes = [0; 16];
        while (&self.woken).read(&mut bytes).is_ok_and(|read| read == bytes.len()) {}
        std::mem::take(&mut *self.post.ready.lock())
    }
}

/// The end of a mailbox at which the gateway's threads are.
struct Post {
    ready: Mutex<Vec<u64>>,
    wake: UnixStream,
}

impl Post {
    fn tell(&self, number: u64) {
        let mut ready = self.ready.lock();
        ready.push(number);
        if ready.len() == 1 {
            // It has room: there is no byte in it, or one that nobody has read yet.
            let _ = (&self.wake).write(&[0]);
        }
    }
}
