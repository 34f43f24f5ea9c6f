//! Which `reply_to` of a producer a message can be published to without ending the connection.
//!
//! RabbitMQ's direct reply-to puts an Erlang process into the address, and 3.10 and 4.0 alike crash the
//! connection of whoever publishes to one that was made up.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

const DIRECT: &str = "amq.rabbitmq.reply-to";

/// Whether this is an address of direct reply-to, and no queue's name.
pub(super) fn is_direct(address: &str) -> bool {
    address.starts_with(DIRECT)
}

/// Whether the broker can take this for an address. Whether there is anybody it finds out itself, but a
/// process of a node that is gone crashes 3.10 too.
pub(super) fn is_sound(address: &str) -> bool {
    let parts = address
        .strip_prefix(DIRECT)
        .and_then(|address| address.strip_prefix('.'))
        .and_then(|parts| parts.split_once('.'));
    match parts {
        // A queue's name, or what the broker takes for one.
        None => true,
        Some((process, _)) => STANDARD.decode(process).is_ok_and(|term| is_process(&term)),
    }
}

/// Whether this is a process in Erlang's external term format: its node's name as an atom, then numbers.
fn is_process(term: &[u8]) -> bool {
    const VERSION: u8 = 131;
    const PID: u8 = 103;
    const NEW_PID: u8 = 88;
    let [VERSION, kind, atom @ ..] = term else {
        return false;
    };
    let numbers = match *kind {
        PID => 9,
        NEW_PID => 12,
        _ => return false,
    };
    // Atoms with lengths of two octets and of one, in UTF-8 and in Latin-1.
    let (length, rest) = match atom {
        [118 | 100, high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
        [119 | 115, length, rest @ ..] => (u16::from(*length), rest),
        _ => return false,
    };
    let length = usize::from(length);
    rest.len() == length + numbers && rest[..length].contains(&b'@')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_processes_as_erlang_writes_them_are_sound() {
        for sound in [
            // As 3.10.8 and 4.0.5 made them.
            "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA4MjczMzA5MgAARRAAAAAAawW+4Q==.hoKYcP28cUjzLTpNBkjPgw==",
            "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA4MTk0NjY2MAAAKLoAAAAAawW+7w==.6pCXAGAwt/T8c6Pv1st6TQ==",
            "amq.gen-x",
            "amq.rabbitmq.reply-to",
            "amq.rabbitmq.reply-to.x",
            "",
        ] {
            assert!(is_sound(sound), "{sound}");
        }
        // Each of these was seen to end a connection to 3.10.8 or 4.0.5 with 541.
        for broken in [
            "g1h2AA.x",
            "%%.x",
            "g2EF.x",
            "gw==.x",
            ".x",
            "g1h2AA5yZXBseUA4MjczMzA5MgAARRAAAAAAawW+.x",
            "g1h2AA5yZXBseUA4MjczMzA5MgAARRAAAAAAawW+4Xg=.x",
            "g1h3AAAARRAAAAAAawW+4Q==.x",
            "g1h3A3h5egAARRAAAAAAawW+4Q==.x",
        ] {
            assert!(!is_sound(&format!("{DIRECT}.{broken}")), "{broken}");
        }
    }
}
