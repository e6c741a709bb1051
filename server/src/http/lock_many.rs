//! ① Locks: several together, all or none; and what is configured of one.

use std::time::Instant;

use coracle_api::{self as api, Code, HoldFrame, Span};
use coracle_recipes::lock::{self, DELAY_MS, HOLD_MS, Mode, TOGETHER};
use coracle_recipes::{self as recipes, Turn};
use coracle_store::{Key, Millis, Revision, SessionId, Store};
use http::StatusCode;

use super::call::{Call, check_name};
use super::claim::{self, Asked, Kind, Missed, Standing};
use super::frame::Frames;
use super::lock::{NAME, blocker, in_the_way, owner};
use super::lock_list::{WAITERS_SHOWN, shown};
use super::message::Response;
use super::objects;
use super::problem::{Answer, bad_body};
use super::{respond, wire};

/// `POST /v1/locks`: all of these locks at once, or a place in all their lines.
pub async fn acquire(mut call: Call) -> Answer {
    let received = Instant::now();
    let owner = owner(&mut call)?;
    let asked = Asked::of(&mut call, None)?;
    let (body, bytes) = call.json::<api::AcquireMany>().await?;
    if body.items.is_empty() || body.items.len() > TOGETHER {
        return Err(bad_body(format!("items: 1 to {TOGETHER} locks actual={}", body.items.len())));
    }
    let mut locks = Vec::with_capacity(body.items.len());
    for item in body.items {
        check_name(&item.name).map_err(|detail| bad_body(format!("items.name: {detail}")))?;
        let mode = match item.mode {
            api::Mode::Exclusive => Mode::Exclusive,
            api::Mode::Shared => Mode::Shared,
        };
        locks.push((Box::from(item.name), mode));
    }
    locks.sort_by(|(one, _): &(Box<str>, Mode), (other, _)| one.cmp(other));
    if let Some(pair) = locks.windows(2).find(|pair| pair[0].0 == pair[1].0) {
        return Err(bad_body(format!("items: a lock is named twice name={}", pair[0].0)));
    }
    let wait = asked.waits();
    let kind = Together {
        names: locks.iter().map(|(name, _)| name.clone()).collect(),
        acquire: lock::AcquireMany { locks, attach: asked.attach.clone(), owner, wait },
    };
    claim::make(call, asked, &bytes, kind, received).await
}

/// The claim on several locks.
struct Together {
    /// In order.
    names: Vec<Box<str>>,
    acquire: lock::AcquireMany,
}

impl Kind for Together {
    type Grant = Vec<(Box<str>, lock::Hold)>;
    type Place = lock::Place;

    fn operation(&self) -> recipes::Operation {
        recipes::Operation::Lock(lock::Operation::AcquireMany(self.acquire.clone()))
    }

    fn withdrawal(&self, session: SessionId) -> recipes::Operation {
        // Leaving one of the lines leaves all of them.
        let claim = lock::Claim { lock: self.names[0].clone(), session, token: None };
        recipes::Operation::Lock(lock::Operation::Withdraw(claim))
    }

    fn turn(&self, outcome: recipes::Outcome) -> Option<lock::TurnOfMany> {
        let recipes::Outcome::Lock(outcome) = outcome else { return None };
        match outcome {
            lock::Outcome::HeldMany(holds) => Some(Turn::Granted(holds)),
            lock::Outcome::Waiting(place) => Some(Turn::Waiting(place)),
            _ => None,
        }
    }

    fn in_the_way(&self, refusal: recipes::Refusal) -> Option<Missed> {
        in_the_way(refusal)
    }

    fn prefixes(&self) -> Vec<Vec<u8>> {
        self.names.iter().map(|name| lock::prefix(name)).collect()
    }

    fn poll(&self, store: &Store, session: SessionId, _: Option<&Key>) -> lock::TurnOfMany {
        lock::poll_many(store.view(), &self.names, session)
    }

    fn holder(&self, holds: &Self::Grant) -> SessionId {
        holds.first().map_or(SessionId(0), |(_, hold)| hold.session)
    }

    fn standing(&self, place: &lock::Place) -> Standing {
        Standing::of(place, blocker)
    }

    fn granted(&self, revision: Revision, holds: &Self::Grant, valid_for: Span) -> Response {
        let one = |(name, hold): &(Box<str>, lock::Hold)| api::AcquiredOne {
            name: name.to_string(),
            token: hold.token.0,
            mode: wire::mode(hold.terms),
        };
        let (session, items) = (wire::session(self.holder(holds)), holds.iter().map(one).collect());
        respond::json(StatusCode::OK, revision, &api::AcquiredMany { session, valid_for, items })
    }

    fn missed(&self, revision: Revision, missed: Missed) -> Answer {
        let names = self.names.join(",");
        let problem = missed.problem(Code::LockHeld, &format!("locks={names}"), revision);
        Err(problem.with("locks", &self.names).into())
    }

    /// They are granted in one entry: one token stands for all.
    fn acquired(&self, frames: &mut Frames, holds: &Self::Grant, valid_for: Span) {
        let token = holds.first().map_or(0, |(_, hold)| hold.token.0);
        let session = wire::session(self.holder(holds));
        let granted = api::Granted::new(session, token, valid_for);
        frames.object("acquired", &HoldFrame::Acquired(granted));
    }
}

/// `PUT /v1/locks/{n}`: configure; `{}` forgets the configuration.
pub async fn configure(mut call: Call) -> Answer {
    let name = call.name(NAME)?;
    let (body, bytes) = call.json::<api::LockConfig>().await?;
    let time = |what: &str, span: Option<Span>, most: u64| match span {
        Some(span) if span.as_millis() > most => {
            let most = Span::from_millis_saturating(most);
            Err(bad_body(format!("{what}: at most {most} actual={span}")))
        }
        span => Ok(Millis(span.unwrap_or_default().as_millis())),
    };
    let config = lock::Config {
        lock_delay: time("lock_delay", body.lock_delay, DELAY_MS)?,
        min_hold: time("min_hold", body.min_hold, HOLD_MS)?,
        max_hold: time("max_hold", body.max_hold, HOLD_MS)?,
    };
    let operation = lock::Operation::Configure(name.as_str().into(), config);
    let applied = objects::apply(&mut call, &bytes, recipes::Operation::Lock(operation)).await?;
    let recipes::Outcome::Lock(lock::Outcome::Configured(config, is_new)) = applied.outcome else {
        return Err(objects::odd(&applied.outcome));
    };
    call.edge.node.wait_revision(applied.revision, call.deadline).await?;
    let line = call.edge.node.read(|store| lock::line(store.view(), &name, WAITERS_SHOWN));
    let mut body = line.map_or_else(
        || api::Lock {
            name: name.clone(),
            holders: Vec::new(),
            waiters: Vec::new(),
            waiting: None,
            config: None,
            closed_until: None,
        },
        |line| shown(&name, &line),
    );
    body.config = (config != lock::Config::default()).then(|| super::lock_list::config(&config));
    Ok(applied
        .answer(if is_new && body.config.is_some() { StatusCode::CREATED } else { StatusCode::OK }, &body))
}
