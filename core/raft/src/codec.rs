//! The bytes of log entries, votes, log ids and memberships, in the log and between peers.
//!
//! Fixed-width little-endian integers: an entry costs 17 bytes more than its command and its time, and nothing
//! is parsed that is not needed. The one part that will grow, [`Member`], is CBOR and skips unknown fields.
//! Lengths are checked before anything is allocated. Golden bytes are pinned in the tests.

use std::collections::{BTreeMap, BTreeSet};

use bytes::{BufMut, Bytes};
use coracle_store::Timestamp;
use openraft::vote::RaftLeaderId;

use crate::types::{
    CommittedLeaderId, Entry, EntryPayload, LeaderId, LogId, Member, Membership, NodeId, Payload,
    StoredMembership, Vote,
};

/// Bytes that are not what they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed bytes: {0}")]
pub struct Malformed(pub &'static str);

impl From<Malformed> for std::io::Error {
    fn from(e: Malformed) -> Self {
        Self::new(std::io::ErrorKind::InvalidData, e)
    }
}

/// Bytes being read from the front.
#[derive(Debug, Clone, Copy)]
pub struct Input<'a>(pub &'a [u8]);

impl<'a> Input<'a> {
    /// The next `count` bytes.
    ///
    /// # Errors
    /// If there are fewer.
    pub fn bytes(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.0.split_at_checked(count).ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self.0.split_first_chunk::<N>().ok_or(Malformed("too short"))?;
        self.0 = rest;
        Ok(*taken)
    }

    /// # Errors
    /// If the input is exhausted.
    pub fn u8(&mut self) -> Result<u8, Malformed> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    /// # Errors
    /// If the input is exhausted.
    pub fn u32(&mut self) -> Result<u32, Malformed> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    /// # Errors
    /// If the input is exhausted.
    pub fn u64(&mut self) -> Result<u64, Malformed> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    /// # Errors
    /// If the input is exhausted.
    pub fn u128(&mut self) -> Result<u128, Malformed> {
        Ok(u128::from_le_bytes(self.array()?))
    }

    /// A byte string with a 32-bit length in front.
    ///
    /// # Errors
    /// If the length exceeds what is left.
    pub fn counted(&mut self) -> Result<&'a [u8], Malformed> {
        let count = self.u32()? as usize;
        self.bytes(count)
    }

    /// # Errors
    /// If anything is left.
    pub fn end(self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed("trailing bytes")) }
    }

    /// A value that may be absent, after its presence byte.
    ///
    /// # Errors
    /// If the presence byte is neither 0 nor 1, or `read` fails.
    pub fn option<T>(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<T, Malformed>,
    ) -> Result<Option<T>, Malformed> {
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(Malformed("presence byte")),
        }
    }
}

fn put_count(out: &mut impl BufMut, count: usize) {
    out.put_u32_le(u32::try_from(count).expect("memberships and commands are far below 4 GiB"));
}

/// Write a value that may be absent, behind a presence byte.
pub fn put_option<B: BufMut, T>(out: &mut B, value: Option<&T>, put: impl FnOnce(&mut B, &T)) {
    out.put_u8(u8::from(value.is_some()));
    if let Some(value) = value {
        put(out, value);
    }
}

/// 16 bytes: term, index.
pub fn put_log_id(out: &mut impl BufMut, id: &LogId) {
    out.put_u64_le(id.leader_id.term);
    out.put_u64_le(id.index);
}

/// # Errors
/// If the input is exhausted.
pub fn log_id(input: &mut Input<'_>) -> Result<LogId, Malformed> {
    let term = input.u64()?;
    Ok(LogId::new(CommittedLeaderId::new(term), input.u64()?))
}

/// 17 bytes: term, candidate, whether a quorum granted it.
pub fn put_vote(out: &mut impl BufMut, vote: &Vote) {
    out.put_u64_le(vote.leader_id.term);
    out.put_u64_le(vote.leader_id.voted_for);
    out.put_u8(u8::from(vote.committed));
}

/// # Errors
/// If the input is exhausted or the flag is neither 0 nor 1.
pub fn vote(input: &mut Input<'_>) -> Result<Vote, Malformed> {
    let leader_id = LeaderId::new(input.u64()?, input.u64()?);
    let committed = match input.u8()? {
        0 => false,
        1 => true,
        _ => return Err(Malformed("vote flag")),
    };
    Ok(Vote { leader_id, committed })
}

