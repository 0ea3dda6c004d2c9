//! What this router has in flight, one reservation a request. Every operation takes constant time.
//!
//! Two kinds of lists run through one slab. The *lease* list holds all reservations in the order
//! of their last renewal: with one lease for all and a clock that does not go back that is the
//! order of expiry, so no heap is needed and nothing stale is left behind by a release. Each slot
//! has a list of requests that wait for their first token, in order of booking (its head is what
//! the engine prefills now), and one of those that decode.

use super::links::{Links, List};
use super::meter::{DecodeWindow, Meter, Reading};
use super::peers::{PrefillTotals, Queue, QueueHead};
use super::{Ahead, Load, Predicted, PrefillHead, prefill_pairs};
use crate::{EndpointId, ReservationId, Slot, Ticket, Time};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Load to book for a routed request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Booking {
    /// The request.
    pub ticket: Ticket,
    /// Its prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens that the endpoint must compute; more than the prompt counts as the prompt.
    pub uncached_tokens: u32,
    /// What is predicted of it.
    pub predicted: Predicted,
    /// Time per output token that the client asks for, milliseconds.
    pub objective_tpot_ms: Option<f64>,
    /// How long the client says its answer will be.
    pub expected_output_tokens: Option<u32>,
    /// Nobody will tell of its first token.
    pub first_token_is_untold: bool,
}

/// Load that is booked on an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Reservation {
    /// Its name.
    pub id: ReservationId,
    /// The request.
    pub ticket: Ticket,
    /// Where the request runs.
    pub endpoint: EndpointId,
    /// Its prompt.
    pub prompt_tokens: u32,
    /// Prompt tokens that the endpoint must compute.
    pub uncached_tokens: u32,
    /// Output tokens so far.
    pub output_tokens: u32,
    /// When it was booked.
    pub booked_at: Time,
    /// When its first token came.
    pub first_token_at: Option<Time>,
    /// When its last token came, or it was booked.
    pub renewed_at: Time,
    /// What it found before itself when it was booked.
    pub ahead: Ahead,
    /// What was predicted of it.
    pub predicted: Predicted,
    /// Time per output token that the client asks for, milliseconds.
    #[serde(default)]
    pub objective_tpot_ms: Option<f64>,
    /// How long the client says its answer will be.
    #[serde(default)]
    pub expected_output_tokens: Option<u32>,
    /// Nobody will tell of its first token: when it came is a guess.
    #[serde(default)]
    pub first_token_is_untold: bool,
}

/// A request in flight, and what its endpoint did since its first token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct InFlight {
    /// Its prompt.
    pub prompt_tokens: u32,
    /// When its first token came.
    pub first_token_at: Option<Time>,
    /// Uncached tokens of others that were prefilled since; 0 before it.
    pub prefill_tokens: f64,
    /// Their token pairs.
    pub prefill_pairs: f64,
    /// Output tokens that were reported.
    pub output_tokens: u32,
    /// Time per output token that its client asks for, milliseconds.
    pub objective_ms: Option<f64>,
    /// How long its client says the answer will be.
    pub expected_output_tokens: Option<u32>,
}

impl Reservation {
    /// Token pairs of its prefill.
    #[must_use]
    pub fn prefill_pairs(&self) -> u64 {
        prefill_pairs(self.uncached_tokens, self.prompt_tokens - self.uncached_tokens)
    }

    /// What it adds to its endpoint's load now: uncached tokens until the first token, context
    /// tokens from then on.
    #[must_use]
    pub fn load(&self) -> Load {
        let context_tokens = u64::from(self.prompt_tokens) + u64::from(self.output_tokens);
        let load = Load {
            inflight_requests: 1,
            inflight_context_tokens: context_tokens,
            ..Load::default()
        };
        if self.first_token_at.is_some() {
            Load { decoding_requests: 1, active_decode_tokens: context_tokens, ..load }
        } else {
            Load {
                pending_prefill_tokens: u64::from(self.uncached_tokens),
                pending_prefill_pairs: self.prefill_pairs(),
                ..load
            }
        }
    }
}

/// A row of the slab; vacant rows keep their generation, so that an old id finds nobody.
#[derive(Debug, Clone)]
struct Entry {
    generation: u32,
    reservation: Option<Reservation>,
    /// The slot's meter at the first token.
    decode_start: Reading,
}

