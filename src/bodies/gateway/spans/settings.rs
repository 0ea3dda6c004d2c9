//! The settings of tracing.

use serde::{Deserialize, Serialize};

/// Where spans of requests are sent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TracingConfig {
    /// A collector of OTLP over HTTP, `http://collector:4318/v1/traces`; without one nothing is traced.
    pub otlp_endpoint: Option<String>,
    /// Of a hundred requests that say nothing of it, so many are traced; the others keep to what their
    /// `traceparent` says.
    pub sample_percent: f64,
    /// What this gateway is called there.
    pub service_name: String,
}

impl Default for TracingConfig {
    fn default() -> Self {
        Self { otlp_endpoint: None, sample_percent: 100.0, service_name: "llmd-sched".to_owned() }
    }
}

impl TracingConfig {
    /// Which setting cannot be, and what would be right.
    pub(in crate::gateway) fn check(&self) -> Result<(), (&'static str, &'static str)> {
        if !(0.0..=100.0).contains(&self.sample_percent) {
            return Err(("sample_percent", "give 0 to 100"));
        }
        let is_http = |url: &String| url.starts_with("http://") || url.starts_with("https://");
        if !self.otlp_endpoint.as_ref().is_none_or(is_http) {
            return Err(("otlp_endpoint", "write it as http://collector:4318/v1/traces"));
        }
        Ok(())
    }
}
