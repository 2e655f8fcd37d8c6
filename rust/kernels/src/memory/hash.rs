//! What spreads hashes.

/// Spreads a hash over all its bits: CPython's integers hash to themselves, the index takes the top and bottom bits.
pub(super) fn mix(hash: u64) -> u64 {
    // A folded multiplication; the factor is 2^64 over the golden ratio, as in Fibonacci hashing.
    let product = u128::from(hash ^ 0x2545_f491_4f6c_dd1d) * 0x9e37_79b9_7f4a_7c15;
    (product as u64) ^ (product >> 64) as u64
}