/// What the ledger knows of a slot.
#[derive(Debug, Clone)]
struct Row {
    load: Load,
    prefilling: List,
    decoding: List,
    head_since: Time,
    meter: Meter,
    /// For peers: when the oldest prefill was done last, and what was sent here in all.
    head_done_at: Option<Time>,
    prefills: PrefillTotals,
}

impl Row {
    fn empty(now: Time) -> Self {
        Self {
            load: Load::default(),
            prefilling: List::EMPTY,
            decoding: List::EMPTY,
            head_since: now,
            meter: Meter::starting(now),
            head_done_at: None,
            prefills: PrefillTotals::default(),
        }
    }
}

/// The reservations of one router.
#[derive(Debug, Clone)]
pub(super) struct Ledger {
    entries: Vec<Entry>,
    vacant: Vec<u32>,
    live: usize,
    limit: usize,
    lease: Duration,
    by_renewal: List,
    renewal_links: Links,
    phase_links: Links,
    rows: Vec<Row>,
}

impl Ledger {
    pub(super) fn new(limit: usize, lease: Duration) -> Self {
        Self {
            entries: Vec::new(),
            vacant: Vec::new(),
            live: 0,
            // An id has 32 bits for the row, and the links keep the last for "none".
            limit: limit.min(u32::MAX as usize - 1),
            lease,
            by_renewal: List::EMPTY,
            renewal_links: Links::default(),
            phase_links: Links::default(),
            rows: Vec::new(),
        }
    }

    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn limit(&self) -> usize {
        self.limit
    }

    /// A slot has a new tenant.
    pub(super) fn admit(&mut self, now: Time, slot: Slot) {
        while self.rows.len() <= slot.index() {
            self.rows.push(Row::empty(now));
        }
        self.rows[slot.index()] = Row::empty(now);
    }

    pub(super) fn load(&self, slot: Slot) -> Load {
        self.rows.get(slot.index()).map_or_else(Load::default, |row| row.load)
    }

    /// Where our prefills are on a slot.
    pub(super) fn queue(&self, slot: Slot) -> Queue {
        let Some(row) = self.rows.get(slot.index()) else { return Queue::default() };
        let oldest = row.prefilling.head().map(|index| &self.entries[index as usize]);
        let head = oldest.and_then(|entry| entry.reservation.as_ref()).map(|it| QueueHead {
            booked_at: it.booked_at,
            prefill: PrefillHead {
                since: row.head_since,
                uncached_tokens: it.uncached_tokens,
                pairs: it.prefill_pairs(),
            },
        });
        Queue { head, done_at: row.head_done_at }
    }

    /// Everything that was sent to a slot to be prefilled.
    pub(super) fn prefills(&self, slot: Slot) -> PrefillTotals {
        self.rows.get(slot.index()).map_or_else(PrefillTotals::default, |row| row.prefills)
    }

    /// Tells the meter of a slot what its load is from `now` on.
    pub(super) fn meter(&mut self, now: Time, slot: Slot, total: &Load) {
        if let Some(row) = self.rows.get_mut(slot.index()) {
            row.meter.set(now, total);
        }
    }

    /// A prefill of somebody else's is done on a slot, in so many steps.
    pub(super) fn others_prefilled(
        &mut self,
        now: Time,
        slot: Slot,
        uncached_tokens: u64,
        pairs: u64,
        steps: u64,
    ) {
        if let Some(row) = self.rows.get_mut(slot.index()) {
            row.meter.prefilled(now, uncached_tokens, pairs, steps);
        }
    }

    pub(super) fn get(&self, id: ReservationId) -> Option<&Reservation> {
        let (index, generation) = split(id);
        let entry = self.entries.get(index as usize)?;
        entry.reservation.as_ref().filter(|_| entry.generation == generation)
    }

