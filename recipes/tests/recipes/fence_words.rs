//! The words of the fence's conversations.

use coracle_recipes::fence;
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::Revision;

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        match words.verb.as_str() {
            "seen" if words.has("fence") => Some(match fence::read(view, &words.text("fence")) {
                Some(fence) => format!("token={} revision={}", fence.token, fence.revision),
                None => "nothing".into(),
            }),
            "fences" => Some(format!("{:?}", fence::names(view, "", None, 100))),
            _ => None,
        }
    }

    fn operation(&self, _: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("fence") {
            return None;
        }
        let resource = words.text("fence").into();
        Some(Operation::Fence(match words.number("token") {
            Some(token) => fence::Operation::Check(resource, Revision(token)),
            None => fence::Operation::Delete(resource),
        }))
    }

    fn outcome(&self, _: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Fence(outcome) = outcome else { return None };
        let shown = |seen: &Option<Revision>| seen.map_or("nothing".into(), |seen| seen.to_string());
        Some(match outcome {
            fence::Outcome::Passed(token, before) => format!("passed token={token} before={}", shown(before)),
            fence::Outcome::Deleted(before) => format!("deleted before={}", shown(before)),
        })
    }

    fn refusal(&self, _: &Script, _: &Refusal) -> Option<String> {
        None
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}
