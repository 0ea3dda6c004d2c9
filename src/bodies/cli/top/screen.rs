//! The gateway as lines of text.

use super::columns::{Cell, Heading, Look, joined, table};
use crate::gateway::{EndpointState, Fate, LiveDocument, LiveEndpoint, RecentDecision};

/// Room on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size {
    pub(super) columns: usize,
    pub(super) rows: usize,
}

/// Lines that neither engines nor decisions have: figures, headings, what is between.
const OTHER_LINES: usize = 9;

const OF_ENGINES: [Heading; 13] = [
    ("ENGINE", false),
    ("STATE", false),
    ("MODEL", false),
    ("IN FLIGHT", true),
    ("WAITING", true),
    ("KV", true),
    ("GPU BLOCKS", true),
    ("CPU", true),
    ("DISK", true),
    ("SHARED", true),
    ("BELIEVED", true),
    ("FAILURES", true),
    ("LABELS", false),
];

const OF_DECISIONS: [Heading; 10] = [
    ("UTC", false),
    ("MODEL", false),
    ("TENANT", false),
    ("ENGINE", false),
    ("MATCHED", true),
    ("KNOWN BY", false),
    ("TTFT MS", true),
    ("TOOK MS", true),
    ("ANSWER", false),
    ("WHY", false),
];

/// All of it: where there is a size, as much as has room, with looks; otherwise all, and plain.
pub(super) fn screen(
    live: &LiveDocument,
    size: Option<Size>,
    trouble: Option<&str>,
) -> Vec<String> {
    let columns = size.map(|it| it.columns);
    let mut lines: Vec<String> =
        figures(live, trouble).iter().map(|row| joined(row, columns)).collect();
    // Those that need somebody's eye come first.
    let mut engines: Vec<&LiveEndpoint> = live.endpoints.iter().collect();
    engines.sort_by_key(|it| it.state);
    let room = size.map_or(usize::MAX, |it| it.rows.saturating_sub(OTHER_LINES));
    let shown = engines.len().min((room / 2).max(room.saturating_sub(live.decisions.len())));
    let rows: Vec<Vec<Cell>> = engines.iter().take(shown).map(|it| engine(it)).collect();
    lines.push(String::new());
    lines.extend(table(&OF_ENGINES, &rows, columns));
    if shown < engines.len() {
        lines.push(format!("and {} more", engines.len() - shown));
    }
    let room = room.saturating_sub(shown);
    let rows: Vec<Vec<Cell>> = live.decisions.iter().take(room).map(decision).collect();
    lines.push(String::new());
    lines.extend(table(&OF_DECISIONS, &rows, columns));
    lines
}

fn figures(live: &LiveDocument, trouble: Option<&str>) -> [Vec<Cell>; 3] {
    let (gateway, requests, history) = (&live.gateway, &live.requests, &live.history);
    let state = match (trouble, live.is_draining) {
        (Some(trouble), _) => Cell::looking(Look::Bad, trouble),
        (None, true) => Cell::looking(Look::Warn, "draining"),
        (None, false) => Cell::looking(Look::Good, "live"),
    };
    let up = live.endpoints.iter().filter(|it| it.state == EndpointState::Up).count();
    let last = |values: &[f64]| values.last().copied().unwrap_or_default();
    let recent = history.hit_ratio.iter().rev().find_map(|it| *it);
    let so_far = (requests.prompt_tokens > 0)
        .then(|| requests.matched_tokens as f64 / requests.prompt_tokens as f64);
    let held = &requests.held_by_band;
    let refused: u64 = gateway.refused.values().sum();
    let statuses: Vec<String> =
        gateway.refused.iter().map(|(status, count)| format!("{status}: {count}")).collect();
    let title = format!("llmd-sched gateway {}", live.version);
    let of_statuses = match statuses.is_empty() {
        true => String::new(),
        false => format!(" ({})", statuses.join(", ")),
    };
    [
        vec![
            Cell::looking(Look::Bold, title),
            state,
            Cell::new(format!("{up} of {} engines up", live.endpoints.len())),
        ],
        vec![
            Cell::new(format!("requests {:.1}/s", last(&history.requests_per_s))),
            Cell::new(format!("output {:.0} tokens/s", last(&history.output_tokens_per_s))),
            Cell::new(format!("prefix hits {}, {} so far", percent(recent), percent(so_far))),
            Cell::new(format!("{} in flight", gateway.in_flight)),
            Cell::new(format!("{} answered", gateway.completed)),
        ],
        vec![
            Cell::new(format!(
                "held {} (above normal {}, normal {}, below {})",
                requests.holding_now, held.above_normal, held.normal, held.below_normal
            )),
            Cell::new(format!("refused {refused}{of_statuses}")),
            Cell::new(format!("sent again {}", gateway.retries)),
            Cell::new(format!("broken off {}", gateway.cut_off)),
            Cell::new(format!("client left {}", gateway.client_left)),
        ],
    ]
}

