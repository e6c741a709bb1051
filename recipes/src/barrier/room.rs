//! One barrier, as keys: who waits, who is inside, who has left, and how a generation begins and ends.

use coracle_store::limits::KEY_OVERHEAD;
use coracle_store::{
    Cause, ContentType, Key, Record, Refusal as StoreRefusal, SessionId, Timestamp, Txn, Value, View,
};
use minicbor::{Decode, Encode};

use super::{Config, FAMILY, Kind, Outcome, Party, Passed, Place, Turn, Why};
use crate::line::ahead;
use crate::{declared, names, timer};

pub(super) const CONFIG: u8 = b'c';
pub(super) const STATE: u8 = b's';
pub(super) const MEMBER: u8 = b'm';
const OUT: u8 = b'o';
const LINE: u8 = b'w';
/// Broken generations that are remembered for those who ask again.
const BROKEN: usize = 16;

/// One barrier, by what its keys begin with: family byte and name.
pub(super) struct Room {
    prefix: Vec<u8>,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Encode, Decode)]
pub(super) struct State {
    /// The one that fills, or that is inside.
    #[n(0)]
    pub generation: u64,
    /// The first of this barrier's life.
    #[n(1)]
    pub first: u64,
    #[n(2)]
    pub open: bool,
    #[n(3)]
    pub waiting: u64,
    #[n(4)]
    pub inside: u64,
    /// Out, while others are inside.
    #[n(5)]
    pub leaving: u64,
    /// When it breaks for those who wait.
    #[n(6)]
    pub due: Option<Timestamp>,
    /// The last few that broke, in order.
    #[n(7)]
    pub broken: Vec<Broken>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Broken {
    #[n(0)]
    pub generation: u64,
    #[n(1)]
    pub why: Why,
}

/// One that came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub(super) struct Entrant {
    /// Log time of the arrival.
    #[n(0)]
    pub since: Timestamp,
    /// Revision of the arrival, and number within it: its place in the line.
    #[n(1)]
    pub arrival: (u64, u64),
    /// The how-manieth it was when it got inside; `None`: it waits.
    #[n(2)]
    pub inside: Option<u64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    Waiting,
    Inside,
    Out,
}

impl State {
    fn running(&self) -> bool {
        self.inside + self.leaving > 0
    }

    /// Whether one that comes now gets in at once.
    pub fn lets_in(&self, config: Config) -> bool {
        let completes = self.waiting + 1 >= config.parties;
        match config.kind {
            Kind::Gate => self.open,
            Kind::Double if self.running() => !config.exact,
            Kind::Cyclic | Kind::Double => completes,
        }
    }
}

impl Room {
    pub fn new(name: &str) -> Self {
        Self { prefix: [&[FAMILY.0][..], &names::closed(name)].concat() }
    }

    /// What all its keys begin with, family byte first.
    pub fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    pub fn prefix_of(&self, part: u8) -> Vec<u8> {
        [&self.prefix[..], &[part]].concat()
    }

    pub fn state_key(&self) -> Key {
        self.key(STATE, &[])
    }

    pub fn member(&self, id: &str) -> Key {
        self.key(MEMBER, &names::closed(id))
    }

    pub fn out(&self, id: &str) -> Key {
        self.key(OUT, &names::closed(id))
    }

    pub fn config(&self, view: View<'_>) -> Option<Config> {
        view.get(&self.key(CONFIG, &[])).map(|record| decoded(record))
    }

    pub fn state(&self, view: View<'_>) -> State {
        view.get(&self.state_key()).map(|record| decoded(record)).unwrap_or_default()
    }

    /// How one stands, and its session.
    pub fn find(&self, view: View<'_>, id: &str) -> Option<(Stage, Entrant, Option<SessionId>)> {
        if let Some(record) = view.get(&self.member(id)) {
            let entrant: Entrant = decoded(record);
            let stage = if entrant.inside.is_some() { Stage::Inside } else { Stage::Waiting };
            return Some((stage, entrant, record.session));
        }
        let record = view.get(&self.out(id))?;
        Some((Stage::Out, decoded(record), record.session))
    }

