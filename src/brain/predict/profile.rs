//! What known engines take for a step: the table behind the embedded engine and behind the
//! predictor's priors.
//!
//! Fitted to NVIDIA AIConfigurator's tables for the vLLM backend. With `new` tokens prefilled after
//! `cached` ones, `batch` requests decoding over `context` tokens in all:
//!
//! ```text
//! prefill_ms = a + b*new + c*new*(cached + new/2)
//! decode_ms  = d + e*batch + f*context
//! step_ms    = [new > 0 ? max(d, a + b*(new + batch)) : d] + c*pairs + e*batch + f*context
//! ```

/// Step time and KV size of one model on one engine configuration.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct EngineProfile {
    /// `<model>_<gpu>_tp<ranks>`.
    pub name: &'static str,
    /// `a`: what a prefill step costs whatever its size, milliseconds.
    pub prefill_base_ms: f64,
    /// `b`: for each token prefilled, milliseconds.
    pub prefill_ms_per_token: f64,
    /// `c`: for each (query, key) token pair that attention visits, milliseconds.
    pub prefill_ms_per_pair: f64,
    /// `d`: what a decode step costs whatever its size, milliseconds.
    pub decode_base_ms: f64,
    /// `e`: for each request in the batch, milliseconds.
    pub decode_ms_per_request: f64,
    /// `f`: for each token of context in the batch, milliseconds.
    pub decode_ms_per_context_token: f64,
    /// Tokens that its KV cache holds on the GPU.
    pub kv_tokens: u64,
    /// KV cache bytes a token, over all ranks.
    pub kv_bytes_per_token: u64,
}

/// All known profiles.
pub const PROFILES: [EngineProfile; 5] = [
    EngineProfile {
        name: "llama-3.1-8b_h100_tp1",
        prefill_base_ms: 1.27,
        prefill_ms_per_token: 0.02017,
        prefill_ms_per_pair: 7.89e-7,
        decode_base_ms: 6.43,
        decode_ms_per_request: 0.0102,
        decode_ms_per_context_token: 4.21e-5,
        kv_tokens: 396_000,
        kv_bytes_per_token: 128 << 10,
    },
    EngineProfile {
        name: "qwen3-32b_h100_tp2",
        prefill_base_ms: 3.52,
        prefill_ms_per_token: 0.05025,
        prefill_ms_per_pair: 1.60e-6,
        decode_base_ms: 15.28,
        decode_ms_per_request: 0.0259,
        decode_ms_per_context_token: 4.26e-5,
        kv_tokens: 269_000,
        kv_bytes_per_token: 256 << 10,
    },
    EngineProfile {
        name: "qwen3-32b_h200_tp1",
        prefill_base_ms: 0.67,
        prefill_ms_per_token: 0.08929,
        prefill_ms_per_pair: 3.28e-6,
        decode_base_ms: 20.68,
        decode_ms_per_request: 0.0320,
        decode_ms_per_context_token: 6.12e-5,
        kv_tokens: 219_000,
        kv_bytes_per_token: 256 << 10,
    },
    EngineProfile {
        name: "llama-70b_h100_tp4",
        prefill_base_ms: 3.78,
        prefill_ms_per_token: 0.06233,
        prefill_ms_per_pair: 9.90e-7,
        decode_base_ms: 15.17,
        decode_ms_per_request: 0.0323,
        decode_ms_per_context_token: 2.68e-5,
        kv_tokens: 400_000,
        kv_bytes_per_token: 320 << 10,
    },
    EngineProfile {
        name: "llama-70b_h200_tp2",
        prefill_base_ms: 0.0,
        prefill_ms_per_token: 0.1064,
        prefill_ms_per_pair: 2.04e-6,
        decode_base_ms: 20.85,
        decode_ms_per_request: 0.0358,
        decode_ms_per_context_token: 3.64e-5,
        kv_tokens: 320_000,
        kv_bytes_per_token: 320 << 10,
    },
];

/// Name of all profiles that are not in the table.
const CUSTOM: &str = "custom";

