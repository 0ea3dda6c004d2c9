//! From bytes of ZMQ sockets to the index: `make bench-events`.
//!
//! All that the subscriber does but the system calls: ZMTP frames out of a read buffer, sequence
//! numbers judged, payloads decoded, events applied. 64 endpoints, read in turns; half of the
//! blocks come in whole sequences, half one by one as decoding fills them ([`traffic`]). Thread CPU
//! time, medians of 9 runs into an empty index each; blocks stored are counted, the removals
//! between them only cost. `memcpy` copies the same bytes into one buffer.

mod traffic;

use bytes::Bytes;
use cpu_time::ThreadTime;
use llmd_bodies::observe::{DecodeLimits, EventFormat, Recovery, RecoveryConfig, Step};
use llmd_bodies::zmtp::{Event, Session, SessionConfig, SocketType};
use llmd_brain::index::{ApplyOutcome, IndexConfig, KvEventBatch, Residency, Source};
use llmd_brain::{EndpointId, Slot, Time};
use std::hint::black_box;
use std::time::Duration;
use traffic::{BLOCK_TOKENS, ENDPOINTS, Stream};

const RUNS: usize = 9;
/// As a connection reads.
const READ_BYTES: usize = 16 << 10;

/// One endpoint's connection and what stands behind it.
struct Reader<'a> {
    endpoint: EndpointId,
    rest: &'a [u8],
    session: Session,
    recovery: Recovery,
}

impl<'a> Reader<'a> {
    fn new(number: usize, stream: &'a Stream) -> Self {
        let mut session = Session::new(SessionConfig::new(SocketType::Sub));
        let mut publisher = Session::new(SessionConfig::new(SocketType::Pub));
        for _ in 0..2 {
            session.input().extend_from_slice(&publisher.output().split());
            publisher.input().extend_from_slice(&session.output().split());
            assert!(matches!(session.poll(), Ok(None | Some(Event::Ready(_)))));
            assert!(matches!(publisher.poll(), Ok(None | Some(Event::Ready(_)))));
        }
        let config = RecoveryConfig { has_replay: false, ..RecoveryConfig::default() };
        let mut recovery = Recovery::new(config);
        recovery.on_connected();
        Self { endpoint: endpoint(number), rest: &stream.wire, session, recovery }
    }

    /// One read of the socket. False at the end of the stream.
    fn turn(&mut self, take: &mut impl FnMut(EndpointId, &Bytes)) -> bool {
        let input = self.session.input();
        if input.capacity() - input.len() < READ_BYTES / 4 {
            input.reserve(READ_BYTES);
        }
        let (read, rest) = self.rest.split_at(self.rest.len().min(input.capacity() - input.len()));
        input.extend_from_slice(read);
        self.rest = rest;
        loop {
            let message = match self.session.poll() {
                Ok(Some(Event::Message(message))) => message,
                Ok(_) => break,
                Err(error) => unreachable!("{error}"),
            };
            let [_, sequence, payload] = &message[..] else { unreachable!("three frames") };
            let Ok(sequence) = <[u8; 8]>::try_from(&sequence[..]) else { unreachable!("a u64") };
            self.recovery.on_live(u64::from_be_bytes(sequence), payload.clone());
            while let Some(step) = self.recovery.next_step() {
                let Step::Apply { payload, .. } = step else { unreachable!("{step:?}") };
                take(self.endpoint, &payload);
            }
        }
        !read.is_empty()
    }
}

fn endpoint(number: usize) -> EndpointId {
    EndpointId { slot: Slot(number as u32), generation: 1 }
}

/// All streams to their ends, in turns.
fn read_all(readers: Vec<Reader<'_>>, mut take: impl FnMut(EndpointId, &Bytes)) {
    let mut open = readers;
    while !open.is_empty() {
        open.retain_mut(|reader| reader.turn(&mut take));
    }
}

fn index() -> Residency {
    let Ok(index) = Residency::new(IndexConfig::default(), BLOCK_TOKENS as u32) else {
        unreachable!("the defaults")
    };
    for number in 0..ENDPOINTS {
        index.join(endpoint(number), "model", Source::Events);
    }
    index
}

