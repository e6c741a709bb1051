//! Random lives of a few instances, against a model that looks at everything every time.

use std::collections::BTreeMap;

use coracle_recipes::service::{
    self, Census, Description, Instance, Liveness, Named, News, Operation, Outcome, Register, Settings,
    Status,
};
use coracle_recipes::{Recipes, Refusal};
use coracle_store::command::{Expiry, OnExpire, OpenSession};
use coracle_store::{
    Action, Attach, Command, Family, Loader, Millis, Outcome as StoreOutcome, Principal,
    Refusal as StoreRefusal, Revision, SessionId, Store, Timestamp,
};
use proptest::prelude::*;

const SERVICES: [&str; 2] = ["a", "ab"];
const IDS: [&str; 3] = ["x", "x\0", "y"];
const SESSIONS: u64 = 4;
const TTL: Millis = Millis(10_000);

/// Which instance, and of which generation the caller believes it to be: 0 of none, 1 of the present, 2 of an old one.
type Whom = (usize, usize, u8);

#[derive(Debug, Clone)]
enum Step {
    Open(u64),
    Register(Whom, How, Status),
    Renew(Whom, Option<Status>, Option<u16>),
    Deregister(Whom),
    Drain(Whom, u64),
    Report(Whom, bool),
    /// These run out in one entry.
    Expire(Vec<u64>),
    Close(u64),
    Configure(usize, u64, u16),
    Reset(usize),
    /// So much later, what is due happens.
    Advance(u64),
    Restart,
}

#[derive(Debug, Clone, Copy)]
enum How {
    Permanent,
    Keep,
    Session(u64),
    Private(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let whom = || (0..SERVICES.len(), 0..IDS.len(), prop_oneof![6 => Just(0_u8), 2 => Just(1), 1 => Just(2)]);
    let session = || 1..=SESSIONS;
    let status = || prop_oneof![3 => Just(Status::Passing), 1 => Just(Status::Critical), 1 => Just(Status::Maintenance)];
    let how = prop_oneof![
        1 => Just(How::Permanent),
        2 => Just(How::Keep),
        3 => session().prop_map(How::Session),
        4 => session().prop_map(How::Private),
    ];
    let step = prop_oneof![
        3 => session().prop_map(Step::Open),
        12 => (whom(), how, status()).prop_map(|(whom, how, status)| Step::Register(whom, how, status)),
        4 => (whom(), prop::option::of(status()), prop::option::of(0..=1_001_u16))
            .prop_map(|(whom, status, load)| Step::Renew(whom, status, load)),
        2 => whom().prop_map(Step::Deregister),
        3 => (whom(), prop_oneof![Just(0_u64), 1..100_000_u64]).prop_map(|(whom, span)| Step::Drain(whom, span)),
        6 => (whom(), prop::bool::weighted(0.2)).prop_map(|(whom, well)| Step::Report(whom, well)),
        4 => prop::collection::vec(session(), 1..3).prop_map(Step::Expire),
        1 => session().prop_map(Step::Close),
        1 => (0..SERVICES.len(), prop_oneof![Just(0_u64), Just(60_000)], 0..3_u16)
            .prop_map(|(service, after, errors)| Step::Configure(service, after, errors)),
        1 => (0..SERVICES.len()).prop_map(Step::Reset),
        6 => (0..40_000_u64).prop_map(Step::Advance),
        1 => Just(Step::Restart),
    ];
    prop::collection::vec(step, 1..80)
}

#[derive(Default)]
struct Model {
    now: u64,
    /// Alive, and whether private.
    sessions: BTreeMap<u64, bool>,
    instances: BTreeMap<(usize, usize), Instance>,
    /// Number of errors, time of the last.
    strikes: BTreeMap<(usize, usize), (u16, u64)>,
    settings: [Option<Settings>; 2],
    /// Generations that are over, newest last.
    old: BTreeMap<(usize, usize), u64>,
}

#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Good,
    NotFound,
    Replaced(u64),
    Lost(u64),
    Refused,
}

impl Model {
    fn generation(&self, (service, id, belief): Whom) -> Option<Revision> {
        match belief {
            0 => None,
            1 => Some(self.instances.get(&(service, id)).map_or(Revision(0), |it| it.generation)),
            _ => Some(Revision(self.old.get(&(service, id)).copied().unwrap_or(0))),
        }
    }

    fn find(&self, whom: Whom) -> Result<Instance, Answer> {
        let it = self.instances.get(&(whom.0, whom.1)).ok_or(Answer::NotFound)?;
        match self.generation(whom) {
            Some(generation) if generation != it.generation => Err(Answer::Replaced(it.generation.0)),
            _ => Ok(it.clone()),
        }
    }

