//! What is to be written in a picture: the quoted parts of a prompt (diffusers `GlmImagePipeline.get_glyph_texts`), byte by byte
//! (transformers `ByT5Tokenizer`).

use crate::values::TokenIds;

/// In the order in which the reference looks for them.
const QUOTES: [[char; 2]; 4] = [['\'', '\''], ['\u{201c}', '\u{201d}'], ['"', '"'], ['\u{300c}', '\u{300d}']];
const PAD: i64 = 0;
const END: i64 = 1;
/// How many special tokens come before the bytes.
const SPECIAL: i64 = 3;

/// The tokens of every quoted part of `prompt`, or of nothing where there is none, each of at most `max_tokens`.
pub fn glyphs(prompt: &str, max_tokens: usize) -> Vec<TokenIds> {
    let mut parts: Vec<&str> = QUOTES.into_iter().flat_map(|quotes| quoted(prompt, quotes)).collect();
    if parts.is_empty() {
        parts.push("");
    }
    // The reference pads each by one where there is an even number of them.
    let padding = usize::from(parts.len().is_multiple_of(2));
    let tokens = parts.iter().map(|part| {
        let bytes = part.bytes().take(max_tokens - 1).map(|byte| i64::from(byte) + SPECIAL);
        let ids: Vec<i64> = std::iter::repeat_n(PAD, padding).chain(bytes).chain([END]).collect();
        let truncated_from = (part.len() >= max_tokens).then_some(part.len() + 1);
        TokenIds { attention_mask: vec![1; ids.len()], ids, truncated_from }
    });
    tokens.collect()
}

/// What stands between quotes that hold no other of their kind.
fn quoted(text: &str, [open, close]: [char; 2]) -> Vec<&str> {
    let mut parts = Vec::new();
    let mut rest = text;
    while let Some((_, after)) = rest.split_once(open) {
        let Some(end) = after.find([open, close]) else { break };
        // Where another one opens first, it is that one that counts.
        rest = match after[end..].strip_prefix(close) {
            Some(behind) => {
                parts.push(&after[..end]);
                behind
            }
            None => &after[end..],
        };
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_are_found_as_the_reference_finds_them() {
        let of = |text| QUOTES.into_iter().flat_map(|quotes| quoted(text, quotes)).collect::<Vec<_>>();
        assert_eq!(of("a sign \"OPEN\" and 'no'"), ["no", "OPEN"]);
        assert_eq!(of("it's Bob's"), ["s Bob"]);
        assert_eq!(of("\u{201c}a \u{201c}b\u{201d} c\u{201d} \u{300c}d\u{300d}"), ["b", "d"]);
        assert_eq!(of("\"\" \"x"), [""]);
        assert!(of("plain \u{201d}").is_empty());
    }

    #[test]
    fn bytes_are_tokens() {
        let ids = |text, most| glyphs(text, most).into_iter().map(|tokens| tokens.ids).collect::<Vec<_>>();
        assert_eq!(ids("a cat", 9), [[1]]);
        assert_eq!(ids("\"A\u{e9}\"", 9), [vec![68, 198, 172, 1]]);
        assert_eq!(ids("'a' \"b\"", 9), [[0, 100, 1], [0, 101, 1]]);
        assert_eq!(ids("'abc'", 3), [[100, 101, 1]]);
        assert_eq!(glyphs("'abc'", 3)[0].truncated_from, Some(4));
        assert_eq!(glyphs("'ab'", 3)[0].truncated_from, None);
    }
}
