use super::queue::{FairQueue, Turn};
use super::{Asked, Order, PoolId, TenantId, TurnConfig, TurnQueue, Turns, WaitWhen};
use crate::schedule::{Request, Slo};
use crate::{Ticket, Time};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::time::Duration;

fn at(ms: u64) -> Time {
    Time::from_nanos(ms * 1_000_000)
}

fn queue(age_s: u64, aged_every: u32) -> FairQueue {
    FairQueue::new(Duration::from_secs(age_s), aged_every)
}

fn turn(ticket: u64, priority: i32, tenant: u64, cost: f64) -> Turn {
    let since = at(ticket);
    Turn {
        ticket: Ticket(ticket),
        priority,
        tenant: TenantId(tenant),
        rank: since.as_nanos(),
        cost,
        since,
    }
}

/// Lets `count` go, one after the other.
fn let_go(queue: &mut FairQueue, now: Time, count: usize) -> Vec<Turn> {
    let go = |queue: &mut FairQueue| queue.next(now).and_then(|ticket| queue.served(ticket));
    (0..count).map_while(|_| go(queue)).collect()
}

fn tickets(turns: &[Turn]) -> Vec<u64> {
    turns.iter().map(|turn| turn.ticket.0).collect()
}

#[test]
fn bands_go_first_then_tenants_by_tokens_then_who_came_first() {
    let mut queue = queue(1_000, 8);
    for (ticket, priority, tenant, cost) in [
        (1, 0, 1, 100.0),
        (2, 0, 1, 100.0),
        (3, 0, 1, 100.0),
        (4, 0, 2, 250.0),
        (5, 0, 2, 10.0),
        (6, 3, 1, 900.0),
    ] {
        queue.push(turn(ticket, priority, tenant, cost));
    }
    // 6 is of a band of its own; then both at 0, then 1 at 100, at 200 and, as 2 is at 250, at 300.
    assert_eq!(tickets(&let_go(&mut queue, at(9), 9)), [6, 1, 4, 2, 3, 5]);
    assert!(queue.is_empty());
}

#[test]
fn one_that_comes_back_has_no_credit() {
    let mut queue = queue(1_000, 8);
    for ticket in 1..=20 {
        queue.push(turn(ticket, 0, 1, 10.0));
    }
    let_go(&mut queue, at(50), 10);
    for ticket in 101..=110 {
        queue.push(turn(ticket, 0, 2, 10.0));
    }
    let next = let_go(&mut queue, at(200), 6);
    let of_second = next.iter().filter(|turn| turn.tenant == TenantId(2)).count();
    assert_eq!(of_second, 3, "they alternate from now on: {:?}", tickets(&next));
}

#[test]
fn whoever_is_aged_gets_every_nth_turn_whatever_its_priority() {
    let mut queue = queue(1, 4);
    queue.push(turn(1, -9, 1, 10.0));
    queue.push(turn(2, -9, 1, 10.0));
    for ticket in 3..=40 {
        queue.push(turn(ticket, 9, 2, 10.0));
    }
    assert_eq!(tickets(&let_go(&mut queue, at(900), 5)), [3, 4, 5, 6, 7], "nobody is aged yet");
    let late = tickets(&let_go(&mut queue, at(5_000), 8));
    assert_eq!(late, [1, 8, 9, 10, 2, 11, 12, 13]);
}

fn request(tenant: &str) -> Request {
    Request { tenant: Some(tenant.into()), hold_ms: 1_000, ..Request::default() }
}

