//! Elections: one leader at a time, candidates in line behind it, a token for each term.
//!
//! The claims are a [`crate::line`]: the hold is the leader's, the waiters are the candidates, of higher priority first,
//! then in the order of their arrival. A leader stays whoever arrives. Beside the claims there is, after the name:
//!
//! | key | value | |
//! |---|---|---|
//! | `l` | the [`Leader`] | as long as somebody leads; its end is the news that nobody does |
//!
//! So what observers follow is one key, whatever the candidates do, and a vacancy is an event like any other. What a
//! candidate would say as the leader is in its claim.

use std::collections::BTreeMap;
use std::sync::Arc;

use coracle_store::command::Attach;
use coracle_store::limits::{KEY_OVERHEAD, NAME_BYTES};
use coracle_store::{
    Cause, ContentType, Event, Family, Key, Principal, Record, Refusal as StoreRefusal, Revision, Selection,
    SessionId, Timestamp, Txn, Value, View,
};
use minicbor::{Decode, Encode};

use crate::line::{self, Claimed, Line, Part, Terms, Waiter, decoded};
use crate::{Described, bounded, names, row};

pub use crate::line::WAITERS;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Campaign(#[n(0)] Campaign),
    /// Say something else as the leader. Needs the token: a leader of the past says nothing.
    #[n(1)]
    Proclaim(#[n(0)] Claim, #[n(1)] Value, #[n(2)] ContentType),
    /// Stop leading, or leave the line. True: and stand again, behind all others of the same priority.
    #[n(2)]
    Resign(#[n(0)] Claim, #[n(1)] bool),
    /// Leave the line if still a candidate; nothing if leading or gone.
    #[n(3)]
    Withdraw(#[n(0)] Claim),
    /// Make another living session the leader.
    #[n(4)]
    Transfer(#[n(0)] Claim, #[n(1)] SessionId),
}

/// One session's claim on leadership.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    #[n(0)]
    pub election: Box<str>,
    #[n(1)]
    pub session: SessionId,
    /// If given, the token must be that of the session's term.
    #[n(2)]
    pub token: Option<Revision>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Campaign {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub election: Box<str>,
    #[n(1)]
    pub candidacy: Candidacy,
    /// `Session` or `Private`.
    #[n(2)]
    pub attach: Attach,
    #[n(3)]
    pub owner: Box<str>,
    /// Join the line if somebody leads.
    #[n(4)]
    pub wait: bool,
}

/// What somebody stands for.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Candidacy {
    /// Higher first.
    #[n(0)]
    pub priority: u8,
    /// What it says as the leader: at most [`VALUE_BYTES`].
    #[n(1)]
    pub value: Value,
    #[n(2)]
    pub content_type: ContentType,
}

/// Who leads.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Leader {
    #[n(0)]
    pub session: SessionId,
    #[n(1)]
    pub owner: Box<str>,
    /// The revision of the win.
    #[n(2)]
    pub token: Revision,
    /// Log time of the win.
    #[n(3)]
    pub since: Timestamp,
    #[n(4)]
    pub candidacy: Candidacy,
    /// How many led before it since the election was last idle.
    #[n(5)]
    pub ordinal: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// The session leads.
    #[n(0)]
    Elected(#[n(0)] Leader),
    #[n(1)]
    Waiting(#[n(0)] Place),
    /// Who leads after a term or a candidacy ended, if anybody does.
    #[n(2)]
    Resigned(#[n(0)] Option<Leader>),
}

/// A candidate's place. Its blockers are the leader; none in a listed line.
pub type Place = line::Place<Candidacy>;
pub type Turn = crate::Turn<Leader, Place>;

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    /// Somebody leads, and the caller did not want to wait: who, and the number of candidates.
    #[n(0)]
    NotElected(#[n(0)] Leader, #[n(1)] u64),
    /// The session (with that token) does not lead.
    #[n(1)]
    NotLeader,
    /// `If-Held`: the token is not that of the present term; which is, if anybody leads.
    #[n(2)]
    FenceStale(#[n(0)] Option<Revision>),
    /// The session stands or leads with another priority.
    #[n(3)]
    OtherClaim(#[n(0)] u8),
    #[n(4)]
    TooManyWaiters(#[n(0)] u64),
}

/// What an election looks like from outside: the leader, then the candidates in the order in which they would follow.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub leader: Option<Leader>,
    pub candidates: Vec<Place>,
    /// Candidates in all; `candidates` may be cut at the caller's limit.
    pub waiting: usize,
}

/// As in the URL.
pub const NAME: &str = "elections";
/// First byte of every key of an election.
pub const FAMILY: Family = Family(b'e');
/// Bytes of what a leader says. More belongs into a key of its own.
pub const VALUE_BYTES: usize = 64 * 1024;

const LEADER: u8 = b'l';

impl Terms for Candidacy {
    const FAMILY: Family = FAMILY;
}

type Election = Line<Candidacy>;
type Hold = line::Hold<Candidacy>;

/// The turn of a session's claim. For a candidate it costs the way to the nearer end of the line.
#[must_use]
pub fn poll(view: View<'_>, election: &str, session: SessionId) -> Turn {
    let election = Election::new(election);
    match election.claim(view, session) {
        None => Turn::Gone,
        Some(Claimed::Hold(hold)) => Turn::Granted(leads(hold)),
        Some(Claimed::Wait(key, waiter)) => Turn::Waiting(election.place(view, &key, waiter)),
    }
}

/// What the key of each claim begins with, family byte first.
#[must_use]
pub fn prefix(election: &str) -> Vec<u8> {
    Election::new(election).prefix().to_vec()
}

/// Who leads.
#[must_use]
pub fn leader(view: View<'_>, election: &str) -> Option<Leader> {
    view.get(&leader_key(&Election::new(election))).map(|record| decoded(&record.value))
}

/// What the leader says, and the revision at which it last said something.
#[must_use]
pub fn said(view: View<'_>, election: &str) -> Option<(Candidacy, Revision)> {
    let record = view.get(&leader_key(&Election::new(election)))?;
    Some((decoded::<Leader>(&record.value).candidacy, record.mod_revision))
}

/// An election with its first `limit` candidates; vacant without any if there is nothing by that name. The places name
/// no blockers.
#[must_use]
pub fn show(view: View<'_>, name: &str, limit: usize) -> Shown {
    let election = Election::new(name);
    let places = (1..).zip(election.waiters(view).take(limit));
    Shown {
        leader: leader(view, name),
        candidates: places.map(|(position, (_, waiter))| waiter.place(position, Vec::new())).collect(),
        waiting: usize::try_from(election.counts(view).waiting).unwrap_or(usize::MAX),
    }
}

/// Names of elections that somebody leads, that start with `prefix`, after `after`, at most `limit`.
#[must_use]
pub fn names(view: View<'_>, prefix: &str, after: Option<&str>, limit: usize) -> Vec<String> {
    names::list(view, FAMILY, prefix, after, limit)
}

/// Who leads after an event, if the event says who: `Some(None)` of a vacancy.
#[must_use]
pub fn led(event: &Event) -> Option<Option<Leader>> {
    let (_, _, part) = Election::of(&event.key)?;
    (part == Part::Other(LEADER)).then(|| event.record.as_ref().map(|record| decoded(&record.value)))
}

pub(crate) fn apply(txn: &mut Txn<'_>, _: &Principal, operation: Operation) -> Result<Outcome, StoreRefusal> {
    match operation {
        Operation::Campaign(campaign) => stand(txn, campaign),
        Operation::Proclaim(claim, value, content_type) => proclaim(txn, &claim, value, content_type),
        Operation::Resign(claim, again) => resign(txn, &claim, again),
        Operation::Withdraw(claim) => Ok(withdraw(txn, &claim)),
        Operation::Transfer(claim, to) => transfer(txn, &claim, to),
    }
}

/// Whether the token is that of the present term.
pub(crate) fn check(view: View<'_>, name: &str, token: Revision) -> Result<(), StoreRefusal> {
    match leader(view, name).map(|leader| leader.token) {
        Some(current) if current == token => Ok(()),
        current => Err(Refusal::FenceStale(current).into()),
    }
}

pub(crate) fn released(txn: &mut Txn<'_>, gone: &[&(Key, Arc<Record>)], _: Cause) {
    let mut elections: BTreeMap<String, (Election, u64)> = BTreeMap::new();
    for (election, name, part) in gone.iter().filter_map(|(key, _)| Election::of(key)) {
        let (_, candidates) = elections.entry(name).or_insert((election, 0));
        *candidates += u64::from(part == Part::Wait);
    }
    for (election, candidates) in elections.into_values() {
        election.left(txn, candidates, 0);
        advance(txn, &election);
    }
}

pub(crate) fn due(_: &mut Txn<'_>, _: &[u8]) {}

/// Everything but a candidacy or another value makes the line shorter, or moves the lead.
pub(crate) fn drains(operation: &Operation) -> bool {
    !matches!(operation, Operation::Campaign(_) | Operation::Proclaim(..))
}

/// `elected`, `proclaimed`, `vacant`; of the claims: `leading`, `resigned`, `expired`; `waiting`, `left`, `expired`.
pub(crate) fn describe(event: &Event) -> Option<Described> {
    let (_, name, part) = Election::of(&event.key)?;
    let claim = |op, token| {
        let session = event.record.as_ref().or(event.previous.as_ref())?.session;
        Some(Described { family: NAME, op, name: name.clone(), item: None, session, token })
    };
    match (part, &event.record, event.cause) {
        (Part::Hold(_), Some(_), _) if event.previous.is_some() => None,
        (Part::Hold(token), Some(_), _) => claim("leading", Some(token)),
        (Part::Hold(token), None, Cause::SessionExpired) => claim("expired", Some(token)),
        (Part::Hold(token), None, _) => claim("resigned", Some(token)),
        (Part::Wait, Some(_), _) => claim("waiting", None),
        (Part::Wait, None, Cause::SessionExpired) => claim("expired", None),
        (Part::Wait, None, _) => claim("left", None),
        (Part::Other(LEADER), record, _) => {
            let was = event.previous.as_ref().map(|record| decoded::<Leader>(&record.value));
            let is = record.as_ref().map(|record| decoded::<Leader>(&record.value));
            let op = match (&was, &is) {
                (Some(was), Some(is)) if was.token == is.token => "proclaimed",
                (_, Some(_)) => "elected",
                (_, None) => "vacant",
            };
            let (session, token) = (is.as_ref().map(|is| is.session), is.as_ref().map(|is| is.token));
            Some(Described { family: NAME, op, name: name.clone(), item: None, session, token })
        }
        (Part::Other(_), ..) => None,
    }
}

pub(crate) fn selection(name: &str) -> Selection {
    Selection::Prefix(prefix(name))
}

fn leader_key(election: &Election) -> Key {
    election.part(LEADER)
}

/// Higher priority sorts first.
fn rank(candidacy: &Candidacy) -> u8 {
    u8::MAX - candidacy.priority
}

fn leads(hold: Hold) -> Leader {
    let Hold { session, owner, terms, token, since, ordinal, .. } = hold;
    Leader { session, owner, token, since, candidacy: terms, ordinal }
}

fn stand(txn: &mut Txn<'_>, campaign: Campaign) -> Result<Outcome, StoreRefusal> {
    let Campaign { election: name, candidacy, attach, owner, wait } = campaign;
    bounded("election", name.len(), 1, NAME_BYTES)?;
    bounded("owner", owner.len(), 0, NAME_BYTES)?;
    bounded("value", candidacy.value.len(), 0, VALUE_BYTES)?;
    let session = match &attach {
        Attach::Session(id) => *id,
        Attach::Private(open) => open.id,
        Attach::None | Attach::Keep => return Err(StoreRefusal::Malformed),
    };
    let (election, view) = (Election::new(&name), txn.view());
    // Asking again is the same candidacy; what a leader says it changes by proclaiming.
    match election.claim(view, session) {
        Some(claimed) if claimed.terms().priority != candidacy.priority => {
            return Err(Refusal::OtherClaim(claimed.terms().priority).into());
        }
        Some(Claimed::Hold(hold)) => return Ok(Outcome::Elected(leads(hold))),
        Some(Claimed::Wait(key, waiter)) => {
            return Ok(Outcome::Waiting(bare(election.place(view, &key, waiter))));
        }
        None => {}
    }
    if matches!(attach, Attach::Session(_)) && view.session(session).is_none() {
        return Err(StoreRefusal::SessionExpired(session));
    }
    let mut counts = election.counts(view);
    let leader = leader(view, &name);
    if let Some(leader) = leader.as_ref().filter(|_| !wait) {
        return Err(Refusal::NotElected(silent(leader.clone()), counts.waiting).into());
    }
    if leader.is_some() && counts.waiting >= WAITERS {
        return Err(Refusal::TooManyWaiters(WAITERS).into());
    }
    txn.attach(&attach, None)?;
    let size = KEY_OVERHEAD + 64 + name.len() + owner.len() + candidacy.value.len();
    // The claim, and the public record or the counts.
    txn.make_room(2 * size)?;
    let rank = rank(&candidacy);
    let (since, meta) = (txn.now(), "".into());
    let waiter = Waiter { session, owner, terms: candidacy, since, meta, together: Vec::new() };
    if leader.is_none() {
        return Ok(Outcome::Elected(elect(txn, &election, waiter)));
    }
    election.join(txn, &mut counts, &waiter, rank);
    election.set_counts(txn, counts);
    let view = txn.view();
    let (key, waiter) = election.waiter(view, session).ok_or(StoreRefusal::Malformed)?;
    Ok(Outcome::Waiting(bare(election.place(view, &key, waiter))))
}

/// A place as it is answered: what others would say is not.
fn bare(mut place: Place) -> Place {
    place.terms.value = Value::from(&[][..]);
    place.blockers.iter_mut().for_each(|hold| hold.terms.value = Value::from(&[][..]));
    place
}

fn silent(mut leader: Leader) -> Leader {
    leader.candidacy.value = Value::from(&[][..]);
    leader
}

/// Make it the leader now, and tell.
fn elect(txn: &mut Txn<'_>, election: &Election, waiter: Waiter<Candidacy>) -> Leader {
    let mut counts = election.counts(txn.view());
    let leader = leads(election.grant(txn, &mut counts, waiter));
    election.set_counts(txn, counts);
    txn.put(leader_key(election), row(&leader), ContentType::Binary, None);
    leader
}

/// If nobody leads: elect the first candidate, or tell of the vacancy. Answers who leads.
fn advance(txn: &mut Txn<'_>, election: &Election) -> Option<Leader> {
    if let Some((_, hold)) = election.holds(txn.view()).next() {
        return Some(leads(hold));
    }
    let head = election.waiters(txn.view()).next().map(|(key, waiter)| (key.clone(), waiter));
    let Some((key, waiter)) = head else {
        txn.delete(&leader_key(election), Cause::Command);
        election.tidy(txn);
        return None;
    };
    leave(txn, election, &key);
    Some(elect(txn, election, waiter))
}

fn leave(txn: &mut Txn<'_>, election: &Election, key: &Key) {
    let mut counts = election.counts(txn.view());
    election.leave(txn, &mut counts, key);
    election.set_counts(txn, counts);
}

/// The term of the claim's session.
fn term(view: View<'_>, election: &Election, claim: &Claim) -> Result<Hold, StoreRefusal> {
    match election.claim(view, claim.session) {
        Some(Claimed::Hold(hold)) if claim.token.is_none_or(|token| token == hold.token) => Ok(hold),
        _ => Err(Refusal::NotLeader.into()),
    }
}

fn end(txn: &mut Txn<'_>, election: &Election, hold: &Hold) -> Result<(), StoreRefusal> {
    let mut counts = election.counts(txn.view());
    election.end(txn, &mut counts, hold, Cause::Command)?;
    election.set_counts(txn, counts);
    Ok(())
}

fn proclaim(
    txn: &mut Txn<'_>,
    claim: &Claim,
    value: Value,
    content_type: ContentType,
) -> Result<Outcome, StoreRefusal> {
    bounded("value", value.len(), 0, VALUE_BYTES)?;
    let election = Election::new(&claim.election);
    let mut hold = term(txn.view(), &election, claim)?;
    txn.make_room(2 * value.len().saturating_sub(hold.terms.value.len()))?;
    (hold.terms.value, hold.terms.content_type) = (value, content_type);
    election.set_hold(txn, &hold);
    let leader = leads(hold);
    txn.put(leader_key(&election), row(&leader), ContentType::Binary, None);
    Ok(Outcome::Elected(silent(leader)))
}

fn resign(txn: &mut Txn<'_>, claim: &Claim, again: bool) -> Result<Outcome, StoreRefusal> {
    let election = Election::new(&claim.election);
    if let Some(Claimed::Wait(..)) = election.claim(txn.view(), claim.session)
        && claim.token.is_none()
    {
        return Ok(withdraw(txn, claim));
    }
    let hold = term(txn.view(), &election, claim)?;
    end(txn, &election, &hold)?;
    let Hold { session, owner, terms, meta, .. } = hold;
    let waiter = Waiter { session, owner, terms, since: txn.now(), meta, together: Vec::new() };
    // First the others, then itself: at the tail.
    let others = election.waiters(txn.view()).next().is_some();
    let successor = match (others, again) {
        (false, true) => Some(elect(txn, &election, waiter)),
        (_, false) => advance(txn, &election),
        (true, true) => {
            let successor = advance(txn, &election);
            let mut counts = election.counts(txn.view());
            let rank = rank(&waiter.terms);
            election.join(txn, &mut counts, &waiter, rank);
            election.set_counts(txn, counts);
            successor
        }
    };
    Ok(Outcome::Resigned(successor.map(silent)))
}

fn withdraw(txn: &mut Txn<'_>, claim: &Claim) -> Outcome {
    let election = Election::new(&claim.election);
    if let Some((key, _)) = election.waiter(txn.view(), claim.session) {
        leave(txn, &election, &key);
    }
    Outcome::Resigned(leader(txn.view(), &claim.election).map(silent))
}

/// A candidate leads with what it said as one; somebody else with what the leader said, under its session's name.
fn transfer(txn: &mut Txn<'_>, claim: &Claim, to: SessionId) -> Result<Outcome, StoreRefusal> {
    let (election, view) = (Election::new(&claim.election), txn.view());
    let hold = term(view, &election, claim)?;
    let owner = view.session(to).ok_or(StoreRefusal::SessionExpired(to))?.name.clone();
    let (terms, meta, since) = (hold.terms.clone(), hold.meta.clone(), txn.now());
    let waiter = match election.claim(view, to) {
        None => Waiter { session: to, owner, terms, since, meta, together: Vec::new() },
        Some(Claimed::Hold(own)) => return Ok(Outcome::Elected(silent(leads(own)))),
        Some(Claimed::Wait(key, waiter)) => {
            leave(txn, &election, &key);
            waiter
        }
    };
    txn.attach(&Attach::Session(to), None)?;
    end(txn, &election, &hold)?;
    Ok(Outcome::Elected(silent(elect(txn, &election, waiter))))
}
