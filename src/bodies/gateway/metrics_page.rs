//! `GET /metrics`, in Prometheus's text format. Labels are engines' addresses, statuses and phases:
//! nothing that a client says becomes one, so the page cannot be made to grow.

use super::Gateway;
use super::body::AnswerBody;
use super::refusal::typed;
use super::upstream::UpstreamCounts;
use super::vigil::Standing;
use crate::tokenize::Counters;
use hyper::header::HeaderValue;
use hyper::{Response, StatusCode};
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

type Counter = fn(&UpstreamCounts) -> &AtomicU64;
type OfTokenizer = fn(&Counters) -> u64;

struct Page(String);

impl Page {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        let _ = write!(self.0, "# HELP llmd_{name} {help}\n# TYPE llmd_{name} {kind}\n");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        let _ = write!(self.0, "llmd_{name}");
        for (at, (label, said)) in labels.iter().enumerate() {
            let said = said.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{label}=\"{said}\"", if at == 0 { '{' } else { ',' });
        }
        let _ = writeln!(self.0, "{} {value}", if labels.is_empty() { "" } else { "}" });
    }

    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl std::fmt::Display) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }
}

/// The page now.
pub(super) fn page(gateway: &Gateway) -> Response<AnswerBody> {
    let mut page = Page(String::with_capacity(8 << 10));
    of_requests(&mut page, gateway);
    of_engines(&mut page, gateway);
    of_tokenizers(&mut page, gateway);
    let content_type = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
    typed(StatusCode::OK, content_type, page.0)
}

fn of_requests(page: &mut Page, gateway: &Gateway) {
    let counts = &gateway.counts;
    let read = |count: &AtomicU64| count.load(Relaxed);
    let totals = [
        ("gateway_requests_total", "Requests for engines", &counts.requests),
        ("gateway_completed_total", "Answers passed on to their end", &counts.completed),
        ("gateway_output_tokens_total", "Tokens in those, as far as told", &counts.output_tokens),
        ("gateway_cut_off_total", "Answers that an engine broke off", &counts.cut_off),
        ("gateway_client_left_total", "Answers whose client went away", &counts.client_left),
        (
            "gateway_failed_handshakes_total",
            "Connections whose TLS handshake failed or took too long",
            &counts.failed_handshakes,
        ),
        (
            "gateway_silent_connections_total",
            "Connections closed because no request came on them",
            &counts.silent_connections,
        ),
        ("gateway_spans_exported_total", "Spans that the collector took", &gateway.spans.exported),
        ("gateway_spans_dropped_total", "Spans that were lost", &gateway.spans.dropped),
        ("gateway_hedges_total", "Second engines for slow streams", &counts.hedges),
        ("gateway_hedges_won_total", "Of those, first with a byte", &counts.hedges_won),
        ("gateway_retries_total", "Second tries before the first byte", &counts.retries),
        ("gateway_retries_denied_total", "Second tries beyond the budget", &counts.retries_denied),
        ("gateway_ejections_total", "Engines left alone", &gateway.fleet.ejections),
        (
            "gateway_ejections_spared_total",
            "Engines kept in use because too many were left alone",
            &gateway.fleet.ejections_spared,
        ),
    ];
    for (name, help, count) in totals {
        page.one(name, "counter", help, read(count));
    }
    let said = "Requests that are not answered to the end yet";
    page.one("gateway_in_flight", "gauge", said, counts.in_flight());
    page.family("gateway_refused_total", "counter", "Answers of the gateway's own, by status");
    for (status, count) in counts.refusals() {
        page.sample("gateway_refused_total", &[("status", &status.to_string())], count);
    }
    let stats = gateway.live.stats();
    page.one("index_blocks", "gauge", "Distinct KV blocks held anywhere", stats.index.blocks);
    let bytes = stats.index.memory_bytes;
    page.one("index_bytes", "gauge", "Memory of the KV index, estimated", bytes);
    let peers = stats.peers;
    page.one("peers_connected", "gauge", "Other gateways that are heard now", peers.connected);
    for (name, help, count) in [
        ("peers_told_total", "Messages to other gateways", peers.told),
        ("peers_heard_total", "Messages of other gateways", peers.heard),
        ("peers_refused_total", "Of their messages, those that made no sense", peers.refused),
    ] {
        page.one(name, "counter", help, count);
    }
}

fn of_engines(page: &mut Page, gateway: &Gateway) {
    let upstreams = gateway.fleet.upstreams();
    let families: [(&str, &str, Counter); 3] = [
        ("engine_requests_total", "Tries at an engine", |it| &it.requests),
        ("engine_failures_total", "Of those, failed, and failed probes", |it| &it.failures),
        ("engine_connections_total", "Connections made", |it| &it.connections),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for upstream in &upstreams {
            page.sample(
                name,
                &[("engine", &upstream.address)],
                read(&upstream.counts).load(Relaxed),
            );
        }
    }
    page.family("engine_ejected", "gauge", "Whether it is left alone now");
    for upstream in &upstreams {
        let is_ejected = upstream.vigil.standing() == Standing::Ejected;
        page.sample("engine_ejected", &[("engine", &upstream.address)], u8::from(is_ejected));
    }
    let endpoints = gateway.live.documents();
    page.family("endpoint_inflight_requests", "gauge", "Requests booked at a rank");
    for endpoint in &endpoints {
        let rank = endpoint.dp_rank.to_string();
        let labels = [("engine", endpoint.address.as_str()), ("dp_rank", rank.as_str())];
        page.sample("endpoint_inflight_requests", &labels, endpoint.load.inflight_requests);
    }
    page.family("endpoint_held_blocks", "gauge", "KV blocks that a rank is known to hold");
    for endpoint in &endpoints {
        let rank = endpoint.dp_rank.to_string();
        let labels = [("engine", endpoint.address.as_str()), ("dp_rank", rank.as_str())];
        page.sample("endpoint_held_blocks", &labels, endpoint.held_blocks);
    }
}

fn of_tokenizers(page: &mut Page, gateway: &Gateway) {
    let settings = gateway.settings();
    let families: [(&str, &str, OfTokenizer); 5] = [
        ("tokenizer_prompts_total", "Texts whose tokens are known", |it| it.encoded),
        ("tokenizer_not_exact_total", "Texts whose tokens are not", |it| it.not_exact),
        ("tokenizer_text_bytes_total", "Bytes of the former", |it| it.text_bytes),
        ("tokenizer_known_bytes_total", "Of those, encoded before", |it| it.known_bytes),
        ("tokenizer_us_total", "Microseconds spent on the others", |it| it.tokenize_ns / 1_000),
    ];
    for (name, help, read) in families {
        page.family(name, "counter", help);
        for (model, tokenizer) in settings.tokenizers.all() {
            page.sample(name, &[("model", model)], read(&tokenizer.counters()));
        }
    }
}