    fn set(&mut self, whom: Whom, mut it: Instance) {
        it.up_since = if it.is_up() { it.up_since.or(Some(Timestamp(self.now))) } else { None };
        self.instances.insert((whom.0, whom.1), it);
    }

    fn remove(&mut self, at: (usize, usize)) {
        if let Some(it) = self.instances.remove(&at) {
            self.old.insert(at, it.generation.0);
        }
        self.strikes.remove(&at);
    }

    fn settings(&self, service: usize) -> Settings {
        self.settings[service].clone().unwrap_or_default()
    }

    /// A private session is there for its one use.
    fn tidy(&mut self) {
        let used = |id: u64, instances: &BTreeMap<(usize, usize), Instance>| {
            instances.values().any(|it| it.lost.is_none() && it.session() == Some(SessionId(id)))
        };
        self.sessions.retain(|id, private| !*private || used(*id, &self.instances));
    }

    fn step(&mut self, step: &Step, revision: u64) -> Answer {
        self.act(step, revision).err().unwrap_or(Answer::Good)
    }

    fn act(&mut self, step: &Step, revision: u64) -> Result<(), Answer> {
        let now = Timestamp(self.now);
        match *step {
            Step::Open(id) => {
                if self.sessions.contains_key(&id) {
                    return Err(Answer::Refused);
                }
                self.sessions.insert(id, false);
            }
            Step::Register(whom, how, told) => {
                let was = match whom.2 {
                    0 => self.instances.get(&(whom.0, whom.1)).cloned(),
                    _ => Some(self.find(whom)?),
                };
                let liveness = match (how, &was) {
                    (How::Permanent, _) | (How::Keep, None) => Liveness::Permanent,
                    (How::Keep, Some(was)) if was.lost.is_some() => {
                        return Err(Answer::Lost(was.session().unwrap().0));
                    }
                    (How::Keep, Some(was)) => was.liveness,
                    (How::Session(id), _) if !self.sessions.contains_key(&id) => return Err(Answer::Refused),
                    (How::Session(id), _) => Liveness::Session(SessionId(id)),
                    (How::Private(id), _) if self.sessions.contains_key(&id) => return Err(Answer::Refused),
                    (How::Private(id), _) => {
                        self.sessions.insert(id, true);
                        Liveness::Ttl(SessionId(id), TTL)
                    }
                };
                if let Some(was) = &was {
                    self.old.insert((whom.0, whom.1), was.generation.0);
                }
                self.strikes.remove(&(whom.0, whom.1));
                let it = Instance {
                    generation: Revision(revision),
                    description: description(),
                    told,
                    load: None,
                    liveness,
                    registered: was.as_ref().map_or(now, |was| was.registered),
                    up_since: was.and_then(|was| was.up_since),
                    drain: None,
                    lost: None,
                    ejected: None,
                    leaves: None,
                };
                self.set(whom, it);
            }
            Step::Renew(_, _, Some(1_001)) => return Err(Answer::Refused),
            Step::Renew(whom, status, load) => {
                let it = self.find(whom)?;
                if it.lost.is_some() {
                    return Err(Answer::Lost(it.session().unwrap().0));
                }
                let it = Instance { told: status.unwrap_or(it.told), load: load.or(it.load), ..it };
                self.set(whom, it);
            }
            Step::Deregister(whom) | Step::Drain(whom, 0) => {
                self.find(whom)?;
                self.remove((whom.0, whom.1));
            }
            Step::Drain(whom, span) => {
                let it = self.find(whom)?;
                let end = now.after(Millis(span));
                let leaves = Some(it.leaves.map_or(end, |leaves| leaves.min(end)));
                self.set(whom, Instance { drain: it.drain.or(Some(now)), leaves, ..it });
            }
            Step::Report(whom, well) => {
                let it = self.find(whom)?;
                self.report((whom.0, whom.1), &it, well);
            }
            Step::Expire(ref ids) => ids.iter().for_each(|id| self.end(*id, true)),
            Step::Close(id) => {
                if !self.sessions.contains_key(&id) {
                    return Err(Answer::Refused);
                }
                self.end(id, false);
            }
            Step::Configure(service, after, errors) => {
                let settings =
                    Settings { deregister_after: Millis(after), eject_errors: errors, ..Settings::default() };
                self.settings[service] = Some(settings);
            }
            Step::Reset(service) => {
                self.settings[service].take().ok_or(Answer::Refused)?;
            }
            Step::Advance(span) => self.advance(span),
            Step::Restart => {}
        }
        Ok(())
    }

