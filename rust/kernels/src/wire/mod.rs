//! Numbers as text and back: JSON read straight into arrays, arrays written straight as JSON.

pub mod decimal;
pub mod digits;
pub mod json;
pub mod tensor;
