//! Where results and messages go: data to stdout, messages to stderr. The one place that prints.

use std::io::{IsTerminal, Write};

use serde_json::{Value, json};

/// Writes data and a line end to stdout.
///
/// A reader that is gone (`| head`) is no error: there is nobody to tell.
pub(super) fn line(text: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{text}");
}

/// Writes a plugin's output to stdout as it is. On a terminal, a line end follows when it has none.
pub(super) fn body(bytes: &[u8]) {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(bytes);
    if out.is_terminal() && !bytes.is_empty() && !bytes.ends_with(b"\n") {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
}

/// Writes rows with columns as wide as their widest cell.
pub(super) fn table<const N: usize>(rows: &[[String; N]]) {
    let width = |column: usize| {
        rows.iter()
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    for row in rows {
        let cells: Vec<_> = row
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        line(cells.join("  ").trim_end());
    }
}

/// Writes one JSON value on a line of its own to stdout.
pub(super) fn json(value: &Value) {
    line(&as_json(value));
}

/// A value as JSON that is safe on a terminal: what JSON lets stand in a text and a terminal may obey
/// is escaped too.
pub(super) fn as_json(value: &Value) -> String {
    let mut shown = String::new();
    for character in value.to_string().chars() {
        if is_obeyed(character) {
            shown.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            shown.push(character);
        }
    }
    shown
}

/// Writes a message to stderr.
pub(super) fn say(text: &str) {
    let _ = writeln!(std::io::stderr().lock(), "{text}");
}

/// Writes why a command failed to stderr.
pub(super) fn complain(text: &str) {
    say(&format!("scutwork: {text}"));
}

/// Bytes for JSON: as text where they are UTF-8, else in base64, so that no byte is lost.
pub(super) fn bytes_for_json(bytes: &[u8]) -> Value {
    use base64::Engine as _;
    match std::str::from_utf8(bytes) {
        Ok(text) => json!({ "text": text }),
        Err(_) => json!({ "base64": base64::engine::general_purpose::STANDARD.encode(bytes) }),
    }
}

/// A text from elsewhere as one line that is safe on a terminal: control characters, escapes among
/// them, are shown and not obeyed, and what is over `most` characters is cut.
pub(super) fn one_line(text: &str, most: usize) -> String {
    let mut shown = String::new();
    for (count, character) in text.chars().enumerate() {
        if count == most {
            shown.push('…');
            break;
        }
        match character {
            '\n' => shown.push_str(" | "),
            character if is_obeyed(character) => shown.extend(character.escape_default()),
            character => shown.push(character),
        }
    }
    shown
}

/// Whether a terminal does something other than to show it: controls, and what turns the direction of
/// the text around it.
fn is_obeyed(character: char) -> bool {
    character.is_control() || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// A text from elsewhere in its own lines, with other control characters shown and not obeyed. Tracebacks
/// indent with tabs.
pub(super) fn readable(text: &str) -> String {
    text.lines()
        .map(|line| one_line(&line.replace('\t', "    "), 2000))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_foreign_text_cannot_drive_the_terminal() {
        assert_eq!(one_line("a\x1b[2Jb\r\nc", 80), "a\\u{1b}[2Jb\\r | c");
        assert_eq!(one_line("a\u{202e}b\u{9b}", 80), "a\\u{202e}b\\u{9b}");
        assert_eq!(
            as_json(&json!("a\u{9b}\x1b\u{202e}ö")),
            r#""a\u009b\u001b\u202eö""#
        );
        assert_eq!(one_line("abcdef", 3), "abc…");
    }

    #[test]
    fn bytes_that_are_no_text_survive_json() {
        assert_eq!(bytes_for_json(b"hi"), json!({ "text": "hi" }));
        assert_eq!(bytes_for_json(&[0xff, 0]), json!({ "base64": "/wA=" }));
    }
}
