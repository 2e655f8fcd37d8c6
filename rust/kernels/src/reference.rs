//! Naive float64 twins of every kernel: the oracle of the tests and the baseline of the benches.
