use crate::moe::*;

/// DeepEP V1, low latency: 128 tokens a rank, hidden 7168, top 8 (its README).
const LOW_LATENCY: [(f64, f64, f64); 6] = [
    (8.0, 77.0, 114.0),
    (16.0, 118.0, 195.0),
    (32.0, 155.0, 273.0),
    (64.0, 173.0, 314.0),
    (128.0, 192.0, 369.0),
    (256.0, 194.0, 360.0),
];

/// DeepEP V1, normal: 4096 tokens, top 8 of at most 4 nodes; GB/s of dispatch and combine.
const NORMAL: [(f64, f64, f64); 4] =
    [(8.0, 153.0, 158.0), (16.0, 43.0, 43.0), (32.0, 58.0, 57.0), (64.0, 51.0, 50.0)];

fn is_within_5_percent(modelled: f64, published: f64) -> bool {
    (modelled / published - 1.0).abs() <= 0.05
}

#[test]
fn low_latency_times_are_deepep_s() {
    let fabric = Fabric::default();
    for (ranks, dispatch, combine) in LOW_LATENCY {
        let sent = 128.0 * 8.0;
        let far = sent * (1.0 - 8.0 / ranks);
        let near = sent * 8.0 / ranks * 7.0 / 8.0;
        for (way, published) in [(Direction::Dispatch, dispatch), (Direction::Combine, combine)] {
            let us = fabric.low_latency_us(way, 7168, Incoming { near, far });
            assert!(is_within_5_percent(us, published), "EP{ranks} {way:?}: {us} for {published}");
        }
    }
}

#[test]
fn normal_bandwidths_are_deepep_s() {
    let fabric = Fabric::default();
    for (ranks, dispatch, combine) in NORMAL {
        let nodes: f64 = ranks / 8.0;
        let chosen = nodes.min(4.0);
        // Nodes and GPUs that a token's 8 experts are on.
        let on_nodes = chosen * (1.0 - libm::pow(1.0 - 1.0 / chosen, 8.0));
        let gpus = chosen * 8.0;
        let on_gpus = gpus * (1.0 - libm::pow(1.0 - 1.0 / gpus, 8.0));
        let is_one_node = ranks <= 8.0;
        let incoming = Incoming {
            // DeepEP counts what a GPU sends itself on one node.
            near: 4096.0 * on_gpus * if is_one_node { 1.0 } else { 7.0 / 8.0 },
            far: if is_one_node { 0.0 } else { 4096.0 * on_nodes * (1.0 - 1.0 / nodes) },
        };
        for (way, published) in [(Direction::Dispatch, dispatch), (Direction::Combine, combine)] {
            let counted = 4096.0 * if is_one_node { on_gpus } else { on_nodes };
            let us = fabric.normal_us(way, 7168, incoming);
            let gb_s = counted * way.token_bytes(7168) / us / 1e3;
            assert!(is_within_5_percent(gb_s, published), "EP{ranks} {way:?}: {gb_s} {published}");
        }
    }
}