#[test]
fn one_tenant_s_requests_go_as_configured() {
    let order = |order, settings: fn(u64) -> (Request, u32)| {
        let config = TurnConfig { order, short_first_ms_per_token: 1.0, ..TurnConfig::default() };
        let mut turns = Turns::new(&config);
        for ticket in 0..4 {
            let (request, uncached) = settings(ticket);
            turns.push(Ticket(ticket), at(100 * ticket), &request, uncached, 300.0);
        }
        let pool = PoolId::of(&request("a"));
        let mut gone = Vec::new();
        while let Some(ticket) = turns.next(at(500), pool) {
            turns.served(ticket);
            gone.push(ticket.0);
        }
        assert!(turns.is_empty() && !turns.waits(pool) && turns.look(9).is_empty());
        gone
    };
    let sizes = |ticket| (request("a"), [500, 450, 90, 10][ticket as usize]);
    assert_eq!(order(Order::Fcfs, sizes), [0, 1, 2, 3]);
    // By arrival and size in milliseconds: 500, 550, 290, 310.
    assert_eq!(order(Order::ShortestFirst, sizes), [2, 3, 0, 1]);
    let due = |ticket| {
        let slo = Slo { ttft_ms: Some(700.0), ..Slo::default() };
        let all = [
            request("a"),                                          // at 1,000, its hold
            Request { deadline_ms: Some(50), ..request("a") },     // at 150
            Request { slo, ..request("a") },                       // at 900
            Request { deadline_ms: Some(9), slo, ..request("a") }, // at 309
        ];
        (all[ticket as usize].clone(), 10)
    };
    assert_eq!(order(Order::Deadline, due), [1, 3, 2, 0]);
}

#[test]
fn weights_share_out_tokens() {
    let mut config = TurnConfig::default();
    config.tenant_weights.insert("paid".into(), 3.0);
    let mut turns = Turns::new(&config);
    for ticket in 0..80_u64 {
        let tenant = if ticket.is_multiple_of(2) { "paid" } else { "free" };
        turns.push(Ticket(ticket), at(ticket), &request(tenant), 100, 50.0);
    }
    let pool = PoolId::of(&request("free"));
    let mut paid = 0;
    for _ in 0..40 {
        let ticket = turns.next(at(100), pool).unwrap();
        turns.served(ticket);
        paid += u32::from(ticket.0.is_multiple_of(2));
    }
    assert!((29..=31).contains(&paid), "three of four: {paid}");
}

#[test]
fn the_last_of_the_tenant_with_the_most_makes_room() {
    let mut turns = Turns::new(&TurnConfig::default());
    let of = |tenant, priority| Request { priority, ..request(tenant) };
    for (ticket, tenant, priority) in
        [(1, "flood", 0), (2, "flood", 2), (3, "flood", 0), (4, "flood", 2), (5, "other", 0)]
    {
        turns.push(Ticket(ticket), at(ticket), &of(tenant, priority), 10, 1.0);
    }
    assert_eq!(turns.makes_room_for(&of("quiet", 0)), Some(Ticket(3)));
    assert_eq!(turns.makes_room_for(&of("other", 0)), Some(Ticket(3)));
    assert_eq!(turns.makes_room_for(&of("flood", 9)), None, "not for its own");
    assert_eq!(turns.makes_room_for(&of("quiet", -1)), None, "not for one that matters less");
    turns.remove(Ticket(3));
    turns.served(Ticket(1));
    assert_eq!(turns.makes_room_for(&of("other", 9)), None, "two against one");
    assert_eq!(turns.makes_room_for(&of("quiet", 9)), Some(Ticket(4)));
}

#[test]
fn requests_for_other_endpoints_wait_apart_and_are_looked_at_in_turns() {
    let mut turns = Turns::new(&TurnConfig::default());
    for number in 0..5 {
        let request = Request { model: number.to_string(), ..request("a") };
        turns.push(Ticket(number), at(number), &request, 10, 1.0);
    }
    let (first, second) = (turns.look(3), turns.look(3));
    assert_eq!((first.len(), second.len()), (3, 3));
    assert_eq!(second[2], first[0], "all five before any comes again");
}

