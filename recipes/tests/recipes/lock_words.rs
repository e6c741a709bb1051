//! The words of the lock's conversations.

use std::fmt::Write as _;

use coracle_recipes::lock::{self, Acquire, Claim, Hold, Mode, Place, Turn};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::{Millis, Revision};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        Some(match words.verb.as_str() {
            "line" if words.has("lock") => {
                let limit = words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small"));
                let Some(line) = lock::line(script.store.view(), &words.text("lock"), limit) else {
                    return Some("free".into());
                };
                let mut text = String::new();
                if let Some(until) = line.closed_until {
                    let _ = writeln!(text, "closed until={}ms", until.0);
                }
                for held in &line.holders {
                    let _ = writeln!(text, "{} since={}ms", hold(script, held), held.since.0);
                }
                for place in &line.waiters {
                    let (who, mode) = (script.who(place.session), mode(place.terms));
                    let _ = writeln!(text, "{}. {who}{mode} since={}ms", place.position, place.since.0);
                }
                let _ = writeln!(text, "waiting={}", line.waiting);
                text
            }
            "poll" if words.has("lock") => {
                let session = script.id(&words.text("session"));
                match lock::poll(script.store.view(), &words.text("lock"), session) {
                    Turn::Granted(held) => format!("held {}", hold(script, &held)),
                    Turn::Waiting(place) => waiting(script, &place),
                    Turn::Gone => "gone".into(),
                }
            }
            "names" => {
                let limit = words.number("limit").map_or(100, |limit| usize::try_from(limit).expect("small"));
                let (prefix, after) = (words.maybe("prefix").unwrap_or_default(), words.maybe("after"));
                format!("{:?}", lock::names(script.store.view(), &prefix, after.as_deref(), limit))
            }
            "keys" => format!("{} keys of locks", script.store.view().scan(lock::FAMILY, &[]).count()),
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if words.has("locks") {
            // `locks=(a,b-shared)`
            let name = |text: String| match text.strip_suffix("-shared") {
                Some(name) => (name.into(), Mode::Shared),
                None => (text.into(), Mode::Exclusive),
            };
            return Some(Operation::Lock(lock::Operation::AcquireMany(lock::AcquireMany {
                locks: words.list("locks").into_iter().map(name).collect(),
                owner: words.maybe("owner").unwrap_or_default().into(),
                wait: !words.flag("try"),
                attach: script.attach(words),
            })));
        }
        if !words.has("lock") || words.has("queue") {
            return None;
        }
        Some(Operation::Lock(match words.verb.as_str() {
            "acquire" => lock::Operation::Acquire(Acquire {
                lock: words.text("lock").into(),
                mode: if words.flag("shared") { Mode::Shared } else { Mode::Exclusive },
                owner: words.maybe("owner").unwrap_or_default().into(),
                meta: "".into(),
                wait: !words.flag("try"),
                reentrant: words.flag("reentrant"),
                convert: words.flag("convert"),
                attach: script.attach(words),
            }),
            "release" => lock::Operation::Release(claim(script, words)),
            "withdraw" => lock::Operation::Withdraw(claim(script, words)),
            "transfer" => {
                let to = script.id(&words.text("to"));
                lock::Operation::Transfer(claim(script, words), to)
            }
            "break" => lock::Operation::Break(words.text("lock").into(), words.text("reason").into()),
            "configure" => {
                let mut span = |name: &str| Millis(words.number(name).unwrap_or(0) * 1_000);
                let config = lock::Config {
                    lock_delay: span("lock_delay"),
                    min_hold: span("min_hold"),
                    max_hold: span("max_hold"),
                };
                lock::Operation::Configure(words.text("lock").into(), config)
            }
            _ => return None,
        }))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Lock(outcome) = outcome else { return None };
        Some(match outcome {
            lock::Outcome::Held(held) => format!("held {}", hold(script, held)),
            lock::Outcome::Waiting(place) => waiting(script, place),
            lock::Outcome::Freed(ended, granted) => {
                format!("freed ended=[{}] granted=[{}]", holds(script, ended), holds(script, granted))
            }
            lock::Outcome::StillHeld(held) => format!("still held {}", hold(script, held)),
            lock::Outcome::HeldMany(many) => {
                let one = |(name, held): &(Box<str>, Hold)| format!("{name}: {}", hold(script, held));
                format!("held [{}]", many.iter().map(one).collect::<Vec<_>>().join(", "))
            }
            lock::Outcome::Configured(config, is_new) => {
                let lock::Config { lock_delay, min_hold, max_hold } = config;
                let new = if *is_new { "new " } else { "" };
                format!(
                    "{new}lock_delay={}ms min_hold={}ms max_hold={}ms",
                    lock_delay.0, min_hold.0, max_hold.0
                )
            }
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Lock(refusal) = refusal else { return None };
        Some(match refusal {
            lock::Refusal::Held(by, waiting) => format!("held by=[{}] waiting={waiting}", holds(script, by)),
            lock::Refusal::Closed(until, waiting) => format!("closed until={}ms waiting={waiting}", until.0),
            lock::Refusal::WouldDeadlock(cycle) => {
                let link =
                    |link: &lock::Link| format!("{} waits for {}", script.who(link.session), link.lock);
                format!("would deadlock: {}", cycle.iter().map(link).collect::<Vec<_>>().join(", "))
            }
            other => format!("{other:?}"),
        })
    }

    /// `held deploy 4`: that token holds that lock.
    fn condition(&self, line: &[&str]) -> Option<Condition> {
        let ["held", name, token] = line else { return None };
        Some(Condition::LockHeld((*name).into(), Revision(token.parse().expect("a number"))))
    }
}

fn claim(script: &mut Script, words: &mut script::Words) -> Claim {
    let (lock, session) = (words.text("lock").into(), script.id(&words.text("session")));
    Claim { lock, session, token: words.number("token").map(Revision) }
}

fn hold(script: &Script, hold: &Hold) -> String {
    let owner = if hold.owner.is_empty() { String::new() } else { format!(" owner={}", hold.owner) };
    let count = if hold.count > 1 { format!(" count={}", hold.count) } else { String::new() };
    let overdue = if hold.overdue { " overdue" } else { "" };
    let ordinal = if hold.ordinal > 0 { format!(" ordinal={}", hold.ordinal) } else { String::new() };
    format!(
        "{}{} token={}{ordinal}{owner}{count}{overdue}",
        script.who(hold.session),
        mode(hold.terms),
        hold.token
    )
}

fn holds(script: &Script, holds: &[Hold]) -> String {
    holds.iter().map(|held| hold(script, held)).collect::<Vec<_>>().join(", ")
}

fn waiting(script: &Script, place: &Place) -> String {
    let closed = place.closed_until.map(|until| format!(" closed until={}ms", until.0)).unwrap_or_default();
    format!("waiting position={} behind=[{}]{closed}", place.position, holds(script, &place.blockers))
}

fn mode(mode: Mode) -> &'static str {
    match mode {
        Mode::Exclusive => "",
        Mode::Shared => " shared",
    }
}