    /// All that wait or are inside, by id.
    pub fn members<'a>(&self, view: View<'a>) -> impl Iterator<Item = Party> + use<'a> {
        let prefix = self.prefix_of(MEMBER);
        let skip = prefix.len();
        view.scan(FAMILY, &prefix[1..]).filter_map(move |(key, record)| {
            let (id, _) = names::split(&key.as_bytes()[skip..])?;
            let Entrant { since, inside, .. } = decoded(record);
            Some(Party { id, session: record.session, since, inside })
        })
    }

    /// Those who wait, in the order they came.
    pub fn line<'a>(&'a self, view: View<'a>) -> impl Iterator<Item = Party> + 'a {
        view.scan(FAMILY, &self.prefix_of(LINE)[1..]).filter_map(move |(_, index)| {
            let id = String::from_utf8_lossy(&index.value).into_owned();
            let record = view.get(&self.member(&id))?;
            let Entrant { since, inside, .. } = decoded(record);
            Some(Party { id, session: record.session, since, inside })
        })
    }

    /// What became of a generation that is over; `None` if it is not, or was not yet. One of an earlier life of the barrier
    /// was deleted with it. Of those broken so long ago that it is forgotten the reason is too.
    pub fn fate(&self, view: View<'_>, generation: u64) -> Option<Result<(), Why>> {
        let State { generation: current, first, broken, .. } = self.state(view);
        if generation >= current {
            return None;
        }
        if generation < first {
            return Some(Err(Why::Deleted));
        }
        if let Some(broken) = broken.iter().find(|broken| broken.generation == generation) {
            return Some(Err(broken.why));
        }
        let forgotten = broken.len() == BROKEN && broken.first().is_some_and(|it| generation < it.generation);
        Some(if forgotten { Err(Why::Lost) } else { Ok(()) })
    }

    /// The turn of one that waits or is inside.
    pub fn turn(
        &self,
        view: View<'_>,
        config: Config,
        id: &str,
        session: Option<SessionId>,
        entrant: &Entrant,
    ) -> Turn {
        match self.outcome(view, config, id, session, entrant) {
            Outcome::Passed(passed) => Turn::Granted(Ok(passed)),
            Outcome::Waiting(place) => Turn::Waiting(place),
            _ => Turn::Gone,
        }
    }

    /// What one that waits or is inside is answered. Costs the way to the nearer end of the line.
    pub fn outcome(
        &self,
        view: View<'_>,
        config: Config,
        id: &str,
        session: Option<SessionId>,
        entrant: &Entrant,
    ) -> Outcome {
        let state = self.state(view);
        if let Some(index) = entrant.inside {
            let (id, generation) = (id.into(), state.generation);
            return Outcome::Passed(Passed { id, session, generation, index: Some(index) });
        }
        let own = self.place_key(entrant.arrival);
        let line = view.scan(FAMILY, &self.prefix_of(LINE)[1..]);
        let ahead = ahead(line.map(|(key, _)| key), &own, || state.waiting);
        Outcome::Waiting(place(&state, config, id, session, entrant, ahead + 1))
    }

    /// Refuse to grow at quota: for one more that comes.
    pub fn make_room(&self, txn: &Txn<'_>, id: &str) -> Result<(), StoreRefusal> {
        // Its record, its place in the line, and a timer.
        txn.make_room(3 * (KEY_OVERHEAD + self.prefix.len() + id.len() + 32))
    }

    /// Make or configure it; nobody is at it.
    pub fn configure(
        &self,
        txn: &mut Txn<'_>,
        config: Config,
        members: &[Box<str>],
    ) -> Result<(), StoreRefusal> {
        let mut state = self.state(txn.view());
        if state.generation == 0 {
            (state.generation, state.first) = (txn.revision().0, txn.revision().0);
        }
        txn.make_room(2 * (KEY_OVERHEAD + self.prefix.len() + 64))?;
        self.delete_all(txn, declared::PART, Cause::Command);
        declared::set(txn, FAMILY, &self.prefix[1..], members)?;
        txn.put(self.key(CONFIG, &[]), encoded(config), ContentType::Binary, None);
        self.set(txn, &state);
        Ok(())
    }

    /// Open or close it; true if that is new.
    pub fn set_open(&self, txn: &mut Txn<'_>, open: bool) -> bool {
        let mut state = self.state(txn.view());
        let changed = std::mem::replace(&mut state.open, open) != open;
        if changed {
            state.generation += u64::from(open);
            self.set(txn, &state);
        }
        changed
    }

    pub fn write(&self, txn: &mut Txn<'_>, id: &str, session: Option<SessionId>, entrant: &Entrant) {
        txn.put(self.member(id), encoded(entrant), ContentType::Binary, session);
    }

    /// Somebody comes who was not there, or was out.
    pub fn arrive(&self, txn: &mut Txn<'_>, config: Config, id: &str, session: Option<SessionId>) -> Outcome {
        let mut state = self.state(txn.view());
        if txn.delete(&self.out(id), Cause::Command) {
            state.leaving -= 1;
        }
        let mut entrant = Entrant { since: txn.now(), arrival: self.next_arrival(txn), inside: None };
        if config.kind == Kind::Double && state.running() && !config.exact {
            entrant.inside = Some(state.inside + state.leaving);
            state.inside += 1;
            self.write(txn, id, session, &entrant);
            self.set(txn, &state);
            return self.outcome(txn.view(), config, id, session, &entrant);
        }
        state.waiting += 1;
        if config.kind == Kind::Cyclic && state.waiting >= config.parties {
            let (generation, index) = (state.generation, Some(state.waiting - 1));
            self.end_generation(txn, &mut state, Cause::Command);
            self.set(txn, &state);
            return Outcome::Passed(Passed { id: id.into(), session, generation, index });
        }
        self.write(txn, id, session, &entrant);
        let index = Value::from(id.as_bytes());
        txn.put(self.place_key(entrant.arrival), index, ContentType::Binary, None);
        if let (1, Some(timeout), Kind::Cyclic) = (state.waiting, config.timeout, config.kind) {
            let due = Timestamp(txn.now().0.saturating_add(timeout.0));
            timer::set(txn, due, FAMILY, &self.alarm(state.generation));
            state.due = Some(due);
        }
        self.let_in(txn, config, &mut state);
        self.set(txn, &state);
        if let Some((Stage::Inside, entrant, _)) = self.find(txn.view(), id) {
            return self.outcome(txn.view(), config, id, session, &entrant);
        }
        Outcome::Waiting(place(&state, config, id, session, &entrant, state.waiting))
    }

    /// Somebody who waits does so no more. That breaks a cyclic barrier for the others.
    pub fn step_out(&self, txn: &mut Txn<'_>, config: Config, id: &str, entrant: &Entrant) {
        let mut state = self.state(txn.view());
        txn.delete(&self.member(id), Cause::Command);
        txn.delete(&self.place_key(entrant.arrival), Cause::Command);
        state.waiting -= 1;
        if config.kind == Kind::Cyclic {
            self.break_generation(txn, &mut state, Why::GaveUp);
        }
        self.set(txn, &state);
    }

    /// Somebody who is inside goes out. The last one ends the generation.
    pub fn go_out(
        &self,
        txn: &mut Txn<'_>,
        config: Config,
        id: &str,
        session: Option<SessionId>,
        entrant: &Entrant,
    ) -> Outcome {
        let mut state = self.state(txn.view());
        let (generation, others) = (state.generation, state.inside - 1);
        txn.delete(&self.member(id), Cause::Command);
        txn.put(self.out(id), encoded(entrant), ContentType::Binary, session);
        (state.inside, state.leaving) = (others, state.leaving + 1);
        self.finish(txn, config, &mut state);
        self.set(txn, &state);
        Outcome::Left(generation, others)
    }

    /// These are gone with their sessions.
    pub fn lost(&self, txn: &mut Txn<'_>, gone: &[&(Key, std::sync::Arc<Record>)]) {
        let Some(config) = self.config(txn.view()) else { return };
        let mut state = self.state(txn.view());
        let was_running = state.running();
        let mut waited = false;
        for (key, record) in gone {
            let entrant: Entrant = decoded(record);
            match (key.as_bytes()[self.prefix.len()], entrant.inside) {
                (OUT, _) => state.leaving -= 1,
                (_, Some(_)) => state.inside -= 1,
                (_, None) => {
                    txn.delete(&self.place_key(entrant.arrival), Cause::Command);
                    state.waiting -= 1;
                    waited = true;
                }
            }
        }
        if waited && config.kind == Kind::Cyclic {
            self.break_generation(txn, &mut state, Why::Lost);
        }
        if was_running {
            self.finish(txn, config, &mut state);
        }
        self.set(txn, &state);
    }

    /// The time of a generation has run out, if it is still the same and somebody waits.
    pub fn time_is_up(&self, txn: &mut Txn<'_>, generation: u64) {
        let mut state = self.state(txn.view());
        if state.generation == generation && state.due.is_some_and(|due| due <= txn.now()) {
            self.break_generation(txn, &mut state, Why::Timeout);
            self.set(txn, &state);
        }
    }

    /// Forget all of it.
    pub fn clear(&self, txn: &mut Txn<'_>) {
        let State { generation, due, .. } = self.state(txn.view());
        if let Some(due) = due {
            timer::clear(txn, due, FAMILY, &self.alarm(generation));
        }
        self.delete_all(txn, MEMBER, Cause::Broken);
        self.delete_all(txn, OUT, Cause::Broken);
        for part in [CONFIG, STATE, LINE, declared::PART] {
            self.delete_all(txn, part, Cause::Command);
        }
    }

    /// Nobody is inside any more: all who left have left, and the next may come in.
    fn finish(&self, txn: &mut Txn<'_>, config: Config, state: &mut State) {
        if state.inside == 0 {
            self.delete_all(txn, OUT, Cause::Command);
            (state.generation, state.leaving) = (state.generation + 1, 0);
            self.let_in(txn, config, state);
        }
    }

    /// Let those in a double barrier's line in, if it is their time and they are enough.
    fn let_in(&self, txn: &mut Txn<'_>, config: Config, state: &mut State) {
        if config.kind != Kind::Double || state.running() || state.waiting < config.parties {
            return;
        }
        let most = if config.exact { config.parties } else { state.waiting };
        for index in 0..most {
            let prefix = self.prefix_of(LINE);
            let Some((place, id)) = txn.view().scan(FAMILY, &prefix[1..]).next() else { break };
            let (place, id) = (place.clone(), String::from_utf8_lossy(&id.value).into_owned());
            txn.delete(&place, Cause::Command);
            if let Some((_, mut entrant, session)) = self.find(txn.view(), &id) {
                entrant.inside = Some(index);
                self.write(txn, &id, session, &entrant);
                (state.inside, state.waiting) = (state.inside + 1, state.waiting - 1);
            }
        }
    }

    fn break_generation(&self, txn: &mut Txn<'_>, state: &mut State, why: Why) {
        if state.broken.len() == BROKEN {
            state.broken.remove(0);
        }
        state.broken.push(Broken { generation: state.generation, why });
        self.end_generation(txn, state, Cause::Broken);
    }

    /// Nobody waits any more at a cyclic barrier, and the next generation begins.
    fn end_generation(&self, txn: &mut Txn<'_>, state: &mut State, cause: Cause) {
        if let Some(due) = state.due.take() {
            timer::clear(txn, due, FAMILY, &self.alarm(state.generation));
        }
        self.delete_all(txn, MEMBER, cause);
        self.delete_all(txn, LINE, Cause::Command);
        (state.generation, state.waiting) = (state.generation + 1, 0);
    }

    /// Two arrivals of one entry have one revision: number them.
    fn next_arrival(&self, txn: &Txn<'_>) -> (u64, u64) {
        let prefix = self.prefix_of(LINE);
        let revision = txn.revision().0;
        let last = txn.view().scan(FAMILY, &prefix[1..]).next_back();
        let number = last.and_then(|(key, _)| {
            let number = key.as_bytes()[prefix.len()..].strip_prefix(&revision.to_be_bytes())?;
            Some(u64::from_be_bytes(*number.first_chunk()?) + 1)
        });
        (revision, number.unwrap_or_default())
    }

    fn delete_all(&self, txn: &mut Txn<'_>, part: u8, cause: Cause) {
        let prefix = self.prefix_of(part);
        let keys: Vec<Key> = txn.view().scan(FAMILY, &prefix[1..]).map(|(key, _)| key.clone()).collect();
        for key in keys {
            txn.delete(&key, cause);
        }
    }

    fn set(&self, txn: &mut Txn<'_>, state: &State) {
        txn.put(self.state_key(), encoded(state), ContentType::Binary, None);
    }

    /// What its timer says.
    fn alarm(&self, generation: u64) -> Vec<u8> {
        [&self.prefix[1..], &generation.to_be_bytes()].concat()
    }

    fn place_key(&self, (revision, number): (u64, u64)) -> Key {
        self.key(LINE, &[revision.to_be_bytes(), number.to_be_bytes()].concat())
    }

    fn key(&self, part: u8, rest: &[u8]) -> Key {
        Key::new(FAMILY, &[&self.prefix[1..], &[part], rest].concat())
    }
}

fn place(
    state: &State,
    config: Config,
    id: &str,
    session: Option<SessionId>,
    entrant: &Entrant,
    position: u64,
) -> Place {
    Place {
        id: id.into(),
        session,
        generation: (!state.running()).then_some(state.generation),
        position,
        waiting: state.waiting,
        parties: config.parties,
        since: entrant.since,
    }
}

fn encoded(value: impl Encode<()>) -> Value {
    crate::row(&value)
}

pub(super) fn decoded<'b, T: Decode<'b, ()>>(record: &'b Record) -> T {
    minicbor::decode(&record.value).expect("only a barrier writes its keys")
}
