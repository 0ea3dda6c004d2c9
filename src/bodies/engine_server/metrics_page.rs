//! The metrics page, under vLLM's names and with its labels.

use super::EngineServerConfig;
use super::histogram::Histogram;
use super::metrics::RankMetrics;
use std::fmt::Write;

/// What the page says besides the ranks' own numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Process {
    /// Seconds since the Unix epoch.
    pub(super) start_time_s: f64,
    /// Now.
    pub(super) time_s: f64,
    /// Requests refused because too many were queued.
    pub(super) rejected_requests: u64,
}

/// The whole page: every family once, with a sample of each rank.
pub(super) fn render(
    config: &EngineServerConfig,
    process: Process,
    ranks: &[RankMetrics],
) -> String {
    let mut page = Page { text: String::with_capacity(64 << 10), model: &config.model, ranks };
    process_families(&mut page.text, process);
    load_families(&mut page);
    token_families(&mut page);
    request_families(&mut page);
    rejection_family(&mut page, process.rejected_requests);
    config_families(&mut page, config, process);
    page.text
}

struct Page<'a> {
    text: String,
    model: &'a str,
    ranks: &'a [RankMetrics],
}

/// The labels of a family besides engine and model: their name and, for each value, its sample.
type Labelled<'a> = (&'a str, &'a [(&'a str, fn(&RankMetrics) -> f64)]);

impl Page<'_> {
    fn header(&mut self, name: &str, help: &str, kind: &str) {
        header(&mut self.text, name, help, kind);
    }

    fn value(&mut self, name: &str, help: &str, kind: &str, of: fn(&RankMetrics) -> f64) {
        self.header(name, help, kind);
        for (rank, metrics) in self.ranks.iter().enumerate() {
            let (model, value) = (Escaped(self.model), of(metrics));
            push(
                &mut self.text,
                format_args!("{name}{{engine=\"{rank}\",model_name=\"{model}\"}} {value:?}"),
            );
        }
    }

    fn labelled(&mut self, name: &str, help: &str, kind: &str, (label, values): Labelled<'_>) {
        self.header(name, help, kind);
        for (rank, metrics) in self.ranks.iter().enumerate() {
            for (label_value, of) in values {
                let (model, value) = (Escaped(self.model), of(metrics));
                // Label names in alphabetical order, as the Python client writes them.
                let labels = if label < "model_name" {
                    format!("{label}=\"{label_value}\",model_name=\"{model}\"")
                } else {
                    format!("model_name=\"{model}\",{label}=\"{label_value}\"")
                };
                push(
                    &mut self.text,
                    format_args!("{name}{{engine=\"{rank}\",{labels}}} {value:?}"),
                );
            }
        }
    }

    fn histogram(&mut self, name: &str, help: &str, of: fn(&RankMetrics) -> &Histogram) {
        self.header(name, help, "histogram");
        for (rank, metrics) in self.ranks.iter().enumerate() {
            let (model, histogram) = (Escaped(self.model), of(metrics));
            for (bound, count) in histogram.cumulative() {
                let bound = if bound.is_finite() { format!("{bound:?}") } else { "+Inf".into() };
                push(
                    &mut self.text,
                    format_args!(
                        "{name}_bucket{{engine=\"{rank}\",le=\"{bound}\",model_name=\"{model}\"}} \
                         {:?}",
                        count as f64
                    ),
                );
            }
            for (suffix, value) in [("count", histogram.count() as f64), ("sum", histogram.sum())] {
                push(
                    &mut self.text,
                    format_args!(
                        "{name}_{suffix}{{engine=\"{rank}\",model_name=\"{model}\"}} {value:?}"
                    ),
                );
            }
        }
    }
}

fn header(text: &mut String, name: &str, help: &str, kind: &str) {
    push(text, format_args!("# HELP {name} {help}\n# TYPE {name} {kind}"));
}

/// A line; writing to a string cannot fail.
fn push(text: &mut String, line: std::fmt::Arguments<'_>) {
    let _ = text.write_fmt(line);
    text.push('\n');
}

/// A label value: backslash, quote and line feed escaped, as the exposition format asks.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.chars().try_for_each(|char| match char {
            '\\' => f.write_str("\\\\"),
            '"' => f.write_str("\\\""),
            '\n' => f.write_str("\\n"),
            other => f.write_char(other),
        })
    }
}

