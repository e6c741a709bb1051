//! What a barrier is asked, and what it answers.

use coracle_store::command::Attach;
use coracle_store::{Millis, SessionId, Timestamp};
use minicbor::{Decode, Encode};

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Operation {
    #[n(0)]
    Create(#[n(0)] Create),
    #[n(1)]
    Enter(#[n(0)] Enter),
    /// Of a double barrier: be out. Of one that waits: step out of the line, which breaks a cyclic barrier.
    #[n(2)]
    Leave(#[n(0)] Claim),
    /// Step out of the line if still waiting; nothing otherwise. Sent by the edge when a caller that did not ask to
    /// keep its place went away or ran out of time.
    #[n(3)]
    Withdraw(#[n(0)] Claim),
    /// Open (true) or close a gate; one that is not there is made.
    #[n(4)]
    Turn(#[n(0)] Box<str>, #[n(1)] bool),
    /// Forget the barrier. It breaks for those who wait.
    #[n(5)]
    Delete(#[n(0)] Box<str>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    #[n(0)]
    Gate,
    #[n(1)]
    Cyclic,
    #[n(2)]
    Double,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
pub struct Config {
    #[n(0)]
    pub kind: Kind,
    /// How many have to come: 1..=[`super::PARTIES`]; 0 for a gate.
    #[n(1)]
    pub parties: u64,
    /// Of a double barrier: who comes when all are inside waits for the next time.
    #[n(2)]
    pub exact: bool,
    /// Of a cyclic barrier: it breaks so long after the first has come.
    #[n(3)]
    pub timeout: Option<Millis>,
}

/// Make a barrier, or configure one that nobody is at.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Create {
    /// 1..=512 bytes of UTF-8.
    #[n(0)]
    pub barrier: Box<str>,
    #[n(1)]
    pub config: Config,
    /// Only these may come, as many as there are parties; in order and without repetition.
    #[n(2)]
    pub members: Vec<Box<str>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Enter {
    #[n(0)]
    pub barrier: Box<str>,
    /// Who comes, once a generation: 1..=512 bytes.
    #[n(1)]
    pub id: Box<str>,
    /// `Session`, `Private`, or `None` for an arrival that nobody's end takes back.
    #[n(2)]
    pub attach: Attach,
    /// Wait if it is not the last to come. Otherwise the answer is a refusal and nothing changed.
    #[n(3)]
    pub wait: bool,
    /// To ask again: the generation it was told to wait for.
    #[n(4)]
    pub generation: Option<u64>,
}

/// One that came.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Claim {
    #[n(0)]
    pub barrier: Box<str>,
    #[n(1)]
    pub id: Box<str>,
    /// If given, it must be the one it came in.
    #[n(2)]
    pub session: Option<SessionId>,
    /// To ask again: the generation that it was inside of.
    #[n(3)]
    pub generation: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// Made or configured now (true), or as it was.
    #[n(0)]
    Barrier(#[n(0)] bool),
    #[n(1)]
    Passed(#[n(0)] Passed),
    #[n(2)]
    Waiting(#[n(0)] Place),
    /// Out, of that generation; how many are still inside: 0, and all are out.
    #[n(3)]
    Left(#[n(0)] u64, #[n(1)] u64),
    /// Stepped out of the line, or was not in it.
    #[n(4)]
    Withdrawn,
    /// The gate is open; true if that is new.
    #[n(5)]
    Turned(#[n(0)] bool, #[n(1)] bool),
    #[n(6)]
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Passed {
    #[n(0)]
    pub id: Box<str>,
    #[n(1)]
    pub session: Option<SessionId>,
    #[n(2)]
    pub generation: u64,
    /// The how-manieth it was to come, from 0; `None` if that is forgotten.
    #[n(3)]
    pub index: Option<u64>,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub struct Place {
    #[n(0)]
    pub id: Box<str>,
    #[n(1)]
    pub session: Option<SessionId>,
    /// What it waits for; of a double barrier `None` as long as others are inside.
    #[n(2)]
    pub generation: Option<u64>,
    /// 1 came first.
    #[n(3)]
    pub position: u64,
    /// How many wait, this one counted.
    #[n(4)]
    pub waiting: u64,
    #[n(5)]
    pub parties: u64,
    #[n(6)]
    pub since: Timestamp,
}

/// Why a generation did not come to pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Why {
    /// The session of one that waited ended.
    #[n(0)]
    Lost,
    /// One that waited gave up.
    #[n(1)]
    GaveUp,
    /// They did not all come in time.
    #[n(2)]
    Timeout,
    /// The barrier was deleted.
    #[n(3)]
    Deleted,
}

#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Refusal {
    #[n(0)]
    NotFound,
    /// It is of another kind: this one.
    #[n(1)]
    OtherKind(#[n(0)] Kind),
    /// It is otherwise, and somebody is at it.
    #[n(2)]
    InUse(#[n(0)] Config),
    /// Not the last to come, and it did not want to wait: how many wait, of how many.
    #[n(3)]
    Waiting(#[n(0)] u64, #[n(1)] u64),
    /// That generation did not come to pass.
    #[n(4)]
    Broken(#[n(0)] u64, #[n(1)] Why),
    /// Members are declared, and this is none of them.
    #[n(5)]
    NotMember(#[n(0)] Box<str>),
    /// It is not at the barrier, or in another session.
    #[n(6)]
    NotInside,
    #[n(7)]
    TooManyWaiters(#[n(0)] u64),
    /// There was no such generation yet: the current one.
    #[n(8)]
    NoSuchGeneration(#[n(0)] u64),
}
