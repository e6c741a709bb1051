//! ⑦ Whom to call next: the instances of a service, laid out for choosing.
//!
//! A pool follows its service change by change ([`Pool::put`], [`Pool::remove`]) and answers a [`Wish`] from it. All that
//! is not in the instances comes in as data: the cursor, a random number, the time. So the same pool, wish and draw pick
//! the same instances. No strategy looks at all instances; only where many of them are excluded or just starting does a
//! pick fall back to going round.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use coracle_store::{Timestamp, View};

use super::group::Group;
use super::ring::{GOLDEN, mix};
use super::{Filter, Instance, Row, SCALE, Settings, instances, settings};

/// Load of an instance that has not told any, in thousandths.
const UNKNOWN_LOAD: u16 = 500;
/// Tries to find one that is not excluded and not held back, for each one wanted.
const TRIES: usize = 16;

/// An instance to call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    pub id: Box<str>,
    pub instance: Instance,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strategy {
    /// Each in turn. The cursor is the caller's: it is no replicated state.
    RoundRobin,
    /// Any, all with the same chance.
    Random,
    /// In proportion to their weights, and evenly spread at that.
    Weighted,
    /// The less loaded of any two.
    Least,
    /// The same for the same key.
    Sticky,
}

/// What the caller wants.
#[derive(Debug, Clone)]
pub struct Wish {
    pub strategy: Strategy,
    /// For sticky choice.
    pub key: Box<str>,
    /// From this zone if possible, else from any.
    pub zone: Option<Box<str>>,
    /// So many different ones.
    pub count: usize,
    /// None of these.
    pub exclude: BTreeSet<Box<str>>,
}

/// What differs from pick to pick.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    /// From [`Picked::cursor`] of the pick before.
    pub cursor: u64,
    pub random: u64,
    pub now: Timestamp,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Picked {
    /// At most as many as wanted; none if there are none.
    pub candidates: Vec<Arc<Candidate>>,
    /// Too few are well: these are from all that ought to be.
    pub degraded: bool,
    /// For the next pick.
    pub cursor: u64,
}

/// Who may be picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Reach {
    Healthy,
    /// Those that are ejected, too: they are better than none.
    Up,
    /// All that nobody has taken out on purpose.
    Wanted,
}

#[derive(Debug)]
pub struct Pool {
    filter: Filter,
    settings: Settings,
    instances: BTreeMap<Box<str>, Arc<Candidate>>,
    healthy: Tier,
    /// Candidates of a wider reach, while they are needed.
    fallback: Option<(Reach, Tier)>,
    counts: Counts,
}

/// Instances of a pool, whatever their weights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Counts {
    healthy: usize,
    up: usize,
    wanted: usize,
}

impl Counts {
    fn of(instance: &Instance) -> Self {
        Self {
            healthy: instance.is_healthy().into(),
            up: instance.is_up().into(),
            wanted: instance.is_wanted().into(),
        }
    }

    fn add(&mut self, other: Self) {
        self.healthy += other.healthy;
        self.up += other.up;
        self.wanted += other.wanted;
    }

    fn subtract(&mut self, other: Self) {
        self.healthy -= other.healthy;
        self.up -= other.up;
        self.wanted -= other.wanted;
    }
}

/// Candidates, all of them and by zone.
#[derive(Debug, Default)]
struct Tier {
    all: Group,
    zones: BTreeMap<Box<str>, Group>,
}

impl Tier {
    fn insert(&mut self, candidate: &Arc<Candidate>) {
        self.all.insert(candidate);
        let zone = &candidate.instance.description.zone;
        if !zone.is_empty() {
            self.zones.entry(zone.clone()).or_default().insert(candidate);
        }
    }

    fn remove(&mut self, candidate: &Candidate) {
        self.all.remove(&candidate.id);
        let zone = &candidate.instance.description.zone;
        if let Some(group) = self.zones.get_mut(zone) {
            group.remove(&candidate.id);
            if group.is_empty() {
                self.zones.remove(zone);
            }
        }
    }
}

impl Pool {
    /// The instances of a service that the filter admits; `filter.healthy` makes no difference.
    #[must_use]
    pub fn of(view: View<'_>, service: &str, filter: Filter) -> Self {
        Self::new(settings(view, service).unwrap_or_default(), instances(view, service, None), filter)
    }

