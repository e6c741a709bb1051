//! The words of the services' conversations.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use coracle_recipes::service::{
    self, Description, Draw, Filter, Instance, Liveness, Named, News, Pool, Register, Settings, Status,
    Strategy, Wish,
};
use coracle_recipes::{Condition, Operation, Outcome, Refusal};
use coracle_store::{Attach, Family, Millis, Revision};

use crate::script::{self, Script, Speech};

pub struct Words;

impl Speech for Words {
    fn question(&self, script: &mut Script, words: &mut script::Words) -> Option<String> {
        if !words.has("service") {
            return None;
        }
        let view = script.store.view();
        Some(match words.verb.as_str() {
            "instances" => {
                let filter = filter(words);
                let mut text = String::new();
                let name = words.text("service");
                for (id, instance) in service::instances(view, &name, None).map(|row| row.read()) {
                    if filter.admits(&instance) {
                        let _ = writeln!(text, "{id} {}", shown(script, &instance));
                    }
                }
                let census = service::census(view, &name);
                let _ = writeln!(
                    text,
                    "instances={} up={} ejected={}",
                    census.instances, census.up, census.ejected
                );
                text
            }
            "pick" => {
                let (name, filter) = (words.text("service"), filter(words));
                let times = words.number("times").unwrap_or(1);
                let now = words.number("now").map_or(view.now(), coracle_store::Timestamp);
                let wish = wish(words);
                let mut pool = Pool::of(view, &name, filter);
                let (mut picks, mut cursor) = (Vec::new(), 0);
                for random in 0..times {
                    let picked = pool.pick(&wish, Draw { cursor, random, now });
                    cursor = picked.cursor;
                    let ids: Vec<&str> = picked.candidates.iter().map(|candidate| &*candidate.id).collect();
                    let degraded = if picked.degraded { " degraded" } else { "" };
                    let ids = if ids.is_empty() { "nobody".into() } else { ids.join(" ") };
                    picks.push(format!("{ids}{degraded}"));
                }
                picks.join(", ")
            }
            "rows" => {
                words.text("service");
                let count = |family| view.scan(family, &[]).count();
                format!("{} keys of services, {} timers", count(service::FAMILY), count(Family(b't')))
            }
            _ => return None,
        })
    }

    fn operation(&self, script: &mut Script, words: &mut script::Words) -> Option<Operation> {
        if !words.has("service") {
            return None;
        }
        let service = words.text("service").into();
        let operation = match words.verb.as_str() {
            "configure" => service::Operation::Configure(service, settings(words)),
            "reset" => service::Operation::Reset(service),
            "register" => service::Operation::Register(Box::new(Register {
                named: named(service, words),
                description: description(words),
                status: words.maybe("status").map_or(Status::Passing, |word| status(&word)),
                attach: if words.flag("keep") {
                    Attach::Keep
                } else if words.has("session") || words.has("private") {
                    script.attach(words)
                } else {
                    Attach::None
                },
            })),
            "renew" => {
                let news = News {
                    status: words.maybe("status").map(|word| status(&word)),
                    weight: words.number("weight").map(small),
                    load: words.number("load").map(small),
                };
                service::Operation::Renew(named(service, words), news)
            }
            "deregister" => service::Operation::Deregister(named(service, words)),
            "drain" => {
                let deadline = Millis(words.number("deadline").unwrap_or(30_000));
                service::Operation::Drain(named(service, words), deadline)
            }
            "report" => {
                let well = words.flag("ok");
                assert!(words.flag("error") != well, "either ok or error");
                service::Operation::Report(named(service, words), well)
            }
            verb => panic!("{verb} is no word of services"),
        };
        Some(Operation::Service(operation))
    }

    fn outcome(&self, script: &Script, outcome: &Outcome) -> Option<String> {
        let Outcome::Service(outcome) = outcome else { return None };
        Some(match outcome {
            service::Outcome::Registered(instance, new) => {
                format!("{} {}", if *new { "new" } else { "again" }, shown(script, instance))
            }
            service::Outcome::Changed(instance) => format!("now {}", shown(script, instance)),
            service::Outcome::Deregistered(instance) => format!("gone {}", shown(script, instance)),
            service::Outcome::Configured(new) => if *new { "new" } else { "ok" }.into(),
        })
    }

    fn refusal(&self, script: &Script, refusal: &Refusal) -> Option<String> {
        let Refusal::Service(refusal) = refusal else { return None };
        Some(match refusal {
            service::Refusal::Lost(session) => format!("lost with {}", script.who(*session)),
            service::Refusal::Replaced(Revision(generation)) => format!("replaced by {generation}"),
            other => format!("{other:?}"),
        })
    }

