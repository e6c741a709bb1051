//! Changes of membership: one at a time, learner first, never reusing an id, never giving away the quorum.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use coracle_store::{Action, Command, Principal};
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, Instant as _};

use crate::forward::{Answer, Ask};
use crate::inner::Inner;
use crate::node::{Circumstance, MemberError, MemberStatus};
use crate::types::{Member, NodeId, Payload, Types};

/// The first ids belong to the founders; everybody later has 100 + the log index that admitted it.
pub const FOUNDERS: NodeId = 100;
/// A learner may be promoted when it lags by no more entries than this.
const CAUGHT_UP: u64 = 1000;
/// A peer that has acknowledged nothing for so long is not counted when a quorum is weighed.
const SILENT: Duration = Duration::from_secs(3);

type WriteError = RaftError<Types, ClientWriteError<Types>>;

impl Inner {
    /// Ask the leader to change the membership.
    pub async fn change_members(&self, ask: Ask, deadline: Instant) -> Result<NodeId, MemberError> {
        match self.ask_leader(ask, deadline).await {
            Ok(Answer::Member(id)) => Ok(id),
            Ok(Answer::MemberRefused(refusal)) => Err(refusal.into()),
            Ok(_) => Err(MemberError::Circumstance(Circumstance::Lost)),
            Err(circumstance) => Err(MemberError::Circumstance(circumstance)),
        }
    }

    /// Change the membership here, on the leader.
    pub async fn change_members_here(&self, ask: &Ask, deadline: Instant) -> Answer {
        let result = match ask {
            Ask::Admit(member) => self.admit_here(member).await,
            Ask::Promote(id) => self.promote_here(*id).await,
            Ask::Remove(id) => self.remove_here(*id, deadline).await,
            Ask::Transfer(id) => self.transfer_here(*id, deadline).await,
            Ask::Introduce(id, client) => self.introduce_here(*id, client).await,
            Ask::Barrier | Ask::Renew(_) | Ask::Validity(_) | Ask::Hashes => Err(MemberError::Busy),
        };
        result.map_or_else(Answer::from, Answer::Member)
    }

    async fn admit_here(&self, member: &Member) -> Result<NodeId, MemberError> {
        let same =
            |known: &&MemberStatus| known.member.name == member.name || known.member.peer == member.peer;
        if let Some(known) = self.members().iter().find(same) {
            return Err(MemberError::Exists(known.id));
        }
        // A ticket in the log: its index is nobody else's, for ever.
        let ticket = Command {
            principal: Principal("cluster".into()),
            idempotency: None,
            guards: Vec::new(),
            action: Action::Noop,
        };
        let payload = Payload { time: self.shared.clock.stamp(), command: ticket.encode().into() };
        let written = self.raft.client_write(payload).await.map_err(refused)?;
        let id = FOUNDERS + written.log_id.index;
        self.raft.add_learner(id, member.clone(), false).await.map_err(refused)?;
        Ok(id)
    }

    /// Founders are told each other's peer addresses only; each member tells the cluster its own client URL.
    async fn introduce_here(&self, id: NodeId, client: &str) -> Result<NodeId, MemberError> {
        let members = self.members();
        let known = members.iter().find(|known| known.id == id).ok_or(MemberError::Unknown(id))?;
        if known.member.client != client {
            let member = Member { client: client.to_owned(), ..known.member.clone() };
            let change = ChangeMembers::SetNodes(BTreeMap::from([(id, member)]));
            self.raft.change_membership(change, true).await.map_err(refused)?;
        }
        Ok(id)
    }

    async fn promote_here(&self, id: NodeId) -> Result<NodeId, MemberError> {
        let members = self.members();
        let learner = members.iter().find(|known| known.id == id).ok_or(MemberError::Unknown(id))?;
        if learner.voter {
            return Ok(id);
        }
        let last = self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
        let matched = learner.matched.unwrap_or(0);
        if matched + CAUGHT_UP < last {
            return Err(MemberError::NotCaughtUp { matched, last });
        }
        let change = ChangeMembers::AddVoterIds(BTreeSet::from([id]));
        self.raft.change_membership(change, true).await.map_err(refused)?;
        Ok(id)
    }

