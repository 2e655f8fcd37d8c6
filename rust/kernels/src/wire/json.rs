//! A strict JSON reader (RFC 8259) that hands out values one by one and builds nothing itself.
//!
//! Stricter than the RFC allows a reader to be, because what is refused here cannot be read in two ways further on:
//! duplicate names, lone surrogates and numbers beyond float64 are errors.

use std::borrow::Cow;

use thiserror::Error as ThisError;

/// Why a text is not read.
#[derive(Debug, Clone, PartialEq, Eq, ThisError)]
pub enum Error {
    /// The text is no JSON.
    #[error("{problem} at byte {offset}")]
    Syntax {
        /// What was found or missing.
        problem: &'static str,
        /// Where, in bytes from the start.
        offset: usize,
    },
    /// An object with one name twice.
    #[error("{name:?} is a name that the object has already, at byte {offset}")]
    Duplicate {
        /// The name.
        name: String,
        /// Where its second value starts, in bytes from the start.
        offset: usize,
    },
    /// Arrays and objects inside each other beyond the limit.
    #[error("nested deeper than {allowed} levels")]
    Depth {
        /// The limit.
        allowed: usize,
    },
    /// An array with more elements than the limit.
    #[error("more than {allowed} elements")]
    Elements {
        /// The limit.
        allowed: usize,
    },
    /// More values outside of arrays of numbers than the limit.
    #[error("more than {allowed} values")]
    Values {
        /// The limit.
        allowed: usize,
    },
    /// Rows of different lengths.
    #[error("ragged lists were given, all rows must have one length")]
    Ragged,
    /// An element of another kind than the array's.
    #[error("{given} was given among the elements, {needed} is needed")]
    Element {
        /// What was found.
        given: &'static str,
        /// What the datatype takes.
        needed: &'static str,
    },
    /// A number that the datatype cannot hold.
    #[error("a number is outside the range of {datatype}")]
    Range {
        /// The name of the datatype.
        datatype: &'static str,
    },
    /// A shape that the data does not fill, or overfills.
    #[error("the data has {given} elements, its shape asks for {needed}")]
    Count {
        /// Elements in the data.
        given: usize,
        /// The product of the shape.
        needed: usize,
    },
}

/// A result of this module.
pub type Result<T> = std::result::Result<T, Error>;

/// A number as JSON spells it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Number<'a> {
    /// The characters, which follow JSON's grammar.
    pub text: &'a str,
    /// Whether there is neither a fraction nor an exponent.
    pub is_integer: bool,
}

/// Walks through one JSON text.
pub struct Reader<'a> {
    text: &'a str,
    position: usize,
    depth: usize,
    max_depth: usize,
}

impl<'a> Reader<'a> {
    /// A reader at the start of `bytes`, which must be UTF-8 without a byte order mark.
    pub fn new(bytes: &'a [u8], max_depth: usize) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|error| Error::Syntax { problem: "text that is not UTF-8", offset: error.valid_up_to() })?;
        Ok(Self { text, position: 0, depth: 0, max_depth })
    }

    /// A reader for a value of this text, given by its span; as deep as this reader is.
    pub fn at(&self, span: (usize, usize)) -> Self {
        Self { text: &self.text[..span.1], position: span.0, depth: self.depth, max_depth: self.max_depth }
    }