    /// Books on an admitted slot; `None` at the limit.
    pub(super) fn book(
        &mut self,
        now: Time,
        endpoint: EndpointId,
        booking: &Booking,
        ahead: Ahead,
    ) -> Option<ReservationId> {
        if self.live >= self.limit {
            return None;
        }
        let index = self.vacant.pop().unwrap_or_else(|| {
            self.entries.push(Entry {
                generation: 0,
                reservation: None,
                decode_start: Reading::default(),
            });
            self.renewal_links.grow();
            self.phase_links.grow();
            (self.entries.len() - 1) as u32
        });
        let entry = &mut self.entries[index as usize];
        entry.generation = entry.generation.wrapping_add(1);
        let id = join(index, entry.generation);
        let reservation = Reservation {
            id,
            ticket: booking.ticket,
            endpoint,
            prompt_tokens: booking.prompt_tokens,
            uncached_tokens: booking.uncached_tokens.min(booking.prompt_tokens),
            output_tokens: 0,
            booked_at: now,
            first_token_at: None,
            renewed_at: now,
            ahead,
            predicted: booking.predicted,
            objective_tpot_ms: booking.objective_tpot_ms,
            expected_output_tokens: booking.expected_output_tokens,
            first_token_is_untold: booking.first_token_is_untold,
        };
        entry.reservation = Some(reservation);
        self.live += 1;
        self.renewal_links.push_back(&mut self.by_renewal, index);
        let row = &mut self.rows[endpoint.slot.index()];
        if row.prefilling.head().is_none() {
            row.head_since = now;
        }
        self.phase_links.push_back(&mut row.prefilling, index);
        row.load += reservation.load();
        row.prefills.booked_requests += 1;
        row.prefills.booked_tokens += u64::from(reservation.uncached_tokens);
        row.prefills.booked_pairs += reservation.prefill_pairs();
        Some(id)
    }

    /// A token came: `output_tokens` in all, never fewer than before. Renews the lease. The first
    /// one ends the prefill. Tells where, and whether it was the first; `None` where the reservation
    /// is gone. A token of prefill takes `steps_per_token` of the engine's steps.
    pub(super) fn token(
        &mut self,
        now: Time,
        id: ReservationId,
        output_tokens: u32,
        steps_per_token: &[f64],
    ) -> Option<(Slot, bool)> {
        let (index, generation) = split(id);
        let entry = self.entries.get_mut(index as usize).filter(|e| e.generation == generation)?;
        let reservation = entry.reservation.as_mut()?;
        let slot = reservation.endpoint.slot;
        let row = &mut self.rows[slot.index()];
        row.load -= reservation.load();
        let is_first = reservation.first_token_at.is_none();
        if is_first {
            reservation.first_token_at = Some(now);
            let steps = steps_per_token.get(slot.index()).copied().unwrap_or_default();
            let steps = (f64::from(reservation.uncached_tokens) * steps).ceil().max(1.0) as u64;
            let (tokens, pairs) =
                (u64::from(reservation.uncached_tokens), reservation.prefill_pairs());
            row.meter.prefilled(now, tokens, pairs, steps);
            row.prefills.done_tokens += tokens;
            row.prefills.done_pairs += pairs;
            row.prefills.done_steps += steps;
            entry.decode_start = row.meter.read(now);
            if row.prefilling.head() == Some(index) {
                row.head_since = now;
                row.head_done_at = Some(now);
            }
            self.phase_links.unlink(&mut row.prefilling, index);
            self.phase_links.push_back(&mut row.decoding, index);
        }
        reservation.output_tokens = reservation.output_tokens.max(output_tokens).max(1);
        reservation.renewed_at = now;
        row.load += reservation.load();
        self.renewal_links.unlink(&mut self.by_renewal, index);
        self.renewal_links.push_back(&mut self.by_renewal, index);
        Some((slot, is_first))
    }

    /// The decode of a reservation so far; `None` before its second token.
    pub(super) fn decode_window(&self, now: Time, id: ReservationId) -> Option<DecodeWindow> {
        let reservation = self.get(id)?;
        let start = &self.entries[split(id).0 as usize].decode_start;
        let nanos = now.since(reservation.first_token_at?).as_nanos();
        let end = self.rows[reservation.endpoint.slot.index()].meter.read(now);
        DecodeWindow::between(start, &end, nanos, reservation.output_tokens.saturating_sub(1))
    }