fn engine(it: &LiveEndpoint) -> Vec<Cell> {
    let look = match it.state {
        EndpointState::Ejected | EndpointState::Unreachable => Look::Bad,
        EndpointState::Joining | EndpointState::Trial => Look::Warn,
        EndpointState::Draining | EndpointState::Cordoned => Look::Dim,
        EndpointState::Up => Look::Good,
    };
    let labels: Vec<String> =
        it.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let held = &it.held_blocks;
    vec![
        Cell::new(place(&it.url, it.dp_rank)),
        Cell::looking(look, it.state.as_str()),
        Cell::new(&it.model),
        Cell::new(it.load.inflight_requests.to_string()),
        Cell::new(it.load.waiting_requests.map_or_else(unknown, |it| format!("{it:.0}"))),
        Cell::new(percent(it.load.kv_usage)),
        Cell::new(held.gpu.to_string()),
        Cell::new(held.cpu.to_string()),
        Cell::new(held.storage.to_string()),
        Cell::new(held.remote.to_string()),
        Cell::new(held.believed.to_string()),
        Cell::new(it.failures.to_string()),
        Cell::new(labels.join(" ")),
    ]
}

fn decision(it: &RecentDecision) -> Vec<Cell> {
    let (word, look) = match it.fate {
        Fate::Running => ("running", Look::Dim),
        Fate::Answered if it.status.is_some_and(|it| it >= 400) => ("answered", Look::Warn),
        Fate::Answered => ("answered", Look::Good),
        Fate::Failed => ("failed", Look::Bad),
        Fate::Outrun => ("outrun", Look::Dim),
        Fate::Left => ("left", Look::Warn),
    };
    let status = it.status.map_or_else(String::new, |it| format!(" {it}"));
    let ms = |ms: Option<f64>| ms.map_or_else(unknown, |ms| format!("{ms:.1}"));
    let scores = it.scores.iter().map(|score| {
        let name = score.name.trim_end_matches("-scorer");
        format!("{name} {:.2} x{}", score.value, score.weight)
    });
    let held =
        if it.held_ms >= 1.0 { format!("held {:.0} ms, ", it.held_ms) } else { String::new() };
    let scores = scores.collect::<Vec<_>>().join(", ");
    vec![
        Cell::new(time_of_day(it.at_ms)),
        Cell::new(&it.model),
        Cell::new(&it.tenant),
        Cell::new(place(&it.url, it.dp_rank)),
        Cell::new(format!("{} of {}", it.matched_tokens, it.prompt_tokens)),
        Cell::new(&it.match_source),
        Cell::new(format!("{} -> {}", ms(it.predicted_ttft_ms), ms(it.ttft_ms))),
        Cell::new(ms(it.took_ms)),
        Cell::looking(look, format!("{word}{status}")),
        Cell::new(format!("{held}{}, of {}: {scores}", it.profile, it.candidates)),
    ]
}

fn place(url: &str, dp_rank: u32) -> String {
    let address = url.strip_prefix("http://").unwrap_or(url);
    if dp_rank > 0 { format!("{address} rank {dp_rank}") } else { address.to_owned() }
}

fn unknown() -> String {
    "-".to_owned()
}

fn percent(share: Option<f64>) -> String {
    share.map_or_else(unknown, |share| format!("{:.0}%", share * 100.0))
}

fn time_of_day(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000 % 86_400;
    format!("{:02}:{:02}:{:02}", seconds / 3_600, seconds / 60 % 60, seconds % 60)
}
