//! The words of the latch's conversations.

use coracle_recipes::latch::{self, CountDown, Create};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        match words.verb.as_str() {
            "show" if words.has("latch") => {
                let name = words.text("latch");
                let Some((latch, _)) = latch::read(view, &name) else { return Some("no such latch".into()) };
                let missing = latch::missing(view, &name, 100);
                Some(format!("left={} of {} missing={missing:?}", latch.left, latch.count))
            }
            "latches" => {
                let keys = view.scan(latch::FAMILY, &[]).count();
                Some(format!("{:?} {keys} keys", latch::names(view, "", None, 100)))
            }
            _ => None,
        }
    }

    fn operation(&self, _: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("latch") {
            return None;
        }
        let name: Box<str> = words.text("latch").into();
        Some(Operation::Latch(match words.verb.as_str() {
            "create" => {
                let members = words.list("members").into_iter().map(String::into_boxed_str).collect();
                let count = words.number("count").unwrap_or_default();
                latch::Operation::Create(Create { latch: name, count, members })
            }
            "count_down" => {
                latch::Operation::CountDown(CountDown { latch: name, id: words.text("id").into() })
            }
            "delete" => latch::Operation::Delete(name),
            other => panic!("{other} is not for latches"),
        }))
    }

    fn outcome(&self, _: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Latch(outcome) = outcome else { return None };
        Some(match outcome {
            latch::Outcome::Latch(latch, true) => format!("created left={}", latch.left),
            latch::Outcome::Latch(latch, false) => format!("there already left={}", latch.left),
            latch::Outcome::Counted(latch, true) => format!("counted left={}", latch.left),
            latch::Outcome::Counted(latch, false) => format!("not counted left={}", latch.left),
            latch::Outcome::Deleted(latch) => format!("deleted left={}", latch.left),
        })
    }

    fn refusal(&self, _: &Script, _: &Refusal) -> Option<String> {
        None
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}