    /// A reservation as one of [`Self::in_flight`].
    pub(super) fn in_flight_one(&self, id: ReservationId) -> Option<InFlight> {
        let it = self.get(id)?;
        let row = self.rows.get(it.endpoint.slot.index())?;
        let entry = &self.entries[split(id).0 as usize];
        Some(in_flight(entry, it, row.meter.prefilled_so_far()))
    }

    /// Everything in flight on a slot: first what waits for its first token, then what decodes.
    pub(super) fn in_flight(&self, slot: Slot) -> impl Iterator<Item = InFlight> + '_ {
        let row = self.rows.get(slot.index());
        let prefilled = row.map_or((0, 0), |row| row.meter.prefilled_so_far());
        let of = move |list: List| {
            let mut at = list.head();
            std::iter::from_fn(move || {
                let index = at?;
                at = self.phase_links.next(index);
                let entry = &self.entries[index as usize];
                let it = entry.reservation.as_ref()?;
                Some(in_flight(entry, it, prefilled))
            })
        };
        row.into_iter().flat_map(move |row| of(row.prefilling).chain(of(row.decoding)))
    }

    /// Ends a reservation; `None` where it has ended before.
    pub(super) fn release(&mut self, now: Time, id: ReservationId) -> Option<Reservation> {
        self.get(id)?;
        self.take(now, split(id).0)
    }

    /// Ends everything on a slot: first those without a token, in order of booking, then those
    /// that decode, in order of their first token.
    pub(super) fn evict(&mut self, now: Time, slot: Slot) -> Vec<Reservation> {
        let Some(row) = self.rows.get(slot.index()) else { return Vec::new() };
        let mut ended = Vec::with_capacity(row.load.inflight_requests as usize);
        while let Some(index) = self.head_of(slot) {
            ended.extend(self.take(now, index));
        }
        ended
    }

    fn head_of(&self, slot: Slot) -> Option<u32> {
        let row = self.rows.get(slot.index())?;
        row.prefilling.head().or(row.decoding.head())
    }

    /// Ends the reservation whose lease ran out first, if it ran out by `now`.
    pub(super) fn expire_one(&mut self, now: Time) -> Option<Reservation> {
        let index = self.by_renewal.head()?;
        (self.next_expiry()? <= now).then(|| self.take(now, index)).flatten()
    }

    /// When the next lease runs out.
    pub(super) fn next_expiry(&self) -> Option<Time> {
        let index = self.by_renewal.head()?;
        Some(self.entries[index as usize].reservation.as_ref()?.renewed_at + self.lease)
    }

    /// All reservations, in the order of their last renewal.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reservation> {
        let mut at = self.by_renewal.head();
        std::iter::from_fn(move || {
            let index = at?;
            at = self.renewal_links.next(index);
            self.entries[index as usize].reservation.as_ref()
        })
    }

    fn take(&mut self, now: Time, index: u32) -> Option<Reservation> {
        let reservation = self.entries[index as usize].reservation.take()?;
        let row = &mut self.rows[reservation.endpoint.slot.index()];
        if reservation.first_token_at.is_some() {
            self.phase_links.unlink(&mut row.decoding, index);
        } else {
            if row.prefilling.head() == Some(index) {
                row.head_since = now;
            }
            self.phase_links.unlink(&mut row.prefilling, index);
        }
        row.load -= reservation.load();
        self.renewal_links.unlink(&mut self.by_renewal, index);
        self.vacant.push(index);
        self.live -= 1;
        Some(reservation)
    }
}

fn in_flight(entry: &Entry, it: &Reservation, prefilled: (u64, u128)) -> InFlight {
    let (prefill_tokens, prefill_pairs) = match it.first_token_at {
        Some(_) => entry.decode_start.prefilled_until(prefilled),
        None => (0.0, 0.0),
    };
    InFlight {
        prompt_tokens: it.prompt_tokens,
        first_token_at: it.first_token_at,
        prefill_tokens,
        prefill_pairs,
        output_tokens: it.output_tokens,
        objective_ms: it.objective_tpot_ms,
        expected_output_tokens: it.expected_output_tokens,
    }
}

/// An id is the row with its tenant number above it.
fn join(index: u32, generation: u32) -> ReservationId {
    ReservationId(u64::from(generation) << 32 | u64::from(index))
}

fn split(id: ReservationId) -> (u32, u32) {
    (id.0 as u32, (id.0 >> 32) as u32)
}
