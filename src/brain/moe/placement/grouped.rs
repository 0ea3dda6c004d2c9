//! Group-limited routing: the experts of a group on one node, each node balanced by itself.

use super::super::map::LayerMap;
use super::super::{MoeError, Shape};
use super::packing::{Packing, Spread};
use super::{PlaceConfig, replicate, search, shared};

/// Whether each node can hold as many groups as any other.
pub(super) fn fits(shape: &Shape) -> Result<(), MoeError> {
    let nodes = shape.living_nodes();
    if !shape.groups().is_multiple_of(nodes.len()) {
        return Err(MoeError::Uneven {
            name: "groups",
            value: shape.groups(),
            of: "living nodes",
            divisor: nodes.len(),
        });
    }
    let experts = shape.experts() / nodes.len();
    let slots = nodes.iter().map(|node| living_slots(shape, *node)).min().unwrap_or(0);
    if slots < experts { Err(MoeError::NoRoom { experts, slots }) } else { Ok(()) }
}

pub(super) fn place(tokens: &[f64], shape: &Shape, config: &PlaceConfig) -> LayerMap {
    let size = shape.experts() / shape.groups();
    let nodes = shape.living_nodes();
    let home = homes(tokens, size, shape, &nodes);
    let mut packing = Packing::new(shape, Spread::Gpus, 0..shape.gpus());
    for &node in &nodes {
        let each = shape.gpus_per_node();
        packing.gpus = (node * each..(node + 1) * each).filter(|it| !shape.is_dead(*it)).collect();
        let held: Vec<usize> = (0..tokens.len()).filter(|it| home[it / size] == node).collect();
        let own: Vec<f64> = held.iter().map(|expert| tokens[*expert]).collect();
        let counts = replicate::by_load(&own, living_slots(shape, node), packing.gpus.len());
        let replicas = held.iter().zip(&counts).zip(&own);
        packing.pack(replicas.map(|((expert, count), own)| (*expert as u32, *count, *own)));
        search::even_out(&mut packing, config.tolerance);
    }
    shared(packing.experts, tokens, shape, config.sharing)
}

/// Group -> node, as many groups a node: each group to the node with most room for it, then
/// exchanges while one makes the fuller of two nodes emptier.
fn homes(tokens: &[f64], size: usize, shape: &Shape, nodes: &[usize]) -> Vec<usize> {
    let loads: Vec<f64> = tokens.chunks_exact(size).map(|group| group.iter().sum()).collect();
    let most = loads.len() / nodes.len();
    let mut order: Vec<usize> = (0..loads.len()).collect();
    order.sort_by(|a, b| loads[*b].total_cmp(&loads[*a]).then(a.cmp(b)));
    let (mut home, mut filled, mut held) =
        (vec![0; loads.len()], vec![0.0; shape.nodes()], vec![0; shape.nodes()]);
    for group in order {
        let open = nodes.iter().copied().filter(|node| held[*node] < most);
        let Some(node) = open.reduce(|a, b| if filled[b] < filled[a] { b } else { a }) else {
            break;
        };
        home[group] = node;
        filled[node] += loads[group];
        held[node] += 1;
    }
    // Each exchange lowers a sum of squares; the bound is for what rounding could make of that.
    for _ in 0..loads.len() * loads.len() {
        let pairs = (0..loads.len()).flat_map(|a| (0..loads.len()).map(move |b| (a, b)));
        let better = |(a, b): &(usize, usize)| {
            let moved = loads[*a] - loads[*b];
            moved > 0.0 && filled[home[*a]] - filled[home[*b]] > moved * (1.0 + 1e-9)
        };
        let Some((a, b)) = pairs.into_iter().find(better) else { break };
        let moved = loads[a] - loads[b];
        filled[home[a]] -= moved;
        filled[home[b]] += moved;
        home.swap(a, b);
    }
    home
}

fn living_slots(shape: &Shape, node: usize) -> usize {
    let each = shape.gpus_per_node();
    let living = (node * each..(node + 1) * each).filter(|gpu| !shape.is_dead(*gpu));
    living.count() * shape.slots_per_gpu()
}
