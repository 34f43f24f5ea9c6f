//! What a plugin may be made of, in words: what it asks for, the most there is, and what to do.

use wasmtime::ResourcesRequired;

use super::engine::{MAX_MEMORIES, MAX_TABLES, TABLE_ELEMENTS};
use crate::units::show_size;

/// What the engine counts of a plugin before it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bound {
    Instances,
    Memories,
    Tables,
    TableElements,
    Memory,
}

/// How the engine words that a plugin is larger than the pool's place for one: what stands before the
/// number that it asks for, and what behind it.
const WORDS: [(&str, &str, Bound); 7] = [
    ("defined memories count of ", " exceeds", Bound::Memories),
    ("defined tables count of ", " exceeds", Bound::Tables),
    ("minimum element size of ", " which", Bound::TableElements),
    ("minimum byte size of ", " which", Bound::Memory),
    ("contains ", " core module instances", Bound::Instances),
    ("contains ", " Wasm linear memories", Bound::Memories),
    ("contains ", " tables", Bound::Tables),
];

/// The engine's words in ours. None: it means something else.
pub(super) fn explain(words: &str) -> Option<String> {
    WORDS.iter().find_map(|(before, behind, bound)| {
        let (asked, rest) = number(words.split_once(before)?.1)?;
        let (_, most) = rest.strip_prefix(behind)?.split_once(" of ")?;
        Some(tell(*bound, asked, number(most)?.0))
    })
}

/// What a plugin asks for beyond the bounds, where no pool has looked.
pub(super) fn exceeded(required: &ResourcesRequired) -> Option<String> {
    let elements = required.max_initial_table_size.unwrap_or_default();
    [
        (
            Bound::Memories,
            required.num_memories.into(),
            MAX_MEMORIES.into(),
        ),
        (Bound::Tables, required.num_tables.into(), MAX_TABLES.into()),
        (Bound::TableElements, elements, TABLE_ELEMENTS as u64),
    ]
    .into_iter()
    .find(|(_, asked, most)| asked > most)
    .map(|(bound, asked, most)| tell(bound, asked, most))
}

fn tell(bound: Bound, asked: u64, most: u64) -> String {
    match bound {
        Bound::Instances => format!(
            "{asked} instances of its modules, and {most} is the most for any plugin; build it of fewer"
        ),
        Bound::Memories => {
            format!("{asked} memories, and {most} is the most for any plugin; build it with fewer")
        }
        Bound::Tables => {
            format!("{asked} tables, and {most} is the most for any plugin; build it with fewer")
        }
        Bound::TableElements => format!(
            "a table of {asked} elements, and {most} is the most for any plugin; let it begin smaller"
        ),
        Bound::Memory => format!(
            "a memory of {} at its start, and {} is the most on this worker; raise limits.memory in scutwork.toml",
            show_size(asked),
            show_size(most)
        ),
    }
}

/// A number at the start of a text, and what follows it.
fn number(text: &str) -> Option<(u64, &str)> {
    let (digits, base) = match text.strip_prefix("0x") {
        Some(digits) => (digits, 16),
        None => (text, 10),
    };
    let end = digits
        .find(|digit: char| !digit.is_digit(base))
        .unwrap_or(digits.len());
    let (number, rest) = digits.split_at(end);
    Some((u64::from_str_radix(number, base).ok()?, rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_words_are_left_as_they_are() {
        for words in [
            "",
            "transitively contains many",
            "a size exceeds the limit of 3",
        ] {
            assert_eq!(explain(words), None, "{words}");
        }
    }

    #[test]
    fn numbers_are_read_as_the_engine_writes_them() {
        assert_eq!(number("0x40000000 bytes"), Some((1 << 30, " bytes")));
        assert_eq!(number("17"), Some((17, "")));
        assert_eq!(number("many"), None);
    }
}
