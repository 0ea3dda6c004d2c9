//! What is written reads back, and what is lost is told.

use super::writer::DecisionLog;
use super::{FORMAT, LogError, LogReader, MAGIC, Next, replay};
use llmd_brain::Time;
use llmd_brain::brain::{Brain, BrainConfig, Input, LogEntry};
use llmd_brain::fleet::EndpointSpec;
use llmd_brain::prompt::{Scope, token_keys};
use llmd_brain::schedule::Request;
use parking_lot::Mutex;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// A file that goes when the test ends.
struct Scratch(PathBuf);

impl Scratch {
    fn new(name: &str) -> Self {
        let name = format!("llmd-decision-log-{}-{name}", std::process::id());
        Self(std::env::temp_dir().join(name))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn at_ms(millis: u64) -> Time {
    Time::ZERO + Duration::from_millis(millis)
}

/// A brain that has made some decisions, all written to `log`.
fn decide(log: &DecisionLog, requests: u32) -> Vec<LogEntry> {
    let entries = Arc::new(Mutex::new(Vec::new()));
    let brain = Brain::new(BrainConfig::default()).unwrap();
    let (mut sink, copies) = (log.sink(), Arc::clone(&entries));
    brain.record(Some(Box::new(move |entry: LogEntry| {
        copies.lock().push(entry.clone());
        sink(entry);
    })));
    for address in ["a", "b"] {
        brain.step(at_ms(0), Input::Join(EndpointSpec::new(address, "m"))).unwrap();
    }
    for number in 0..requests {
        let tokens: Vec<u32> = (number..number + 100).collect();
        let mut keys = Vec::new();
        token_keys(&tokens, 16, &Scope::default(), &mut keys).unwrap();
        let request = Request { prompt_tokens: 100, block_tokens: 16, ..Request::default() };
        let input = Input::Arrive { request, keys, foreign: Vec::new() };
        brain.step(at_ms(u64::from(number)), input).unwrap();
    }
    brain.record(None);
    entries.lock().clone()
}

fn read(path: &Path) -> Vec<Next> {
    let mut reader = LogReader::open(path).unwrap();
    let mut records = Vec::new();
    loop {
        let record = reader.next_record().unwrap();
        let is_last = matches!(record, Next::End | Next::CutOff);
        records.push(record);
        if is_last {
            return records;
        }
    }
}

#[test]
fn what_is_written_reads_back_and_replays() {
    let file = Scratch::new("round-trip");
    let log = DecisionLog::create(&file.0, &BrainConfig::default()).unwrap();
    let entries = decide(&log, 20);
    drop(log);

    let records = read(&file.0);
    assert!(matches!(records.last(), Some(Next::End)));
    let read: Vec<LogEntry> = records
        .into_iter()
        .filter_map(|record| match record {
            Next::Entry(entry) => Some(*entry),
            _ => None,
        })
        .collect();
    assert_eq!(read, entries);
    let replayed = replay(&file.0).unwrap();
    assert!(replayed.report.is_identical() && replayed.complete);
    assert_eq!((replayed.report.decisions, replayed.lost), (20, 0));
}

#[test]
fn a_header_says_by_what_the_log_was_made() {
    let file = Scratch::new("header");
    let config = BrainConfig { block_size: 64, seed: 3, ..BrainConfig::default() };
    drop(DecisionLog::create(&file.0, &config).unwrap());
    let reader = LogReader::open(&file.0).unwrap();
    assert_eq!(reader.header().format, FORMAT);
    assert_eq!(reader.header().release, env!("CARGO_PKG_VERSION"));
    assert_eq!(reader.config().unwrap(), config);
}

#[test]
fn what_the_disk_is_too_slow_for_is_counted_and_marked_in_the_file() {
    let file = Scratch::new("lost");
    let log = DecisionLog::bounded(&file.0, &BrainConfig::default(), 0).unwrap();
    let entries = decide(&log, 5);
    assert_eq!(log.stats().lost, entries.len() as u64);
    drop(log);

    let records = read(&file.0);
    assert!(matches!(records[..], [Next::Lost(lost), Next::End] if lost == entries.len() as u64));
    assert_eq!(replay(&file.0).unwrap().lost, entries.len() as u64);
}

#[test]
fn what_comes_after_the_end_is_counted_as_lost() {
    let file = Scratch::new("late");
    let log = DecisionLog::create(&file.0, &BrainConfig::default()).unwrap();
    let mut sink = log.sink();
    let entries = decide(&log, 1);
    drop(log);
    sink(entries[0].clone());
    assert!(matches!(read(&file.0).last(), Some(Next::End)));
}

#[test]
fn every_cut_of_a_log_is_read_as_far_as_it_goes() {
    let file = Scratch::new("cuts");
    let log = DecisionLog::create(&file.0, &BrainConfig::default()).unwrap();
    decide(&log, 2);
    drop(log);
    let whole = std::fs::read(&file.0).unwrap();
    let header = u32::from_le_bytes(whole[8..12].try_into().unwrap()) as usize + 12;
    for cut in header..whole.len() {
        let mut reader = LogReader::new(&whole[..cut]).unwrap();
        loop {
            match reader.next_record().unwrap() {
                Next::Entry(_) => {}
                Next::CutOff => break,
                other => panic!("{other:?} at a cut of {cut} bytes"),
            }
        }
    }
    for cut in 0..header {
        assert!(LogReader::new(&whole[..cut]).is_err(), "{cut}");
    }
}

#[test]
fn a_length_from_elsewhere_allocates_nothing() {
    let mut bytes = MAGIC.to_vec();
    bytes.extend(u32::MAX.to_le_bytes());
    let refused = LogReader::new(&bytes[..]).err().unwrap();
    assert!(matches!(refused, LogError::Damaged { frame: 0, .. }), "{refused}");
}

/// Fields are written by position: what later releases add stands behind what earlier ones wrote.
#[test]
fn what_a_release_before_tenants_wrote_is_read() {
    use llmd_brain::brain::{Action, RejectReason};
    use llmd_brain::schedule::{Request, Slo};

    let slo = Slo { ttft_ms: Some(250.0), tpot_ms: None };
    let labels = std::collections::BTreeMap::from([("gpu", "large")]);
    let origin = llmd_brain::fleet::Topology::default();
    let then = (
        ("m", None::<&str>, 40_u32, 16_u32, false, None::<u32>, Some("s"), -1_i32),
        (slo, None::<Vec<u8>>, labels, origin, 900_u64),
    );
    // One array of thirteen.
    let ((a, b, c, d, e, f, g, h), (i, j, k, l, m)) = &then;
    let bytes: Vec<u8> = std::iter::once(0x9d)
        .chain(
            [rmp_serde::to_vec(&(a, b, c, d, e, f, g, h)), rmp_serde::to_vec(&(i, j, k, l, m))]
                .into_iter()
                .flat_map(|part| part.unwrap().split_off(1)),
        )
        .collect();
    let read: Request = rmp_serde::from_slice(&bytes).unwrap();
    assert_eq!((read.prompt_tokens, read.hold_ms, read.priority), (40, 900, -1));
    assert_eq!((read.tenant, read.deadline_ms, read.expected_output_tokens), (None, None, None));

    let old = std::collections::BTreeMap::from([("Reject", (7_u64, RejectReason::EmptyFleet))]);
    let read: Action = rmp_serde::from_slice(&rmp_serde::to_vec(&old).unwrap()).unwrap();
    let Action::Reject { retry_after_ms: None, ticket, .. } = read else { panic!("{read:?}") };
    assert_eq!(ticket.0, 7);
}
