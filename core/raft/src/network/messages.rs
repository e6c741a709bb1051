//! The bodies of Raft's RPCs. Decoding slices the frame: the commands of an append share its buffer.

use bytes::{BufMut, Bytes};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, SnapshotResponse, TransferLeaderError,
    TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};

use crate::codec::{self, Input, Malformed, put_log_id, put_option, put_vote};
use crate::types::{LogId, SnapshotMeta, Types, Vote};

/// Length, kind, log id.
const ENTRY_MIN: usize = 4 + 1 + 16;

fn log_id(input: &mut Input<'_>) -> Result<Option<LogId>, Malformed> {
    input.option(codec::log_id)
}

fn put_optional(out: &mut Vec<u8>, id: Option<&LogId>) {
    put_option(out, id, put_log_id);
}

fn flag(input: &mut Input<'_>) -> Result<bool, Malformed> {
    match input.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Malformed("flag")),
    }
}

pub fn put_append(out: &mut Vec<u8>, request: &AppendEntriesRequest<Types>) {
    let entries = &request.entries;
    out.reserve(64 + entries.iter().map(|e| 4 + codec::entry_length(e)).sum::<usize>());
    put_vote(out, &request.vote);
    put_optional(out, request.prev_log_id.as_ref());
    put_optional(out, request.leader_commit.as_ref());
    out.put_u32_le(u32::try_from(entries.len()).expect("a batch is far smaller"));
    for entry in entries {
        let start = out.len();
        out.put_u32_le(0);
        codec::put_entry(out, entry);
        // A frame above the cap is refused as a whole, so a wrong length here is never sent.
        let length = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
        out[start..start + 4].copy_from_slice(&length.to_le_bytes());
    }
}

pub fn append(body: &Bytes) -> Result<AppendEntriesRequest<Types>, Malformed> {
    let mut input = Input(body);
    let vote = codec::vote(&mut input)?;
    let prev_log_id = log_id(&mut input)?;
    let leader_commit = log_id(&mut input)?;
    let count = input.u32()? as usize;
    let mut entries = Vec::with_capacity(count.min(input.0.len() / ENTRY_MIN));
    for _ in 0..count {
        entries.push(codec::entry(&body.slice_ref(input.counted()?))?);
    }
    input.end()?;
    Ok(AppendEntriesRequest { vote, prev_log_id, entries, leader_commit })
}

pub fn put_append_response(out: &mut Vec<u8>, response: &AppendEntriesResponse<Types>) {
    match response {
        AppendEntriesResponse::Success => out.put_u8(0),
        AppendEntriesResponse::PartialSuccess(matched) => {
            out.put_u8(1);
            put_optional(out, matched.as_ref());
        }
        AppendEntriesResponse::Conflict => out.put_u8(2),
        AppendEntriesResponse::HigherVote(vote) => {
            out.put_u8(3);
            put_vote(out, vote);
        }
    }
}

pub fn append_response(body: &[u8]) -> Result<AppendEntriesResponse<Types>, Malformed> {
    let mut input = Input(body);
    let response = match input.u8()? {
        0 => AppendEntriesResponse::Success,
        1 => AppendEntriesResponse::PartialSuccess(log_id(&mut input)?),
        2 => AppendEntriesResponse::Conflict,
        3 => AppendEntriesResponse::HigherVote(codec::vote(&mut input)?),
        _ => return Err(Malformed("append response")),
    };
    input.end()?;
    Ok(response)
}

pub fn put_vote_request(out: &mut Vec<u8>, request: &VoteRequest<Types>) {
    put_vote(out, &request.vote);
    put_optional(out, request.last_log_id.as_ref());
    out.put_u8(u8::from(request.leadership_transfer));
}

pub fn vote_request(body: &[u8]) -> Result<VoteRequest<Types>, Malformed> {
    let mut input = Input(body);
    let mut request = VoteRequest::new(codec::vote(&mut input)?, log_id(&mut input)?);
    request.leadership_transfer = flag(&mut input)?;
    input.end()?;
    Ok(request)
}

pub fn put_vote_response(out: &mut Vec<u8>, response: &VoteResponse<Types>) {
    put_vote(out, &response.vote);
    put_optional(out, response.last_log_id.as_ref());
    out.put_u8(u8::from(response.vote_granted));
}

pub fn vote_response(body: &[u8]) -> Result<VoteResponse<Types>, Malformed> {
    let mut input = Input(body);
    let vote = codec::vote(&mut input)?;
    let last_log_id = log_id(&mut input)?;
    let vote_granted = flag(&mut input)?;
    input.end()?;
    Ok(VoteResponse { vote, vote_granted, last_log_id })
}