    fn condition(&self, _: &[&str]) -> Option<Condition> {
        None
    }
}

fn small(number: u64) -> u16 {
    number.try_into().expect("a small number")
}

fn named(service: Box<str>, words: &mut script::Words) -> Named {
    let generation = words.number("generation").map(Revision);
    Named { service, id: words.text("id").into(), generation }
}

fn status(word: &str) -> Status {
    Status::WORDS.iter().find(|(name, _)| *name == word).expect("a status").1
}

fn word(status: Status) -> &'static str {
    Status::WORDS.iter().find(|(_, other)| *other == status).expect("a status").0
}

fn description(words: &mut script::Words) -> Description {
    let texts = |list: Vec<String>| list.into_iter().map(Into::into).collect();
    Description {
        address: words.maybe("address").unwrap_or_else(|| "10.0.0.1".into()).into(),
        port: words.number("port").map_or(80, small),
        zone: words.maybe("zone").unwrap_or_default().into(),
        version: words.maybe("version").unwrap_or_default().into(),
        weight: words.number("weight").map_or(100, small),
        tags: texts(words.list("tags")),
        meta: pairs(words.maybe("meta")),
        ..Description::default()
    }
}

/// `meta=owner.ann`
fn pairs(text: Option<String>) -> BTreeMap<Box<str>, Box<str>> {
    let pair = |text: String| {
        let (name, value) = text.split_once('.').expect("name.value");
        (name.into(), value.into())
    };
    text.map(pair).into_iter().collect()
}

fn settings(words: &mut script::Words) -> Settings {
    let default = Settings::default();
    let mut span = |name: &str, default: Millis| words.number(name).map_or(default, Millis);
    let deregister_after = span("deregister_after", default.deregister_after);
    let slow_start = span("slow_start", default.slow_start);
    let eject_for = span("eject_for", default.eject_for);
    Settings {
        protect: words.number("protect").map_or(default.protect, small),
        eject_errors: words.number("eject_errors").map_or(default.eject_errors, small),
        deregister_after,
        slow_start,
        eject_for,
    }
}

fn filter(words: &mut script::Words) -> Filter {
    Filter {
        tags: words.list("tags").into_iter().map(Into::into).collect(),
        meta: pairs(words.maybe("meta")),
        zone: words.maybe("in").map(Into::into),
        version: words.maybe("version").map(Into::into),
        status: words.maybe("status").map(|word| status(&word)),
        healthy: words.flag("healthy"),
    }
}

fn wish(words: &mut script::Words) -> Wish {
    Wish {
        strategy: match words.maybe("strategy").as_deref() {
            None | Some("round_robin") => Strategy::RoundRobin,
            Some("random") => Strategy::Random,
            Some("weighted") => Strategy::Weighted,
            Some("least") => Strategy::Least,
            Some("sticky") => Strategy::Sticky,
            Some(other) => panic!("{other} is no strategy"),
        },
        key: words.maybe("key").unwrap_or_default().into(),
        zone: words.maybe("zone").map(Into::into),
        count: words.number("n").map_or(1, |n| usize::try_from(n).expect("small")),
        exclude: words.list("exclude").into_iter().map(Into::into).collect(),
    }
}

fn shown(script: &Script, instance: &Instance) -> String {
    let Description { address, port, weight, zone, .. } = &instance.description;
    let mut text = format!("{address}:{port} {} generation={}", word(instance.status()), instance.generation);
    if *weight != 100 {
        let _ = write!(text, " weight={weight}");
    }
    if !zone.is_empty() {
        let _ = write!(text, " zone={zone}");
    }
    if let Some(load) = instance.load {
        let _ = write!(text, " load={load}");
    }
    match instance.liveness {
        Liveness::Permanent => {}
        Liveness::Session(session) => {
            let _ = write!(text, " session={}", script.who(session));
        }
        Liveness::Ttl(session, ttl) => {
            let _ = write!(text, " ttl={}ms by {}", ttl.0, script.who(session));
        }
    }
    for (what, at) in [
        ("up_since", instance.up_since),
        ("drains_since", instance.drain),
        ("lost", instance.lost),
        ("ejected_until", instance.ejected),
        ("leaves", instance.leaves),
    ] {
        if let Some(at) = at {
            let _ = write!(text, " {what}={}ms", at.0);
        }
    }
    text
}