    fn advance(&mut self, span: u64) {
        self.now += span;
        let now = self.now;
        let over = self.instances.iter().filter(|(_, it)| it.leaves.is_some_and(|at| at.0 <= now));
        for at in over.map(|(at, _)| *at).collect::<Vec<_>>() {
            self.remove(at);
        }
        for it in self.instances.values_mut() {
            it.ejected = it.ejected.filter(|at| at.0 > now);
        }
    }

    fn report(&mut self, at: (usize, usize), it: &Instance, well: bool) {
        let settings = self.settings(at.0);
        if well || settings.eject_errors == 0 {
            self.strikes.remove(&at);
            return;
        }
        let before = match self.strikes.get(&at) {
            Some((count, last)) if self.now - last <= settings.eject_for.0 => *count,
            _ => 0,
        };
        let up = self.instances.iter().filter(|((service, _), it)| *service == at.0 && it.is_up());
        let (up, ejected): (Vec<_>, Vec<_>) =
            (up.clone().collect(), up.filter(|(_, it)| !it.is_healthy()).collect());
        if before + 1 >= settings.eject_errors && it.is_healthy() && (ejected.len() + 1) * 2 <= up.len() {
            self.strikes.remove(&at);
            let until = Timestamp(self.now).after(settings.eject_for);
            self.instances.get_mut(&at).unwrap().ejected = Some(until);
        } else {
            self.strikes.insert(at, ((before + 1).min(settings.eject_errors), self.now));
        }
    }

    fn end(&mut self, id: u64, expired: bool) {
        if self.sessions.remove(&id).is_none() {
            return;
        }
        let of = |it: &Instance| it.lost.is_none() && it.session() == Some(SessionId(id));
        let lost: Vec<_> = self.instances.iter().filter(|(_, it)| of(it)).map(|(at, _)| *at).collect();
        for at in lost {
            let after = self.settings(at.0).deregister_after;
            if !expired || after.0 == 0 {
                self.remove(at);
                continue;
            }
            let it = self.instances[&at].clone();
            let end = Timestamp(self.now).after(after);
            let leaves = Some(it.leaves.map_or(end, |leaves| leaves.min(end)));
            self.set((at.0, at.1, 0), Instance { lost: Some(Timestamp(self.now)), leaves, ..it });
        }
    }
}

fn description() -> Description {
    Description { address: "h".into(), weight: 100, ..Description::default() }
}

fn open(id: u64) -> OpenSession {
    OpenSession { on_expire: OnExpire::Release, ..OpenSession::new(SessionId(id), TTL) }
}

fn action(step: &Step, model: &Model) -> Action {
    let named = |whom: &Whom| Named {
        service: SERVICES[whom.0].into(),
        id: IDS[whom.1].into(),
        generation: model.generation(*whom),
    };
    let operation = match step {
        Step::Open(id) => return Action::One(coracle_store::Operation::OpenSession(open(*id))),
        Step::Register(whom, how, status) => Operation::Register(Box::new(Register {
            named: named(whom),
            description: description(),
            status: *status,
            attach: match how {
                How::Permanent => Attach::None,
                How::Keep => Attach::Keep,
                How::Session(id) => Attach::Session(SessionId(*id)),
                How::Private(id) => Attach::Private(open(*id)),
            },
        })),
        Step::Renew(whom, status, load) => {
            Operation::Renew(named(whom), News { status: *status, weight: None, load: *load })
        }
        Step::Deregister(whom) => Operation::Deregister(named(whom)),
        Step::Drain(whom, span) => Operation::Drain(named(whom), Millis(*span)),
        Step::Report(whom, well) => Operation::Report(named(whom), *well),
        Step::Expire(ids) => {
            let expiry = |id: &u64| Expiry { session: SessionId(*id), generation: 1 };
            return Action::Expire(ids.iter().map(expiry).collect());
        }
        Step::Close(id) => return Action::One(coracle_store::Operation::CloseSession(SessionId(*id))),
        Step::Configure(service, after, errors) => {
            let settings =
                Settings { deregister_after: Millis(*after), eject_errors: *errors, ..Settings::default() };
            Operation::Configure(SERVICES[*service].into(), settings)
        }
        Step::Reset(service) => Operation::Reset(SERVICES[*service].into()),
        Step::Advance(_) => return Action::Advance,
        Step::Restart => return Action::Noop,
    };
    Action::One(coracle_recipes::Operation::Service(operation).encode())
}

fn answer(result: &Result<StoreOutcome, StoreRefusal>) -> Answer {
    match result {
        Ok(_) => Answer::Good,
        Err(StoreRefusal::Program(bytes)) => match Refusal::decode(bytes).unwrap() {
            Refusal::Service(service::Refusal::NotFound) => Answer::NotFound,
            Refusal::Service(service::Refusal::Replaced(now)) => Answer::Replaced(now.0),
            Refusal::Service(service::Refusal::Lost(session)) => Answer::Lost(session.0),
            _ => Answer::Refused,
        },
        Err(_) => Answer::Refused,
    }
}

