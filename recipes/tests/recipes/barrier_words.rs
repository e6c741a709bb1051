//! The words of the barrier's conversations.

use std::fmt::Write as _;

use coracle_recipes::barrier::{self, Claim, Config, Create, Enter, Kind, Place};
use coracle_recipes::{Condition, Operation, Outcome, Refusal, Turn};
use coracle_store::{Attach, Millis, Timestamp};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        let view = script.store.view();
        match words.verb.as_str() {
            "show" if words.has("barrier") => {
                let name = words.text("barrier");
                let Some(it) = barrier::read(view, &name) else { return Some("no such barrier".into()) };
                let mut text = match it.config.kind {
                    Kind::Gate => format!("gate {}", if it.open { "open" } else { "closed" }),
                    kind => format!(
                        "{kind:?} {} waiting={} inside={} leaving={} of {}",
                        it.generation, it.waiting, it.inside, it.leaving, it.config.parties
                    ),
                };
                if let Some(due) = it.due {
                    let _ = write!(text, " due={}ms", due.0);
                }
                let missing = barrier::missing(view, &name, 9);
                if !missing.is_empty() {
                    let _ = write!(text, " missing={missing:?}");
                }
                for party in barrier::parties(view, &name, 9) {
                    let inside =
                        party.inside.map_or("waits".to_owned(), |index| format!("inside index={index}"));
                    let who = party.session.map_or("nobody", |session| script.who(session));
                    let _ = write!(text, "\n{} by={who} {inside}", party.id);
                }
                Some(text)
            }
            // How one stands that was told to wait for a generation.
            "poll" if words.has("barrier") => {
                let id = words.text("id");
                let place = Place {
                    id: id.as_str().into(),
                    session: None,
                    generation: words.number("told"),
                    position: 1,
                    waiting: 1,
                    parties: 1,
                    since: Timestamp(0),
                };
                Some(match barrier::poll(view, &words.text("barrier"), &id, &place) {
                    Turn::Granted(Ok(passed)) => format!("passed generation={}", passed.generation),
                    Turn::Granted(Err((generation, why))) => {
                        format!("broken generation={generation} {why:?}")
                    }
                    Turn::Waiting(place) => waiting(&place),
                    Turn::Gone => "gone".into(),
                })
            }
            "barriers" => {
                let keys = view.scan(barrier::FAMILY, &[]).count();
                Some(format!("{:?} {keys} keys", barrier::names(view, "", None, 100)))
            }
            _ => None,
        }
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("barrier") {
            return None;
        }
        let name: Box<str> = words.text("barrier").into();
        Some(Operation::Barrier(match words.verb.as_str() {
            "create" => {
                let members: Vec<Box<str>> = words.list("members").into_iter().map(Into::into).collect();
                let parties = words.number("parties").unwrap_or(members.len() as u64);
                let kind = match words.text("kind").as_str() {
                    "gate" => Kind::Gate,
                    "cyclic" => Kind::Cyclic,
                    "double" => Kind::Double,
                    other => panic!("{other} is no kind"),
                };
                let (exact, timeout) = (words.flag("exact"), words.number("timeout").map(Millis));
                let config = Config { kind, parties, exact, timeout };
                barrier::Operation::Create(Create { barrier: name, config, members })
            }
            "enter" => {
                let attach = if words.has("session") || words.has("private") {
                    script.attach(words)
                } else {
                    Attach::None
                };
                let id = words.text("id").into();
                let (wait, generation) = (!words.flag("try"), words.number("generation"));
                barrier::Operation::Enter(Enter { barrier: name, id, attach, wait, generation })
            }
            "leave" => barrier::Operation::Leave(claim(script, words, name)),
            "withdraw" => barrier::Operation::Withdraw(claim(script, words, name)),
            "open_gate" => barrier::Operation::Turn(name, true),
            "close_gate" => barrier::Operation::Turn(name, false),
            "delete" => barrier::Operation::Delete(name),
            other => panic!("{other} is not for barriers"),
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Barrier(outcome) = outcome else { return None };
        Some(match outcome {
            barrier::Outcome::Barrier(true) => "made".into(),
            barrier::Outcome::Barrier(false) => "as it was".into(),
            barrier::Outcome::Passed(passed) => {
                let who = passed.session.map_or("nobody", |session| script.who(session));
                let index = passed.index.map(|index| format!(" index={index}")).unwrap_or_default();
                format!("passed {} by={who} generation={}{index}", passed.id, passed.generation)
            }
            barrier::Outcome::Waiting(place) => waiting(place),
            barrier::Outcome::Left(generation, 0) => format!("all out generation={generation}"),
            barrier::Outcome::Left(generation, inside) => {
                format!("out generation={generation} inside={inside}")
            }
            barrier::Outcome::Withdrawn => "withdrawn".into(),
            barrier::Outcome::Turned(open, changed) => {
                format!("{} changed={changed}", if *open { "open" } else { "closed" })
            }
            barrier::Outcome::Deleted => "deleted".into(),
        })
    }

    fn refusal(&self, _: &Script, _: &Refusal) -> Option<String> {
        None
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}

fn claim(script: &mut Script, words: &mut script::Words, barrier: Box<str>) -> Claim {
    let session = words.maybe("session").map(|name| script.id(&name));
    Claim { barrier, id: words.text("id").into(), session, generation: words.number("generation") }
}

fn waiting(place: &Place) -> String {
    let generation =
        place.generation.map(|generation| format!(" generation={generation}")).unwrap_or_default();
    format!("waiting {} of {} position={}{generation}", place.waiting, place.parties, place.position)
}