    async fn remove_here(&self, id: NodeId, deadline: Instant) -> Result<NodeId, MemberError> {
        let members = self.members();
        let gone = members.iter().find(|known| known.id == id).ok_or(MemberError::Unknown(id))?;
        if gone.voter {
            let rest: Vec<_> = members.iter().filter(|known| known.voter && known.id != id).collect();
            let alive = rest.iter().filter(|known| known.reachable == Some(true)).count();
            if alive < rest.len() / 2 + 1 {
                return Err(MemberError::WouldLoseQuorum);
            }
            if id == self.id {
                let heir = rest
                    .iter()
                    .filter(|known| known.reachable == Some(true))
                    .max_by_key(|known| known.matched);
                let heir = heir.ok_or(MemberError::WouldLoseQuorum)?.id;
                self.transfer_here(heir, deadline).await?;
                // The new leader is asked to go on.
                return Err(MemberError::Circumstance(Circumstance::NoLeader));
            }
            let change = ChangeMembers::RemoveVoters(BTreeSet::from([id]));
            self.raft.change_membership(change, true).await.map_err(refused)?;
        }
        let change = ChangeMembers::RemoveNodes(BTreeSet::from([id]));
        self.raft.change_membership(change, true).await.map_err(refused)?;
        Ok(id)
    }

    pub async fn transfer_here(&self, to: NodeId, deadline: Instant) -> Result<NodeId, MemberError> {
        if to == self.id {
            return Ok(to);
        }
        let members = self.members();
        let heir = members.iter().find(|known| known.id == to).ok_or(MemberError::Unknown(to))?;
        if !heir.voter || heir.reachable != Some(true) {
            let last = self.raft.metrics().borrow_watched().last_log_index.unwrap_or(0);
            return Err(MemberError::NotCaughtUp { matched: heir.matched.unwrap_or(0), last });
        }
        let gone = |_| MemberError::Circumstance(Circumstance::NoLeader);
        self.raft.trigger().transfer_leader(to).await.map_err(gone)?;
        let mut changes = self.shared.leader_changes();
        loop {
            if self.shared.leader() == Some(to) {
                return Ok(to);
            }
            if tokio::time::timeout_at(deadline.into(), changes.changed()).await.is_err() {
                return Err(MemberError::Circumstance(Circumstance::CommitTimeout));
            }
        }
    }

    /// The members as this node knows them.
    #[must_use]
    pub fn members(&self) -> Vec<MemberStatus> {
        let metrics = self.raft.metrics().borrow_watched().clone();
        let membership = metrics.membership_config.membership();
        let voters: BTreeSet<NodeId> = membership.voter_ids().collect();
        let matched: BTreeMap<NodeId, Option<u64>> = metrics
            .replication
            .iter()
            .flatten()
            .map(|(id, log)| (*id, log.as_ref().map(|log| log.index)))
            .collect();
        let heard: BTreeMap<NodeId, bool> = metrics
            .heartbeat
            .iter()
            .flatten()
            .map(|(id, at)| (*id, at.as_ref().is_some_and(|at| at.elapsed() < SILENT)))
            .collect();
        membership
            .nodes()
            .map(|(id, member)| MemberStatus {
                id: *id,
                member: member.clone(),
                voter: voters.contains(id),
                leader: metrics.current_leader == Some(*id),
                matched: if *id == self.id {
                    metrics.last_log_index
                } else {
                    matched.get(id).copied().flatten()
                },
                reachable: if *id == self.id {
                    Some(true)
                } else {
                    heard.get(id).copied().or_else(|| self.peers.reachable(*id))
                },
            })
            .collect()
    }
}

fn refused(error: WriteError) -> MemberError {
    let circumstance = match error {
        RaftError::APIError(ClientWriteError::ForwardToLeader(_)) => Circumstance::NoLeader,
        RaftError::APIError(ClientWriteError::ChangeMembershipError(error)) => {
            return match error {
                ChangeMembershipError::EmptyMembership(_) => MemberError::WouldLoseQuorum,
                ChangeMembershipError::LearnerNotFound(missing) => MemberError::Unknown(missing.node_id),
                ChangeMembershipError::InProgress(_)
                | ChangeMembershipError::UnsupportedMembershipTransition(_)
                | ChangeMembershipError::UncommittedLeaderLog(_)
                | ChangeMembershipError::NodeMetadataChanged(_) => MemberError::Busy,
            };
        }
        _ => Circumstance::Lost,
    };
    MemberError::Circumstance(circumstance)
}
