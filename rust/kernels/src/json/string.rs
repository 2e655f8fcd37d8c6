//! Strings: where they end, and what their escapes stand for.

use std::borrow::Cow;

use super::error::{Error, Result};

/// The string whose first character is at `start`, behind the quote, and the position behind its closing quote.
/// Borrowed from the text where there is no escape in it.
pub fn read(text: &str, start: usize) -> Result<(Cow<'_, str>, usize)> {
    let mut read: Option<String> = None;
    let (mut pending, mut at) = (start, start);
    loop {
        match text.as_bytes().get(at) {
            Some(b'"') => break,
            Some(b'\\') => {
                let read = read.get_or_insert_default();
                append(read, &text[pending..at])?;
                let (character, length) = escape(text.as_bytes(), at)?;
                append(read, character.encode_utf8(&mut [0; 4]))?;
                at += length;
                pending = at;
            }
            Some(0x20..) => at += 1,
            Some(_) => return Err(Error::Syntax { problem: "a control character in a string", offset: at }),
            None => return Err(Error::Syntax { problem: "the end of the text inside a string", offset: at }),
        }
    }
    let rest = &text[pending..at];
    let string = match read {
        None => Cow::Borrowed(rest),
        Some(mut read) => {
            append(&mut read, rest)?;
            Cow::Owned(read)
        }
    };
    Ok((string, at + 1))
}

fn append(string: &mut String, more: &str) -> Result<()> {
    string.try_reserve(more.len()).map_err(|_| Error::OutOfMemory { bytes: string.len() + more.len() })?;
    string.push_str(more);
    Ok(())
}

/// The character that the escape at `at` stands for, and the escape's length.
fn escape(text: &[u8], at: usize) -> Result<(char, usize)> {
    let simple = match text.get(at + 1) {
        Some(&byte @ (b'"' | b'\\' | b'/')) => char::from(byte),
        Some(b'b') => '\u{8}',
        Some(b'f') => '\u{c}',
        Some(b'n') => '\n',
        Some(b'r') => '\r',
        Some(b't') => '\t',
        Some(b'u') => return unicode_escape(text, at),
        _ => return Err(Error::Syntax { problem: "an unknown escape in a string", offset: at }),
    };
    Ok((simple, 2))
}

fn unicode_escape(text: &[u8], at: usize) -> Result<(char, usize)> {
    let syntax = |problem| Error::Syntax { problem, offset: at };
    let unit = |at: usize| -> Result<u32> {
        let wrong = || syntax("a \\u escape without four hexadecimal digits");
        let digits = text.get(at..at + 4).ok_or_else(wrong)?;
        digits.iter().try_fold(0, |value, &digit| Ok(value * 16 + char::from(digit).to_digit(16).ok_or_else(wrong)?))
    };
    let lone = || syntax("a lone surrogate in a string");
    let high = unit(at + 2)?;
    if !(0xd800..0xdc00).contains(&high) {
        return char::from_u32(high).map(|character| (character, 6)).ok_or_else(lone);
    }
    if text.get(at + 6..at + 8) != Some(b"\\u") {
        return Err(lone());
    }
    let low = unit(at + 8)?;
    if !(0xdc00..0xe000).contains(&low) {
        return Err(lone());
    }
    let scalar = 0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00);
    char::from_u32(scalar).map(|character| (character, 12)).ok_or_else(lone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strings_are_unescaped() {
        let text = r#""a\"\\\/\b\f\n\r\t\u0041\ud83d\ude00z" "#;
        assert_eq!(read(text, 1), Ok(("a\"\\/\u{8}\u{c}\n\r\tA😀z".into(), text.len() - 1)));
    }
}