fn decode(payload: &[u8]) -> KvEventBatch {
    match EventFormat::Vllm.decode(payload, &DecodeLimits::default()) {
        Ok(decoded) => decoded.batch,
        Err(error) => unreachable!("{error}"),
    }
}

/// Seconds of this thread's CPU time: the median over runs of `work` on what `prepare` makes.
/// What `work` returns is dropped outside of it.
fn seconds<T, R>(mut prepare: impl FnMut() -> T, mut work: impl FnMut(T) -> R) -> f64 {
    let mut times: Vec<Duration> = (0..RUNS)
        .map(|_| {
            let prepared = prepare();
            let start = ThreadTime::now();
            let kept = work(prepared);
            let elapsed = start.elapsed();
            drop(kept);
            elapsed
        })
        .collect();
    times.sort_unstable();
    times[RUNS / 2].as_secs_f64()
}

fn main() {
    let streams: Vec<Stream> = (0..ENDPOINTS).map(Stream::new).collect();
    let stored: u64 = streams.iter().map(|stream| stream.stored_blocks).sum();
    let removed: u64 = streams.iter().map(|stream| stream.removed_blocks).sum();
    let bytes: usize = streams.iter().map(|stream| stream.wire.len()).sum();
    let readers = || -> Vec<_> {
        streams.iter().enumerate().map(|(number, stream)| Reader::new(number, stream)).collect()
    };

    // The answer first: every block arrived, and none that was not sent.
    let filled = index();
    let mut outcome = ApplyOutcome::default();
    read_all(readers(), |endpoint, payload| {
        outcome += filled.apply(Time::ZERO, endpoint, &decode(payload));
    });
    let expected =
        ApplyOutcome { stored_blocks: stored, removed_blocks: removed, ..ApplyOutcome::default() };
    assert_eq!(outcome, expected);
    drop(filled);

    let frames = seconds(readers, |readers| {
        read_all(readers, |_, payload| {
            black_box(payload);
        });
    });
    let decoding = seconds(readers, |readers| {
        read_all(readers, |_, payload| {
            black_box(decode(payload));
        });
    });
    let e2e = seconds(
        || (readers(), index()),
        |(readers, index)| {
            read_all(readers, |endpoint, payload| {
                index.apply(Time::ZERO, endpoint, &decode(payload));
            });
            index
        },
    );
    let mut batches = Vec::new();
    read_all(readers(), |endpoint, payload| batches.push((endpoint, decode(payload))));
    let applying = seconds(index, |index| {
        for (endpoint, batch) in &batches {
            index.apply(Time::ZERO, *endpoint, batch);
        }
        index
    });
    let mut copy = vec![0; streams.iter().map(|stream| stream.wire.len()).max().unwrap_or(0)];
    let memcpy = seconds(
        || (),
        |()| {
            for stream in &streams {
                copy[..stream.wire.len()].copy_from_slice(black_box(&stream.wire));
                black_box(&mut copy);
            }
        },
    );

    let mblocks = |seconds: f64| stored as f64 / seconds / 1e6;
    let gbytes = |seconds: f64| bytes as f64 / seconds / 1e9;
    println!(
        "{stored} blocks stored and {removed} removed in {bytes} bytes of {} messages' batches, \
         ns a stored block: frames {:.0}, frames and decoding {:.0}, applying {:.0}, all {:.0}",
        batches.len(),
        frames / stored as f64 * 1e9,
        decoding / stored as f64 * 1e9,
        applying / stored as f64 * 1e9,
        e2e / stored as f64 * 1e9,
    );
    println!(
        "BENCH {{\"events_e2e\": {:.3}, \"events_decode\": {:.3}, \"events_apply\": {:.3}, \
         \"events_frames\": {:.3}, \"events_decode_gbytes\": {:.3}, \"memcpy_gbytes\": {:.2}}}",
        mblocks(e2e),
        mblocks(decoding),
        mblocks(applying),
        mblocks(frames),
        gbytes(decoding),
        gbytes(memcpy),
    );
}