#[test]
fn classes_contend_while_two_were_seen_lately() {
    let mut turns = Turns::new(&TurnConfig { contended_s: 1.0, ..TurnConfig::default() });
    let mut arrives = |ms, tenant: &str| turns.arrives(at(ms), &request(tenant));
    assert!(!arrives(0, "a") && !arrives(10, "a"), "there is only one");
    assert!(arrives(20, "b") && arrives(900, "b"));
    assert!(!arrives(2_000, "b"), "the other was seen too long ago");
    assert!(arrives(2_100, "a"));
    assert!(!turns.arrives(at(2_200), &Request { hold_ms: 0, ..request("a") }));
    let never = TurnConfig { wait: WaitWhen::Never, ..TurnConfig::default() };
    let mut turns = Turns::new(&never);
    assert!(!turns.arrives(at(0), &request("a")) && !turns.arrives(at(1), &request("b")));
}

/// The rule, written down: everything is searched for.
#[derive(Default)]
struct Naive {
    waiting: Vec<Turn>,
    virtual_times: BTreeMap<i32, f64>,
    /// Start where it waits, else finish.
    times: BTreeMap<(i32, TenantId), f64>,
    since_aged: u32,
}

impl Naive {
    fn waits(&self, priority: i32, tenant: TenantId) -> bool {
        self.waiting.iter().any(|it| (it.priority, it.tenant) == (priority, tenant))
    }

    fn push(&mut self, turn: Turn) {
        let class = (turn.priority, turn.tenant);
        if !self.waits(turn.priority, turn.tenant) {
            let v = self.virtual_times.get(&turn.priority).copied().unwrap_or_default();
            let time = self.times.entry(class).or_default();
            *time = time.max(v);
        }
        self.waiting.push(turn);
    }

    fn next(&self, now: Time, age: Duration, aged_every: u32) -> Option<Turn> {
        let oldest = self.waiting.iter().min_by_key(|it| (it.since, it.ticket))?;
        if self.since_aged + 1 >= aged_every && now.since(oldest.since) > age {
            return Some(*oldest);
        }
        let band = self.waiting.iter().map(|it| it.priority).max()?;
        let of_band = self.waiting.iter().filter(|it| it.priority == band);
        let start = |it: &Turn| self.times[&(band, it.tenant)];
        let first = of_band.min_by(|one, other| {
            let tenants = start(one).total_cmp(&start(other)).then(one.tenant.cmp(&other.tenant));
            tenants.then((one.rank, one.ticket).cmp(&(other.rank, other.ticket)))
        });
        first.copied()
    }

    fn served(&mut self, turn: Turn) {
        let oldest = self.waiting.iter().map(|it| (it.since, it.ticket)).min();
        self.since_aged =
            if oldest.is_some_and(|it| it.1 == turn.ticket) { 0 } else { self.since_aged + 1 };
        self.pay(turn.priority, turn.tenant, turn.cost);
        self.remove(turn.ticket);
    }

    fn pay(&mut self, band: i32, tenant: TenantId, cost: f64) {
        if !self.waiting.iter().any(|it| it.priority == band) {
            return;
        }
        let v = self.virtual_times.entry(band).or_default();
        let start = self.times.get(&(band, tenant)).copied().unwrap_or_default().max(*v);
        let others = self.waiting.iter().filter(|it| it.priority == band && it.tenant != tenant);
        let first = others.map(|it| self.times[&(band, it.tenant)]).fold(start, f64::min);
        *v = v.max(first);
        self.times.insert((band, tenant), start + cost);
    }

    fn remove(&mut self, ticket: Ticket) {
        let Some(at) = self.waiting.iter().position(|it| it.ticket == ticket) else { return };
        let band = self.waiting.remove(at).priority;
        if !self.waiting.iter().any(|it| it.priority == band) {
            self.virtual_times.remove(&band);
            self.times.retain(|(of, _), _| *of != band);
        }
    }
}

