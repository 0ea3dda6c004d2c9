//! Spans as OTLP's JSON: ids in hex, 64-bit numbers as text
//! (<https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding>).

use super::Finished;
use serde::ser::{Serialize, SerializeMap, SerializeSeq, Serializer};
use serde_json::json;

/// What a span is to whom it talks with; OTLP's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Internal = 1,
    Server = 2,
    Client = 3,
}

/// The value of an attribute.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Value {
    Text(String),
    Whole(i64),
    Real(f64),
}

/// A span that ended. Times are nanoseconds since 1970.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) span_id: u64,
    pub(super) parent: Option<u64>,
    pub(super) name: String,
    pub(super) kind: Kind,
    pub(super) start_ns: u64,
    pub(super) end_ns: u64,
    pub(super) attributes: Vec<(&'static str, Value)>,
    pub(super) events: Vec<(&'static str, u64)>,
    /// What went wrong, if anything did.
    pub(super) error: Option<String>,
}

impl Serialize for Value {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        match self {
            Self::Text(text) => map.serialize_entry("stringValue", text)?,
            Self::Whole(number) => map.serialize_entry("intValue", &number.to_string())?,
            Self::Real(number) => map.serialize_entry("doubleValue", number)?,
        }
        map.end()
    }
}

struct Attributes<'a>(&'a [(&'static str, Value)]);

impl Serialize for Attributes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut all = serializer.serialize_seq(Some(self.0.len()))?;
        for (key, value) in self.0 {
            all.serialize_element(&json!({ "key": key, "value": value }))?;
        }
        all.end()
    }
}

struct Traced<'a>(&'a Finished, &'a Span);

impl Serialize for Traced<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(trace, span) = self;
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("traceId", &format!("{:032x}", trace.trace_id))?;
        map.serialize_entry("spanId", &format!("{:016x}", span.span_id))?;
        if let Some(parent) = span.parent {
            map.serialize_entry("parentSpanId", &format!("{parent:016x}"))?;
        }
        if !trace.state.is_empty() {
            map.serialize_entry("traceState", &trace.state)?;
        }
        map.serialize_entry("name", &span.name)?;
        map.serialize_entry("kind", &(span.kind as u8))?;
        map.serialize_entry("startTimeUnixNano", &span.start_ns.to_string())?;
        map.serialize_entry("endTimeUnixNano", &span.end_ns.to_string())?;
        map.serialize_entry("attributes", &Attributes(&span.attributes))?;
        let event =
            |(name, at): &(&str, u64)| json!({ "name": name, "timeUnixNano": at.to_string() });
        let events: Vec<_> = span.events.iter().map(event).collect();
        map.serialize_entry("events", &events)?;
        let status = match &span.error {
            // A code of 2 is an error; without one nothing is said.
            Some(message) => json!({ "code": 2, "message": message }),
            None => json!({}),
        };
        map.serialize_entry("status", &status)?;
        map.end()
    }
}

struct All<'a>(&'a [Finished]);

impl Serialize for All<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(
            self.0.iter().flat_map(|trace| trace.spans.iter().map(move |span| Traced(trace, span))),
        )
    }
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct Document<'a> {
    resource_spans: [ResourceSpans<'a>; 1],
}

#[derive(serde::Serialize)]
#[serde(rename_all = "camelCase")]
struct ResourceSpans<'a> {
    resource: serde_json::Value,
    scope_spans: [ScopeSpans<'a>; 1],
}

#[derive(serde::Serialize)]
struct ScopeSpans<'a> {
    scope: serde_json::Value,
    spans: All<'a>,
}

/// A request to a collector.
pub(super) fn document(service: &str, traces: &[Finished]) -> Result<Vec<u8>, serde_json::Error> {
    let name = json!({ "key": "service.name", "value": { "stringValue": service } });
    let scope = json!({ "name": "llmd-sched", "version": env!("CARGO_PKG_VERSION") });
    let scope_spans = [ScopeSpans { scope, spans: All(traces) }];
    let resource = json!({ "attributes": [name] });
    serde_json::to_vec(&Document { resource_spans: [ResourceSpans { resource, scope_spans }] })
}
