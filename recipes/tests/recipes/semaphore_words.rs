//! The words of the semaphore's conversations.

use std::fmt::Write as _;

use coracle_recipes::semaphore::{self, Acquire, Claim, Hold, Place};
use coracle_recipes::{Condition, Operation, Outcome, Refusal, Turn};
use coracle_store::Revision;

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        if !words.has("semaphore") {
            return None;
        }
        Some(match words.verb.as_str() {
            "line" => {
                let Some(seen) = semaphore::show(script.store.view(), &words.text("semaphore"), 100) else {
                    return Some("no such semaphore".into());
                };
                let mut text = format!("limit={} free={}\n", seen.limit, seen.free);
                for held in &seen.holders {
                    let _ = writeln!(text, "{}", hold(script, held));
                }
                for place in &seen.waiters {
                    let who = script.who(place.session);
                    let _ = writeln!(text, "{}. {who} permits={}", place.position, place.terms.0);
                }
                text
            }
            "poll" => {
                let session = script.id(&words.text("session"));
                match semaphore::poll(script.store.view(), &words.text("semaphore"), session) {
                    Turn::Granted(held) => format!("held {}", hold(script, &held)),
                    Turn::Waiting(place) => waiting(script, &place),
                    Turn::Gone => "gone".into(),
                }
            }
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("semaphore") {
            return None;
        }
        Some(Operation::Semaphore(match words.verb.as_str() {
            "acquire" => semaphore::Operation::Acquire(Acquire {
                semaphore: words.text("semaphore").into(),
                permits: words.number("permits").unwrap_or(1),
                limit: words.number("limit"),
                attach: script.attach(words),
                owner: "".into(),
                meta: "".into(),
                wait: !words.flag("try"),
            }),
            "release" => semaphore::Operation::Release(claim(script, words)),
            "withdraw" => semaphore::Operation::Withdraw(claim(script, words)),
            "transfer" => {
                let to = script.id(&words.text("to"));
                semaphore::Operation::Transfer(claim(script, words), to)
            }
            "break" => semaphore::Operation::Break(words.text("semaphore").into(), "".into()),
            "limit" => {
                let limit = words.number("to").expect("a limit");
                semaphore::Operation::Configure(words.text("semaphore").into(), limit)
            }
            _ => return None,
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Semaphore(outcome) = outcome else { return None };
        Some(match outcome {
            semaphore::Outcome::Held(held) => format!("held {}", hold(script, held)),
            semaphore::Outcome::Waiting(place) => waiting(script, place),
            semaphore::Outcome::Freed(ended, granted) => {
                format!("freed ended=[{}] granted=[{}]", holds(script, ended), holds(script, granted))
            }
            semaphore::Outcome::Configured(limit, is_new, granted) => {
                let new = if *is_new { "new " } else { "" };
                format!("{new}limit={limit} granted=[{}]", holds(script, granted))
            }
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Semaphore(refusal) = refusal else { return None };
        Some(match refusal {
            semaphore::Refusal::Exhausted(by, free, waiting) => {
                format!("exhausted by=[{}] free={free} waiting={waiting}", holds(script, by))
            }
            other => format!("{other:?}"),
        })
    }

    /// `permits pool 4`: that token holds permits of that semaphore.
    fn condition(&self, line: &[&str]) -> Option<Condition> {
        let ["permits", name, token] = line else { return None };
        Some(Condition::PermitsHeld((*name).into(), Revision(token.parse().expect("a number"))))
    }
}

fn claim(script: &mut Script, words: &mut script::Words) -> Claim {
    let (semaphore, session) = (words.text("semaphore").into(), script.id(&words.text("session")));
    Claim { semaphore, session, token: words.number("token").map(Revision) }
}

fn hold(script: &Script, hold: &Hold) -> String {
    format!("{} permits={} token={}", script.who(hold.session), hold.terms.0, hold.token)
}

fn holds(script: &Script, holds: &[Hold]) -> String {
    holds.iter().map(|held| hold(script, held)).collect::<Vec<_>>().join(", ")
}

fn waiting(script: &Script, place: &Place) -> String {
    format!("waiting position={} behind=[{}]", place.position, holds(script, &place.blockers))
}
