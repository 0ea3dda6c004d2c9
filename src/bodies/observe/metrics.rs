//! An engine's metrics page -> [`MetricsSample`], by the names of vLLM, SGLang and TensorRT-LLM,
//! and an exporter's GPU gauges (NVIDIA's DCGM exporter).
//!
//! Names: vLLM 0.32 as captured in `tests/goldens/vllm/*.metrics.txt`; SGLang and TensorRT-LLM as
//! llm-d's router reads them (its metrics table, 2026-08), not run live.
//! Series of several data-parallel ranks are told apart by the label that the engine uses for it.

use super::exposition::{Sample, samples};
use llmd_brain::fleet::MetricsSample;

/// Labels by which engines name the data-parallel rank of a series.
const RANK_LABELS: [&str; 3] = ["engine", "dp_rank", "rank"];
const MIB: f64 = 1_048_576.0;

/// A quantity that several engines report, each under its own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Quantity {
    Waiting,
    Running,
    KvUsage,
    PrefixQueries,
    PrefixHits,
    Preemptions,
    CacheConfig,
    BlockTokens,
    MaxBlocks,
    Loras,
    ProcessStart,
    GpuUtilizationPercent,
    GpuMemoryUsedMib,
}

const NAMES: [(&str, Quantity); 26] = [
    ("vllm:num_requests_waiting", Quantity::Waiting),
    ("vllm:num_requests_running", Quantity::Running),
    ("vllm:kv_cache_usage_perc", Quantity::KvUsage),
    ("vllm:gpu_cache_usage_perc", Quantity::KvUsage),
    ("vllm:prefix_cache_queries_total", Quantity::PrefixQueries),
    ("vllm:prefix_cache_hits_total", Quantity::PrefixHits),
    ("vllm:gpu_prefix_cache_queries_total", Quantity::PrefixQueries),
    ("vllm:gpu_prefix_cache_hits_total", Quantity::PrefixHits),
    ("vllm:num_preemptions_total", Quantity::Preemptions),
    ("vllm:cache_config_info", Quantity::CacheConfig),
    ("vllm:lora_requests_info", Quantity::Loras),
    ("sglang:num_queue_reqs", Quantity::Waiting),
    ("sglang:num_running_reqs", Quantity::Running),
    ("sglang:token_usage", Quantity::KvUsage),
    ("sglang:cache_config_info", Quantity::CacheConfig),
    ("sglang:num_retracted_reqs", Quantity::Preemptions),
    ("trtllm_num_requests_waiting", Quantity::Waiting),
    ("trtllm_num_requests_running", Quantity::Running),
    ("trtllm_kv_cache_utilization", Quantity::KvUsage),
    ("trtllm_kv_cache_tokens_per_block", Quantity::BlockTokens),
    ("trtllm_kv_cache_max_blocks", Quantity::MaxBlocks),
    ("process_start_time_seconds", Quantity::ProcessStart),
    ("process_start_time", Quantity::ProcessStart),
    ("DCGM_FI_DEV_GPU_UTIL", Quantity::GpuUtilizationPercent),
    ("DCGM_FI_DEV_FB_USED", Quantity::GpuMemoryUsedMib),
    ("nv_gpu_utilization", Quantity::GpuUtilizationPercent),
];

fn quantity(name: &str) -> Option<Quantity> {
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, quantity)| *quantity)
}

/// Which series of a page speak for an endpoint.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SeriesFilter {
    /// Data-parallel rank: series that carry a rank label must have this one. `None` sums them.
    pub dp_rank: Option<u32>,
    /// Labels that an exporter's GPU series must have (`gpu`, `UUID`, `Hostname`, ...). Engines'
    /// own series are not asked for them.
    pub gpu_labels: Vec<(String, String)>,
}

impl SeriesFilter {
    fn admits(&self, sample: &Sample<'_>, quantity: Quantity) -> bool {
        if matches!(quantity, Quantity::GpuUtilizationPercent | Quantity::GpuMemoryUsedMib) {
            return self.gpu_labels.iter().all(|(k, v)| sample.label(k) == Some(v));
        }
        let Some(wanted) = self.dp_rank else { return true };
        let rank = RANK_LABELS.iter().find_map(|label| sample.label(label));
        rank.and_then(|rank| rank.parse::<u32>().ok()).is_none_or(|rank| rank == wanted)
    }
}

