//! The cluster and its members.

use coracle_api::{Cluster, HistoryCompacted, Member, MemberAdd, MemberAdded, Page, StateHash};
use reqwest::Method;

use crate::call::Call;
use crate::escape::escape;
use crate::{Coracle, Error};

/// Calls about the cluster. All of them: see [`Error`] for what can go wrong.
#[derive(Debug, Clone)]
pub struct ClusterApi {
    client: Coracle,
}

#[allow(clippy::missing_errors_doc, reason = "said once, on the type")]
impl ClusterApi {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// The cluster as the answering node sees it.
    pub async fn status(&self) -> Result<Cluster, Error> {
        self.client.ask(Call::get("/v1/cluster")).await
    }

    pub async fn members(&self) -> Result<Vec<Member>, Error> {
        Ok(self.client.ask::<Page<Member>>(Call::get("/v1/members")).await?.items)
    }

    pub async fn member(&self, id: &str) -> Result<Member, Error> {
        self.client.ask(Call::get(member_path(id))).await
    }

    /// Admit a node as a learner.
    pub async fn add(&self, member: &MemberAdd) -> Result<MemberAdded, Error> {
        self.client.ask(Call::change(Method::POST, "/v1/members").json(member)?).await
    }

    /// Remove a member; its id is never used again.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        self.client.send(Call::change(Method::DELETE, member_path(id))).await.map(drop)
    }

    /// Make a learner a voter.
    pub async fn promote(&self, id: &str) -> Result<(), Error> {
        self.client.send(Call::change(Method::POST, member_path(id) + "/promote")).await.map(drop)
    }

    /// Make a voter the leader.
    pub async fn transfer(&self, id: &str) -> Result<(), Error> {
        self.client.send(Call::change(Method::POST, member_path(id) + "/transfer")).await.map(drop)
    }

    /// A hash of the state of the answering node: equal on all nodes at equal revisions.
    pub async fn hash(&self) -> Result<StateHash, Error> {
        self.client.ask(Call::get("/v1/maintenance/hash")).await
    }

    /// Forget the history up to this revision.
    pub async fn compact(&self, revision: u64) -> Result<HistoryCompacted, Error> {
        self.forget("revision", revision).await
    }

    /// Forget all history but the last so many revisions.
    pub async fn compact_to(&self, keep: u64) -> Result<HistoryCompacted, Error> {
        self.forget("keep", keep).await
    }

    async fn forget(&self, how: &str, number: u64) -> Result<HistoryCompacted, Error> {
        let call = Call::change(Method::POST, "/v1/maintenance/compact").query(how, number.to_string());
        self.client.ask(call).await
    }
}

fn member_path(id: &str) -> String {
    format!("/v1/members/{}", escape(id.as_bytes()))
}
