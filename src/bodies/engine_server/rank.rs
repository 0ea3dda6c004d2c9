//! One data-parallel rank: the engine model at wall time, in a task of its own.
//!
//! Steps follow each other without drift: a step begins when the one before should have ended, not
//! when the timer woke up. A machine too slow for that loses the time, and the metrics say how
//! much. As in vLLM, a step's events are published before its tokens go to the clients.

use super::host_contents::HostContents;
use super::job::{Job, Progress, StoredRun};
use super::kv_events::{
    HashForm, KvEventPublisher, MEDIUM_CPU, MEDIUM_GPU, WireEvent, WireHash, WireRemoved,
};
use super::metrics::RankMetrics;
use llmd_brain::Time;
use llmd_brain::engine::{EngineModel, KvChange, RequestId, Step};
use llmd_brain::prompt::vllm::FullHash;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

/// Access to a rank, from any task.
#[derive(Debug, Clone)]
pub(super) struct RankHandle {
    commands: mpsc::UnboundedSender<Command>,
    metrics: Arc<Mutex<RankMetrics>>,
    in_flight: Arc<AtomicU32>,
}

enum Command {
    Submit { id: RequestId, job: Box<Job>, keys: Vec<FullHash> },
    Abort(RequestId),
    Reset(oneshot::Sender<bool>),
}

/// The rank is gone: the server shuts down.
#[derive(Debug)]
pub(super) struct RankStopped;

impl RankHandle {
    /// Queues a sequence. Its progress follows; dropping the flight aborts it.
    pub(super) fn submit(
        &self,
        id: RequestId,
        job: Job,
        keys: Vec<FullHash>,
        progress: watch::Receiver<Progress>,
    ) -> Result<Flight, RankStopped> {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        let command = Command::Submit { id, job: Box::new(job), keys };
        self.commands.send(command).map_err(|_| RankStopped)?;
        Ok(Flight { id, commands: self.commands.clone(), progress })
    }

    /// Empties the prefix cache; `false` while requests hold blocks.
    pub(super) async fn reset(&self) -> Result<bool, RankStopped> {
        let (answer, answered) = oneshot::channel();
        self.commands.send(Command::Reset(answer)).map_err(|_| RankStopped)?;
        answered.await.map_err(|_| RankStopped)
    }

    pub(super) fn metrics(&self) -> RankMetrics {
        self.metrics.lock().clone()
    }

    /// Sequences submitted and not yet gone.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }
}

/// A sequence in a rank, as its client holds it.
#[derive(Debug)]
pub(super) struct Flight {
    id: RequestId,
    commands: mpsc::UnboundedSender<Command>,
    progress: watch::Receiver<Progress>,
}

impl Flight {
    /// Waits for news.
    pub(super) async fn progress(&mut self) -> Result<Progress, RankStopped> {
        self.progress.changed().await.map_err(|_| RankStopped)?;
        Ok(*self.progress.borrow_and_update())
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        // The rank drops its end with the last token: what is still connected is not finished.
        if self.progress.has_changed().is_ok() {
            let _ = self.commands.send(Command::Abort(self.id));
        }
    }
}

/// The task.
pub(super) struct Rank {
    engine: EngineModel<FullHash>,
    speed: f64,
    commands: mpsc::UnboundedReceiver<Command>,
    metrics: Arc<Mutex<RankMetrics>>,
    in_flight: Arc<AtomicU32>,
    /// Never iterated, but for the adapters of the metrics page.
    jobs: HashMap<RequestId, Job>,
    events: Option<KvEventPublisher>,
    hash_form: HashForm,
    contents: Option<HostContents>,
    has_loras: bool,
    began: Instant,
    step: Step<FullHash>,
}

/// What the rank needs to know besides its engine.
pub(super) struct RankSetup {
    pub(super) engine: EngineModel<FullHash>,
    pub(super) speed: f64,
    pub(super) max_model_len: u32,
    pub(super) events: Option<KvEventPublisher>,
    pub(super) hash_form: HashForm,
    pub(super) has_loras: bool,
}

/// How far behind its schedule a rank may fall before it gives the time up.
const MAX_LAG: Duration = Duration::from_millis(100);

