//! Naive float64 twins of every kernel: the oracle of the tests and the baseline of the benches.

/// `x · w + b` of C-contiguous `[rows, d_in]`, `[d_in, d_out]` and `[d_out]`.
pub fn linear(x: &[f64], w: &[f64], b: Option<&Vec<f64>>, [rows, d_in, d_out]: [usize; 3]) -> Vec<f64> {
    let mut out = Vec::with_capacity(rows * d_out);
    for row in 0..rows {
        for column in 0..d_out {
            let product: f64 = (0..d_in).map(|inner| x[row * d_in + inner] * w[inner * d_out + column]).sum();
            out.push(product + b.map_or(0.0, |bias| bias[column]));
        }
    }
    out
}

mod fused;
mod layers;
mod matrix;

#[cfg(test)]
pub(crate) use fused::mask_bias;
pub use fused::{AttentionRow, attention};
pub use layers::{erf, gelu, gelu_tanh, layer_norm};
pub use matrix::matrix_attention;
