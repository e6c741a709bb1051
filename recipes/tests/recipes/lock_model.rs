//! What locks are, in lists: the model that is obviously right.

use std::collections::{BTreeMap, BTreeSet};

use coracle_recipes::lock::{Config, Link, Mode};

pub const LOCKS: [&str; 3] = ["a", "ab", "b"];
pub const SESSIONS: u64 = 6;

#[derive(Debug, Clone)]
pub enum Step {
    /// With the delay that the session asks for.
    Open(u64, u64),
    Acquire {
        lock: usize,
        session: u64,
        mode: Mode,
        owner: &'static str,
        wait: bool,
        private: bool,
        reentrant: bool,
    },
    Convert {
        lock: usize,
        session: u64,
        mode: Mode,
        wait: bool,
    },
    Together {
        locks: BTreeMap<usize, Mode>,
        session: u64,
        wait: bool,
        private: bool,
    },
    /// With the token of the hold, with another, or with none.
    Release(usize, u64, Option<bool>),
    Withdraw(usize, u64),
    Transfer(usize, u64, u64),
    Break(usize, &'static str),
    Configure(usize, Config),
    Wait(u64),
    /// These run out in one entry.
    Expire(Vec<u64>),
    /// These are closed in one transaction.
    Close(Vec<u64>),
    Compact,
    Restart,
}

/// What becomes of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    Done,
    Refused,
    WouldDeadlock,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    pub session: u64,
    pub mode: Mode,
    pub owner: &'static str,
    pub token: u64,
    pub ordinal: u64,
    pub count: u64,
    pub overdue: bool,
    since: u64,
    overdue_at: Option<u64>,
    lock_delay: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wait {
    pub session: u64,
    pub mode: Mode,
    pub owner: &'static str,
    /// Of a claim on several locks, all of them.
    pub together: Vec<usize>,
    converts: bool,
}

#[derive(Debug, Clone)]
pub struct Line {
    /// In the order of the grants.
    pub holders: Vec<Hold>,
    pub waiters: Vec<Wait>,
    pub config: Config,
    pub closed: Option<u64>,
    granted: u64,
}

#[derive(Debug, Clone)]
pub struct Model {
    /// Alive: whether private, and the delay asked for.
    pub sessions: BTreeMap<u64, (bool, u64)>,
    pub lines: [Line; 3],
    pub now: u64,
    revision: u64,
}

impl Line {
    fn new() -> Self {
        let config = Config::default();
        Self { holders: Vec::new(), waiters: Vec::new(), config, closed: None, granted: 0 }
    }

    pub fn hold(&self, session: u64) -> Option<&Hold> {
        self.holders.iter().find(|hold| hold.session == session)
    }

    pub fn wait(&self, session: u64) -> Option<&Wait> {
        self.waiters.iter().find(|wait| wait.session == session)
    }

    pub fn has(&self, session: u64) -> bool {
        self.hold(session).is_some() || self.wait(session).is_some()
    }

    pub fn is_idle(&self) -> bool {
        self.holders.is_empty() && self.waiters.is_empty()
    }

    fn admits(&self, mode: Mode) -> bool {
        self.holders.iter().all(|hold| hold.mode == Mode::Shared && mode == Mode::Shared)
    }

    /// The first in line may hold now, as far as this lock is concerned.
    fn admits_first(&self, session: u64, revision: u64) -> bool {
        let Some(first) = self.waiters.first().filter(|first| first.session == session) else { return false };
        let alone = |hold: &Hold| self.holders.len() == 1 && hold.session == session && hold.token < revision;
        self.closed.is_none()
            && if first.converts { self.holders.first().is_some_and(alone) } else { self.admits(first.mode) }
    }

    fn close(&mut self, until: u64, now: u64) {
        if until > now {
            self.closed = self.closed.max(Some(until));
        }
    }

    /// The hold of a session is over by itself, and what it wished for with it.
    fn end(&mut self, session: u64, now: u64, expired: bool) {
        if let Some(hold) = self.take(session) {
            if expired {
                self.close(now + hold.lock_delay.max(self.config.lock_delay.0), now);
            }
            if hold.mode == Mode::Exclusive {
                self.close(hold.since + self.config.min_hold.0, now);
            }
        }
    }

    fn take(&mut self, session: u64) -> Option<Hold> {
        let at = self.holders.iter().position(|hold| hold.session == session)?;
        self.waiters.retain(|wait| wait.session != session);
        Some(self.holders.remove(at))
    }
}

impl Model {
    pub fn new() -> Self {
        Self { sessions: BTreeMap::new(), lines: std::array::from_fn(|_| Line::new()), now: 1, revision: 0 }
    }

