//! The fleet's load: the ledger and the peers' totals, summed into the columns.

use super::ledger::{Booking, InFlight, Reservation};
use super::peers::{PrefillTotals, Queue, Told, TooManyPeers};
use super::{DecodeWindow, Fleet, FleetError, Load, PeerHead, PeerLoad, PeerOutcome, PeerTotals};
use crate::{EndpointId, ReservationId, Slot, Time};

/// Longest name of a router, in bytes.
const MAX_ROUTER_NAME_BYTES: usize = 256;

impl Fleet {
    /// Books a request on an endpoint, at the decision. Health is not asked: who decides has asked.
    ///
    /// # Errors
    /// [`FleetError::Unknown`]; [`FleetError::TooManyReservations`]. Nothing is booked.
    pub fn book(
        &mut self,
        now: Time,
        id: EndpointId,
        booking: &Booking,
    ) -> Result<ReservationId, FleetError> {
        let now = self.clamp(now);
        let slot = self.slot_of(id)?;
        let ahead = self.columns.ahead(slot);
        let full = FleetError::TooManyReservations(self.ledger.limit());
        let reservation = self.ledger.book(now, id, booking, ahead).ok_or(full)?;
        self.others.booked(now, slot, booking.prompt_tokens, booking.uncached_tokens);
        self.refresh_load(now, slot);
        Ok(reservation)
    }

    /// The first output token came: what was pending prefill is active decode from now on. Later
    /// calls only renew the lease. Returns whether it was the first.
    ///
    /// # Errors
    /// [`FleetError::UnknownReservation`]: it was released or expired; harmless.
    pub fn first_token(&mut self, now: Time, id: ReservationId) -> Result<bool, FleetError> {
        self.progress(now, id, 1)
    }

    /// The output has grown to `output_tokens` in all; fewer than before change nothing, but any
    /// news renews the lease. Returns whether this was news of the first token.
    ///
    /// # Errors
    /// [`FleetError::UnknownReservation`]: it was released or expired; harmless.
    pub fn progress(
        &mut self,
        now: Time,
        id: ReservationId,
        output_tokens: u32,
    ) -> Result<bool, FleetError> {
        let now = self.clamp(now);
        let steps_per_token = &self.columns.steps_per_token;
        let renewed = self.ledger.token(now, id, output_tokens, steps_per_token);
        let (slot, is_first) = renewed.ok_or(FleetError::UnknownReservation(id))?;
        self.columns.step_ended_ms[slot.index()] = now.as_millis_f64();
        if is_first && let Some(it) = self.ledger.get(id) {
            let done = self.others.first_token(now, slot, it);
            self.others_prefilled(now, slot, done);
        }
        self.refresh_load(now, slot);
        Ok(is_first)
    }

    /// The prefill of a request that still waits for its first token counts as done, which nobody told.
    /// Returns whether it does so now.
    pub(crate) fn guess_first_token(&mut self, now: Time, id: ReservationId) -> bool {
        let now = self.clamp(now);
        if self.ledger.get(id).is_none_or(|it| it.first_token_at.is_some()) {
            return false;
        }
        let done = self.ledger.token(now, id, 1, &self.columns.steps_per_token);
        if let Some((slot, _)) = done {
            self.refresh_load(now, slot);
        }
        done.is_some()
    }

    /// Ends a reservation: the request finished, failed or was cancelled. Returns whether it was
    /// there; doing it twice is harmless.
    pub fn release(&mut self, now: Time, id: ReservationId) -> bool {
        let now = self.clamp(now);
        let Some(ended) = self.ledger.release(now, id) else { return false };
        if ended.first_token_at.is_none() || ended.first_token_is_untold {
            self.others.gone(now, ended.endpoint.slot, &ended);
        }
        self.refresh_load(now, ended.endpoint.slot);
        true
    }

    /// Ends every lease that has run out, the longest silent first, and zeroes peers that have
    /// fallen silent.
    pub fn expire(&mut self, now: Time) -> Vec<Reservation> {
        let now = self.clamp(now);
        let mut ended = Vec::new();
        while let Some(reservation) = self.ledger.expire_one(now) {
            self.refresh_load(now, reservation.endpoint.slot);
            ended.push(reservation);
        }
        let mut touched = Vec::new();
        self.peers.expire(now, &mut touched);
        self.refresh_loads(now, &touched);
        ended
    }

    /// When [`expire`](Self::expire) has something to do next.
    #[must_use]
    pub fn next_expiry(&self) -> Option<Time> {
        let (lease, peer) = (self.ledger.next_expiry(), self.peers.next_expiry());
        lease.into_iter().chain(peer).min()
    }

    /// A reservation that has not ended.
    #[must_use]
    pub fn reservation(&self, id: ReservationId) -> Option<&Reservation> {
        self.ledger.get(id)
    }

    /// All reservations, in the order of their last renewal.
    pub fn reservations(&self) -> impl Iterator<Item = &Reservation> {
        self.ledger.iter()
    }

    /// Number of reservations.
    #[must_use]
    pub fn reserved(&self) -> usize {
        self.ledger.live()
    }

    /// How a request's decode went so far and under what load; `None` before its second token.
    /// What the latency model learns from, so ask before the release.
    #[must_use]
    pub fn decode_window(&self, now: Time, id: ReservationId) -> Option<DecodeWindow> {
        self.ledger.decode_window(now.max(self.latest), id)
    }