/// Reads a page. Lines that make no sense are counted in `unreadable` and skipped.
#[must_use]
pub fn parse(page: &str, filter: &SeriesFilter, unreadable: &mut u64) -> MetricsSample {
    let mut read = MetricsSample::default();
    let (mut kv_usage, mut gpu_utilization) = (Mean::default(), Mean::default());
    let mut newest_loras = f64::NEG_INFINITY;
    for sample in samples(page, |name| quantity(name).is_some(), unreadable) {
        let Some(quantity) = quantity(sample.name).filter(|&q| filter.admits(&sample, q)) else {
            continue;
        };
        let value = sample.value;
        match quantity {
            Quantity::Waiting => add(&mut read.waiting_requests, value),
            Quantity::Running => add(&mut read.running_requests, value),
            Quantity::PrefixQueries => add(&mut read.prefix_cache_queries_tokens, value),
            Quantity::PrefixHits => add(&mut read.prefix_cache_hits_tokens, value),
            Quantity::Preemptions => add(&mut read.preemptions, value),
            Quantity::KvUsage => kv_usage.add(value),
            Quantity::GpuUtilizationPercent => gpu_utilization.add(value / 100.0),
            Quantity::GpuMemoryUsedMib => add(&mut read.gpu_memory_used_bytes, value * MIB),
            Quantity::ProcessStart => read.process_start_time_s = Some(value),
            Quantity::BlockTokens => read.block_size = whole(value),
            Quantity::MaxBlocks => read.kv_blocks = whole(value),
            Quantity::CacheConfig => cache_config(&sample, &mut read),
            // vLLM's value is the time of the change: older label sets stay on the page.
            Quantity::Loras if value >= newest_loras => {
                newest_loras = value;
                loras(&sample, &mut read);
            }
            Quantity::Loras => {}
        }
    }
    read.kv_usage = kv_usage.value();
    read.gpu_utilization = gpu_utilization.value();
    read
}

/// Several ranks or GPUs of one endpoint: shares are averaged.
#[derive(Default)]
struct Mean {
    sum: f64,
    count: f64,
}

impl Mean {
    fn add(&mut self, value: f64) {
        self.sum += value;
        self.count += 1.0;
    }

    fn value(&self) -> Option<f64> {
        (self.count > 0.0).then(|| self.sum / self.count)
    }
}

fn add(total: &mut Option<f64>, value: f64) {
    *total = Some(total.unwrap_or(0.0) + value);
}

fn whole<T: TryFrom<u64>>(value: f64) -> Option<T> {
    // Casting saturates; what is not a count fails the comparison.
    let count = value as u64;
    (count as f64 - value).abs().lt(&0.5).then(|| T::try_from(count).ok()).flatten()
}

/// Labels of vLLM's and SGLang's configuration info. With several ranks on the page, all say the
/// same block size; vLLM writes the block count of the rank.
fn cache_config(sample: &Sample<'_>, read: &mut MetricsSample) {
    fn label<T: std::str::FromStr>(sample: &Sample<'_>, names: [&str; 2]) -> Option<T> {
        names.iter().find_map(|name| sample.label(name)?.parse().ok())
    }
    read.block_size = label(sample, ["block_size", "page_size"]).or(read.block_size);
    read.kv_blocks = label(sample, ["num_gpu_blocks", "num_pages"]).or(read.kv_blocks);
}

fn loras(sample: &Sample<'_>, read: &mut MetricsSample) {
    let names = |label: &str| {
        let listed = sample.label(label)?.split(',').map(str::trim);
        Some(listed.filter(|name| !name.is_empty()).map(str::to_owned).collect())
    };
    read.running_loras = names("running_lora_adapters");
    read.waiting_loras = names("waiting_lora_adapters");
    read.max_loras = sample.label("max_lora").and_then(|most| most.parse().ok());
}

#[cfg(test)]
mod tests {
    use super::*;

    const VLLM: &str = include_str!("../../../tests/goldens/vllm/llama_sha256.metrics.txt");
    const VLLM_DP2: &str =
        include_str!("../../../tests/goldens/vllm/llama_xxhash_cbor_seed0_bytes.metrics.txt");

    fn read(page: &str, filter: &SeriesFilter) -> MetricsSample {
        let mut unreadable = 0;
        let sample = parse(page, filter, &mut unreadable);
        assert_eq!(unreadable, 0);
        sample
    }

    fn rank(dp_rank: u32) -> SeriesFilter {
        SeriesFilter { dp_rank: Some(dp_rank), ..SeriesFilter::default() }
    }

    /// What a page says of a series, found by plain text search.
    fn grep(page: &str, start: &str) -> f64 {
        let line = page.lines().find(|line| line.starts_with(start)).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    }