    /// Do a step in an entry of this revision.
    pub fn step(&mut self, step: &Step, revision: u64) -> Verdict {
        self.revision = revision;
        let before = self.clone();
        let done = self.accept(step);
        self.advance();
        if !done || self.is_stuck() {
            *self = before;
            return if done { Verdict::WouldDeadlock } else { Verdict::Refused };
        }
        let lines = &mut self.lines;
        self.sessions.retain(|id, (private, _)| !*private || lines.iter().any(|line| line.has(*id)));
        lines.iter_mut().filter(|line| line.is_idle()).for_each(|line| line.granted = 0);
        Verdict::Done
    }

    /// Let everybody who waits for nothing give back everything: some never get their turn.
    pub fn is_stuck(&self) -> bool {
        let mut model = Self { revision: u64::MAX, ..self.clone() };
        loop {
            for line in &mut model.lines {
                (line.closed, line.config) = (None, Config::default());
            }
            model.advance();
            let waiting: BTreeSet<u64> =
                model.lines.iter().flat_map(|line| line.waiters.iter().map(|wait| wait.session)).collect();
            let holding = model.lines.iter().flat_map(|line| line.holders.iter().map(|hold| hold.session));
            let free: BTreeSet<u64> = holding.filter(|session| !waiting.contains(session)).collect();
            if free.is_empty() {
                return !waiting.is_empty();
            }
            model.lines.iter_mut().for_each(|line| line.holders.retain(|hold| !free.contains(&hold.session)));
        }
    }

    /// Whether each of these waits for the next, and the last for the first, once the step is done.
    pub fn would_be_a_cycle(&self, step: &Step, cycle: &[Link]) -> bool {
        let mut after = self.clone();
        after.accept(step);
        after.advance();
        let next = cycle.iter().cycle().skip(1);
        cycle.len() > 1
            && cycle.iter().zip(next).all(|(link, next)| {
                let Some(lock) = LOCKS.iter().position(|name| **name == *link.lock) else { return false };
                let line = &after.lines[lock];
                let ahead = line.waiters.iter().take_while(|wait| wait.session != link.session.0);
                let before = line.hold(next.session.0).is_some()
                    || ahead.into_iter().any(|wait| wait.session == next.session.0);
                line.wait(link.session.0).is_some() && before
            })
    }

    fn accept(&mut self, step: &Step) -> bool {
        match step {
            Step::Open(session, lock_delay) => {
                let fresh = !self.sessions.contains_key(session);
                self.sessions.entry(*session).or_insert((false, *lock_delay));
                fresh
            }
            Step::Acquire { lock, session, mode, owner, wait, private, reentrant } => {
                let line = &mut self.lines[*lock];
                if let Some(hold) = line.holders.iter_mut().find(|hold| hold.session == *session) {
                    hold.count += u64::from(*reentrant);
                    return hold.mode == *mode && (!reentrant || hold.owner == *owner);
                }
                if let Some(wait) = line.wait(*session) {
                    return wait.mode == *mode && wait.together.is_empty();
                }
                let (session, owner, mode, together) = (*session, *owner, *mode, Vec::new());
                self.join(
                    &[*lock],
                    |_| Wait { session, mode, owner, together: together.clone(), converts: false },
                    *wait,
                ) && self.attach(session, *private)
            }
            Step::Convert { lock, session, mode, wait } => self.convert(*lock, *session, *mode, *wait),
            Step::Together { locks, session, wait, private } => {
                let all: Vec<usize> = locks.keys().copied().collect();
                let same = locks.iter().filter(|(lock, mode)| {
                    let line = &self.lines[**lock];
                    let is_it = |wait: &Wait| wait.mode == **mode && wait.together == all;
                    line.hold(*session)
                        .map_or_else(|| line.wait(*session).is_some_and(is_it), |hold| hold.mode == **mode)
                });
                let same = same.count();
                if all.iter().any(|lock| self.lines[*lock].has(*session)) {
                    return same == all.len();
                }
                let (session, owner) = (*session, "");
                let claim = |lock: usize| Wait {
                    session,
                    mode: locks[&lock],
                    owner,
                    together: all.clone(),
                    converts: false,
                };
                self.join(&all, claim, *wait) && self.attach(session, *private)
            }
            Step::Release(lock, session, token) => {
                let (now, line) = (self.now, &mut self.lines[*lock]);
                match line.holders.iter_mut().find(|hold| hold.session == *session) {
                    Some(_) if *token == Some(false) => return false,
                    Some(hold) if hold.count > 1 => hold.count -= 1,
                    Some(_) => line.end(*session, now, false),
                    None => return token.is_none() && self.leave(*lock, *session),
                }
                true
            }
            Step::Withdraw(lock, session) => {
                self.leave(*lock, *session);
                true
            }
            Step::Transfer(lock, from, to) => self.transfer(*lock, *from, *to),
            Step::Break(lock, _) => {
                let line = &mut self.lines[*lock];
                let held: Vec<u64> = line.holders.iter().map(|hold| hold.session).collect();
                for session in &held {
                    line.take(*session);
                }
                !held.is_empty()
            }
            Step::Configure(lock, config) => {
                self.lines[*lock].config = *config;
                true
            }
            Step::Wait(millis) => {
                self.now += millis;
                for line in &mut self.lines {
                    line.closed = line.closed.filter(|until| *until > self.now);
                    for hold in &mut line.holders {
                        hold.overdue |= hold.overdue_at.is_some_and(|at| at <= self.now);
                    }
                }
                true
            }
            Step::Expire(sessions) => {
                self.end(sessions, true);
                true
            }
            Step::Close(sessions) => {
                let distinct: BTreeSet<_> = sessions.iter().collect();
                let all = sessions.iter().all(|session| self.sessions.contains_key(session));
                self.end(sessions, false);
                all && distinct.len() == sessions.len()
            }
            Step::Compact | Step::Restart => true,
        }
    }