impl EngineProfile {
    /// The profile of this name.
    ///
    /// ```
    /// use llmd_brain::predict::EngineProfile;
    ///
    /// let qwen = EngineProfile::named("qwen3-32b_h100_tp2").unwrap();
    /// assert_eq!(qwen.kv_tokens, 269_000);
    /// assert!((qwen.prefill_ms(8_192, 0) - 468.86).abs() < 0.01);
    /// assert!(EngineProfile::named("gpt-2").is_none());
    /// ```
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PROFILES.iter().find(|profile| profile.name == name)
    }

    /// One that nobody has named, by its eight numbers in the order of the fields.
    #[must_use]
    pub const fn custom(steps: [f64; 6], kv_tokens: u64, kv_bytes_per_token: u64) -> Self {
        let [a, b, c, d, e, f] = steps;
        Self {
            name: CUSTOM,
            prefill_base_ms: a,
            prefill_ms_per_token: b,
            prefill_ms_per_pair: c,
            decode_base_ms: d,
            decode_ms_per_request: e,
            decode_ms_per_context_token: f,
            kv_tokens,
            kv_bytes_per_token,
        }
    }

    /// How an endpoint's `engine-profile` label says it: the name, or `custom:` and the six
    /// coefficients `a` to `f`.
    ///
    /// ```
    /// use llmd_brain::predict::EngineProfile;
    ///
    /// let mine = EngineProfile::custom([1.0, 0.02, 1e-6, 6.0, 0.01, 4e-5], 300_000, 1 << 17);
    /// assert_eq!(mine.label(), "custom:1,0.02,0.000001,6,0.01,0.00004");
    /// assert_eq!(EngineProfile::of_label(&mine.label()).unwrap().decode_base_ms, 6.0);
    /// assert!(EngineProfile::of_label("custom:1,2,3").is_none());
    /// ```
    #[must_use]
    pub fn label(&self) -> String {
        if self.name != CUSTOM {
            return self.name.to_owned();
        }
        let steps = [
            self.prefill_base_ms,
            self.prefill_ms_per_token,
            self.prefill_ms_per_pair,
            self.decode_base_ms,
            self.decode_ms_per_request,
            self.decode_ms_per_context_token,
        ];
        format!("{CUSTOM}:{}", steps.map(|step| step.to_string()).join(","))
    }

    /// What a label means; the KV of a `custom` one is not in it.
    #[must_use]
    pub fn of_label(label: &str) -> Option<Self> {
        let Some(steps) = label.strip_prefix(CUSTOM).and_then(|rest| rest.strip_prefix(':')) else {
            return Self::named(label).copied();
        };
        let good = |step: &f64| step.is_finite() && *step >= 0.0;
        let steps: Option<Vec<f64>> =
            steps.split(',').map(|step| step.trim().parse().ok().filter(good)).collect();
        Some(Self::custom(steps?.try_into().ok()?, 0, 0))
    }

    /// Every name, for messages.
    pub fn names() -> impl Iterator<Item = &'static str> {
        PROFILES.iter().map(|profile| profile.name)
    }

    /// Milliseconds to prefill `new_tokens` after `cached_tokens`, alone on the engine.
    #[must_use]
    pub fn prefill_ms(&self, new_tokens: u64, cached_tokens: u64) -> f64 {
        let (new, cached) = (new_tokens as f64, cached_tokens as f64);
        self.prefill_base_ms
            + self.prefill_ms_per_token * new
            + self.prefill_ms_per_pair * new * (cached + new / 2.0)
    }

    /// Milliseconds of a step that only decodes.
    #[must_use]
    pub fn decode_ms(&self, batch_requests: u64, context_tokens: u64) -> f64 {
        self.step_ms(0, 0.0, batch_requests, context_tokens)
    }

    /// Milliseconds of any step: `prefill_tokens` prefilled in chunks that visit `prefill_pairs`
    /// token pairs (the sum over chunks of `chunk * (past + chunk/2)`), beside `batch_requests`
    /// that decode over `context_tokens`.
    #[must_use]
    pub fn step_ms(
        &self,
        prefill_tokens: u64,
        prefill_pairs: f64,
        batch_requests: u64,
        context_tokens: u64,
    ) -> f64 {
        self.step_but_context_ms(prefill_tokens, prefill_pairs, batch_requests)
            + self.context_ms(context_tokens)
    }

    /// What of [`step_ms`](Self::step_ms) does not depend on how much context is decoded: the same for
    /// every step of a run.
    #[must_use]
    pub fn step_but_context_ms(
        &self,
        prefill_tokens: u64,
        prefill_pairs: f64,
        batch_requests: u64,
    ) -> f64 {
        let linear = if prefill_tokens > 0 {
            let rows = (prefill_tokens + batch_requests) as f64;
            (self.prefill_base_ms + self.prefill_ms_per_token * rows).max(self.decode_base_ms)
        } else {
            self.decode_base_ms
        };
        linear
            + self.prefill_ms_per_pair * prefill_pairs
            + self.decode_ms_per_request * batch_requests as f64
    }

    /// The rest of it.
    #[must_use]
    pub fn context_ms(&self, context_tokens: u64) -> f64 {
        self.decode_ms_per_context_token * context_tokens as f64
    }
}
