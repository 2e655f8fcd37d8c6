use proptest::prelude::*;

use super::*;

/// The number alone, far enough from both ends of the text to be looked at.
fn scanned(number: &str) -> Option<(Decimal, usize)> {
    let text = format!("{}{number},{}", " ".repeat(BEFORE), "9".repeat(64));
    scan(text.as_bytes(), BEFORE).map(|(decimal, end)| (decimal, end - BEFORE))
}

fn read<F: Binary>(number: &str) -> Option<F> {
    let (decimal, end) = scanned(number)?;
    assert_eq!(end, number.len(), "{number}");
    nearest(decimal)
}

#[test]
fn usual_numbers_are_read_here() {
    for number in [
        "0",
        "-0",
        "0.0",
        "-1",
        "1.5",
        "1234567",
        "0.1",
        "1e5",
        "-2.5E-07",
        "1.2345678901234567",
        "0.00012345678901234567",
    ] {
        let expected: f64 = number.parse().unwrap();
        assert_eq!(read::<f64>(number).map(f64::to_bits), Some(expected.to_bits()), "{number}");
        assert_eq!(read::<f32>(number).map(f32::to_bits), Some((expected as f32).to_bits()), "{number}");
    }
}

#[test]
fn what_is_no_json_number_is_left_alone() {
    for text in ["01", "-01.5", "1.", ".5", "+1", "1.e5", "1e", "1e+", "-", "", "NaN", "e5", "--1", "00"] {
        assert_eq!(scanned(text), None, "{text}");
    }
}

#[test]
fn digits_in_front_of_the_number_are_not_its_own() {
    for digits in 1..=20 {
        let number = format!("1.{}", "7".repeat(digits));
        let text = format!("{}{number},{}", "9".repeat(BEFORE), " ".repeat(64));
        let read = scan(text.as_bytes(), BEFORE).and_then(|(decimal, _)| nearest::<f64>(decimal));
        if let Some(read) = read {
            assert_eq!(read, number.parse().unwrap());
        }
        assert_eq!(read.is_some(), digits <= 18);
    }
}

#[test]
fn halves_go_to_even() {
    // Exactly between two neighbours: 2^53 + 1 as digits that no exponent makes shorter, and its likes.
    for (number, expected) in [
        ("9007199.254740993e9", 9_007_199_254_740_992.0),
        ("9007199.254740995e9", 9_007_199_254_740_996.0),
        ("1.00000000000000011102", 1.000_000_000_000_000_111_02),
    ] {
        if let Some(read) = read::<f64>(number) {
            assert_eq!(read, expected, "{number}");
        }
    }
    assert_eq!(read::<f32>("1677721.7e1"), Some(16_777_216.0));
    assert_eq!(read::<f32>("1677721.9e1"), Some(16_777_220.0));
}

#[test]
fn powers_of_five() {
    assert_eq!(FIVES[MOST as usize], (1 << 63, 0));
    assert_eq!(FIVES[MOST as usize + 1], (5 << 61, 0));
    assert_eq!(FIVES[MOST as usize - 1], (0xcccc_cccc_cccc_cccc, 0xcccc_cccc_cccc_cccd));
}

fn same_as_the_standard_library(number: &str) {
    if let Some(read) = read::<f64>(number) {
        let expected: f64 = number.parse().unwrap();
        assert_eq!(read.to_bits(), expected.to_bits(), "{number}");
    }
    if let Some(read) = read::<f32>(number) {
        let expected: f32 = number.parse().unwrap();
        assert_eq!(read.to_bits(), expected.to_bits(), "{number}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    #[test]
    fn any_spelling(number in "-?(0|[1-9][0-9]{0,9})(\\.[0-9]{1,26})?([eE][+-]?[0-9]{1,3})?") {
        same_as_the_standard_library(&number);
    }

    #[test]
    fn shortest_digits(bits in any::<u64>(), exponent in 960_u64..1090) {
        let value = f64::from_bits(bits >> 12 | exponent << 52);
        same_as_the_standard_library(&format!("{value}"));
        same_as_the_standard_library(&format!("{value:e}"));
    }

    // Half-way between two float32, or one unit in the last digit beside it.
    #[test]
    fn near_halves_of_float32(bits in any::<u32>(), exponent in 110_u32..150, beside in -1_i64..=1) {
        let value = f32::from_bits(bits >> 9 | exponent << 23);
        let half = (f64::from(value) + f64::from(f32::from_bits(value.to_bits() + 1))) / 2.0;
        let text = format!("{half:.12}");
        same_as_the_standard_library(&text);
        let (head, last) = text.split_at(text.len() - 1);
        let last = (last.parse::<i64>().unwrap() + beside).clamp(0, 9);
        same_as_the_standard_library(&format!("{head}{last}"));
    }

    #[test]
    fn never_panics(text in "[0-9.eE+\\-,\\] ]{0,60}", start in 0_usize..60) {
        let _ = scan(text.as_bytes(), start);
    }
}
