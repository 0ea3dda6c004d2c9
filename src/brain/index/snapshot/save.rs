//! Records of what an engine holds whose blocks are the router's.

use super::{MAX_RECORD_BLOCKS, MoreCopies, Record, Run};
use crate::index::copies::Copies;
use crate::index::plain::PlainView;
use crate::index::publisher::Publisher;
use crate::index::tree::{BlockRef, Hold, Seen};
use crate::{EngineHash, Tier};
use std::collections::HashMap;

impl PlainView {
    /// Hands all records to `sink`, runs in order. Returns how many blocks they hold.
    pub(in crate::index) fn save(&self, out: &Publisher<'_>, sink: &mut dyn FnMut(Record)) -> u64 {
        let mut runs = vec![];
        out.tree.visit(out.who, |before, seen| runs.push((before, seen)));
        let mut save = Save { view: self, out, sink, aliases: self.names_of_aliased(), runs: 0 };
        let mut ends: HashMap<BlockRef, u32> = HashMap::with_capacity(runs.len());
        let mut blocks = 0;
        for (before, seen) in runs {
            let parent = before.and_then(|before| ends.get(&before).copied());
            ends.insert(seen.first.plus(seen.len - 1), save.run(parent, seen));
            blocks += if seen.hold.meets(Hold::EXACT) { u64::from(seen.len) } else { 0 };
        }
        blocks
    }
}

struct Save<'a> {
    view: &'a PlainView,
    out: &'a Publisher<'a>,
    sink: &'a mut dyn FnMut(Record),
    aliases: HashMap<BlockRef, Vec<EngineHash>>,
    /// Runs handed out so far.
    runs: u32,
}

impl Save<'_> {
    /// One run of the tree, in as many records as it takes; the number of the last.
    fn run(&mut self, parent: Option<u32>, seen: Seen) -> u32 {
        let (mut parent, mut done) = (parent, 0);
        while done < seen.len {
            let first = seen.first.plus(done);
            let most = (seen.len - done).min(MAX_RECORD_BLOCKS as u32);
            let len = self.view.alike(first, most);
            parent = Some(self.piece(parent, first, len, seen.hold));
            done += len;
        }
        parent.unwrap_or_default()
    }

    /// Blocks of one run of which each is plain, or the only one.
    fn piece(&mut self, parent: Option<u32>, first: BlockRef, len: u32, hold: Hold) -> u32 {
        let keys = self.out.tree.keys(first, len);
        let number = self.runs;
        self.runs += 1;
        if !hold.meets(Hold::EXACT) {
            (self.sink)(Record::Run(Run { parent, keys, ..Run::default() }));
            return number;
        }
        let shared = self.out.tree.names(first, len);
        let mut copies: Vec<(EngineHash, Copies)> = vec![];
        let names = match hold.meets(Hold::ALIASED) || !self.view.is_plain(first) {
            false => shared,
            true => (0..len)
                .map(|i| {
                    let shared = shared[i as usize];
                    let aliases = self.aliases.get(&first.plus(i)).map_or(&[][..], Vec::as_slice);
                    copies = self.view.copies_of(first.plus(i), hold, shared, aliases);
                    copies.first().map_or(shared, |&(name, _)| name)
                })
                .collect(),
        };
        let one_each = match self.view.is_plain(first) {
            true => hold,
            // The only block of the piece.
            false => copies.first().map_or(Hold::NONE, |&(_, copies)| copies.hold()),
        };
        let tiers = Tier::ALL.into_iter().filter(|&tier| one_each.meets(Hold::on(tier))).collect();
        let more = self.more_copies(number, first, len, &names, &copies);
        (self.sink)(Record::Run(Run { parent, tiers, keys, names }));
        for record in more {
            (self.sink)(Record::Copies(record));
        }
        number
    }

    fn more_copies(
        &self,
        run: u32,
        first: BlockRef,
        len: u32,
        names: &[EngineHash],
        copies: &[(EngineHash, Copies)],
    ) -> Vec<MoreCopies> {
        if self.view.is_plain(first) {
            let extra = self.view.extra_copies(first, len);
            let record = |(offset, len, copies): (u32, u32, u32)| MoreCopies {
                run,
                offset,
                tier: Tier::Gpu,
                copies: u16::try_from(copies).unwrap_or(u16::MAX),
                names: names[offset as usize..(offset + len) as usize].to_vec(),
            };
            return extra.map(record).collect();
        }
        let of_name = |(i, &(name, copies)): (usize, &(EngineHash, Copies))| {
            Tier::ALL.into_iter().filter_map(move |tier| {
                // The run itself has one of each of the first name's.
                let copies = copies.on(tier).saturating_sub(u16::from(i == 0));
                (copies > 0).then(|| MoreCopies { run, offset: 0, tier, copies, names: vec![name] })
            })
        };
        copies.iter().enumerate().flat_map(of_name).collect()
    }
}