    /// Reads with `read`, which is given the text and the position in it and returns the position after what it took.
    pub(super) fn take(&mut self, read: impl FnOnce(&'a [u8], usize) -> usize) {
        self.position = read(self.text.as_bytes(), self.position);
    }

    /// Reads a comma.
    pub(super) fn comma(&mut self) -> Result<()> {
        if self.peek()? != b',' {
            return Err(self.syntax("',' is needed"));
        }
        self.position += 1;
        Ok(())
    }

    /// The arrays behind the one that was just read, if there are any in the same array: spans of whole ones with their
    /// commas, of at least `bytes` each but the last. Nothing inside them is checked.
    pub(super) fn rows(&self, bytes: usize) -> Option<Vec<(usize, usize)>> {
        let text = self.text.as_bytes();
        // Where the array behind a comma begins, None where something else follows.
        let next = |at: usize| {
            let (_, comma) = after_space(text, at).filter(|&(byte, _)| byte == b',')?;
            after_space(text, comma + 1).filter(|&(byte, _)| byte == b'[').map(|(_, start)| start)
        };
        let mut spans = Vec::new();
        let mut start = next(self.position)?;
        let mut at = start;
        loop {
            let end = at + memchr::memchr(b']', &text[at..])? + 1;
            let following = next(end);
            if following.is_none() || end - start >= bytes {
                spans.push((start, end));
            }
            match following {
                Some(following) if end - start >= bytes => (start, at) = (following, following),
                Some(following) => at = following,
                None => return Some(spans),
            }
        }
    }

    /// Bytes that are still to be read.
    pub fn remaining(&self) -> usize {
        self.text.len() - self.position
    }

    /// The first byte of the next value, without taking it.
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
        self.open(b'[', "an array is needed")?;
        if self.peek()? == b']' {
            self.position += 1;
        } else {
            loop {
                item(self)?;
                match self.peek()? {
                    b',' => self.position += 1,
                    b']' => break self.position += 1,
                    _ => return Err(self.syntax("',' or ']' is needed").into()),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// Reads an object: `member` is called with each name and must read the value.
    pub fn object<E: From<Error>>(
        &mut self,
        mut member: impl FnMut(&mut Self, Cow<'a, str>) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        self.open(b'{', "an object is needed")?;
        if self.peek()? == b'}' {
            self.position += 1;
        } else {
            loop {
                self.peek()?;
                let name = self.string()?;
                if self.peek()? != b':' {
                    return Err(self.syntax("':' is needed").into());
                }
                self.position += 1;
                member(self, name)?;
                match self.peek()? {
                    b',' => self.position += 1,
                    b'}' => break self.position += 1,
                    _ => return Err(self.syntax("',' or '}' is needed").into()),
                }
            }
        }
        self.depth -= 1;
        Ok(())
    }

    /// The error for a name that the object has already.
    pub fn duplicate(&self, name: &str) -> Error {
        Error::Duplicate { name: name.to_owned(), offset: self.position }
    }

    fn open(&mut self, bracket: u8, problem: &'static str) -> Result<()> {
        if self.peek()? != bracket {
            return Err(self.syntax(problem));
        }
        if self.depth == self.max_depth {
            return Err(Error::Depth { allowed: self.max_depth });
        }
        self.depth += 1;
        self.position += 1;
        Ok(())
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
        let bytes = self.text.as_bytes();
        let start = self.position + 1;
        let mut read: Option<String> = None;
        let mut pending = start;
        let mut at = start;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    let owned = read.get_or_insert_default();
                    owned.push_str(&self.text[pending..at]);
                    self.position = at;
                    let (character, length) = self.escape()?;
                    owned.push(character);
                    at += length;
                    pending = at;
                }
                Some(0x20..) => at += 1,
                Some(_) => {
                    self.position = at;
                    return Err(self.syntax("a control character in a string"));
                }
                None => {
                    self.position = at;
                    return Err(self.syntax("the end of the text inside a string"));
                }
            }
        }
        self.position = at + 1;
        let rest = &self.text[pending..at];
        Ok(match read {
            None => Cow::Borrowed(rest),
            Some(mut owned) => {
                owned.push_str(rest);
                Cow::Owned(owned)
            }
        })
    }

    /// The character that the escape at the current position stands for, and the escape's length.
    fn escape(&self) -> Result<(char, usize)> {
        let bytes = &self.text.as_bytes()[self.position + 1..];
        let simple = match bytes.first() {
            Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
            Some(b'b') => '\u{8}',
            Some(b'f') => '\u{c}',
            Some(b'n') => '\n',
            Some(b'r') => '\r',
            Some(b't') => '\t',
            Some(b'u') => return self.unicode_escape(bytes),
            _ => return Err(self.syntax("an unknown escape in a string")),
        };
        Ok((simple, 2))
    }

    fn unicode_escape(&self, bytes: &[u8]) -> Result<(char, usize)> {
        let wrong = || self.syntax("a \\u escape without four hexadecimal digits");
        let unit = |at: usize| -> Result<u32> {
            let digits = bytes.get(at..at + 4).ok_or_else(wrong)?;
            digits
                .iter()
                .try_fold(0, |value, &digit| Ok(value * 16 + char::from(digit).to_digit(16).ok_or_else(wrong)?))
        };
        let lone = || self.syntax("a lone surrogate in a string");
        let high = unit(1)?;
        if !(0xd800..0xdc00).contains(&high) {
            return char::from_u32(high).map(|character| (character, 6)).ok_or_else(lone);
        }
        if bytes.get(5..7) != Some(b"\\u") {
            return Err(lone());
        }
        let low = unit(7)?;
        if !(0xdc00..0xe000).contains(&low) {
            return Err(lone());
        }
        let scalar = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
        char::from_u32(scalar).map(|character| (character, 12)).ok_or_else(lone)
    }

    /// Reads past one value, checking it, and returns its span in bytes.
    pub fn skip(&mut self) -> Result<(usize, usize)> {
        let first = self.peek()?;
        let start = self.position;
        match first {
            b'[' => self.array(|reader| reader.skip().map(drop))?,
            b'{' => self.object(|reader, _| reader.skip().map(drop))?,
            b'"' => drop(self.string()?),
            b't' | b'f' => drop(self.boolean()?),
            b'n' => self.null()?,
            _ => drop(self.number()?),
        }
        Ok((start, self.position))
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

/// The first byte from `at` that is no white space, and where it is.
fn after_space(text: &[u8], at: usize) -> Option<(u8, usize)> {
    let space = text.get(at..)?.iter().take_while(|byte| matches!(byte, b' ' | b'\n' | b'\r' | b'\t')).count();
    text.get(at + space).map(|&byte| (byte, at + space))
}

#[cfg(test)]
mod tests;
