//! Numbers of the usual lengths, read in one pass: the digits eight at a time, the nearest float from two products.
//!
//! What is longer, closer to the limits of the types, or no number at all is left to the reader that checks everything.

/// Bytes in front of the end of the digits that are looked at, whatever stands in them.
const BEFORE: usize = 24;
/// Bytes from the start of a number that are looked at; it must end within them.
const WINDOW: usize = 32;

/// A number as JSON spells it: `digits × 10^exponent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Decimal {
    /// The digits as a whole number.
    pub digits: u64,
    /// The power of ten, -27 to 27.
    pub exponent: i32,
    /// Whether there is a minus in front.
    pub is_negative: bool,
    /// Whether there is neither a fraction nor an exponent.
    pub is_integer: bool,
}

/// The number at `start`, and where it ends. None for whatever this does not read: that need not be an error.
///
/// Where it ends follows from one look at the 32 bytes from `start`, so that a processor can begin with the number behind
/// it before this one is read.
#[inline(always)] // it has one caller, in a loop
pub fn scan(text: &[u8], start: usize) -> Option<(Decimal, usize)> {
    let window: &[u8; WINDOW] = text.get(start..start + WINDOW)?.try_into().ok()?;
    let is_negative = window[0] == b'-';
    let whole = start + usize::from(is_negative);
    let others = !digit_mask(window) >> u32::from(is_negative);
    let length = others.trailing_zeros() as usize;
    // No digit at all, more than seven, or a zero in front of others.
    if length.wrapping_sub(1) > 6 || (length > 1 && text[whole] == b'0') {
        return None;
    }
    let word = u64::from_le_bytes(text.get(whole..whole + 8)?.try_into().ok()?);
    let head = eight_digits((word & 0x0f0f_0f0f_0f0f_0f0f) << (64 - 8 * length));
    let mut end = whole + length;
    let mut decimal = Decimal { digits: head, exponent: 0, is_negative, is_integer: true };
    if text[end] == b'.' {
        let places = (others & (others - 1)).trailing_zeros() as usize - length - 1;
        end += 1 + places;
        // The window ends before the digits do, or there are none.
        if places == 0 || places > BEFORE || end + 3 >= text.len() {
            return None;
        }
        let (high, low) = last_digits(text, end, places)?;
        // Nineteen digits always fit; more do where all but nineteen are zeros in front.
        if high >= 1000 || (head > 0 && length + places > 19) {
            return None;
        }
        decimal.digits = head * POWERS[places.min(19)] + high * POWERS[16] + low;
        decimal.exponent = -(places as i32);
        decimal.is_integer = false;
    }
    if text[end] | 0x20 == b'e' {
        let sign = *text.get(end + 1)?;
        let first = end + 1 + usize::from(matches!(sign, b'+' | b'-'));
        let tens = text.get(first)?.wrapping_sub(b'0');
        if tens > 9 {
            return None;
        }
        let ones = text.get(first + 1)?.wrapping_sub(b'0');
        let (exponent, after) = if ones > 9 { (tens, first + 1) } else { (tens * 10 + ones, first + 2) };
        if text.get(after)?.is_ascii_digit() {
            return None;
        }
        decimal.exponent += if sign == b'-' { -i32::from(exponent) } else { i32::from(exponent) };
        decimal.is_integer = false;
        end = after;
    }
    (decimal.exponent.unsigned_abs() <= MOST as u32).then_some((decimal, end))
}

/// One bit for each byte: whether it is a digit.
#[cfg(target_arch = "x86_64")]
#[inline]
fn digit_mask(bytes: &[u8; WINDOW]) -> u32 {
    use std::arch::x86_64::{_mm_cmpgt_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_xor_si128};
    let half = |at: usize| {
        // SAFETY: SSE2 is part of every x86-64, and 16 bytes from `at`, 0 or 16, lie in the array.
        unsafe {
            let half = _mm_loadu_si128(bytes.as_ptr().add(at).cast());
            // '0' to '9' become -128 to -119, the lowest of all signed bytes.
            let moved = _mm_xor_si128(half, _mm_set1_epi8(0x30_u8 as i8 ^ i8::MIN));
            _mm_movemask_epi8(_mm_cmpgt_epi8(_mm_set1_epi8(i8::MIN + 10), moved)) as u32
        }
    };
    half(0) | half(16) << 16
}

/// One bit for each byte: whether it is a digit.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn digit_mask(bytes: &[u8; WINDOW]) -> u32 {
    bytes.iter().rev().fold(0, |mask, byte| mask << 1 | u32::from(byte.is_ascii_digit()))
}

/// The value of the `count` digits in front of `end`: those above the lowest sixteen, and the lowest sixteen.
#[inline]
fn last_digits(text: &[u8], end: usize, count: usize) -> Option<(u64, u64)> {
    let bytes: &[u8; BEFORE] = text.get(end.checked_sub(BEFORE)?..end)?.try_into().ok()?;
    let word = |at: usize| {
        let bytes = [0, 1, 2, 3, 4, 5, 6, 7].map(|index| bytes[at + index]);
        u64::from_le_bytes(bytes)
    };
    let [first, second, third] = MASKS[count.min(BEFORE)];
    let low = eight_digits(word(16) & third) + eight_digits(word(8) & second) * POWERS[8];
    Some((eight_digits(word(0) & first), low))
}

/// The digits among the last 24 bytes: what is in front of them is masked out, and of them all but their values.
static MASKS: [[u64; 3]; BEFORE + 1] = {
    let mut masks = [[0; 3]; BEFORE + 1];
    let mut count = 0;
    while count <= BEFORE {
        let mut at = BEFORE - count;
        while at < BEFORE {
            masks[count][at / 8] |= 0x0f << (8 * (at % 8));
            at += 1;
        }
        count += 1;
    }
    masks
};