fn load_families(page: &mut Page<'_>) {
    page.value("vllm:num_requests_running", "Requests in the batch.", "gauge", |m| {
        f64::from(m.load.running_requests)
    });
    page.value("vllm:num_requests_waiting", "Requests in the queue.", "gauge", |m| {
        f64::from(m.load.waiting_requests)
    });
    page.labelled(
        "vllm:num_requests_waiting_by_reason",
        "Requests in the queue, by what they wait for.",
        "gauge",
        ("reason", &[("capacity", |m| f64::from(m.load.waiting_requests)), ("deferred", |_| 0.0)]),
    );
    page.labelled(
        "vllm:engine_sleep_state",
        "1 for the state that the engine is in.",
        "gauge",
        (
            "sleep_state",
            &[("awake", |_| 1.0), ("weights_offloaded", |_| 0.0), ("discard_all", |_| 0.0)],
        ),
    );
    page.value(
        "vllm:kv_cache_usage_perc",
        "Share of the KV cache that requests reference, 0 to 1.",
        "gauge",
        |m| m.load.kv_usage(),
    );
    page.value(
        "vllm:num_preemptions_total",
        "Times a running request went back to the queue.",
        "counter",
        |m| m.counters.preemptions as f64,
    );
    page.value(
        "llmd:engine_late_seconds_total",
        "Time that steps took beyond their profile because the machine was busy.",
        "counter",
        |m| m.late_s,
    );
}

fn token_families(page: &mut Page<'_>) {
    let mut counter =
        |name, help, of: fn(&RankMetrics) -> f64| page.value(name, help, "counter", of);
    counter(
        "vllm:prefix_cache_queries_total",
        "Prompt tokens looked up in the prefix cache.",
        |m| m.counters.prefix_queries_tokens as f64,
    );
    counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.", |m| {
        m.counters.prefix_hits_tokens as f64
    });
    counter(
        "vllm:external_prefix_cache_queries_total",
        "Prompt tokens looked up on the host tier.",
        |m| m.counters.host_queries_tokens as f64,
    );
    counter(
        "vllm:external_prefix_cache_hits_total",
        "Prompt tokens found on the host tier.",
        |m| m.counters.host_hits_tokens as f64,
    );
    counter("vllm:mm_cache_queries_total", "Multimodal items looked up: always 0.", |_| 0.0);
    counter("vllm:mm_cache_hits_total", "Multimodal items found: always 0.", |_| 0.0);
    counter("vllm:prompt_tokens_total", "Tokens of prompts prefilled.", |m| {
        m.counters.prompt_tokens as f64
    });
    counter("vllm:prompt_tokens_cached_total", "Those that were not computed.", |m| {
        (m.device_hit_tokens + m.host_hit_tokens) as f64
    });
    counter("vllm:generation_tokens_total", "Tokens generated.", |m| {
        m.counters.generated_tokens as f64
    });
    page.labelled(
        "vllm:prompt_tokens_by_source_total",
        "Tokens of prompts prefilled, by where their KV came from.",
        "counter",
        (
            "source",
            &[
                ("local_compute", |m| m.computed_tokens as f64),
                ("local_cache_hit", |m| m.device_hit_tokens as f64),
                ("external_kv_transfer", |m| m.host_hit_tokens as f64),
            ],
        ),
    );
    page.labelled(
        "vllm:prompt_tokens_cached_by_source_total",
        "Tokens of prompts that were not computed, by the tier that had them.",
        "counter",
        (
            "source",
            &[
                ("device", |m| m.device_hit_tokens as f64),
                ("host", |m| m.host_hit_tokens as f64),
                ("p2p", |_| 0.0),
                ("disk", |_| 0.0),
                ("external_unspecified", |_| 0.0),
            ],
        ),
    );
}

fn request_families(page: &mut Page<'_>) {
    page.labelled(
        "vllm:request_success_total",
        "Requests that left, by why.",
        "counter",
        (
            "finished_reason",
            &[
                ("stop", |m| m.finished.stop as f64),
                ("length", |m| m.finished.length as f64),
                ("abort", |m| m.finished.abort as f64),
                ("error", |m| m.finished.error as f64),
                ("repetition", |_| 0.0),
            ],
        ),
    );
    let mut histogram =
        |name, help, of: fn(&RankMetrics) -> &Histogram| page.histogram(name, help, of);
    histogram("vllm:request_prompt_tokens", "Prompt tokens a request.", |m| &m.prompt_tokens);
    histogram("vllm:request_generation_tokens", "Tokens generated a request.", |m| {
        &m.generation_tokens
    });
    histogram("vllm:iteration_tokens_total", "Tokens a step.", |m| &m.iteration_tokens);
    histogram("vllm:request_max_num_generation_tokens", "Tokens of the longest choice.", |m| {
        &m.generation_tokens
    });
    histogram("vllm:request_params_n", "Choices asked for.", |m| &m.params_n);
    histogram("vllm:request_params_max_tokens", "Tokens allowed.", |m| &m.params_max_tokens);
    histogram("vllm:time_to_first_token_seconds", "From arrival to the first token.", |m| {
        &m.first_token_s
    });
    histogram("vllm:inter_token_latency_seconds", "From one token to the next.", |m| {
        &m.inter_token_s
    });
    histogram(
        "vllm:request_time_per_output_token_seconds",
        "Mean time from one token to the next, for each request.",
        |m| &m.per_output_token_s,
    );
    histogram("vllm:e2e_request_latency_seconds", "From arrival to the last token.", |m| &m.e2e_s);
    histogram("vllm:request_queue_time_seconds", "From arrival to admission.", |m| &m.queue_s);
    histogram("vllm:request_inference_time_seconds", "From admission to the last token.", |m| {
        &m.inference_s
    });
    histogram("vllm:request_prefill_time_seconds", "From admission to the first token.", |m| {
        &m.prefill_s
    });
    histogram("vllm:request_decode_time_seconds", "From the first token to the last.", |m| {
        &m.decode_s
    });
    histogram("vllm:request_num_preemptions", "Preemptions of a request.", |m| &m.preemptions);
    histogram(
        "vllm:request_prefill_kv_computed_tokens",
        "Prompt tokens that were computed, for each request.",
        |m| &m.prefill_kv_tokens,
    );
}

