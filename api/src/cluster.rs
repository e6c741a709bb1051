//! Bodies of cluster, members and version.

use serde::{Deserialize, Serialize};

/// Whether a member votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum Role {
    Voter,
    Learner,
    #[serde(other)]
    Unknown,
}

/// What the answering node knows of a member's health.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "snake_case")]
pub enum MemberState {
    Up,
    Down,
    #[default]
    #[serde(other)]
    Unknown,
}

/// `GET /v1/cluster`: the cluster as the answering node sees it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Cluster {
    pub cluster_id: String,
    /// The node that answers.
    pub member_id: String,
    pub name: String,
    pub role: Role,
    /// Id of the leader; null while there is none.
    pub leader: Option<String>,
    pub term: u64,
    /// Store revision of the answering node.
    pub revision: u64,
    #[serde(default)]
    pub compact_revision: u64,
    /// Raft log indexes of the answering node.
    #[serde(default)]
    pub committed_index: u64,
    #[serde(default)]
    pub applied_index: u64,
    /// Counts restores: tokens of another epoch are refused.
    #[serde(default)]
    pub epoch: u64,
    #[serde(default)]
    pub feature_level: u64,
    pub version: String,
    /// State hash at `revision`: equal on all nodes at equal revisions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state_hash: Option<String>,
}

/// A member of the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Member {
    pub id: String,
    pub name: String,
    /// `host:port` that peers dial.
    pub peer: String,
    /// Base URL for clients, such as `http://127.0.0.1:7070`.
    pub client_url: String,
    pub role: Role,
    #[serde(default)]
    pub leader: bool,
    #[serde(default)]
    pub state: MemberState,
    /// Last log index known to be on the member's disk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matched_index: Option<u64>,
}

/// Body of `POST /v1/members`: a node asks to be admitted as a learner.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct MemberAdd {
    pub name: String,
    /// `host:port` that peers can dial.
    pub peer: String,
    /// Base URL for clients.
    pub client_url: String,
}

/// Answer of `POST /v1/members`: all that the new node needs to start.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct MemberAdded {
    /// Id of the new member, never used before.
    pub id: String,
    pub cluster_id: String,
    /// All members, the new one included.
    pub members: Vec<Member>,
}

/// `GET /version`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Version {
    /// Version of the program, such as `0.1.0`.
    pub version: String,
    /// Version of the API, `v1`.
    pub api: String,
}

/// A hash of the whole state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct StateHash {
    pub revision: u64,
    pub hash: String,
    /// The node that answers.
    pub member_id: String,
    /// Another replica has another hash at the same revision.
    pub diverged: bool,
}

/// Answer of a compaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct HistoryCompacted {
    /// Changes up to this revision are forgotten.
    pub compact_revision: u64,
    pub revision: u64,
}
