//! The words of the counter's conversations.

use coracle_recipes::counter::{self, Counter, Set};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::Revision;
use coracle_store::command::{Comparison, Precondition};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        match words.verb.as_str() {
            "value" if words.has("counter") => {
                let Counter { value, revision } = counter::read(view, &words.text("counter"));
                Some(format!("{value} revision={revision}"))
            }
            "counters" => Some(format!("{:?}", counter::names(view, "", None, 100))),
            _ => None,
        }
    }

    fn operation(&self, _: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("counter") {
            return None;
        }
        let name = words.text("counter");
        Some(match words.verb.as_str() {
            "add" => {
                let delta = signed(words, "delta").unwrap_or(1);
                counter::add(&name, delta, signed(words, "min"), signed(words, "max"))
            }
            "set" => {
                let value = signed(words, "value").expect("value=");
                let precondition = precondition(words);
                Operation::Counter(counter::Operation::Set(Set { counter: name.into(), value, precondition }))
            }
            "delete" => Operation::Counter(counter::Operation::Delete(name.into(), precondition(words))),
            other => panic!("{other} is not for counters"),
        })
    }

    fn outcome(&self, _: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Counter(counter::Outcome::Value(value, previous)) = outcome else { return None };
        Some(format!("{value} previous={previous}"))
    }

    fn refusal(&self, _: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Counter(refusal) = refusal else { return None };
        Some(match refusal {
            counter::Refusal::OutOfRange(value, min, max) => {
                format!("out of range value={value} min={min} max={max}")
            }
            counter::Refusal::Changed(value, revision) => {
                format!("changed value={value} revision={revision}")
            }
        })
    }

    /// `counter sold < 10`
    fn condition(&self, line: &[&str]) -> Option<Condition> {
        let ["counter", name, is, than] = line else { return None };
        let is = match *is {
            "=" => Comparison::Equal,
            "!=" => Comparison::NotEqual,
            "<" => Comparison::Less,
            ">" => Comparison::Greater,
            other => panic!("{other} is no comparison"),
        };
        Some(Condition::Counter((*name).into(), is, than.parse().expect("a number")))
    }
}

fn signed(words: &mut script::Words, name: &str) -> Option<i64> {
    words.maybe(name).map(|text| text.parse().expect("a whole number"))
}

fn precondition(words: &mut script::Words) -> Precondition {
    match words.maybe("if").as_deref() {
        None => Precondition::None,
        Some("absent") => Precondition::Absent,
        Some("present") => Precondition::Present,
        Some(revision) => Precondition::Matches(Revision(revision.parse().expect("a revision"))),
    }
}
