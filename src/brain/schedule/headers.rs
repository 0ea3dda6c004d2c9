//! What a request's HTTP headers say about it, for every body that is given some.
//!
//! | header | field | value |
//! |---|---|---|
//! | `x-slo-ttft-ms` (llm-d's) | `slo.ttft_ms` | milliseconds above 0 |
//! | `x-slo-tpot-ms` (llm-d's) | `slo.tpot_ms` | milliseconds above 0 |
//! | `x-session-id` (llm-d's, Ray Serve's) | `session_id` | text |
//! | `x-tenant` | `tenant` | text |
//! | `x-gateway-inference-fairness-id` (the Gateway API extension's) | `tenant`, unless `x-tenant` says | text |
//! | `x-priority` | `priority` | an integer; higher is more important, negative may be shed |
//! | `x-deadline-ms` | `deadline_ms` | milliseconds from 1 on, after the request came |
//! | `x-max-hold-ms` | `hold_ms` | milliseconds from 0 on |
//! | `x-expected-output-tokens` | `expected_output_tokens` | tokens from 1 on |
//!
//! Names are of any case, values may stand in white space, an empty value says nothing, and other
//! headers are passed over. Who may set which header is for the body to say: a client that may write
//! `x-priority` decides its own.

use super::Request;
use std::str::FromStr;

/// Longest name of a session or a tenant, in bytes.
const MAX_NAME_BYTES: usize = 256;

/// A header that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("header {header}: {value:?}: give {expected}")]
pub struct HeaderError {
    /// Which.
    pub header: &'static str,
    /// What it says, the first 80 characters of it.
    pub value: String,
    /// What it may say.
    pub expected: &'static str,
}

/// What headers say; `None` where they say nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RequestHeaders {
    /// Objective of the time to first token, milliseconds.
    pub ttft_ms: Option<f64>,
    /// Objective of the time per output token, milliseconds.
    pub tpot_ms: Option<f64>,
    /// Conversation that it belongs to.
    pub session_id: Option<String>,
    /// Who pays for it.
    pub tenant: Option<String>,
    /// Importance.
    pub priority: Option<i32>,
    /// When its answer is due, milliseconds after it came.
    pub deadline_ms: Option<u64>,
    /// How long it may be held, milliseconds.
    pub hold_ms: Option<u64>,
    /// How long its answer will be.
    pub expected_output_tokens: Option<u32>,
}

impl RequestHeaders {
    /// Reads them.
    ///
    /// ```
    /// use llmd_brain::schedule::RequestHeaders;
    ///
    /// let headers = [("X-SLO-TTFT-ms", "250"), ("x-tenant", "a"), ("accept", "*/*")];
    /// let said = RequestHeaders::read(headers).unwrap();
    /// assert_eq!((said.ttft_ms, said.tenant.as_deref()), (Some(250.0), Some("a")));
    ///
    /// let error = RequestHeaders::read([("x-priority", "high")]).unwrap_err();
    /// assert_eq!(error.to_string(), "header x-priority: \"high\": give an integer of 32 bits");
    /// ```
    ///
    /// # Errors
    /// [`HeaderError`] names the header.
    pub fn read<'a>(
        headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Self, HeaderError> {
        let mut said = Self::default();
        let mut fairness_id = None;
        for (name, value) in headers {
            let value = value.trim();
            if !value.is_empty() {
                said.take(&name.to_ascii_lowercase(), value, &mut fairness_id)?;
            }
        }
        said.tenant = said.tenant.or(fairness_id);
        Ok(said)
    }

    fn take(
        &mut self,
        name: &str,
        value: &str,
        fairness_id: &mut Option<String>,
    ) -> Result<(), HeaderError> {
        let it = Header { value };
        match name {
            "x-slo-ttft-ms" => self.ttft_ms = Some(it.objective("x-slo-ttft-ms")?),
            "x-slo-tpot-ms" => self.tpot_ms = Some(it.objective("x-slo-tpot-ms")?),
            "x-session-id" => self.session_id = Some(it.text("x-session-id")?),
            "x-tenant" => self.tenant = Some(it.text("x-tenant")?),
            "x-gateway-inference-fairness-id" => {
                *fairness_id = Some(it.text("x-gateway-inference-fairness-id")?);
            }
            "x-priority" => {
                self.priority = Some(it.number("x-priority", "an integer of 32 bits", |_| true)?);
            }
            "x-deadline-ms" => {
                let expected = "whole milliseconds from 1 on";
                self.deadline_ms = Some(it.number("x-deadline-ms", expected, |&ms| ms > 0)?);
            }
            "x-max-hold-ms" => {
                let expected = "whole milliseconds from 0 on";
                self.hold_ms = Some(it.number("x-max-hold-ms", expected, |_| true)?);
            }
            "x-expected-output-tokens" => {
                let header = "x-expected-output-tokens";
                let tokens = it.number(header, "tokens, from 1 on", |&tokens| tokens > 0)?;
                self.expected_output_tokens = Some(tokens);
            }
            _ => {}
        }
        Ok(())
    }