    /// Stand in these lines; without waiting only if each is free.
    fn join(&mut self, locks: &[usize], claim: impl Fn(usize) -> Wait, wait: bool) -> bool {
        let free = |lock: &usize| {
            let line = &self.lines[*lock];
            line.waiters.is_empty() && line.closed.is_none() && line.admits(claim(*lock).mode)
        };
        let taken = wait || locks.iter().all(free);
        for lock in locks {
            self.lines[*lock].waiters.push(claim(*lock));
        }
        taken
    }

    fn attach(&mut self, session: u64, private: bool) -> bool {
        let alive = self.sessions.contains_key(&session);
        self.sessions.entry(session).or_insert((private, 0));
        alive != private
    }

    fn leave(&mut self, lock: usize, session: u64) -> bool {
        let Some(wait) = self.lines[lock].wait(session).cloned() else { return false };
        for other in wait.together.iter().chain([&lock]) {
            self.lines[*other].waiters.retain(|wait| wait.session != session);
        }
        true
    }

    fn convert(&mut self, lock: usize, session: u64, mode: Mode, wait: bool) -> bool {
        let line = &mut self.lines[lock];
        let Some(hold) = line.hold(session).cloned() else { return false };
        if hold.mode == mode || line.wait(session).is_some() {
            return hold.mode == mode || mode == Mode::Exclusive;
        }
        if mode == Mode::Shared {
            line.holders.iter_mut().for_each(|hold| hold.mode = mode);
            return true;
        }
        let converts = true;
        let claim = Wait { session, mode, owner: hold.owner, together: Vec::new(), converts };
        if line.holders.len() == 1 {
            self.grant(lock, &claim);
            return true;
        }
        // Two of them would wait for each other.
        let first = !line.waiters.first().is_some_and(|first| first.converts);
        line.waiters.insert(0, claim);
        first && wait
    }

    fn transfer(&mut self, lock: usize, from: u64, to: u64) -> bool {
        let line = &mut self.lines[lock];
        let Some(hold) = line.hold(from).cloned() else { return false };
        let place = line.wait(to).cloned();
        let fits = place.as_ref().is_none_or(|wait| wait.mode == hold.mode && wait.together.is_empty());
        if line.hold(to).is_some() || !fits || !self.sessions.contains_key(&to) {
            return false;
        }
        line.take(from);
        line.waiters.retain(|wait| wait.session != to);
        let owner = place.map_or("", |wait| wait.owner);
        let claim = Wait { session: to, mode: hold.mode, owner, together: Vec::new(), converts: false };
        self.grant(lock, &claim);
        true
    }

    fn end(&mut self, sessions: &[u64], expired: bool) {
        for session in sessions.iter().filter(|session| self.sessions.remove(session).is_some()) {
            for line in &mut self.lines {
                line.end(*session, self.now, expired);
                line.waiters.retain(|wait| wait.session != *session);
            }
        }
    }

    fn grant(&mut self, lock: usize, claim: &Wait) {
        let Wait { session, mode, owner, .. } = *claim;
        let lock_delay = self.sessions.get(&session).map_or(0, |(_, delay)| *delay);
        let line = &mut self.lines[lock];
        line.waiters.retain(|wait| wait.session != session);
        let was = line.take(session);
        let longest = line.config.max_hold.0;
        line.holders.push(Hold {
            session,
            mode,
            owner,
            token: self.revision,
            ordinal: line.granted,
            count: was.map_or(1, |hold| hold.count),
            overdue: false,
            since: self.now,
            overdue_at: (longest > 0).then(|| self.now + longest),
            lock_delay,
        });
        line.granted += 1;
    }

    /// The rule in one sentence: while the first in line may hold, in all the lines it stands in together, it does.
    fn advance(&mut self) {
        let granted = |model: &mut Self, lock: usize| {
            let Some(first) = model.lines[lock].waiters.first().cloned() else { return false };
            let all = if first.together.is_empty() { vec![lock] } else { first.together };
            let may = all.iter().all(|lock| model.lines[*lock].admits_first(first.session, model.revision));
            for lock in all.iter().filter(|_| may) {
                let claim = model.lines[*lock].waiters[0].clone();
                model.grant(*lock, &claim);
            }
            may
        };
        while (0..LOCKS.len()).any(|lock| granted(self, lock)) {}
    }
}