fn rejection_family(page: &mut Page<'_>, rejected: u64) {
    let name = "vllm:admission_rejections_total";
    page.header(name, "Requests refused, by the limit that was reached.", "counter");
    let model = Escaped(page.model);
    for (reason, count) in
        [("max_num_queued_reqs", rejected as f64), ("max_num_queued_tokens", 0.0)]
    {
        let text = &mut page.text;
        push(text, format_args!("{name}{{model_name=\"{model}\",reason=\"{reason}\"}} {count:?}"));
    }
}

fn config_families(page: &mut Page<'_>, config: &EngineServerConfig, process: Process) {
    let name = "vllm:cache_config_info";
    page.header(name, "What the KV cache is made of.", "gauge");
    let engine = &config.engine;
    for rank in 0..page.ranks.len() {
        let host_blocks = match engine.host_blocks {
            0 => "None".to_owned(),
            blocks => blocks.to_string(),
        };
        push(
            &mut page.text,
            format_args!(
                "{name}{{block_size=\"{}\",cache_dtype=\"auto\",enable_prefix_caching=\"True\",\
                 engine=\"{rank}\",kv_cache_size_tokens=\"{}\",num_cpu_blocks=\"{host_blocks}\",\
                 num_gpu_blocks=\"{}\",prefix_caching_hash_algo=\"{}\",sliding_window=\"None\"}} \
                 1.0",
                engine.block_size,
                engine.kv_tokens(),
                engine.kv_blocks,
                config.hash_algorithm,
            ),
        );
    }
    if config.loras.is_empty() {
        return;
    }
    let name = "vllm:lora_requests_info";
    page.header(name, "Adapters of running and waiting requests, and when that was.", "gauge");
    let all = |of: fn(&RankMetrics) -> &Vec<String>| {
        let mut names: Vec<&str> = page.ranks.iter().flat_map(of).map(String::as_str).collect();
        names.sort_unstable();
        names.dedup();
        names.join(",")
    };
    let (running, waiting) = (all(|m| &m.running_loras), all(|m| &m.waiting_loras));
    push(
        &mut page.text,
        format_args!(
            "{name}{{max_lora=\"{}\",running_lora_adapters=\"{}\",waiting_lora_adapters=\"{}\"}} \
             {:?}",
            config.loras.len(),
            Escaped(&running),
            Escaped(&waiting),
            process.time_s,
        ),
    );
}

fn process_families(text: &mut String, process: Process) {
    let mut gauge = |name, help, kind, value: f64| {
        header(text, name, help, kind);
        push(text, format_args!("{name} {value:?}"));
    };
    gauge(
        "process_start_time_seconds",
        "When this engine started, seconds since the Unix epoch.",
        "gauge",
        process.start_time_s,
    );
    if let Some(usage) = Usage::of_this_process() {
        let (cpu, resident) = (usage.cpu_s, usage.resident_bytes);
        gauge("process_cpu_seconds_total", "CPU time of the process.", "counter", cpu);
        gauge("process_resident_memory_bytes", "Memory in use.", "gauge", resident);
    }
}

/// From `/proc`; nothing where there is none.
struct Usage {
    cpu_s: f64,
    resident_bytes: f64,
}

/// `USER_HZ` and the page size of every Linux that the wheel runs on.
const TICKS_PER_S: f64 = 100.0;
const PAGE_BYTES: f64 = 4096.0;

impl Usage {
    fn of_this_process() -> Option<Self> {
        let stat = std::fs::read_to_string("/proc/self/stat").ok()?;
        // The second field is the name in parentheses, which may hold spaces. From the third on,
        // utime and stime are the 12th and 13th, rss the 22nd (proc_pid_stat(5)).
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let field = |index: usize| fields.get(index)?.parse::<f64>().ok();
        Some(Self {
            cpu_s: (field(11)? + field(12)?) / TICKS_PER_S,
            resident_bytes: field(21)? * PAGE_BYTES,
        })
    }
}