pub fn put_transfer(out: &mut Vec<u8>, request: &TransferLeaderRequest<Types>) {
    put_vote(out, request.from_leader());
    out.put_u64_le(*request.to_node_id());
    put_optional(out, request.last_log_id());
}

pub fn transfer(body: &[u8]) -> Result<TransferLeaderRequest<Types>, Malformed> {
    let mut input = Input(body);
    let (from, to, last) = (codec::vote(&mut input)?, input.u64()?, log_id(&mut input)?);
    input.end()?;
    Ok(TransferLeaderRequest::new(from, to, last))
}

pub fn put_transfer_response(out: &mut Vec<u8>, response: &TransferLeaderResponse<Types>) {
    match response {
        Ok(()) => out.put_u8(0),
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            out.put_u8(1);
            put_vote(out, expected);
            put_vote(out, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            out.put_u8(2);
            put_optional(out, expected.as_ref());
            put_optional(out, actual.as_ref());
        }
    }
}

pub fn transfer_response(body: &[u8]) -> Result<TransferLeaderResponse<Types>, Malformed> {
    let mut input = Input(body);
    let response = match input.u8()? {
        0 => Ok(()),
        1 => Err(TransferLeaderError::VoteChanged {
            expected: codec::vote(&mut input)?,
            actual: codec::vote(&mut input)?,
        }),
        2 => Err(TransferLeaderError::LogNotFlushed {
            expected: log_id(&mut input)?,
            actual: log_id(&mut input)?,
        }),
        _ => return Err(Malformed("transfer response")),
    };
    input.end()?;
    Ok(response)
}

/// What comes before the chunks of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotHead {
    /// Of the leader that sends it.
    pub vote: Vote,
    pub meta: SnapshotMeta,
    /// Sum of all chunks.
    pub bytes: u64,
}

impl SnapshotHead {
    pub fn put(&self, out: &mut Vec<u8>) {
        put_vote(out, &self.vote);
        put_optional(out, self.meta.last_log_id.as_ref());
        codec::put_stored_membership(out, &self.meta.last_membership);
        out.put_u64_le(self.bytes);
    }

    pub fn read(body: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(body);
        let vote = codec::vote(&mut input)?;
        let last_log_id = log_id(&mut input)?;
        let last_membership = codec::stored_membership(&mut input)?;
        let bytes = input.u64()?;
        input.end()?;
        Ok(Self { vote, meta: SnapshotMeta { last_log_id, last_membership }, bytes })
    }
}

pub fn put_snapshot_response(out: &mut Vec<u8>, response: &SnapshotResponse<Types>) {
    put_vote(out, &response.vote);
}

