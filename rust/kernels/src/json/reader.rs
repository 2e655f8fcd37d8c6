//! A strict JSON reader (RFC 8259) that hands out values one by one and builds nothing itself.
//!
//! Stricter than the RFC allows a reader to be, because what is refused here cannot be read in two ways further on:
//! duplicate names, lone surrogates and numbers beyond float64 are errors.

use std::borrow::Cow;

use super::error::{Error, Result};
use super::string;
use crate::excerpt;

/// Lists and objects inside each other, whatever a caller allows: more than this takes no value that is meant.
pub const MAX_DEPTH: usize = 500;

/// A number as JSON spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'a> {
    /// The characters, which follow JSON's grammar.
    pub text: &'a str,
    /// Whether there is neither a fraction nor an exponent.
    pub is_integer: bool,
}

impl Number<'_> {
    /// The nearest float64; infinite beyond its range.
    #[inline]
    pub fn double(self) -> f64 {
        // JSON's grammar is a part of what the parser takes, so it never refuses.
        fast_float2::parse(self.text).unwrap_or(f64::INFINITY)
    }
}

/// Walks through one JSON text.
pub struct Reader<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`, which must be UTF-8 without a byte order mark. `max_depth` counts up to
    /// [`MAX_DEPTH`].
    pub fn new(bytes: &'a [u8], max_depth: usize) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::Syntax { problem: "text that is not UTF-8", offset: error.valid_up_to() })?;
        Ok(Self { text, position: 0, depth: 0, max_depth: max_depth.min(MAX_DEPTH) })
    }

    /// A reader for a value of this text, given by its span; as deep as this reader is.
    #[inline]
    pub fn at(&self, span: (usize, usize)) -> Self {
        Self { text: &self.text[..span.1], position: span.0, depth: self.depth, max_depth: self.max_depth }
    }

    /// All of the text, and the position in it.
    #[inline]
    pub(super) fn place(&self) -> (&'a [u8], usize) {
        (self.text.as_bytes(), self.position)
    }

    /// Reads with `read`, which is given the text and the position in it and returns the position after what it took.
    #[inline]
    pub(super) fn take(&mut self, read: impl FnOnce(&'a [u8], usize) -> usize) {
        self.position = read(self.text.as_bytes(), self.position);
    }

    /// Reads a comma.
    #[inline]
    pub(super) fn comma(&mut self) -> Result<()> {
        if self.peek()? != b',' {
            return Err(self.syntax("',' is needed"));
        }
        self.position += 1;
        Ok(())
    }

    /// Bytes that are still to be read.
    #[inline]
    pub fn remaining(&self) -> usize {
        self.text.len() - self.position
    }

    /// The first byte of the next value, without taking it.
    #[inline]
    pub fn peek(&mut self) -> Result<u8> {
        let bytes = self.text.as_bytes();
        while let Some(&byte) = bytes.get(self.position) {
            if !matches!(byte, b' ' | b'\n' | b'\r' | b'\t') {
                return Ok(byte);
            }
            self.position += 1;
        }
        Err(self.syntax("the end of the text, a value is needed"))
    }

    /// The first byte of the first element of nested lists, without taking anything; None where there is no element.
    pub fn first_element(&self) -> Option<u8> {
        let rest = &self.text.as_bytes()[self.position..];
        rest.iter().copied().find(|byte| !matches!(byte, b'[' | b' ' | b'\n' | b'\r' | b'\t' | b',' | b']'))
    }

    /// Checks that nothing but white space follows.
    pub fn finish(&mut self) -> Result<()> {
        match self.peek() {
            Ok(_) => Err(self.syntax("text after the value")),
            Err(_) => Ok(()),
        }
    }

    /// Reads an array: `item` is called in front of each element and must read it.
    pub fn array<E: From<Error>>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut more = self.open(b'[')?;
        while more {
            item(self)?;
            more = self.more(b'[')?;
        }
        Ok(())
    }

    /// Reads an object: `member` is called with each name and must read the value.
    pub fn object<E: From<Error>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        let mut more = self.open(b'{')?;
        while more {
            let name = self.name()?;
            member(self, name)?;
            more = self.more(b'{')?;
        }
        Ok(())
    }

    /// Enters the array (`[`) or object (`{`) that comes next. Whether there is anything in it; if not, it has ended.
    #[inline]
    pub fn open(&mut self, bracket: u8) -> Result<bool> {
        if self.peek()? != bracket {
            return Err(self.syntax(if bracket == b'[' { "an array is needed" } else { "an object is needed" }));
        }
        if self.depth == self.max_depth {
            return Err(Error::Depth { allowed: self.max_depth });
        }
        self.depth += 1;
        self.position += 1;
        if self.peek()? == closing(bracket) {
            self.close();
            return Ok(false);
        }
        Ok(true)
    }

    /// Reads what follows an element of an array (`[`) or a member of an object (`{`): whether there is another one;
    /// if not, it has ended.
    #[inline]
    pub fn more(&mut self, bracket: u8) -> Result<bool> {
        match self.peek()? {
            b',' => self.position += 1,
            byte if byte == closing(bracket) => {
                self.close();
                return Ok(false);
            }
            _ => {
                let is_array = bracket == b'[';
                return Err(self.syntax(if is_array { "',' or ']' is needed" } else { "',' or '}' is needed" }));
            }
        }
        Ok(true)
    }

    #[inline]
    fn close(&mut self) {
        self.depth -= 1;
        self.position += 1;
    }

    /// Reads the name of a member, and the colon behind it.
    pub fn name(&mut self) -> Result<Cow<'a, str>> {
        let name = self.string()?;
        if self.peek()? != b':' {
            return Err(self.syntax("':' is needed"));
        }
        self.position += 1;
        Ok(name)
    }

    /// The error for a name that the object has already.
    pub fn duplicate(&self, name: &str) -> Error {
        Error::Duplicate { name: excerpt(name), offset: self.position }
    }

    /// Reads `true` or `false`.
    pub fn boolean(&mut self) -> Result<bool> {
        if self.peek()? == b't' { self.word("true").map(|()| true) } else { self.word("false").map(|()| false) }
    }

    /// Reads `null`.
    pub fn null(&mut self) -> Result<()> {
        self.word("null")
    }

    fn word(&mut self, word: &'static str) -> Result<()> {
        self.peek()?;
        if !self.text.as_bytes()[self.position..].starts_with(word.as_bytes()) {
            return Err(self.no_value());
        }
        self.position += word.len();
        Ok(())
    }

    /// Reads a number without converting it.
    #[inline]
    pub fn number(&mut self) -> Result<Number<'a>> {
        self.peek()?;
        let bytes = self.text.as_bytes();
        let start = self.position;
        let digits = |mut at: usize| {
            while bytes.get(at).is_some_and(u8::is_ascii_digit) {
                at += 1;
            }
            at
        };
        let whole = start + usize::from(bytes[start] == b'-');
        let mut end = digits(whole);
        if end == whole || (bytes[whole] == b'0' && end > whole + 1) {
            return Err(if end == whole { self.no_value() } else { self.syntax("a number with a leading zero") });
        }
        let mut is_integer = true;
        if bytes.get(end) == Some(&b'.') {
            is_integer = false;
            let fraction = end + 1;
            end = digits(fraction);
            if end == fraction {
                return Err(self.syntax("a number without digits after the point"));
            }
        }
        if matches!(bytes.get(end), Some(b'e' | b'E')) {
            is_integer = false;
            let exponent = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'+' | b'-')));
            end = digits(exponent);
            if end == exponent {
                return Err(self.syntax("a number without digits in the exponent"));
            }
        }
        self.position = end;
        Ok(Number { text: &self.text[start..end], is_integer })
    }

    /// Reads a string. Borrowed from the text where there is no escape in it.
    pub fn string(&mut self) -> Result<Cow<'a, str>> {
        if self.peek()? != b'"' {
            return Err(self.syntax("'\"' is needed"));
        }
        let (string, end) = string::read(self.text, self.position + 1)?;
        self.position = end;
        Ok(string)
    }

    /// Reads past one value, checking it, and returns its span in bytes.
    pub fn skip(&mut self) -> Result<(usize, usize)> {
        let first = self.peek()?;
        let start = self.position;
        match first {
            b'[' | b'{' => self.skip_nested()?,
            _ => self.skip_flat(first)?,
        }
        Ok((start, self.position))
    }

    fn skip_flat(&mut self, first: u8) -> Result<()> {
        match first {
            b'"' => self.string().map(drop),
            b't' | b'f' => self.boolean().map(drop),
            b'n' => self.null(),
            _ => self.number().map(drop),
        }
    }

    fn skip_nested(&mut self) -> Result<()> {
        // The brackets that are open, for each level of this reader.
        let mut brackets = [0; MAX_DEPTH];
        let outside = self.depth;
        loop {
            let first = self.peek()?;
            if !matches!(first, b'[' | b'{') {
                self.skip_flat(first)?;
            } else if self.open(first)? {
                brackets[self.depth - 1] = first;
                if first == b'{' {
                    self.name()?;
                }
                continue;
            }
            // A value has ended, and with it whatever it is the last one of.
            while self.depth > outside {
                let bracket = brackets[self.depth - 1];
                if self.more(bracket)? {
                    if bracket == b'{' {
                        self.name()?;
                    }
                    break;
                }
            }
            if self.depth == outside {
                return Ok(());
            }
        }
    }

    /// The error for what starts no value. Says how to write the numbers that JSON does not have.
    pub fn no_value(&self) -> Error {
        let rest = &self.text.as_bytes()[self.position..];
        let is_number = [&b"NaN"[..], b"Infinity", b"-Infinity"].iter().any(|name| rest.starts_with(name));
        self.syntax(if is_number {
            "no JSON value, write \"NaN\", \"Infinity\" or \"-Infinity\" as text;"
        } else {
            "no JSON value"
        })
    }

    /// A syntax error at the current position.
    pub fn syntax(&self, problem: &'static str) -> Error {
        Error::Syntax { problem, offset: self.position }
    }
}

/// The bracket that closes an array or an object.
fn closing(bracket: u8) -> u8 {
    if bracket == b'[' { b']' } else { b'}' }
}

#[cfg(test)]
mod tests {
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
        let numbers = "01 - 1. .5 +1 1e 1e+ NaN Infinity";
        let strings = r#"'a' " "\x" "\u12" "\ud800" "\ud800\u0041" "\udc00""#;
        let others = r#"tru nul [ [1 [1, [1,] [,] { {"a"} {"a":} {"a":1,} {1:2} [1]] [} {] [{]}"#;
        let texts = [numbers, strings, others].map(|texts| texts.split(' ')).into_iter().flatten();
        for text in texts.chain(["", " ", "\"\n\"", "1 2", "\u{feff}1"]) {
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
        let of_any = |text: &str| Reader::new(text.as_bytes(), usize::MAX)?.skip();
        assert_eq!(of_any(&nested(MAX_DEPTH)), Ok((0, 2 * MAX_DEPTH)));
        assert_eq!(of_any(&nested(MAX_DEPTH + 1)), Err(Error::Depth { allowed: MAX_DEPTH }));
    }

    proptest! {
        #[test]
        fn never_panics(text in "[\\[\\]{}:,0-9.eE+\\-\"\\\\ua-f tn]{0,40}") {
            let _ = skipped(&text);
        }
    }
}
