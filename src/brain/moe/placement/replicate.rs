//! How many replicas each expert gets.

/// Halves the largest pieces until all slots are taken: as DeepSeek's EPLB does, each further
/// replica goes to the expert whose replicas carry most. No more than `most` replicas an expert, so
/// that no GPU need hold two of one, unless all have as many.
pub(super) fn by_load(tokens: &[f64], slots: usize, most: usize) -> Vec<u32> {
    let mut counts = vec![1_u32; tokens.len()];
    let mut pieces = tokens.to_vec();
    for _ in tokens.len()..slots {
        let Some(expert) = heaviest(&pieces, tokens).or_else(|| heaviest(tokens, tokens)) else {
            break;
        };
        grow(expert, tokens, &mut counts, &mut pieces, most);
    }
    counts
}

/// First what balance needs: no piece above a share of a GPU's mean that packing can still place
/// (0.6 of it); then a replica on every node for the experts with most tokens, each of which saves
/// so many tokens of a node the network.
pub(super) fn by_nodes(tokens: &[f64], slots: usize, gpus: usize, nodes: usize) -> Vec<u32> {
    const LARGEST_PIECE: f64 = 0.6;
    let mean = tokens.iter().sum::<f64>() / gpus as f64;
    let mut counts = vec![1_u32; tokens.len()];
    let mut pieces = tokens.to_vec();
    let mut left = slots - tokens.len();
    while left > 0 {
        let Some(expert) =
            heaviest(&pieces, tokens).filter(|it| pieces[*it] > LARGEST_PIECE * mean)
        else {
            break;
        };
        // Beyond one a node, as many on each: every node sends as much to its own.
        let more = if (counts[expert] as usize) < nodes { 1 } else { nodes };
        if more > left {
            break;
        }
        for _ in 0..more {
            grow(expert, tokens, &mut counts, &mut pieces, gpus);
        }
        left -= more;
    }
    let mut order: Vec<usize> = (0..tokens.len()).collect();
    order.sort_by(|a, b| tokens[*b].total_cmp(&tokens[*a]).then(a.cmp(b)));
    for expert in order {
        while left > 0 && (counts[expert] as usize) < nodes.min(gpus) {
            grow(expert, tokens, &mut counts, &mut pieces, gpus);
            left -= 1;
        }
    }
    for _ in 0..left {
        let Some(expert) = heaviest(&pieces, tokens).or_else(|| heaviest(tokens, tokens)) else {
            break;
        };
        grow(expert, tokens, &mut counts, &mut pieces, gpus);
    }
    counts
}

/// Counts that may serve better where packing leaves the fullest GPU above the bound: the expert that
/// fills it gets the replica that is missed least. `None` where none can be spared.
pub(super) fn shifted(counts: &[u32], tokens: &[f64], to: usize, most: usize) -> Option<Vec<u32>> {
    let without = |expert: usize| tokens[expert] / f64::from(counts[expert] - 1);
    let spare = (0..counts.len()).filter(|it| *it != to && counts[*it] > 1);
    let from = spare.min_by(|a, b| without(*a).total_cmp(&without(*b)))?;
    if counts[to] as usize >= most {
        return None;
    }
    let mut shifted = counts.to_vec();
    shifted[from] -= 1;
    shifted[to] += 1;
    Some(shifted)
}

/// One replica more. What has as many as there may be is asked no more.
fn grow(expert: usize, tokens: &[f64], counts: &mut [u32], pieces: &mut [f64], most: usize) {
    counts[expert] += 1;
    pieces[expert] = if (counts[expert] as usize) < most {
        tokens[expert] / f64::from(counts[expert])
    } else {
        f64::NEG_INFINITY
    };
}

/// The expert with the largest pieces; `None` where all are ruled out. Of those that are as large, the
/// one with most of them: a replica more makes all of its pieces smaller.
fn heaviest(pieces: &[f64], tokens: &[f64]) -> Option<usize> {
    const EQUAL: f64 = 1e-9;
    let mut found = None;
    let mut most = f64::NEG_INFINITY;
    for (expert, &piece) in pieces.iter().enumerate() {
        // One comparison for most: this is the inner loop of replication.
        if piece <= most * (1.0 - EQUAL) {
            continue;
        }
        let is_larger = piece > most * (1.0 + EQUAL);
        if found.is_none_or(|it: usize| is_larger || tokens[expert] > tokens[it])
            && piece > f64::NEG_INFINITY
        {
            (found, most) = (Some(expert), piece);
        }
    }
    found
}
