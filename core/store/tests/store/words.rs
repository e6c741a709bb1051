//! The words of a stanza, and the arguments that several verbs have in common.

use std::collections::BTreeMap;

use coracle_store::command::Precondition;
use coracle_store::{Family, Key, Order, Range, Revision, Value};
use datadriven::TestCase;

/// A verb with its arguments; what is left over is a mistake.
pub struct Words {
    pub verb: String,
    args: BTreeMap<String, Vec<String>>,
}

impl Words {
    pub fn of(case: &TestCase) -> Self {
        Self { verb: case.directive.clone(), args: case.args.clone().into_iter().collect() }
    }

    pub fn parse(line: &str) -> Self {
        let mut words = line.split_whitespace();
        let verb = words.next().expect("a verb").to_string();
        let split = |word: &str| match word.split_once('=') {
            Some((name, value)) => (name.to_string(), vec![value.to_string()]),
            None => (word.to_string(), Vec::new()),
        };
        Self { verb, args: words.map(split).collect() }
    }

    pub fn list(&mut self, name: &str) -> Vec<String> {
        self.args.remove(name).unwrap_or_default()
    }

    pub fn maybe(&mut self, name: &str) -> Option<String> {
        self.list(name).pop()
    }

    pub fn text(&mut self, name: &str) -> String {
        self.maybe(name).unwrap_or_else(|| panic!("{} needs {name}=", self.verb))
    }

    pub fn number(&mut self, name: &str) -> Option<u64> {
        self.maybe(name).map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")))
    }

    pub fn span(&mut self, name: &str) -> Option<u64> {
        self.maybe(name).map(|text| milliseconds(&text))
    }

    pub fn has(&self, name: &str) -> bool {
        self.args.contains_key(name)
    }

    pub fn flag(&mut self, name: &str) -> bool {
        self.args.remove(name).is_some()
    }

    pub fn done(&self) {
        assert!(self.args.is_empty(), "{} does not know {:?}", self.verb, self.args);
    }
}

pub fn kv(name: &str) -> Key {
    Key::new(Family::KV, name.as_bytes())
}

pub fn value(words: &mut Words) -> Value {
    match words.number("bytes") {
        Some(bytes) => vec![b'x'; usize::try_from(bytes).expect("small")].into(),
        None => words.text("value").into_bytes().into(),
    }
}

pub fn precondition(words: &mut Words) -> Precondition {
    if words.flag("absent") {
        Precondition::Absent
    } else if words.flag("present") {
        Precondition::Present
    } else {
        words.number("match").map_or(Precondition::None, |revision| Precondition::Matches(Revision(revision)))
    }
}

pub fn range(words: &mut Words) -> Range {
    Range {
        start: kv(&words.maybe("start").unwrap_or_default()),
        end: words.maybe("end").map(|end| kv(&end)),
        order: if words.flag("descending") { Order::Descending } else { Order::Ascending },
        limit: words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small")),
        at: words.number("rev").map(Revision),
    }
}

fn milliseconds(text: &str) -> u64 {
    let units = [("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    let parse = |(unit, scale): (&str, u64)| Some(text.strip_suffix(unit)?.parse::<u64>().ok()? * scale);
    units.into_iter().find_map(parse).unwrap_or_else(|| panic!("{text} is no span of time"))
}