    #[test]
    fn a_real_vllm_page_is_read() {
        let sample = read(VLLM, &SeriesFilter::default());
        assert_eq!(sample.waiting_requests, Some(0.0));
        assert_eq!(sample.running_requests, Some(0.0));
        assert_eq!(sample.kv_usage, Some(0.0));
        assert_eq!(sample.block_size, Some(32));
        assert_eq!(sample.kv_blocks, Some(40));
        assert_eq!(sample.max_loras, Some(1));
        let hits = grep(VLLM, "vllm:prefix_cache_hits_total{");
        assert!(hits > 0.0);
        assert_eq!(sample.prefix_cache_hits_tokens, Some(hits));
        let queries = grep(VLLM, "vllm:prefix_cache_queries_total{");
        assert_eq!(sample.prefix_cache_queries_tokens, Some(queries));
        let start = grep(VLLM, "process_start_time_seconds");
        assert_eq!(sample.process_start_time_s, Some(start));
    }

    #[test]
    fn ranks_are_told_apart_and_summed_without_one() {
        let queries = |engine: u32| {
            grep(VLLM_DP2, &format!("vllm:prefix_cache_queries_total{{engine=\"{engine}\""))
        };
        for dp_rank in 0..2 {
            let sample = read(VLLM_DP2, &rank(dp_rank));
            assert_eq!(sample.prefix_cache_queries_tokens, Some(queries(dp_rank)));
            assert!(sample.process_start_time_s.is_some(), "series without a rank are for all");
        }
        let both = read(VLLM_DP2, &SeriesFilter::default());
        assert_eq!(both.prefix_cache_queries_tokens, Some(queries(0) + queries(1)));
    }

    #[test]
    fn sglang_and_tensorrt_llm_names_are_known() {
        let sglang = "sglang:num_queue_reqs{model_name=\"m\"} 3\n\
            sglang:num_running_reqs{model_name=\"m\"} 5\nsglang:token_usage{model_name=\"m\"} 0.25\n\
            sglang:cache_config_info{page_size=\"64\",num_pages=\"100\"} 1\n";
        let sample = read(sglang, &SeriesFilter::default());
        assert_eq!((sample.waiting_requests, sample.running_requests), (Some(3.0), Some(5.0)));
        assert_eq!(
            (sample.kv_usage, sample.block_size, sample.kv_blocks),
            (Some(0.25), Some(64), Some(100))
        );
        let trtllm = "trtllm_num_requests_waiting 1\ntrtllm_num_requests_running 2\n\
            trtllm_kv_cache_utilization 0.5\ntrtllm_kv_cache_tokens_per_block 32\n\
            trtllm_kv_cache_max_blocks 4096\n";
        let sample = read(trtllm, &SeriesFilter::default());
        assert_eq!((sample.waiting_requests, sample.running_requests), (Some(1.0), Some(2.0)));
        assert_eq!(
            (sample.kv_usage, sample.block_size, sample.kv_blocks),
            (Some(0.5), Some(32), Some(4096))
        );
    }

    #[test]
    fn the_exporter_s_gpus_are_matched_by_label() {
        let page = "DCGM_FI_DEV_GPU_UTIL{gpu=\"0\",UUID=\"a\"} 90\n\
            DCGM_FI_DEV_GPU_UTIL{gpu=\"1\",UUID=\"b\"} 10\n\
            DCGM_FI_DEV_FB_USED{gpu=\"0\",UUID=\"a\"} 1024\nDCGM_FI_DEV_FB_USED{gpu=\"1\",UUID=\"b\"} 1\n";
        let gpu = |labels: &[(&str, &str)]| SeriesFilter {
            gpu_labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            ..rank(3)
        };
        let sample = read(page, &gpu(&[("gpu", "0")]));
        assert_eq!(sample.gpu_utilization, Some(0.9));
        assert_eq!(sample.gpu_memory_used_bytes, Some(1024.0 * MIB));
        assert_eq!(read(page, &gpu(&[])).gpu_utilization, Some(0.5));
        assert_eq!(read(page, &gpu(&[("UUID", "c")])).gpu_utilization, None);
    }

    #[test]
    fn the_newest_lora_line_wins() {
        let page = "vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"a,b\",waiting_lora_adapters=\"\"} 20\n\
            vllm:lora_requests_info{max_lora=\"2\",running_lora_adapters=\"old\",waiting_lora_adapters=\"c\"} 10\n";
        let sample = read(page, &SeriesFilter::default());
        assert_eq!(sample.running_loras, Some(vec!["a".into(), "b".into()]));
        assert_eq!((sample.waiting_loras, sample.max_loras), (Some(vec![]), Some(2)));
    }

    #[test]
    fn values_that_are_no_numbers_are_passed_on_as_such_or_left_out() {
        let page = "vllm:kv_cache_usage_perc NaN\ntrtllm_kv_cache_max_blocks -5\nvllm:num_requests_waiting x\n";
        let mut unreadable = 0;
        let sample = parse(page, &SeriesFilter::default(), &mut unreadable);
        assert!(sample.kv_usage.is_some_and(f64::is_nan));
        assert_eq!((sample.kv_blocks, sample.waiting_requests, unreadable), (None, None, 1));
    }
}