    /// The same from instances that were taken from a view before, so that nobody has to wait for the building.
    pub fn new(settings: Settings, rows: impl IntoIterator<Item = Row>, filter: Filter) -> Self {
        let mut pool = Self {
            filter: Filter { healthy: false, ..filter },
            settings,
            instances: BTreeMap::new(),
            healthy: Tier::default(),
            fallback: None,
            counts: Counts::default(),
        };
        for row in rows {
            let (id, instance) = row.read();
            pool.put(&id, instance);
        }
        pool
    }

    /// Instances admitted by the filter.
    #[must_use]
    pub fn len(&self) -> usize {
        self.instances.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.instances.is_empty()
    }

    /// The service has other settings.
    pub fn configure(&mut self, settings: Settings) {
        self.settings = settings;
        self.fallback = None;
    }

    /// An instance is new, or has changed.
    pub fn put(&mut self, id: &str, instance: Instance) {
        if !self.filter.admits(&instance) {
            self.remove(id);
            return;
        }
        let candidate = Arc::new(Candidate { id: id.into(), instance });
        let was = self.instances.insert(candidate.id.clone(), candidate.clone());
        if let Some(was) = &was {
            self.counts.subtract(Counts::of(&was.instance));
            let same_zone = was.instance.description.zone == candidate.instance.description.zone;
            if !candidate.instance.is_healthy() || !same_zone {
                self.healthy.remove(was);
            }
        }
        self.counts.add(Counts::of(&candidate.instance));
        if candidate.instance.is_healthy() {
            self.healthy.insert(&candidate);
        }
        if let Some((reach, tier)) = &mut self.fallback {
            if let Some(was) = &was {
                tier.remove(was);
            }
            if reach.includes(&candidate.instance) {
                tier.insert(&candidate);
            }
        }
    }

    /// An instance is gone.
    pub fn remove(&mut self, id: &str) {
        let Some(was) = self.instances.remove(id) else { return };
        self.counts.subtract(Counts::of(&was.instance));
        self.healthy.remove(&was);
        if let Some((_, tier)) = &mut self.fallback {
            tier.remove(&was);
        }
    }

    /// Choose.
    pub fn pick(&mut self, wish: &Wish, draw: Draw) -> Picked {
        let reach = self.reach();
        if reach != Reach::Healthy && self.fallback.as_ref().is_none_or(|(kind, _)| *kind != reach) {
            let mut tier = Tier::default();
            self.instances.values().filter(|c| reach.includes(&c.instance)).for_each(|c| tier.insert(c));
            self.fallback = Some((reach, tier));
        }
        let tier = match &mut self.fallback {
            Some((kind, tier)) if *kind == reach => tier,
            _ => {
                self.fallback = None;
                &mut self.healthy
            }
        };
        let mut choosing = Choosing {
            wish,
            draw,
            slow_start: self.settings.slow_start.0,
            used: 0,
            taken: BTreeSet::new(),
            candidates: Vec::new(),
        };
        if let Some(group) = wish.zone.as_ref().and_then(|zone| tier.zones.get_mut(zone)) {
            choosing.from(group);
        }
        choosing.from(&mut tier.all);
        Picked {
            candidates: choosing.candidates,
            degraded: reach != Reach::Healthy,
            cursor: draw.cursor.wrapping_add(choosing.used.max(1)),
        }
    }

    fn reach(&self) -> Reach {
        let Counts { healthy, up, wanted } = self.counts;
        if protects(&self.settings, healthy, wanted) {
            Reach::Wanted
        } else if healthy == 0 && up > 0 {
            Reach::Up
        } else {
            Reach::Healthy
        }
    }
}

/// Whether so few are well that all shall be returned.
#[must_use]
pub fn protects(settings: &Settings, healthy: usize, wanted: usize) -> bool {
    healthy.saturating_mul(SCALE.into()) < wanted.saturating_mul(settings.protect.into())
}

impl Reach {
    fn includes(self, instance: &Instance) -> bool {
        match self {
            Self::Healthy => instance.is_healthy(),
            Self::Up => instance.is_up(),
            Self::Wanted => instance.is_wanted(),
        }
    }
}

