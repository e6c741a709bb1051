//! Where in the log a set of rows stands.

use bytes::BufMut;

use crate::codec::{self, Input, Malformed};
use crate::types::{LogId, SnapshotMeta, StoredMembership};

/// The point of the log that rows represent. Saved in the same transaction as the rows, and in front of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// The cluster whose log it is; zero before the first write.
    pub cluster: u128,
    /// The last log entry whose effects the rows contain.
    pub applied: Option<LogId>,
    /// The last membership at or before `applied`.
    pub membership: StoredMembership,
}

impl Position {
    /// As openraft wants to hear it.
    #[must_use]
    pub fn snapshot_meta(&self) -> SnapshotMeta {
        SnapshotMeta { last_log_id: self.applied, last_membership: self.membership.clone() }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.put_u128_le(self.cluster);
        codec::put_option(&mut out, self.applied.as_ref(), codec::put_log_id);
        codec::put_stored_membership(&mut out, &self.membership);
        out
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut input = Input(bytes);
        let cluster = input.u128()?;
        let applied = input.option(codec::log_id)?;
        let membership = codec::stored_membership(&mut input)?;
        input.end()?;
        Ok(Self { cluster, applied, membership })
    }
}