fn restart(store: &Store) -> Store {
    let mut loader = Loader::new(Box::new(Recipes));
    for row in store.rows() {
        loader.row(row.table, &row.key, &row.value.expect("a row")).expect("rows of a store");
    }
    loader.finish().expect("a whole store")
}

fn assert_same(store: &Store, model: &Model) {
    let view = store.view();
    for (n, name) in SERVICES.iter().enumerate() {
        let of = |(at, it): (&(usize, usize), &Instance)| (IDS[at.1].to_string(), it.clone());
        let expected: Vec<_> = model.instances.iter().filter(|(at, _)| at.0 == n).map(of).collect();
        let actual: Vec<_> = service::instances(view, name, None).map(|row| row.read()).collect();
        assert_eq!(actual, expected, "{name}");
        let behind: Vec<_> = service::instances(view, name, Some(IDS[0])).map(|row| row.read()).collect();
        assert_eq!(
            behind,
            expected.iter().filter(|(id, _)| id.as_str() > IDS[0]).cloned().collect::<Vec<_>>()
        );
        let count = |of: fn(&Instance) -> bool| expected.iter().filter(|(_, it)| of(it)).count() as u64;
        let census = Census {
            instances: expected.len() as u64,
            up: count(Instance::is_up),
            ejected: count(|it| it.is_up() && it.ejected.is_some()),
        };
        assert_eq!(service::census(view, name), census);
        assert_eq!(service::settings(view, name), model.settings[n]);
    }
    let exists = |n: usize| model.settings[n].is_some() || model.instances.keys().any(|at| at.0 == n);
    let names: Vec<_> = (0..SERVICES.len()).filter(|n| exists(*n)).map(|n| SERVICES[n].to_string()).collect();
    assert_eq!(service::names(view, "", None, 9), names);
    let timers = model
        .instances
        .values()
        .map(|it| usize::from(it.leaves.is_some()) + usize::from(it.ejected.is_some()));
    assert_eq!(
        view.scan(Family(b't'), &[]).count(),
        timers.sum::<usize>(),
        "one timer each, and no stale one"
    );
    let alive: BTreeMap<u64, bool> =
        store.sessions().map(|session| (session.id.0, session.private)).collect();
    assert_eq!(alive, model.sessions);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_service_is_a_table(steps in steps()) {
        let mut store = Store::new(Box::new(Recipes));
        let mut model = Model { now: 1, ..Model::default() };
        let apply = |store: &mut Store, now: u64, action: Action| {
            let (principal, idempotency, guards) = (Principal("ann".into()), None, Vec::new());
            store.apply(Timestamp(now), &Command { principal, idempotency, guards, action }.encode()).result
        };
        for step in steps {
            let action = action(&step, &model);
            let later = if let Step::Advance(span) = step { span } else { 0 };
            let result = apply(&mut store, model.now + later, action);
            let revision = store.revision().0;
            let expected = model.step(&step, revision);
            model.tidy();
            prop_assert_eq!(answer(&result), expected, "{:?} {:?}", step, result);
            if let Ok(StoreOutcome::Program(bytes)) = &result
                && let coracle_recipes::Outcome::Service(Outcome::Registered(it, _)) =
                    coracle_recipes::Outcome::decode(bytes).unwrap()
            {
                prop_assert_eq!(it.generation, store.revision(), "generations rise");
            }
            if let Step::Restart = step {
                let hash = store.hash();
                store = restart(&store);
                prop_assert_eq!(store.hash(), hash);
            }
            assert_same(&store, &model);
        }
        // The time of all sessions and all timers runs out; what is permanent is taken away: nothing is left.
        let all = (1..=SESSIONS).map(|id| Expiry { session: SessionId(id), generation: 1 }).collect();
        apply(&mut store, model.now, Action::Expire(all)).unwrap();
        apply(&mut store, model.now + 1_000_000, Action::Advance).unwrap();
        for name in SERVICES {
            for id in IDS {
                let named = Named { service: name.into(), id: id.into(), generation: None };
                let gone = coracle_recipes::Operation::Service(Operation::Deregister(named)).encode();
                let _ = apply(&mut store, model.now + 1_000_000, Action::One(gone));
            }
            let reset = coracle_recipes::Operation::Service(Operation::Reset(name.into())).encode();
            let _ = apply(&mut store, model.now + 1_000_000, Action::One(reset));
        }
        prop_assert_eq!(store.live_bytes(), 0, "no ghosts");
    }
}
