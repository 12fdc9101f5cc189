//! PTX text to tokens.

use crate::fault::{Fault, FaultKind};

/// One token; words keep their dots, so that `ld.global.v2.f32` is one word.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Tok<'a> {
    Word(&'a str),
    /// The value's low 64 bits.
    Int(u64),
    /// `0f...`: the bits.
    F32(u32),
    /// `0d...` or a decimal fraction: the bits.
    F64(u64),
    Str(&'a str),
    Punct(u8),
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Token<'a> {
    pub tok: Tok<'a>,
    pub line: u32,
}

fn word_start(c: u8) -> bool {
    c.is_ascii_alphabetic() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

fn word_part(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%' | b'.')
}

/// Position after white space and comments; counts the lines it passes.
pub(crate) fn skip_blank(b: &[u8], mut i: usize, line: &mut u32) -> usize {
    while i < b.len() {
        match b[i] {
            b'\n' => {
                *line += 1;
                i += 1;
            }
            b' ' | b'\t' | b'\r' => i += 1,
            b'/' if b.get(i + 1) == Some(&b'/') => {
                while i < b.len() && b[i] != b'\n' {
                    i += 1;
                }
            }
            b'/' if b.get(i + 1) == Some(&b'*') => {
                i += 2;
                while i < b.len() && !(b[i] == b'*' && b.get(i + 1) == Some(&b'/')) {
                    if b[i] == b'\n' {
                        *line += 1;
                    }
                    i += 1;
                }
                i = (i + 2).min(b.len());
            }
            _ => break,
        }
    }
    i
}

/// All tokens of `text`, whose first line is `line`.
pub(crate) fn lex(text: &str, mut line: u32) -> Result<Vec<Token<'_>>, Fault> {
    let b = text.as_bytes();
    let mut out = Vec::with_capacity(b.len() / 4);
    let mut i = 0;
    loop {
        i = skip_blank(b, i, &mut line);
        let Some(&c) = b.get(i) else { break };
        let start = i;
        let tok = if word_start(c) && !(c == b'.' && b.get(i + 1).is_some_and(u8::is_ascii_digit)) {
            i += 1;
            loop {
                if i < b.len() && word_part(b[i]) {
                    // Inline assembly writes `.reg.b32` for two directives.
                    if c == b'.' && b[i] == b'.' {
                        break;
                    }
                    i += 1;
                } else if i + 2 < b.len() && b[i] == b':' && b[i + 1] == b':' && word_part(b[i + 2])
                {
                    i += 2;
                } else {
                    break;
                }
            }
            Tok::Word(&text[start..i])
        } else if c.is_ascii_digit() {
            while i < b.len() && (b[i].is_ascii_alphanumeric() || b[i] == b'.') {
                // A decimal exponent may carry a sign.
                let exponent = matches!(b[i], b'e' | b'E')
                    && !text[start..i].starts_with("0x")
                    && !text[start..i].starts_with("0f")
                    && !text[start..i].starts_with("0F")
                    && !text[start..i].starts_with("0d")
                    && !text[start..i].starts_with("0D");
                i += 1;
                if exponent && matches!(b.get(i), Some(b'+' | b'-')) {
                    i += 1;
                }
            }
            number(&text[start..i]).ok_or_else(|| {
                Fault::new(
                    FaultKind::Parse,
                    format!("not a number: {}", &text[start..i]),
                )
                .at_line(line, &text[start..i])
            })?
        } else if c == b'"' {
            i += 1;
            while i < b.len() && b[i] != b'"' {
                i += 1;
            }
            let s = &text[start + 1..i.min(b.len())];
            i = (i + 1).min(b.len());
            Tok::Str(s)
        } else if c.is_ascii() {
            i += 1;
            Tok::Punct(c)
        } else {
            return Err(Fault::new(FaultKind::Parse, "a character outside ASCII").at_line(line, ""));
        };
        out.push(Token { tok, line });
    }
    Ok(out)
}

fn number(s: &str) -> Option<Tok<'static>> {
    let hex = |t: &str| u64::from_str_radix(t, 16).ok();
    if let Some(t) = s.strip_prefix("0f").or_else(|| s.strip_prefix("0F")) {
        return u32::from_str_radix(t, 16)
            .ok()
            .filter(|_| t.len() == 8)
            .map(Tok::F32);
    }
    if let Some(t) = s.strip_prefix("0d").or_else(|| s.strip_prefix("0D")) {
        return hex(t).filter(|_| t.len() == 16).map(Tok::F64);
    }
    if s.contains('.') || (!s.starts_with("0x") && !s.starts_with("0X") && s.contains(['e', 'E'])) {
        return s.parse::<f64>().ok().map(|v| Tok::F64(v.to_bits()));
    }
    let t = s.strip_suffix('U').unwrap_or(s);
    let value = if let Some(h) = t.strip_prefix("0x").or_else(|| t.strip_prefix("0X")) {
        hex(h)?
    } else if let Some(bits) = t.strip_prefix("0b").or_else(|| t.strip_prefix("0B")) {
        u64::from_str_radix(bits, 2).ok()?
    } else if t.len() > 1 && t.starts_with('0') {
        u64::from_str_radix(&t[1..], 8).ok()?
    } else {
        t.parse().ok()?
    };
    Some(Tok::Int(value))
}