#[derive(Debug, Clone)]
enum Step {
    Push { priority: i32, tenant: u64, cost: u32, rank: u64 },
    Serve,
    Remove(u64),
    AtOnce { priority: i32, tenant: u64, cost: u32 },
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (-1..2i32, 0..4u64, 1..90u32, 0..20u64)
            .prop_map(|(priority, tenant, cost, rank)| Step::Push { priority, tenant, cost, rank }),
        3 => Just(Step::Serve),
        1 => (0..40u64).prop_map(Step::Remove),
        1 => (-1..2i32, 0..4u64, 1..90u32)
            .prop_map(|(priority, tenant, cost)| Step::AtOnce { priority, tenant, cost }),
        1 => (0..2_000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn the_order_is_that_of_the_naive_rule(steps in prop::collection::vec(step(), 0..80)) {
        let (mut fast, mut naive) = (queue(1, 3), Naive::default());
        let mut now = at(0);
        for (ticket, step) in (0..).zip(steps) {
            match step {
                Step::Push { priority, tenant, cost, rank } => {
                    let it = turn(ticket, priority, tenant, cost.into());
                    let it = Turn { rank, since: now, ..it };
                    fast.push(it);
                    naive.push(it);
                }
                Step::Serve => {
                    let expected = naive.next(now, Duration::from_secs(1), 3);
                    let next = fast.next(now);
                    prop_assert_eq!(next, expected.map(|it| it.ticket));
                    prop_assert_eq!(next.and_then(|ticket| fast.served(ticket)), expected);
                    if let Some(it) = expected {
                        naive.served(it);
                    }
                }
                Step::Remove(ticket) => {
                    fast.remove(Ticket(ticket));
                    naive.remove(Ticket(ticket));
                }
                Step::AtOnce { priority, tenant, cost } => {
                    fast.went_at_once(priority, TenantId(tenant), cost.into());
                    naive.pay(priority, TenantId(tenant), cost.into());
                }
                Step::Wait(ms) => now = now + Duration::from_millis(ms),
            }
            prop_assert_eq!(fast.is_empty(), naive.waiting.is_empty());
        }
    }

    /// The bound of the paper: whatever they ask for, in any interval.
    #[test]
    fn two_that_wait_all_the_time_get_the_same_tokens(
        costs in prop::collection::vec((1..1_000u32, 1..50u32), 40..120),
    ) {
        let mut queue = queue(1_000, 1_000);
        let most = |of: fn(&(u32, u32)) -> u32| costs.iter().map(of).max().unwrap_or_default();
        let bound = f64::from(most(|it| it.0) + most(|it| it.1));
        for (number, (one, other)) in (0..).zip(&costs) {
            queue.push(turn(2 * number, 0, 1, (*one).into()));
            queue.push(turn(2 * number + 1, 0, 2, (*other).into()));
        }
        let mut served = [0.0; 2];
        let mut differences = vec![0.0_f64];
        let mut waiting = [costs.len(); 2];
        while let Some(it) = queue.next(at(0)).and_then(|ticket| queue.served(ticket)) {
            let tenant = it.tenant.0 as usize - 1;
            served[tenant] += it.cost;
            waiting[tenant] -= 1;
            differences.push(served[0] - served[1]);
            if waiting.contains(&0) {
                break;
            }
        }
        let most = differences.iter().copied().fold(f64::MIN, f64::max);
        let least = differences.iter().copied().fold(f64::MAX, f64::min);
        prop_assert!(most - least <= bound, "{most} to {least}, bound {bound}");
    }

    /// Whatever comes, however important: who waits goes within the turns that the queue promises.
    #[test]
    fn nobody_starves(
        before in 0..6u64, aged_every in 2..9u32, cost in 1..100_000u32, others in 1..4u64,
    ) {
        let mut queue = queue(1, aged_every);
        for ticket in 0..=before {
            queue.push(turn(ticket, -5, 1, cost.into()));
        }
        let mut ticket = before + 1;
        let mut turns = 0_u64;
        let now = at(10_000);
        while queue.next(now).is_some() {
            for tenant in 0..=others {
                queue.push(Turn { since: now, ..turn(ticket, 5, 2 + tenant, 1.0) });
                ticket += 1;
            }
            let gone = queue.next(now).and_then(|ticket| queue.served(ticket)).unwrap();
            turns += 1;
            if gone.ticket == Ticket(before) {
                break;
            }
        }
        prop_assert!(turns <= u64::from(aged_every) * (before + 1), "{turns}");
    }
}

#[test]
fn whoever_comes_back_has_paid_and_keeps_its_place() {
    let mut queue = TurnQueue::new(&TurnConfig::default());
    let asked = |ms, tenant| Asked {
        since: at(ms),
        tenant: Some(tenant),
        uncached_tokens: 100,
        ..Asked::default()
    };
    for ticket in 1..=3 {
        queue.push(Ticket(ticket), &asked(ticket, "a"));
        queue.push(Ticket(ticket + 10), &asked(ticket, "b"));
    }
    let go = |queue: &mut TurnQueue| {
        let next = queue.next(at(9));
        next.filter(|ticket| queue.served(*ticket))
    };
    let first = go(&mut queue);
    let came_back = if first == Some(Ticket(1)) { "a" } else { "b" };
    let again = Asked { has_paid: true, ..asked(1, came_back) };
    if let Some(ticket) = first {
        queue.push(ticket, &again);
    }
    // The other tenant's first, then it, which is its tenant's first still and is charged nothing.
    let rest: Vec<_> = std::iter::from_fn(|| go(&mut queue)).collect();
    assert_eq!(rest.len(), 6);
    assert_eq!(rest[1..3].iter().filter(|it| Some(**it) == first).count(), 1, "{first:?} {rest:?}");
    assert!(queue.is_empty() && !queue.served(Ticket(1)) && !queue.remove(Ticket(1)));
}

proptest! {
    /// One rule, two bodies: what waits in an engine goes in the order in which it would at a router.
    #[test]
    fn an_engine_lets_go_in_the_order_of_a_router(
        asked in prop::collection::vec((0..3_i32, 0..3_usize, prop::option::of(1..5_000_u64), 0..9_000_u32, 0..500_u32), 1..40),
        order in prop::sample::select(vec![Order::Fcfs, Order::Deadline, Order::ShortestFirst]),
        step_ms in 0..900_u64,
    ) {
        let config = TurnConfig {
            order,
            age_s: 2.0,
            aged_every: 3,
            tenant_weights: BTreeMap::from([("b".to_owned(), 2.0)]),
            ..TurnConfig::default()
        };
        let (mut own, mut routers) = (TurnQueue::new(&config), Turns::new(&config));
        let tenants = [None, Some("a"), Some("b")];
        for (ticket, &(priority, tenant, due_ms, tokens, output)) in (0_u64..).zip(&asked) {
            let since = at(ticket * 10);
            let due_ms = due_ms.unwrap_or(2_000);
            let request = Request {
                priority,
                tenant: tenants[tenant].map(str::to_owned),
                deadline_ms: Some(due_ms),
                expected_output_tokens: Some(output),
                ..Request::default()
            };
            routers.push(Ticket(ticket), since, &request, tokens, 0.0);
            own.push(Ticket(ticket), &Asked {
                since,
                priority,
                tenant: tenants[tenant],
                due_ms: (due_ms != 2_000).then_some(due_ms as f64),
                uncached_tokens: tokens,
                output_tokens: output,
                has_paid: false,
            });
        }
        let pool = PoolId::of(&Request::default());
        for turn in 0..asked.len() as u64 {
            let now = at(turn * step_ms);
            let (here, there) = (own.next(now), routers.next(now, pool));
            prop_assert_eq!(here, there);
            if let Some(ticket) = here {
                prop_assert!(own.served(ticket));
                routers.served(ticket);
            }
        }
        prop_assert!(own.is_empty() && routers.is_empty());
    }
}
