//! The layers of an encoder besides attention.

/// The error function, from a series of positive terms (Abramowitz and Stegun 7.1.6).
pub fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum();
    }
    let (mut term, mut sum) = (x, x);
    for n in 1..200 {
        term *= 2.0 * x * x / f64::from(2 * n + 1);
        sum += term;
    }
    sum * std::f64::consts::FRAC_2_SQRT_PI * (-x * x).exp()
}

/// `x Φ(x)` with the error function.
pub fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2))
}

/// [`gelu`] with tanh in place of the error function.
pub fn gelu_tanh(x: f64) -> f64 {
    0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh())
}

/// Each row of a C-contiguous `[rows, weight.len()]`, normalised to mean 0 and variance 1, times `weight`, plus `bias`.
pub fn layer_norm(x: &[f64], weight: &[f64], bias: &[f64], epsilon: f64) -> Vec<f64> {
    let columns = weight.len();
    let mut out = Vec::with_capacity(x.len());
    for row in x.chunks_exact(columns) {
        let mean = row.iter().sum::<f64>() / columns as f64;
        let variance = row.iter().map(|value| (value - mean) * (value - mean)).sum::<f64>() / columns as f64;
        let scale = 1.0 / (variance + epsilon).sqrt();
        out.extend(
            row.iter().zip(weight).zip(bias).map(|((value, weight), bias)| (value - mean) * scale * weight + bias),
        );
    }
    out
}
