use proptest::prelude::*;

use super::*;

fn skipped(text: &str) -> Result<()> {
    let mut reader = Reader::new(text.as_bytes(), 100)?;
    reader.skip()?;
    reader.finish()
}

#[test]
fn what_json_is() {
    for text in
        ["0", "-0", "1.5e-3", "true", "null", "\"\"", "[]", "{}", " [1, {\"a\": [\"b\\n\\u00e9\\ud83d\\ude00\"]}] "]
    {
        assert_eq!(skipped(text), Ok(()), "{text}");
    }
}

#[test]
fn what_json_is_not() {
    for text in [
        "",
        " ",
        "01",
        "-",
        "1.",
        ".5",
        "+1",
        "1e",
        "1e+",
        "NaN",
        "Infinity",
        "tru",
        "nul",
        "'a'",
        "\"",
        "\"\\x\"",
        "\"\\u12\"",
        "\"\\ud800\"",
        "\"\\ud800\\u0041\"",
        "\"\\udc00\"",
        "\"\n\"",
        "[",
        "[1",
        "[1,",
        "[1,]",
        "[,]",
        "{",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "{1:2}",
        "1 2",
        "[1]]",
        "\u{feff}1",
    ] {
        assert!(matches!(skipped(text), Err(Error::Syntax { .. })), "{text}");
    }
    assert!(Reader::new(b"\"\xff\"", 100).is_err());
}

#[test]
fn depth_ends_at_the_limit() {
    let nested = |levels: usize| "[".repeat(levels) + &"]".repeat(levels);
    assert_eq!(skipped(&nested(100)), Ok(()));
    assert_eq!(skipped(&nested(101)), Err(Error::Depth { allowed: 100 }));
    assert_eq!(skipped(&"[".repeat(1_000_000)), Err(Error::Depth { allowed: 100 }));
    assert_eq!(skipped(&"{\"a\":".repeat(1_000_000)), Err(Error::Depth { allowed: 100 }));
}

#[test]
fn strings_are_unescaped() {
    let read = |text: &str| Reader::new(text.as_bytes(), 1).unwrap().string().unwrap().into_owned();
    assert_eq!(read(r#""a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00z""#), "a\"\\/\u{8}\u{c}\n\r\tA😀z");
}

proptest! {
    #[test]
    fn never_panics(text in "[\\[\\]{}:,0-9.eE+\\-\"\\\\ua-f tn]{0,40}") {
        let _ = skipped(&text);
    }
}
