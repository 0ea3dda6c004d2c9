//! Foreign bytes, captured ones and what mutation makes of them, through every decoder. Two seconds,
//! or as many as `LLMD_FUZZ_SECONDS` says; the same mutations for the same `LLMD_FUZZ_SEED`.

use llmd_brain::rng::Rng;
use llmd_data::transfer::descriptor::Check;
use llmd_data::transfer::wire::auth::Introduction;
use llmd_data::transfer::wire::frame::{HEADER_BYTES, Header};
use llmd_data::transfer::wire::reply::{Reply, Verdict};
use llmd_data::transfer::wire::request::{Request, Span};
use llmd_data::transfer::{Op, RemoteRegion};
use std::time::{Duration, Instant};

fn variable(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

/// One message of each kind: a kind, then a body.
fn seeds() -> Vec<Vec<u8>> {
    let checks = vec![Check { slot: 3, epoch: 9 }, Check { slot: 4, epoch: 1 << 40 }];
    let spans = vec![Span { offset: 4096, bytes: 512 }, Span { offset: 1 << 33, bytes: 1 }];
    let requests = [
        Request::Move {
            op: Op::Read,
            id: 1,
            region: 2,
            checks: checks.clone(),
            spans: spans.clone(),
        },
        Request::Move { op: Op::Write, id: 1, region: 2, checks: vec![], spans },
        Request::Grant { id: 7, region: 8, checks },
        Request::Release { id: 7 },
        Request::Attach { region: 1 },
        Request::Notify { op: Op::Write, tag: 5, part: 6, bytes: 7 },
        Request::QueuePair { address: vec![1; 30] },
        Request::RemoteKey { region: 3 },
    ];
    let replies = [
        Reply::Data { id: 1 },
        Reply::Verdict { id: 1, verdict: Verdict::Stale { slot: 1, expected: 2 } },
        Reply::Attached { region: 1, length: 4096, blocks: 1 },
        Reply::NotAttached { region: 1, verdict: Verdict::UnknownRegion },
        Reply::Detached { region: 1 },
        Reply::QueuePair { address: vec![2; 30] },
        Reply::RemoteKey { region: 1, address: 2, key: Some(3) },
    ];
    let framed = |encode: &dyn Fn(&mut Vec<u8>) -> u8| {
        let mut body = Vec::new();
        let kind = encode(&mut body);
        [vec![kind], body].concat()
    };
    let mut seeds: Vec<_> =
        requests.iter().map(|request| framed(&|body| request.encode(body))).collect();
    seeds.extend(replies.iter().map(|reply| framed(&|body| reply.encode(body))));
    let header = Header { kind: 1, body_bytes: 64, payload_bytes: 1 << 20, sequence: 0 };
    seeds.push([vec![0], header.encode().to_vec()].concat());
    let said = Introduction {
        incarnation: 1,
        boot: vec![b'b'; 36],
        unix_name: vec![b'u'; 30],
        rdma: true,
    };
    seeds.push(framed(&|body| {
        said.encode(body);
        0
    }));
    let numbers = [1u64, 2, 8192, 4096].map(u64::to_le_bytes).concat();
    seeds.push([&[0], &numbers[..], &[2, 0, 0, 0, 2, 0, 0, 0, 0], &[9; 64]].concat());
    seeds
}

/// Every decoder; what is understood must mean the same once written and read again.
fn decode(input: &[u8]) {
    let Some((&kind, body)) = input.split_first() else { return };
    if let Some(request) = Request::decode(kind, body) {
        let mut again = Vec::new();
        let kind = request.encode(&mut again);
        assert_eq!(Request::decode(kind, &again), Some(request));
    }
    if let Some(reply) = Reply::decode(kind, body) {
        let mut again = Vec::new();
        let kind = reply.encode(&mut again);
        assert_eq!(Reply::decode(kind, &again), Some(reply));
    }
    if let Some(said) = Introduction::decode(body) {
        let mut again = Vec::new();
        said.encode(&mut again);
        assert_eq!(Introduction::decode(&again), Some(said));
    }
    if let Ok(region) = RemoteRegion::decode(body) {
        assert_eq!(RemoteRegion::decode(&region.encode()), Ok(region));
    }
    if let Some(header) = body.first_chunk::<HEADER_BYTES>()
        && let Ok(header) = Header::decode(header, 0)
    {
        assert_eq!(Header::decode(&header.encode(), 0), Ok(header));
    }
}

#[test]
fn no_bytes_break_a_decoder() {
    let seeds = seeds();
    let understood = seeds.iter().filter(|seed| {
        Request::decode(seed[0], &seed[1..]).is_some()
            || Reply::decode(seed[0], &seed[1..]).is_some()
    });
    assert_eq!(understood.count(), 15);
    assert!(RemoteRegion::decode(&seeds[seeds.len() - 1][1..]).is_ok());
    seeds.iter().for_each(|seed| decode(seed));
    let mut rng = Rng::new(variable("LLMD_FUZZ_SEED", 0x6c6c_6d64));
    let time = Duration::from_secs(variable("LLMD_FUZZ_SECONDS", 2));
    let start = Instant::now();
    while start.elapsed() < time {
        for _ in 0..256 {
            let mut input = seeds[rng.below(seeds.len() as u64) as usize].clone();
            for _ in 0..=rng.below(4) {
                let at = rng.below(input.len() as u64 + 1) as usize;
                match rng.below(5) {
                    0 if at < input.len() => input[at] ^= 1 << rng.below(8),
                    1 if at < input.len() => input[at] = rng.next_u64() as u8,
                    2 => input.truncate(at),
                    3 => {
                        let number = rng.next_u64().to_le_bytes();
                        let width = 1 << rng.below(4);
                        input.splice(at..at, number.into_iter().take(width));
                    }
                    _ => {
                        let to = (at + rng.below(9) as usize).min(input.len());
                        drop(input.drain(at..to));
                    }
                }
            }
            decode(&input);
        }
    }
}