    /// Puts what they say into a request; the rest of it stays as it is.
    pub fn apply_to(self, request: &mut Request) {
        let slo = &mut request.slo;
        slo.ttft_ms = self.ttft_ms.or(slo.ttft_ms);
        slo.tpot_ms = self.tpot_ms.or(slo.tpot_ms);
        request.session_id = self.session_id.or(request.session_id.take());
        request.tenant = self.tenant.or(request.tenant.take());
        request.priority = self.priority.unwrap_or(request.priority);
        request.deadline_ms = self.deadline_ms.or(request.deadline_ms);
        request.hold_ms = self.hold_ms.unwrap_or(request.hold_ms);
        request.expected_output_tokens =
            self.expected_output_tokens.or(request.expected_output_tokens);
    }
}

struct Header<'a> {
    value: &'a str,
}

impl Header<'_> {
    fn objective(&self, header: &'static str) -> Result<f64, HeaderError> {
        self.number(header, "milliseconds above 0", |ms: &f64| ms.is_finite() && *ms > 0.0)
    }

    fn number<T: FromStr>(
        &self,
        header: &'static str,
        expected: &'static str,
        possible: impl FnOnce(&T) -> bool,
    ) -> Result<T, HeaderError> {
        let read = self.value.parse().ok().filter(possible);
        read.ok_or_else(|| self.refused(header, expected))
    }

    fn text(&self, header: &'static str) -> Result<String, HeaderError> {
        match self.value.len() <= MAX_NAME_BYTES {
            true => Ok(self.value.to_owned()),
            false => Err(self.refused(header, "a name of at most 256 bytes")),
        }
    }

    fn refused(&self, header: &'static str, expected: &'static str) -> HeaderError {
        HeaderError { header, value: self.value.chars().take(80).collect(), expected }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_header_reaches_its_field() {
        let mut request = Request { hold_ms: 9, ..Request::default() };
        let headers = [
            ("X-Slo-Ttft-Ms", " 250.5 "),
            ("x-slo-tpot-ms", "40"),
            ("x-session-id", "chat 7"),
            ("X-GATEWAY-INFERENCE-FAIRNESS-ID", "team-b"),
            ("x-priority", "-3"),
            ("x-deadline-ms", "60000"),
            ("x-max-hold-ms", "0"),
            ("x-expected-output-tokens", "12"),
            ("x-tenant", ""),
            ("content-type", "application/json"),
        ];
        RequestHeaders::read(headers).unwrap().apply_to(&mut request);
        let slo = super::super::Slo { ttft_ms: Some(250.5), tpot_ms: Some(40.0) };
        let expected = Request {
            slo,
            session_id: Some("chat 7".into()),
            tenant: Some("team-b".into()),
            priority: -3,
            deadline_ms: Some(60_000),
            hold_ms: 0,
            expected_output_tokens: Some(12),
            ..Request::default()
        };
        assert_eq!(request, expected);
    }

    #[test]
    fn our_own_name_of_a_tenant_counts_wherever_it_stands() {
        let (ours, theirs) = (("x-tenant", "a"), ("x-gateway-inference-fairness-id", "b"));
        for headers in [[ours, theirs], [theirs, ours]] {
            let said = RequestHeaders::read(headers).unwrap();
            assert_eq!(said.tenant.as_deref(), Some("a"));
        }
    }

    #[test]
    fn what_cannot_be_is_named_with_the_remedy() {
        for (header, value, word) in [
            ("x-slo-ttft-ms", "0", "above 0"),
            ("x-slo-tpot-ms", "NaN", "above 0"),
            ("x-slo-ttft-ms", "inf", "above 0"),
            ("x-priority", "1.5", "an integer"),
            ("x-deadline-ms", "0", "from 1 on"),
            ("x-max-hold-ms", "-1", "from 0 on"),
            ("x-expected-output-tokens", "many", "from 1 on"),
            ("x-tenant", &"t".repeat(257), "256 bytes"),
        ] {
            let message = RequestHeaders::read([(header, value)]).unwrap_err().to_string();
            assert!(message.contains(header) && message.contains(word), "{message}");
            assert!(message.len() < 200, "{message}");
        }
    }

    proptest! {
        #[test]
        fn no_header_panics(name in "x-[a-z-]{0,30}", value in ".{0,300}") {
            let _ = RequestHeaders::read([(name.as_str(), value.as_str())]);
            for name in ["x-slo-ttft-ms", "x-tenant", "x-priority", "x-deadline-ms"] {
                let _ = RequestHeaders::read([(name, value.as_str())]);
            }
        }
    }
}