impl Rank {
    pub(super) fn new(setup: RankSetup) -> (Self, RankHandle) {
        let RankSetup { engine, speed, max_model_len, events, hash_form, has_loras } = setup;
        let (sender, commands) = mpsc::unbounded_channel();
        let metrics = Arc::new(Mutex::new(RankMetrics::new(max_model_len, engine.load())));
        let in_flight = Arc::new(AtomicU32::new(0));
        let contents = (engine.config().host_blocks > 0).then(HostContents::default);
        let handle = RankHandle {
            commands: sender,
            metrics: Arc::clone(&metrics),
            in_flight: Arc::clone(&in_flight),
        };
        let rank = Self {
            engine,
            speed,
            commands,
            metrics,
            in_flight,
            jobs: HashMap::new(),
            events,
            hash_form,
            contents,
            has_loras,
            began: Instant::now(),
            step: Step::default(),
        };
        (rank, handle)
    }

    /// Runs until nobody can submit any more and everything submitted is done.
    pub(super) async fn run(mut self) {
        let mut scheduled_end = None;
        loop {
            while let Ok(command) = self.commands.try_recv() {
                self.apply(command);
            }
            let now = Instant::now();
            let Some(planned) = self.engine.begin_step(self.virtual_time(now)) else {
                self.note_load();
                scheduled_end = None;
                match self.commands.recv().await {
                    Some(command) => self.apply(command),
                    None => return,
                }
                continue;
            };
            let began = self.scheduled_start(scheduled_end, now);
            let ends = began + Duration::from_secs_f64(planned.duration_ms / 1e3 / self.speed);
            scheduled_end = Some(ends);
            self.note_load();
            self.sleep_until(ends).await;
            self.end_step(began);
        }
    }

    /// A step begins where the last one should have ended, unless that is too long ago.
    fn scheduled_start(&self, scheduled_end: Option<Instant>, now: Instant) -> Instant {
        match scheduled_end {
            Some(end) if now <= end + MAX_LAG => end,
            Some(end) => {
                self.metrics.lock().late_s += (now - end).as_secs_f64();
                now
            }
            None => now,
        }
    }