    /// Requests that this router has in flight on a slot.
    #[must_use]
    pub fn own_requests(&self, slot: Slot) -> u32 {
        self.ledger.load(slot).inflight_requests
    }

    /// What this router has in flight on a slot.
    pub fn in_flight(&self, slot: Slot) -> impl Iterator<Item = InFlight> + '_ {
        self.ledger.in_flight(slot)
    }

    /// A reservation, and what its endpoint did since its first token.
    #[must_use]
    pub fn in_flight_one(&self, id: ReservationId) -> Option<InFlight> {
        self.ledger.in_flight_one(id)
    }

    /// Load that this router has on a slot.
    #[must_use]
    pub fn own_load(&self, slot: Slot) -> Load {
        self.ledger.load(slot)
    }

    /// Load that all peers together have on a slot.
    #[must_use]
    pub fn peer_load(&self, slot: Slot) -> Load {
        self.peers.load(slot)
    }

    /// What this router tells its peers at `now`: its own load on every endpoint that it has sent
    /// anything, in slot order.
    #[must_use]
    pub fn own_totals(&self, now: Time) -> Vec<PeerLoad> {
        let now = now.max(self.latest);
        let us_ago = |at: Time| now.since(at).as_micros() as u64;
        let sent = self.ids().map(|id| (id, self.ledger.prefills(id.slot)));
        sent.filter(|(_, prefills)| *prefills != PrefillTotals::default())
            .filter_map(|(id, prefills)| {
                let spec = self.spec_at(id.slot)?;
                let Queue { head, done_at } = self.ledger.queue(id.slot);
                Some(PeerLoad {
                    address: spec.address.clone(),
                    dp_rank: spec.dp_rank,
                    load: self.ledger.load(id.slot),
                    head: head.map(|head| PeerHead {
                        booked_us_ago: us_ago(head.booked_at),
                        since_us_ago: us_ago(head.prefill.since),
                        uncached_tokens: head.prefill.uncached_tokens,
                        pairs: head.prefill.pairs,
                    }),
                    head_done_us_ago: done_at.map(us_ago),
                    prefills,
                })
            })
            .collect()
    }

    /// Takes in a peer's totals; they replace all that it said before. Endpoints that are not in
    /// this fleet are counted and skipped, values beyond reason are cut.
    ///
    /// # Errors
    /// [`FleetError::TooManyPeers`] for a new router when the table is full of live ones;
    /// [`FleetError::RouterName`] for one without a name or with one that is too long.
    pub fn apply_peer(
        &mut self,
        now: Time,
        totals: &PeerTotals,
    ) -> Result<PeerOutcome, FleetError> {
        let now = self.clamp(now);
        if totals.router.is_empty() || totals.router.len() > MAX_ROUTER_NAME_BYTES {
            return Err(FleetError::RouterName { bytes: totals.router.len() });
        }
        if totals.router == self.config.router {
            return Ok(PeerOutcome::Echo);
        }
        let mut told = Vec::new();
        for endpoint in &totals.endpoints {
            let id = self.find(&endpoint.address, endpoint.dp_rank);
            told.extend(id.map(|id| (id.slot, Told::at(now, endpoint))));
        }
        let unknown_endpoints = totals.endpoints.len() - told.len();
        let mut touched = Vec::new();
        self.placed_by_peers.clear();
        let risen = &mut self.placed_by_peers;
        let applied = self.peers.apply(now, totals, told, &mut touched, risen);
        for (slot, rise) in &self.placed_by_peers {
            if rise.done_steps > 0 {
                let (tokens, pairs) = (rise.done_tokens, rise.done_pairs);
                self.ledger.others_prefilled(now, *slot, tokens, pairs, rise.done_steps);
            }
        }
        self.refresh_loads(now, &touched);
        let full = |TooManyPeers| FleetError::TooManyPeers(self.config.max_peers);
        Ok(if applied.map_err(full)? {
            PeerOutcome::Applied { unknown_endpoints }
        } else {
            PeerOutcome::Late
        })
    }

    /// Where the last of [`apply_peer`](Self::apply_peer) told of more prefills than before: how many more.
    #[must_use]
    pub fn placed_by_peers(&self) -> &[(Slot, PrefillTotals)] {
        &self.placed_by_peers
    }

    /// Brings the columns and the meter of a slot up to the ledger and the peers.
    pub(super) fn refresh_load(&mut self, now: Time, slot: Slot) {
        let mut total = self.ledger.load(slot) + self.peers.load(slot);
        let own = self.ledger.queue(slot);
        let head = if self.peers.is_told(now) {
            own.beside(self.peers.queue(slot)).prefill()
        } else {
            total += self.others.load(slot);
            // The older one: engines prefill in the order of arrival.
            let own = own.head.map(|head| head.prefill);
            let heads = [own, self.others.head(slot)].into_iter().flatten();
            heads.min_by_key(|head| head.since)
        };
        self.ledger.meter(now, slot, &total);
        self.columns.set_load(slot, total, head);
    }

    fn refresh_loads(&mut self, now: Time, slots: &[Slot]) {
        for &slot in slots {
            self.refresh_load(now, slot);
        }
    }
}
