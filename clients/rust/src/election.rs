//! Elections: campaign, say something as the leader, observe.

use coracle_api::{Election, Renewed, Resigned, SessionId, Value};
use reqwest::Method;

use crate::call::Call;
use crate::lock::{Claim, Family};
use crate::session::all_pages;
use crate::{Acquire, ClaimGuard, Coracle, Error, WatchBuilder};

pub(crate) static ELECTIONS: Family = Family { name: "elections", take: "campaign", give: "resign" };

/// One election.
#[derive(Debug, Clone)]
pub struct Campaign {
    client: Coracle,
    name: String,
}

#[allow(clippy::missing_errors_doc, reason = "said once: see Error")]
impl Campaign {
    pub(crate) fn new(client: Coracle, name: String) -> Self {
        Self { client, name }
    }

    /// Stand as a candidate who says `value` once it leads; wait for it with [`Acquire::wait`].
    pub fn campaign(&self, value: impl Into<Value>) -> Acquire {
        Acquire::new(self.client.clone(), Claim::on(&ELECTIONS, &*self.name)).saying(value.into())
    }

    /// Say something else as the leader: only with the token of the term.
    pub async fn proclaim(&self, term: &ClaimGuard, value: impl Into<Value>) -> Result<Renewed, Error> {
        let value = value.into();
        let call = Call::change(Method::POST, self.path("proclaim"))
            .query("session", term.session().id().to_string())
            .query("token", term.token().to_string());
        self.client.ask(call.body(value.bytes, &value.content_type)).await
    }

    /// Who leads, what it says, and who would follow. `leader` is `None` when nobody leads.
    pub async fn show(&self) -> Result<Election, Error> {
        self.client.ask(Call::get(self.path(""))).await
    }

    /// Follow the election: leaders, vacancy, candidates.
    pub fn observe(&self) -> WatchBuilder<Election> {
        WatchBuilder::new(self.client.clone(), Call::get(self.path("")))
    }

    /// Have a session stop leading, or leave the line; with `rejoin` it stands again, behind all others of its priority.
    pub async fn resign(&self, session: SessionId, rejoin: bool) -> Result<Resigned, Error> {
        let call = Claim::on(&ELECTIONS, &*self.name).release(session).flag("rejoin", rejoin);
        self.client.ask(call).await
    }

    /// Make another session the leader.
    pub async fn transfer(&self, from: SessionId, to: SessionId) -> Result<Renewed, Error> {
        let call = Call::change(Method::POST, self.path("transfer"));
        self.client.ask(call.query("session", from.to_string()).query("to", to.to_string())).await
    }

    fn path(&self, verb: &str) -> String {
        Claim::on(&ELECTIONS, &*self.name).path(verb)
    }
}

/// Elections of everybody.
#[derive(Debug, Clone)]
pub struct Elections {
    client: Coracle,
}

impl Elections {
    pub(crate) fn new(client: Coracle) -> Self {
        Self { client }
    }

    /// Elections in which somebody leads.
    ///
    /// # Errors
    /// See [`Error`].
    pub async fn list(&self) -> Result<Vec<Election>, Error> {
        all_pages(&self.client, &Call::get("/v1/elections")).await
    }
}