    /// Takes commands while the step lasts: they change nothing about it.
    async fn sleep_until(&mut self, ends: Instant) {
        if Instant::now() >= ends {
            return tokio::task::yield_now().await;
        }
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(ends) => return,
                command = self.commands.recv() => match command {
                    Some(command) => {
                        self.apply(command);
                        self.note_load();
                    }
                    None => return tokio::time::sleep_until(ends).await,
                },
            }
        }
    }

    fn apply(&mut self, command: Command) {
        match command {
            Command::Submit { id, job, keys } => {
                match self.engine.submit(job.engine_request(id, keys)) {
                    Ok(()) => drop(self.jobs.insert(id, *job)),
                    Err(error) => {
                        tracing::error!(%error, "a request that was checked is refused");
                        self.metrics.lock().finished.error += 1;
                        self.in_flight.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            Command::Abort(id) => {
                if self.engine.abort(id) {
                    self.metrics.lock().finished.abort += 1;
                    if let Some(job) = self.jobs.get_mut(&id) {
                        job.aborted = true;
                    }
                    if !self.engine.contains(id) {
                        self.forget(id);
                    }
                }
            }
            // Whoever asked may be gone.
            Command::Reset(answer) => drop(answer.send(self.engine.reset_prefix_cache())),
        }
    }

    fn end_step(&mut self, began: Instant) {
        if !self.engine.finish_step(&mut self.step) {
            return;
        }
        self.publish();
        let step = std::mem::take(&mut self.step);
        let metrics = Arc::clone(&self.metrics);
        let mut metrics = metrics.lock();
        let now = Instant::now();
        for admission in &step.admitted {
            if let Some(job) = self.jobs.get_mut(&admission.id).filter(|_| !admission.resumed) {
                job.times.admitted = Some(began);
                job.device_hit_tokens = admission.hit_tokens;
                job.host_hit_tokens = admission.host_hit_tokens;
            }
        }
        for id in &step.preempted {
            if let Some(job) = self.jobs.get_mut(id) {
                job.preemptions += 1;
            }
        }
        metrics.step(&step);
        for id in &step.tokens {
            let Some(job) = self.jobs.get_mut(id) else { continue };
            metrics.token(job, now);
            job.times.first_token.get_or_insert(now);
            job.times.last_token = now;
            let cached_tokens = job.device_hit_tokens + job.host_hit_tokens;
            job.progress.send_modify(|progress| {
                progress.generated += 1;
                progress.cached_tokens = cached_tokens;
            });
        }
        for id in &step.finished {
            if let Some(job) = self.jobs.get(id) {
                metrics.finished(job);
            }
        }
        metrics.counters = *self.engine.counters();
        metrics.load = self.engine.load();
        drop(metrics);
        for id in step.finished.iter().chain(&step.aborted) {
            self.forget(*id);
        }
        self.step = step;
    }

    fn forget(&mut self, id: RequestId) {
        if self.jobs.remove(&id).is_some() {
            self.in_flight.fetch_sub(1, Ordering::Relaxed);
        }
    }

    fn publish(&mut self) {
        let Some(publisher) = &self.events else { return };
        let block_size = self.engine.config().block_size;
        if let Some(contents) = &mut self.contents {
            for change in &self.step.changes {
                note_contents(contents, &self.jobs, change, block_size);
            }
        }
        let form = self.hash_form;
        // An event for each block, as vLLM has it.
        let removed = |hash: &FullHash, medium| {
            let block_hashes = [WireHash(*hash, form)];
            WireEvent::BlockRemoved(WireRemoved { block_hashes, medium, group_idx: 0 })
        };
        let mut events: Vec<WireEvent<'_>> = Vec::with_capacity(self.step.changes.len());
        for change in &self.step.changes {
            match change {
                KvChange::Stored { request, .. } => {
                    if let Some(job) = self.jobs.get(request)
                        && let Some(run) = run_of(job, change, block_size)
                    {
                        let stored = job.plan.origin.stored(MEDIUM_GPU, &run, block_size, form);
                        events.push(WireEvent::BlockStored(stored));
                    }
                }
                KvChange::Removed(hashes) => {
                    events.extend(hashes.iter().map(|hash| removed(hash, MEDIUM_GPU)));
                }
                KvChange::HostStored(hash) => {
                    if let Some(content) = self.contents.as_ref().and_then(|it| it.get(hash)) {
                        let run = content.as_run(hash);
                        let stored = content.origin.stored(MEDIUM_CPU, &run, block_size, form);
                        events.push(WireEvent::BlockStored(stored));
                    }
                }
                KvChange::HostRemoved(hash) => events.push(removed(hash, MEDIUM_CPU)),
                KvChange::Cleared => events.push(WireEvent::AllBlocksCleared),
            }
        }
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        publisher.publish(since_epoch.as_secs_f64(), &events);
        if let Some(contents) = &mut self.contents {
            contents.end_of_batch();
        }
    }

    fn note_load(&mut self) {
        let mut metrics = self.metrics.lock();
        metrics.load = self.engine.load();
        if self.has_loras {
            let adapters = |running: bool| {
                let of = self.jobs.values().filter(|job| job.times.admitted.is_some() == running);
                let names = of.filter_map(|job| job.plan.origin.lora.as_ref());
                let mut names: Vec<String> = names.map(|lora| lora.name.clone()).collect();
                names.sort_unstable();
                names.dedup();
                names
            };
            metrics.running_loras = adapters(true);
            metrics.waiting_loras = adapters(false);
        }
    }

    fn virtual_time(&self, now: Instant) -> Time {
        Time::ZERO + (now - self.began).mul_f64(self.speed)
    }
}

fn run_of<'a>(
    job: &'a Job,
    change: &'a KvChange<FullHash>,
    block_size: u32,
) -> Option<StoredRun<'a>> {
    let KvChange::Stored { first_block, parent, keys, .. } = change else { return None };
    let blocks = *first_block..*first_block + keys.len() as u32;
    let tokens = job.block_tokens(blocks, block_size);
    Some(StoredRun { first_block: *first_block, parent: *parent, hashes: keys, tokens })
}

fn note_contents(
    contents: &mut HostContents,
    jobs: &HashMap<RequestId, Job>,
    change: &KvChange<FullHash>,
    block_size: u32,
) {
    match change {
        KvChange::Stored { request, .. } => {
            if let Some(job) = jobs.get(request)
                && let Some(run) = run_of(job, change, block_size)
            {
                contents.stored(&run, &job.plan.origin);
            }
        }
        KvChange::Removed(hashes) => hashes.iter().for_each(|hash| contents.removed(*hash)),
        KvChange::HostRemoved(hash) => contents.removed(*hash),
        KvChange::HostStored(hash) => contents.moved_to_host(*hash),
        KvChange::Cleared => contents.clear(),
    }
}