/// The voter sets, then every node with its addresses.
#[expect(clippy::missing_panics_doc, reason = "encoding into a vector cannot fail")]
pub fn put_membership(out: &mut impl BufMut, membership: &Membership) {
    let configs = membership.get_joint_config();
    put_count(out, configs.len());
    for config in configs {
        put_count(out, config.len());
        for id in config {
            out.put_u64_le(*id);
        }
    }
    put_count(out, membership.nodes().count());
    for (id, member) in membership.nodes() {
        out.put_u64_le(*id);
        let member = minicbor::to_vec(member).expect("a vector takes any bytes");
        put_count(out, member.len());
        out.put_slice(&member);
    }
}

/// # Errors
/// If the bytes are malformed, or a voter has no node.
pub fn membership(input: &mut Input<'_>) -> Result<Membership, Malformed> {
    let mut configs = Vec::new();
    for _ in 0..input.u32()? {
        let mut config = BTreeSet::<NodeId>::new();
        for _ in 0..input.u32()? {
            config.insert(input.u64()?);
        }
        configs.push(config);
    }
    let mut nodes = BTreeMap::<NodeId, Member>::new();
    for _ in 0..input.u32()? {
        let id = input.u64()?;
        nodes.insert(id, minicbor::decode(input.counted()?).map_err(|_| Malformed("member"))?);
    }
    Membership::new(configs, nodes).map_err(|_| Malformed("membership without its nodes"))
}

/// The log id of a membership entry, then the membership.
pub fn put_stored_membership(out: &mut impl BufMut, stored: &StoredMembership) {
    put_option(out, stored.log_id().as_ref(), put_log_id);
    put_membership(out, stored.membership());
}

/// # Errors
/// As [`membership`].
pub fn stored_membership(input: &mut Input<'_>) -> Result<StoredMembership, Malformed> {
    let id = input.option(log_id)?;
    Ok(StoredMembership::new(id, membership(input)?))
}

const BLANK: u8 = 0;
const NORMAL: u8 = 1;
const MEMBERSHIP: u8 = 2;

/// Write an entry. It has no length of its own: the record or frame around it knows where it ends.
pub fn put_entry(out: &mut impl BufMut, entry: &Entry) {
    out.put_u8(match &entry.payload {
        EntryPayload::Blank => BLANK,
        EntryPayload::Normal(_) => NORMAL,
        EntryPayload::Membership(_) => MEMBERSHIP,
    });
    put_log_id(out, &entry.log_id);
    match &entry.payload {
        EntryPayload::Blank => {}
        EntryPayload::Normal(payload) => {
            out.put_u64_le(payload.time.0);
            out.put_slice(&payload.command);
        }
        EntryPayload::Membership(m) => put_membership(out, m),
    }
}

/// Read the entry that fills `bytes`. The command shares them; nothing is copied.
///
/// # Errors
/// If the bytes are malformed.
pub fn entry(bytes: &Bytes) -> Result<Entry, Malformed> {
    let mut input = Input(bytes);
    let kind = input.u8()?;
    let log_id = log_id(&mut input)?;
    let payload = match kind {
        BLANK => {
            input.end()?;
            EntryPayload::Blank
        }
        NORMAL => {
            let time = Timestamp(input.u64()?);
            EntryPayload::Normal(Payload { time, command: bytes.slice(bytes.len() - input.0.len()..) })
        }
        MEMBERSHIP => {
            let membership = membership(&mut input)?;
            input.end()?;
            EntryPayload::Membership(membership)
        }
        _ => return Err(Malformed("entry kind")),
    };
    Ok(Entry { log_id, payload })
}

/// The log id of an encoded entry, without reading the rest.
///
/// # Errors
/// If the bytes are too short or of an unknown kind.
pub fn entry_log_id(bytes: &[u8]) -> Result<LogId, Malformed> {
    let mut input = Input(bytes);
    if input.u8()? > MEMBERSHIP {
        return Err(Malformed("entry kind"));
    }
    log_id(&mut input)
}

/// Exact length of an encoded entry unless it is a membership, then an estimate.
#[must_use]
pub fn entry_length(entry: &Entry) -> usize {
    17 + match &entry.payload {
        EntryPayload::Blank => 0,
        EntryPayload::Normal(payload) => 8 + payload.command.len(),
        EntryPayload::Membership(m) => 128 * m.nodes().count(),
    }
}
