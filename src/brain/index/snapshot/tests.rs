use super::format::{FormatError, Item, Reader, Writer};
use super::{Exported, ImportError, MoreCopies, Record, Run};
use crate::index::{Depths, IndexConfig, Residency, Source};
use crate::rng::Rng;
use crate::{BlockKey, EndpointId, EngineHash, Slot, Tier, Time};

/// What the endpoint holds goes out as bytes and comes back from them.
pub(in crate::index) fn reload(index: &Residency, now: Time, endpoint: EndpointId) {
    let mut writer = Writer::new(16);
    let Exported::Whole { blocks } = index.export(endpoint, |record| writer.record(&record)) else {
        return;
    };
    writer.endpoint_end(blocks);
    writer.end();
    let items = read(&writer.take(), 7).unwrap();
    let records = items.into_iter().filter_map(|item| match item {
        Item::Record(record) => Some(record),
        _ => None,
    });
    assert_eq!(import(index, now, endpoint, records), Ok(blocks));
}

fn import(
    index: &Residency,
    now: Time,
    endpoint: EndpointId,
    records: impl IntoIterator<Item = Record>,
) -> Result<u64, ImportError> {
    let mut records = records.into_iter();
    index.import(now, endpoint, || Ok(records.next()))
}

/// Everything in a stream that comes in pieces of so many bytes.
fn read(stream: &[u8], piece: usize) -> Result<Vec<Item>, FormatError> {
    let (mut reader, mut items) = (Reader::new(), vec![]);
    for piece in stream.chunks(piece) {
        reader.push(piece);
        while let Some(item) = reader.next()? {
            items.push(item);
        }
    }
    reader.finish().map(|()| items)
}

fn endpoint(slot: u32) -> EndpointId {
    EndpointId { slot: Slot(slot), generation: 1 }
}

fn index(endpoints: u32) -> Residency {
    let index = Residency::new(IndexConfig::default(), 16).unwrap();
    for slot in 0..endpoints {
        index.join(endpoint(slot), "m", Source::Events);
    }
    index
}

fn some_records() -> Vec<Record> {
    let keys = |from: u64, len: u64| (from..from + len).map(BlockKey).collect::<Vec<_>>();
    let names = |from: u64, len: u64| (from..from + len).map(EngineHash).collect::<Vec<_>>();
    vec![
        Record::Group(0),
        Record::Run(Run { keys: keys(1, 3), ..Run::default() }),
        Record::Run(Run {
            parent: Some(0),
            tiers: vec![Tier::Gpu, Tier::Storage],
            keys: keys(4, 5),
            names: names(100, 5),
        }),
        Record::Copies(MoreCopies {
            run: 1,
            offset: 2,
            tier: Tier::Gpu,
            copies: 2,
            names: names(102, 2),
        }),
    ]
}

fn some_stream() -> Vec<u8> {
    let mut writer = Writer::new(16);
    for name in ["one", "two"] {
        writer.endpoint(name.as_bytes());
        some_records().iter().for_each(|record| writer.record(record));
        writer.endpoint_end(5);
    }
    writer.end();
    writer.take()
}

#[test]
fn a_stream_is_read_as_it_was_written_in_whatever_pieces() {
    let stream = some_stream();
    for piece in [1, 3, 64, stream.len()] {
        let mut expected = vec![Item::Header(16)];
        for name in ["one", "two"] {
            expected.push(Item::Endpoint(name.as_bytes().to_vec()));
            expected.extend(some_records().into_iter().map(Item::Record));
            expected.push(Item::EndpointEnd(5));
        }
        expected.push(Item::End);
        assert_eq!(read(&stream, piece), Ok(expected));
    }
}

#[test]
fn every_byte_that_changes_and_every_byte_that_is_missing_is_found() {
    let stream = some_stream();
    for at in 0..stream.len() {
        let mut damaged = stream.clone();
        damaged[at] ^= 0x10;
        assert!(read(&damaged, 64).is_err(), "byte {at} was changed");
        assert!(read(&stream[..at], 64).is_err(), "from byte {at} on all is missing");
    }
    assert_eq!(read(b"not one at all.", 64), Err(FormatError::Magic(*b"not on")));
    let mut newer = stream.clone();
    newer[6] = 2;
    assert_eq!(read(&newer, 64), Err(FormatError::Version(2)));
    let mut longer = stream;
    longer.extend([4; 32]);
    assert!(matches!(read(&longer, 64), Err(FormatError::Malformed { .. })));
}

