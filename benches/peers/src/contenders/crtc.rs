//! Dynamo's default index, the concurrent radix tree. Its events go through its own worker loop
//! and queue: it has no other way in.

use super::router_event::{local_hashes, router_event};
use super::{Index, Lookups};
use crate::clock::Bell;
use crate::ops::Op;
use dynamo_kv_router::ConcurrentRadixTreeCompressed;
use dynamo_kv_router::indexer::{SyncIndexer, WorkerTask};
use dynamo_kv_router::protocols::LocalBlockHash;
use std::hint::black_box;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::thread::{self, JoinHandle};
use tokio::sync::oneshot;

pub struct Crtc {
    tree: Option<Arc<ConcurrentRadixTreeCompressed>>,
    queue: flume::Sender<WorkerTask>,
    /// Taken by the worker when it starts.
    waiting: Option<flume::Receiver<WorkerTask>>,
    worker: Option<JoinHandle<()>>,
}

/// A mark in the queue: tells how much CPU time the worker had used when it got there.
struct Mark {
    bell: Arc<Bell>,
    /// Kept, or the worker would find nobody to wake.
    _answer: Pin<Box<oneshot::Receiver<()>>>,
}

impl Crtc {
    pub fn tree(&self) -> &ConcurrentRadixTreeCompressed {
        self.tree.as_ref().unwrap()
    }

    pub fn send(&self, op: &Op<'_>) {
        self.queue.send(WorkerTask::Event(router_event(op))).unwrap();
    }

    /// Starts the worker, which takes over the calling thread's cores.
    pub fn start(&mut self) {
        if let Some(queue) = self.waiting.take() {
            let tree = Arc::clone(self.tree.as_ref().unwrap());
            self.worker = Some(thread::spawn(move || tree.worker(queue, None).unwrap()));
        }
    }

    /// Waits until all that was sent is applied; what the worker had cost by then.
    pub fn flush(&self) -> f64 {
        self.mark().bell.wait()
    }

    fn mark(&self) -> Mark {
        let bell = Arc::new(Bell::default());
        let (done, answer) = oneshot::channel();
        let mut answer = Box::pin(answer);
        let waker = Waker::from(Arc::clone(&bell));
        let early = answer.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(early.is_pending());
        self.queue.send(WorkerTask::Flush(done)).unwrap();
        Mark { bell, _answer: answer }
    }
}

impl Index for Crtc {
    const NAME: &'static str = "crtc";

    fn new(_endpoints: u32) -> Self {
        let (queue, waiting) = flume::unbounded();
        let tree = Some(Arc::new(ConcurrentRadixTreeCompressed::new()));
        Self { tree, queue, waiting: Some(waiting), worker: None }
    }

    /// All is in the queue before the worker starts, so it neither sleeps nor contends.
    fn drive(&mut self, phases: &[Vec<Op<'_>>]) -> Vec<f64> {
        let mut marks = vec![self.mark()];
        for ops in phases {
            ops.iter().for_each(|op| self.send(op));
            marks.push(self.mark());
        }
        self.start();
        let at: Vec<f64> = marks.iter().map(|mark| mark.bell.wait()).collect();
        at.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }

    fn feed(&mut self, op: &Op<'_>) {
        self.start();
        self.send(op);
        self.flush();
    }

    fn prepare<'a>(&'a self, queries: &'a [Vec<u64>]) -> Box<dyn Lookups + 'a> {
        let queries = queries.iter().map(|query| local_hashes(query)).collect();
        Box::new(CrtcLookups { tree: self.tree(), queries })
    }
}

struct CrtcLookups<'a> {
    tree: &'a ConcurrentRadixTreeCompressed,
    queries: Vec<Vec<LocalBlockHash>>,
}

impl Lookups for CrtcLookups<'_> {
    fn one(&mut self, query: usize) {
        black_box(self.tree.find_matches(black_box(&self.queries[query]), false));
    }

    fn answer(&mut self, query: usize, depths: &mut [u32]) {
        for (worker, depth) in self.tree.find_matches(&self.queries[query], false).scores {
            depths[worker.worker_id as usize] = depth;
        }
    }
}

impl Drop for Crtc {
    fn drop(&mut self) {
        let _ = self.queue.send(WorkerTask::Terminate);
        self.waiting = None;
        if let Some(worker) = self.worker.take() {
            worker.join().unwrap();
        }
        // A chain of one-block nodes is dropped by recursion, deeper than a thread's usual stack.
        let tree = self.tree.take();
        let dropping = thread::Builder::new().stack_size(1 << 30).spawn(move || drop(tree));
        dropping.unwrap().join().unwrap();
    }
}
