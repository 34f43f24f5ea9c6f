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
    let attempt = attempt.and_then(|text| text.parse().ok()).unwrap_or(1);
    match handle(&text, attempt) {
        Ok(output) => {
            print!("{output}");
            ExitCode::SUCCESS
        }
        Err((code, why)) => {
            eprintln!("{why}");
            ExitCode::from(code)
        }
    }
}

/// The output, or an exit code and why.
fn handle(text: &str, attempt: u32) -> Result<String, (u8, &'static str)> {
    match text {
        "" => Err((REJECT, "there is nothing to count")),
        "busy" if attempt < 3 => Err((RETRY, "pretends to be busy")),
        "crash" => panic!("asked to crash"),
        text => Ok(format!(
            r#"{{"lines":{},"words":{},"bytes":{}}}"#,
            text.lines().count(),
            text.split_whitespace().count(),
            text.len()
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_counted() {
        let output = handle("one two\nthree", 1).unwrap();
        assert_eq!(output, r#"{"lines":2,"words":3,"bytes":13}"#);
    }

    #[test]
    fn nothing_is_rejected() {
        let (code, _) = handle("", 1).unwrap_err();
        assert_eq!(code, REJECT);
    }

    #[test]
    fn a_busy_service_is_tried_again() {
        let (code, _) = handle("busy", 1).unwrap_err();
        assert_eq!(code, RETRY);
        assert!(handle("busy", 3).is_ok());
    }
}