/// One pick under way.
struct Choosing<'a> {
    wish: &'a Wish,
    draw: Draw,
    slow_start: u64,
    /// How far the cursor goes: up to what was taken, so that what was passed over does not count as a turn.
    used: u64,
    taken: BTreeSet<Box<str>>,
    candidates: Vec<Arc<Candidate>>,
}

impl Choosing<'_> {
    /// Fill up from a group.
    fn from(&mut self, group: &mut Group) {
        let missing = self.missing();
        if missing == 0 || group.is_empty() {
            return;
        }
        if self.wish.strategy == Strategy::Sticky {
            let without = self.taken.union(&self.wish.exclude).cloned().collect();
            for candidate in group.ring().order(&self.wish.key, missing, &without) {
                self.take(&candidate);
            }
            return;
        }
        let mut held_back = Vec::new();
        // All of a group that is no larger than what is wanted, in turn.
        let tries = if group.len() > missing { (TRIES * missing) as u64 } else { 0 };
        for number in 0..tries {
            if self.missing() == 0 {
                return;
            }
            let candidate = group.member(self.place(group, number));
            if self.unusable(candidate) {
                continue;
            }
            if self.holds_back(candidate, number) {
                held_back.push(candidate.clone());
                continue;
            }
            self.take(&candidate.clone());
            self.used = self.used.max(number + 1);
        }
        // Better one that is just starting than none.
        for candidate in held_back {
            if self.missing() > 0 && !self.unusable(&candidate) {
                self.take(&candidate);
            }
        }
        let start = match self.wish.strategy {
            Strategy::RoundRobin => self.place(group, 0),
            _ => self.scaled(mix(self.draw.random), group.len()),
        };
        for place in (start..group.len()).chain(0..start) {
            if self.missing() == 0 {
                return;
            }
            let candidate = group.member(place).clone();
            if !self.unusable(&candidate) {
                self.take(&candidate);
            }
        }
    }

    /// The n-th place to look at.
    fn place(&self, group: &Group, n: u64) -> usize {
        let turn = self.draw.cursor.wrapping_add(n);
        let random = |part: u64| mix(self.draw.random.wrapping_add((2 * n + part).wrapping_mul(GOLDEN)));
        match self.wish.strategy {
            Strategy::RoundRobin => usize::try_from(turn % group.len() as u64).unwrap_or(0),
            Strategy::Random | Strategy::Sticky => self.scaled(random(0), group.len()),
            // Multiples of the golden ratio fall evenly into every part of the whole, however few they are.
            Strategy::Weighted => {
                let point = u128::from(turn.wrapping_mul(GOLDEN)) * u128::from(group.shares().total());
                group.shares().at(u64::try_from(point >> 64).unwrap_or(0))
            }
            Strategy::Least => {
                let one = self.scaled(random(0), group.len());
                // Another one, if there is one.
                let step = 1 + self.scaled(random(1), (group.len() - 1).max(1));
                let two = (one + step) % group.len();
                let load = |place: usize| {
                    let candidate = group.member(place);
                    (self.unusable(candidate), candidate.instance.load.unwrap_or(UNKNOWN_LOAD))
                };
                if load(two) < load(one) { two } else { one }
            }
        }
    }

    #[allow(clippy::unused_self, reason = "reads as the others do")]
    fn scaled(&self, random: u64, length: usize) -> usize {
        usize::try_from((u128::from(random) * length as u128) >> 64).unwrap_or(0)
    }

    fn missing(&self) -> usize {
        self.wish.count.saturating_sub(self.candidates.len())
    }

    fn unusable(&self, candidate: &Candidate) -> bool {
        self.wish.exclude.contains(&candidate.id) || self.taken.contains(&candidate.id)
    }

    /// Slow start: at first a tenth of what comes its way, then more, after the whole time all of it.
    fn holds_back(&self, candidate: &Candidate, n: u64) -> bool {
        let Some(since) = candidate.instance.up_since.filter(|_| self.slow_start > 0) else { return false };
        let age = self.draw.now.since(since).0.max(self.slow_start / 10);
        age < self.slow_start && mix(self.draw.random ^ n.wrapping_mul(GOLDEN)) % self.slow_start >= age
    }

    fn take(&mut self, candidate: &Arc<Candidate>) {
        self.taken.insert(candidate.id.clone());
        self.candidates.push(candidate.clone());
    }
}
