//! What an allocation takes, as an allocator counts it: the bytes asked for.

/// A reference-counted allocation of `bytes`: two counters come before it.
pub(in crate::index) const fn arc(bytes: usize) -> usize {
    bytes + 2 * std::mem::size_of::<usize>()
}

/// What a vector has allocated.
#[allow(clippy::ptr_arg)] // Capacity is what is asked for.
pub(in crate::index) fn vec<T>(vec: &Vec<T>) -> usize {
    vec.capacity() * std::mem::size_of::<T>()
}

/// A hash map of hashbrown's layout: a power of two of buckets, seven eighths of which it fills,
/// and a tag byte for each bucket and for one group past the end.
pub(in crate::index) fn map<K, V>(capacity: usize) -> usize {
    const GROUP: usize = 16;
    match capacity {
        0 => 0,
        _ => {
            let buckets = match capacity {
                1..=3 => 4,
                4..=7 => 8,
                8..=14 => 16,
                more => (more * 8).div_ceil(7).next_power_of_two(),
            };
            buckets * (std::mem::size_of::<(K, V)>() + 1) + GROUP
        }
    }
}
