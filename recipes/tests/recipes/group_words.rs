//! The words of the group's conversations.

use std::fmt::Write as _;

use coracle_recipes::group::{self, Join, Leave};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::{Attach, ContentType};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        match words.verb.as_str() {
            "show" if words.has("group") => {
                let name = words.text("group");
                let seen = group::seen(view, &name);
                let mut text = format!("size={} view={}", seen.size, seen.view);
                for (id, session, member) in group::members(view, &name) {
                    let progress =
                        member.progress.map(|done| format!(" progress={done}")).unwrap_or_default();
                    let (who, payload) = (script.who(session), String::from_utf8_lossy(&member.payload));
                    let _ = write!(text, "\n{id} by={who} payload={payload:?}{progress}");
                }
                Some(text)
            }
            "shares" => {
                let slots = words.number("slots").expect("slots=");
                let ids: Vec<_> = group::members(view, &words.text("group")).map(|(id, ..)| id).collect();
                let owners: Vec<_> =
                    group::shares(&ids, slots).into_iter().map(|at| ids[at].as_str()).collect();
                Some(if owners.is_empty() { "nobody".into() } else { owners.join(" ") })
            }
            "groups" => {
                let keys = view.scan(group::FAMILY, &[]).count();
                Some(format!("{:?} {keys} keys", group::names(view, "", None, 100)))
            }
            _ => None,
        }
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("group") || !["join", "leave"].contains(&words.verb.as_str()) {
            return None;
        }
        let name: Box<str> = words.text("group").into();
        let id: Box<str> = words.text("id").into();
        if words.verb == "leave" {
            let session = words.maybe("session").map(|name| script.id(&name));
            return Some(Operation::Group(group::Operation::Leave(Leave { group: name, id, session })));
        }
        Some(Operation::Group(group::Operation::Join(Join {
            group: name,
            id,
            attach: if words.flag("keep") { Attach::Keep } else { script.attach(words) },
            payload: words.maybe("payload").unwrap_or_default().into_bytes().into(),
            content_type: ContentType::Text,
            progress: words.number("progress").map(|done| u8::try_from(done).expect("small")),
        })))
    }

    fn outcome(&self, _: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Group(outcome) = outcome else { return None };
        Some(match outcome {
            group::Outcome::Joined(seen, _, true) => format!("joined size={} view={}", seen.size, seen.view),
            group::Outcome::Joined(seen, _, false) => format!("there size={} view={}", seen.size, seen.view),
            group::Outcome::Left(seen, true) => format!("left size={} view={}", seen.size, seen.view),
            group::Outcome::Left(seen, false) => format!("not there size={} view={}", seen.size, seen.view),
        })
    }

    fn refusal(&self, _: &Script, _: &Refusal) -> Option<String> {
        None
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}