pub fn snapshot_response(body: &[u8]) -> Result<SnapshotResponse<Types>, Malformed> {
    let mut input = Input(body);
    let vote = codec::vote(&mut input)?;
    input.end()?;
    Ok(SnapshotResponse::new(vote))
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use coracle_store::Timestamp;
    use openraft::vote::RaftLeaderId;
    use proptest::prelude::*;

    use super::*;
    use crate::types::{
        CommittedLeaderId, Entry, EntryPayload, LeaderId, Member, Membership, Payload, StoredMembership,
    };

    prop_compose! {
        fn a_vote()(term: u64, node: u64, committed: bool) -> Vote {
            Vote { leader_id: LeaderId::new(term, node), committed }
        }
    }

    prop_compose! {
        fn a_log_id()(term: u64, index: u64) -> LogId {
            LogId::new(CommittedLeaderId::new(term), index)
        }
    }

    prop_compose! {
        fn a_membership()(nodes in prop::collection::btree_map(any::<u64>(), ".{0,9}", 1..5)) -> Membership {
            let voters: BTreeSet<u64> = nodes.keys().copied().collect();
            let member = |name: String| Member { peer: format!("{name}:7"), client: String::new(), name };
            let nodes: BTreeMap<u64, Member> = nodes.into_iter().map(|(id, name)| (id, member(name))).collect();
            Membership::new(vec![voters], nodes).unwrap()
        }
    }

    fn an_entry() -> impl Strategy<Value = Entry> {
        let command = prop::collection::vec(any::<u8>(), 0..300);
        let payload = prop_oneof![
            Just(EntryPayload::Blank),
            (any::<u64>(), command).prop_map(|(time, command)| {
                EntryPayload::Normal(Payload { time: Timestamp(time), command: command.into() })
            }),
            a_membership().prop_map(EntryPayload::Membership),
        ];
        (a_log_id(), payload).prop_map(|(log_id, payload)| Entry { log_id, payload })
    }

    fn some_id() -> impl Strategy<Value = Option<LogId>> {
        prop::option::of(a_log_id())
    }

    fn bytes(put: impl FnOnce(&mut Vec<u8>)) -> Bytes {
        let mut out = Vec::new();
        put(&mut out);
        out.into()
    }

    #[test]
    fn a_snapshot_of_nothing_survives() {
        let meta = SnapshotMeta { last_log_id: None, last_membership: StoredMembership::default() };
        let head = SnapshotHead { vote: Vote::new(1, 1), meta, bytes: 0 };
        assert_eq!(SnapshotHead::read(&bytes(|out| head.put(out))).unwrap(), head);
    }

    proptest! {
        #[test]
        fn appends_survive(vote in a_vote(), prev in some_id(), commit in some_id(), entries in prop::collection::vec(an_entry(), 0..8)) {
            let request = AppendEntriesRequest { vote, prev_log_id: prev, leader_commit: commit, entries };
            let body = bytes(|out| put_append(out, &request));
            let found = append(&body).unwrap();
            prop_assert_eq!((found.vote, found.prev_log_id, found.leader_commit), (vote, prev, commit));
            for entry in &found.entries {
                // Shared with the frame, not copied.
                if let EntryPayload::Normal(payload) = &entry.payload && !payload.command.is_empty() {
                    prop_assert!(body.as_ptr_range().contains(&payload.command.as_ptr()));
                }
            }
            prop_assert_eq!(found.entries, request.entries);
        }

        #[test]
        fn answers_survive(vote in a_vote(), other in a_vote(), id in some_id(), last in some_id(), yes: bool) {
            for response in [
                AppendEntriesResponse::Success,
                AppendEntriesResponse::PartialSuccess(id),
                AppendEntriesResponse::Conflict,
                AppendEntriesResponse::HigherVote(vote),
            ] {
                prop_assert_eq!(append_response(&bytes(|out| put_append_response(out, &response))).unwrap(), response);
            }
            let response = VoteResponse::new(vote, id, yes);
            prop_assert_eq!(vote_response(&bytes(|out| put_vote_response(out, &response))).unwrap(), response);
            for response in [
                Ok(()),
                Err(TransferLeaderError::VoteChanged { expected: vote, actual: other }),
                Err(TransferLeaderError::LogNotFlushed { expected: id, actual: last }),
            ] {
                prop_assert_eq!(transfer_response(&bytes(|out| put_transfer_response(out, &response))).unwrap(), response);
            }
            let response = SnapshotResponse::new(vote);
            prop_assert_eq!(snapshot_response(&bytes(|out| put_snapshot_response(out, &response))).unwrap(), response);
        }

        #[test]
        fn requests_survive(vote in a_vote(), to: u64, id in some_id(), yes: bool, membership in a_membership()) {
            let mut request = VoteRequest::new(vote, id);
            request.leadership_transfer = yes;
            prop_assert_eq!(vote_request(&bytes(|out| put_vote_request(out, &request))).unwrap(), request);
            let request = TransferLeaderRequest::new(vote, to, id);
            prop_assert_eq!(transfer(&bytes(|out| put_transfer(out, &request))).unwrap(), request);
            let meta = SnapshotMeta { last_log_id: id, last_membership: StoredMembership::new(id, membership) };
            let head = SnapshotHead { vote, meta, bytes: to };
            prop_assert_eq!(SnapshotHead::read(&bytes(|out| head.put(out))).unwrap(), head);
        }

        #[test]
        fn random_bodies_never_panic(body in prop::collection::vec(any::<u8>(), 0..200)) {
            let body = Bytes::from(body);
            let _ = append(&body);
            let _ = (append_response(&body), vote_request(&body), vote_response(&body));
            let _ = (transfer(&body), transfer_response(&body));
            let _ = (SnapshotHead::read(&body), snapshot_response(&body));
        }

        #[test]
        fn damaged_appends_never_panic(entries in prop::collection::vec(an_entry(), 0..4), at in any::<prop::sample::Index>(), byte: u8) {
            let request = AppendEntriesRequest { vote: Vote::new(1, 1), prev_log_id: None, leader_commit: None, entries };
            let mut body = bytes(|out| put_append(out, &request)).to_vec();
            let at = at.index(body.len());
            body[at] = byte;
            let _ = append(&body.clone().into());
            body.truncate(at);
            prop_assert!(append(&body.into()).is_err());
        }
    }
}
