//! Counts the lines, words and bytes of a text on stdin.

use std::io::Read;
use std::process::ExitCode;

/// Asks for a retry: EX_TEMPFAIL of sysexits.h. Any other code but 0 rejects the task.
const RETRY: u8 = 75;
const REJECT: u8 = 65;

fn main() -> ExitCode {
    let mut text = String::new();
    if let Err(error) = std::io::stdin().read_to_string(&mut text) {
        eprintln!("the payload is no text: {error}");
        return ExitCode::from(REJECT);
    }
    let attempt = std::env::var("SCUTWORK_ATTEMPT").ok();
    let attempt: u32 = attempt.and_then(|text| text.parse().ok()).unwrap_or(1);
    match text.as_str() {
        "" => {
            eprintln!("there is nothing to count");
            ExitCode::from(REJECT)
        }
        "busy" if attempt < 3 => {
            eprintln!("pretends to be busy");
            ExitCode::from(RETRY)
        }
        "crash" => panic!("asked to crash"),
        text => {
            print!("{}", count(text));
            ExitCode::SUCCESS
        }
    }
}

fn count(text: &str) -> String {
    format!(
        r#"{{"lines":{},"words":{},"bytes":{}}}"#,
        text.lines().count(),
        text.split_whitespace().count(),
        text.len()
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_text_is_counted() {
        let expected = r#"{"lines":2,"words":3,"bytes":13}"#;
        assert_eq!(super::count("one two\nthree"), expected);
    }
}