/// The number of eight digits, the first in the lowest byte, each as its value.
#[inline]
fn eight_digits(values: u64) -> u64 {
    let pairs = values * 10 + (values >> 8);
    let mask = 0x0000_00ff_0000_00ff;
    let high = (pairs & mask).wrapping_mul(100 + (1_000_000 << 32));
    let low = (pairs >> 16 & mask).wrapping_mul(1 + (10_000 << 32));
    high.wrapping_add(low) >> 32
}

const POWERS: [u64; 20] = {
    let mut powers = [1; 20];
    let mut power = 1;
    while power < 20 {
        powers[power] = powers[power - 1] * 10;
        power += 1;
    }
    powers
};

/// The layout of a binary floating-point type.
pub trait Binary: Sized {
    /// Bits of the mantissa that are stored.
    const MANTISSA_BITS: u32;
    /// The exponent of the smallest normal number, minus one.
    const LEAST: i32;
    /// The powers of ten from and to which a number can lie half-way between two of this type.
    const HALVES: (i32, i32);

    /// The number of this mantissa, without its highest bit, and biased exponent.
    fn from_parts(mantissa: u64, exponent: i32, is_negative: bool) -> Self;
}

impl Binary for f64 {
    const MANTISSA_BITS: u32 = 52;
    const LEAST: i32 = -1023;
    const HALVES: (i32, i32) = (-4, 23);

    #[inline]
    fn from_parts(mantissa: u64, exponent: i32, is_negative: bool) -> Self {
        Self::from_bits(mantissa | (exponent as u64) << 52 | u64::from(is_negative) << 63)
    }
}

impl Binary for f32 {
    const MANTISSA_BITS: u32 = 23;
    const LEAST: i32 = -127;
    const HALVES: (i32, i32) = (-17, 10);

    #[inline]
    fn from_parts(mantissa: u64, exponent: i32, is_negative: bool) -> Self {
        Self::from_bits(mantissa as u32 | (exponent as u32) << 23 | u32::from(is_negative) << 31)
    }
}

/// The nearest number of the type, ties to even. None where it would not be a normal number, or zero.
///
/// The algorithm of Eisel and Lemire: D. Lemire, "Number parsing at a gigabyte per second" (2021), section 5; that it
/// needs no fallback is shown by N. Mushtak and D. Lemire, "Fast number parsing without fallback" (2022).
#[inline]
pub fn nearest<F: Binary>(decimal: Decimal) -> Option<F> {
    let Decimal { digits, exponent, is_negative, .. } = decimal;
    if digits == 0 {
        return Some(F::from_parts(0, 0, is_negative));
    }
    let shift = digits.leading_zeros();
    let digits = digits << shift;
    let (power_high, power_low) = FIVES[(exponent + MOST) as usize];
    let product = u128::from(digits) * u128::from(power_high);
    let (mut high, mut low) = ((product >> 64) as u64, product as u64);
    if high & (u64::MAX >> (F::MANTISSA_BITS + 3)) == u64::MAX >> (F::MANTISSA_BITS + 3) {
        let more = ((u128::from(digits) * u128::from(power_low)) >> 64) as u64;
        let (sum, carried) = low.overflowing_add(more);
        low = sum;
        high += u64::from(carried);
    }
    let upper = (high >> 63) as u32;
    let unused = upper + 64 - F::MANTISSA_BITS - 3;
    let mut mantissa = high >> unused;
    // floor(log2(10^exponent)) + 63 for these exponents.
    let mut power = ((217_706 * exponent) >> 16) + 63 + upper as i32 - shift as i32 - F::LEAST;
    if power <= 0 {
        return None;
    }
    let (least, most) = F::HALVES;
    if low <= 1 && (least..=most).contains(&exponent) && mantissa & 3 == 1 && mantissa << unused == high {
        mantissa &= !1; // half-way, and even is below
    }
    mantissa = (mantissa + (mantissa & 1)) >> 1;
    if mantissa >> (F::MANTISSA_BITS + 1) != 0 {
        mantissa = 1 << F::MANTISSA_BITS;
        power += 1;
    }
    (power < 1 - 2 * F::LEAST).then(|| F::from_parts(mantissa & !(1 << F::MANTISSA_BITS), power, is_negative))
}

/// The largest power of ten that [`FIVES`] has.
const MOST: i32 = 27;

/// 5^exponent from -27 to 27 as 128 bits, the highest set: exact from 0 up, reciprocals rounded up.
static FIVES: [(u64, u64); 2 * MOST as usize + 1] = {
    let mut powers = [(0, 0); 2 * MOST as usize + 1];
    let mut five: u128 = 1;
    let mut exponent = 0;
    while exponent <= MOST as usize {
        let exact = five << five.leading_zeros();
        powers[MOST as usize + exponent] = ((exact >> 64) as u64, exact as u64);
        if exponent > 0 {
            // floor(2^(127 + bits) / five) + 1, one bit after the other: five < 2^bits <= 2^63.
            let bits = 128 - (five - 1).leading_zeros();
            let mut quotient: u128 = 0;
            let mut rest: u128 = 1 << bits;
            let mut bit = 0;
            while bit < 128 {
                quotient <<= 1;
                if rest >= five {
                    quotient |= 1;
                    rest -= five;
                }
                rest <<= 1;
                bit += 1;
            }
            let rounded = quotient + 1;
            powers[MOST as usize - exponent] = ((rounded >> 64) as u64, rounded as u64);
        }
        five *= 5;
        exponent += 1;
    }
    powers
};

#[cfg(test)]
mod tests;