#[test]
fn what_is_held_comes_back_with_its_copies_tiers_and_gaps() {
    let index = index(1);
    assert_eq!(import(&index, Time::ZERO, endpoint(0), some_records()), Ok(5));
    let counts = index.blocks(endpoint(0)).unwrap();
    assert_eq!(counts.exact, [5, 0, 0, 0]);
    // Of block 102 there are three copies in GPU memory.
    let name = [EngineHash(102)];
    assert_eq!([1; 3], [0; 3].map(|_| index.remove(endpoint(0), &name)));
    assert_eq!(index.blocks(endpoint(0)).unwrap().exact, [4, 0, 1, 0]);
    reload(&index, Time::ZERO, endpoint(0));
    assert_eq!(index.blocks(endpoint(0)).unwrap().exact, [4, 0, 1, 0]);
}

#[test]
fn records_that_contradict_themselves_are_refused_and_leave_nothing() {
    let index = index(1);
    let import = |record| {
        let records = some_records().into_iter().chain([record]);
        let refused = import(&index, Time::ZERO, endpoint(0), records);
        assert_eq!(index.blocks(endpoint(0)).unwrap().exact, [0; 4]);
        assert_eq!(index.stats().keys, 0);
        refused
    };
    let tiers = vec![Tier::Gpu];
    let orphan = Run { parent: Some(7), keys: vec![BlockKey(9)], ..Run::default() };
    assert_eq!(
        import(Record::Run(orphan)),
        Err(ImportError::UnknownRun { record: 5, run: 7, block: 0 })
    );
    let nameless = Run { tiers, keys: vec![BlockKey(9)], ..Run::default() };
    assert_eq!(
        import(Record::Run(nameless)),
        Err(ImportError::Names { record: 5, names: 0, keys: 1 })
    );
    for (run, offset) in [(1, 5), (0, 0), (9, 0)] {
        let names = vec![EngineHash(1)];
        let more = MoreCopies { run, offset, tier: Tier::Cpu, copies: 1, names };
        assert!(matches!(import(Record::Copies(more)), Err(ImportError::UnknownRun { .. })));
    }
    assert_eq!(
        super::tests::import(&index, Time::ZERO, endpoint(3), some_records()),
        Err(ImportError::Gone)
    );
}

#[test]
fn a_snapshot_of_a_larger_index_stops_at_the_bound_and_leaves_nothing() {
    let config = IndexConfig { max_bytes: 8 << 20, ..IndexConfig::default() };
    let index = Residency::new(config, 16).unwrap();
    index.join(endpoint(0), "m", Source::Events);
    let mut taken = 0;
    let run = |number: u64| {
        let keys: Vec<_> = (0..1000).map(|i| BlockKey(1 + number * 1000 + i)).collect();
        let names = keys.iter().map(|key| EngineHash(key.0)).collect();
        Record::Run(Run { tiers: vec![Tier::Gpu], keys, names, ..Run::default() })
    };
    // A hundred times what there is room for.
    let records = (0..25_000).map(|number| {
        taken += 1;
        run(number)
    });
    assert_eq!(import(&index, Time::ZERO, endpoint(0), records), Err(ImportError::Full));
    assert!((100..1_000).contains(&taken), "it took {taken} records to see it");
    assert_eq!((index.blocks(endpoint(0)).unwrap().exact, index.stats().keys), ([0; 4], 0));
}

#[test]
fn a_fleet_comes_back_elsewhere() {
    let (here, mut rng) = (index(40), Rng::new(5));
    let prompts: Vec<Vec<BlockKey>> = (0..60)
        .map(|_| (0..1 + rng.below(90)).map(|_| BlockKey(rng.next_u64())).collect())
        .collect();
    let name = |key: &BlockKey| EngineHash(key.0.rotate_left(9));
    for _ in 0..2_000 {
        let (who, prompt) = (rng.below(40) as u32, &prompts[rng.below(60) as usize]);
        let len = 1 + rng.below(prompt.len() as u64) as usize;
        let names: Vec<_> = prompt[..len].iter().map(name).collect();
        match rng.below(3) {
            0 => drop(here.remove(endpoint(who), &names[len / 2..])),
            _ => drop(here.store(endpoint(who), None, &names, &prompt[..len])),
        }
    }
    let there = index(40);
    for who in 0..40 {
        let mut records = vec![];
        let exported = here.export(endpoint(who), |record| records.push(record));
        let Exported::Whole { blocks } = exported else { panic!("{exported:?}") };
        assert_eq!(import(&there, Time::ZERO, endpoint(who), records), Ok(blocks));
    }
    let (mut ours, mut theirs) = (Depths::new(), Depths::new());
    for prompt in &prompts {
        here.depths(prompt, &mut ours);
        there.depths(prompt, &mut theirs);
        assert_eq!(ours.blocks(), theirs.blocks());
    }
}
